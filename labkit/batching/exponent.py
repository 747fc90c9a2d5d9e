"""How throughput grows with the batch: throughput ≈ c · B^alpha.

alpha 1 is free batching (a step is bound by reading the weights, which the batch shares), alpha 0 is none (the arithmetic is
the limit). Taking logarithms makes it a straight line, fitted by least squares over all measurements.

The interval comes from the scatter of repeats: a bootstrap draws their distances from the mean at their batch size again,
fits the line anew, and asks how far off it is in units of the scatter that the drawn repeats show themselves (the
studentized bootstrap of residuals; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, sections 5.2.1
and 6.2). The relative scatter is taken to be the same at every batch size. The interval speaks of noise, not of a
line that is really a curve: see `misfit`, and fit below the knee only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Exponent:
    """throughput ≈ `c` · B^`alpha`, with alpha's confidence interval from `low` to `high`.

    `misfit` is the greatest relative distance of a batch size's (geometric) mean from the line: large where the interval
    is narrow means that throughput does not follow a power of the batch size over this range.
    """

    alpha: float
    low: float
    high: float
    c: float
    misfit: float

    def throughput(self, batch: float) -> float:
        """What the line says for a batch size, in the unit of the measurements."""
        return self.c * math.pow(batch, self.alpha)


def fit_exponent(
    measured: Mapping[int, Sequence[float]], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Exponent:
    """Fit the throughputs `measured` at each batch size, repeats apart; any unit per second will do.

    With two repeats of two sizes the interval may be infinite: so few cannot tell their own scatter.
    Raises `InvalidValue` for fewer than two batch sizes, fewer than two repeats of one, or values that are not above 0.
    """
    if len(measured) < 2:
        raise InvalidValue(f"{len(measured)} batch sizes were measured; a slope needs at least 2")
    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence is {confidence}; use a share between 0 and 1, as in 0.95")
    if resamples < 1:
        raise InvalidValue(f"resamples is {resamples}; use 1 or more, better 1000")
    for batch, values in measured.items():
        if batch < 1 or len(values) < 2:
            raise InvalidValue(
                f"batch size {batch} has {len(values)} repeats; use sizes from 1 and repeat each at least twice"
            )
        if not all(value > 0 and math.isfinite(value) for value in values):
            raise InvalidValue(f"the throughputs at batch size {batch} are {list(values)}; all must be above 0")

    logs = [np.log(np.asarray(values, float)) for values in measured.values()]
    sizes = np.log(np.fromiter(measured, float))
    sets = np.repeat(np.arange(len(logs)), [len(values) for values in logs])
    y, x = np.concatenate(logs), sizes[sets]
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # of each measurement in the slope
    alpha = float(weights @ y)
    intercept = float(y.mean() - alpha * x.mean())
    means = np.array([values.mean() for values in logs])
    misfit = float(np.abs(np.expm1(means - (intercept + alpha * sizes))).max())

    repeats = np.array([len(values) for values in logs])
    drawn = np.random.default_rng(seed).choice(y - means[sets], (resamples, len(y)))
    scatter = _scatter(drawn, sets, repeats)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.nan_to_num((drawn @ weights) / scatter, nan=0.0, posinf=math.inf, neginf=-math.inf)
    tail = (1 - confidence) / 2
    below, above = np.quantile(off, [tail, 1 - tail], method="higher")
    own = float(_scatter(y[None, :], sets, repeats)[0])
    low, high = (alpha - above * own, alpha - below * own) if own else (alpha, alpha)
    return Exponent(alpha, float(low), float(high), math.exp(intercept), misfit)


def _scatter(rows: NDArray[np.float64], sets: NDArray[np.int64], repeats: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard deviation of each row's repeats around the mean of their set, all sets together."""
    belongs = np.eye(len(repeats))[sets]
    within = rows - (rows @ belongs / repeats) @ belongs.T
    found: NDArray[np.float64] = np.sqrt((within**2).sum(axis=1) / (len(sets) - len(repeats)))
    return found
