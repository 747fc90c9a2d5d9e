"""From raw scores to probabilities: among requests scored 0.8, eight in ten should be right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.extras import extra
from labkit.request import InvalidValue

Method = Literal["platt", "isotonic"]
_EDGE = 1e-6  # raw scores of exactly 0 and 1 have no finite log-odds, so they are moved this far inwards


@dataclass(frozen=True, slots=True)
class Calibration:
    """A monotone map from raw scores to probabilities, as data.

    "platt" (Platt 1999) is 1 / (1 + exp(−(slope · log-odds of the raw score + offset))) with `xs` = (slope,) and
    `ys` = (offset,). "isotonic" (Zadrozny & Elkan 2002) joins the points (`xs`, `ys`) by straight lines and is level outside
    them. Raises `InvalidValue` for an unknown method, and for numbers that make no calibration.
    """

    method: Method
    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_method(self.method)
        if len(self.xs) != len(self.ys) or not self.xs or not all(map(math.isfinite, (*self.xs, *self.ys))):
            raise InvalidValue("a calibration needs as many finite xs as ys, at least one; fit it again")
        if self.method == "isotonic" and (
            not all(0 <= y <= 1 for y in self.ys) or any(later < earlier for earlier, later in pairwise(self.xs))
        ):
            raise InvalidValue(f"isotonic points need rising xs and ys from 0 to 1; got {self.xs} and {self.ys}")

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """Rebuild a calibration from the dict that `dataclasses.asdict` made; lists, as JSON gives them, are accepted."""
        return cls(data["method"], tuple(map(float, data["xs"])), tuple(map(float, data["ys"])))

    def __call__(self, raw: float) -> float:
        """The probability (0 to 1) for one raw score (0 to 1)."""
        return float(self.all(np.array([raw]))[0])

    def all(self, raw: ArrayLike) -> NDArray[np.float64]:
        """The probabilities for many raw scores at once, in their shape."""
        raws = np.asarray(raw, float)
        if self.method == "isotonic":
            return np.asarray(np.interp(raws, self.xs, self.ys), float)
        return np.asarray(1 / (1 + np.exp(-(self.xs[0] * _log_odds(raws) + self.ys[0]))), float)


def calibrate(raw: ArrayLike, right: ArrayLike, method: Method = "platt") -> Calibration:
    """Fit a calibration on held-out requests: their raw scores (0 to 1) and whether the small model was right (0 or 1).

    Platt's two numbers can be fitted on a few dozen requests; isotonic follows any monotone shape but needs about a
    thousand (scikit-learn's user guide, "Probability calibration"). Raises `InvalidValue` for an unknown method, where the
    two columns differ in length, where a score lies outside 0 to 1, and where all answers were right or all were wrong. For
    Platt it also raises where higher scores go with fewer right answers: such a score has to be turned around first.
    """
    _check_method(method)
    with extra("analysis"):
        from sklearn.isotonic import IsotonicRegression  # not above: scikit-learn takes seconds to import
        from sklearn.linear_model import LogisticRegression

    raws, rights = np.asarray(raw, float), np.asarray(right, float)
    if raws.shape != rights.shape or raws.ndim != 1:
        raise InvalidValue(f"calibration needs one verdict per score; it got {raws.shape} scores, {rights.shape} verdicts")
    if not ((raws >= 0) & (raws <= 1)).all():
        raise InvalidValue("raw scores must lie from 0 to 1; scale them first")
    if set(np.unique(rights)) != {0.0, 1.0}:
        raise InvalidValue(f"calibration needs right and wrong answers among its {rights.size}; hold out more requests")
    if method == "isotonic":
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raws, rights)
        return Calibration("isotonic", tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))
    fitted = LogisticRegression(C=np.inf).fit(_log_odds(raws)[:, None], rights)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope < 0:
        raise InvalidValue(f"higher scores were right less often (slope {slope:.3g}); such a score ranks backwards")
    return Calibration("platt", (slope,), (offset,))


def _check_method(method: object) -> None:
    if method not in ("platt", "isotonic"):
        raise InvalidValue(f'the calibration method {method!r:.80} is unknown; use "platt" or "isotonic"')


def _log_odds(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(raw, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), float)
