"""How throughput grows with the batch: throughput ≈ c · B^alpha.

With alpha 1, batching is free: a step is bound by reading the weights, which the batch shares. With alpha 0, batching gains
nothing: arithmetic is the limit. Taking logarithms makes the law a straight line, which is fitted by least squares over all
measurements.

The interval comes from the scatter of repeats. A bootstrap draws anew from the distances between each repeat and the mean at
its batch size, fits the line again, and measures its error in units of the scatter of the drawn repeats (the studentized
bootstrap of residuals; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, sections 5.2.1 and 6.2). It
assumes the same relative scatter at every batch size. The interval covers noise only. It does not show whether the line is
really a curve: see `misfit` for that, and fit only below the knee.
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

    `misfit` is the greatest relative distance (0.1 is 10 %) of a batch size's geometric mean from the line. A large misfit
    with a narrow interval means that throughput does not follow a power of the batch size over this range.
    """

    alpha: float
    low: float
    high: float
    c: float
    misfit: float

    def throughput(self, batch: float) -> float:
        """The throughput on the fitted line at a batch size, in the unit of the measurements."""
        return self.c * math.pow(batch, self.alpha)


def fit_exponent(
    measured: Mapping[int, Sequence[float]], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Exponent:
    """Fit throughputs; `measured` maps each batch size to its repeated measurements, in any unit per second.

    With only two repeats of two batch sizes the interval may be infinite, because so few repeats do not show their scatter.
    Raises `InvalidValue` for fewer than two batch sizes, batch sizes below 1, fewer than two repeats of one size, values
    that are not above 0, and a `confidence` or `resamples` out of range.
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
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # the weight of each measurement in the slope
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
    """Each row's standard deviation of repeats around the mean of their batch size, pooled over all batch sizes."""
    belongs = np.eye(len(repeats))[sets]
    within = rows - (rows @ belongs / repeats) @ belongs.T
    found: NDArray[np.float64] = np.sqrt((within**2).sum(axis=1) / (len(sets) - len(repeats)))
    return found
