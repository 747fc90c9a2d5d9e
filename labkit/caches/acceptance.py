"""How alike two questions must be: when a semantic cache may give an old answer to a new question.

A fixed threshold says nothing about how often it is wrong. This module has three ways to decide, and one to check them:

- `StaticThreshold`: a fixed number, kept as the baseline.
- `calibrated_threshold`: the lowest threshold whose false-hit rate on labelled pairs is *proved* to lie under a bound, with
  a stated confidence (fixed-sequence testing with exact binomial bounds: Angelopoulos et al., "Learn then Test", arXiv
  2110.01052). The proof holds for traffic like that of the calibration.
- `Verified`: a threshold of its own for every cached answer, learned while the cache serves. The chance that an answer fits
  is logistic in the score, with one offset per entry, as in vCache (Schroeder et al., arXiv 2502.03771). vCache fits every
  entry alone; here all entries share a prior fitted on labelled pairs, so that a new entry need not first be wrong a few
  times. Each time an entry's answer is compared with a fresh one, the result moves the offset of that entry only.
- `upper_bound`: whatever the model says, some hits are sent to the engine and the two answers are compared. From these
  counts alone comes a bound on the false-hit rate. It holds at all times together, however often you look at it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.extras import extra
from labkit.request import InvalidValue

_STEPS = np.linspace(-4, 4, 65)  # values of an entry's offset, in standard deviations
_NORMAL = np.exp(-(_STEPS**2) / 2) / np.exp(-(_STEPS**2) / 2).sum()


@dataclass(frozen=True, slots=True)
class Observation:
    """One comparison of a cached answer with a fresh one: the new question's score, and whether the old answer was right."""

    score: float
    right: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to give the old answer, and why, in words.

    `probability`: the chance that the answer is right, None if nobody estimated it.
    """

    accept: bool
    why: str
    probability: float | None = None


class Acceptance(Protocol):
    """Decides from a score (−1 to 1), and from earlier checks of the same entry, whether its answer may be given."""

    def decide(self, score: float, seen: Sequence[Observation]) -> Decision:
        """Whether the entry's answer may be given."""
        ...


@dataclass(frozen=True, slots=True)
class StaticThreshold:
    """Accepts every score of at least `threshold`, for every entry and at all times.

    Raises `InvalidValue` for a threshold outside −1 to 1.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise InvalidValue(f"the threshold is {self.threshold}; cosine scores lie between -1 and 1")

    def decide(self, score: float, seen: Sequence[Observation]) -> Decision:  # noqa: ARG002 - it learns nothing
        """Accept if `score` reaches the threshold, whatever has been `seen`."""
        accept = score >= self.threshold
        return Decision(
            accept, f"score {score:.3f} {'reaches' if accept else 'is below'} the threshold {self.threshold:.3f}"
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """P(right | score) = 1 / (1 + exp(−(intercept + slope · score + offset))); offset ~ Normal(0, `spread`) per entry."""

    intercept: float
    slope: float
    spread: float

    def probability(self, score: float, offset: float = 0.0) -> float:
        """The chance that an entry's answer is right at `score`, given the entry's `offset`."""
        with extra("semantic"):
            from scipy.special import expit

        return float(expit(self.intercept + self.slope * score + offset))


@dataclass(frozen=True, slots=True)
class Verified:
    """Accepts an answer if, with `confidence`, the chance that it is wrong is believed to be at most `bound`.

    The belief is the posterior of the entry's offset, after what has been `seen` of that entry. So the statement about each
    hit is as good as the form of the curve. `upper_bound`, computed from the verified hits, assumes nothing about the curve.
    Raises `InvalidValue` for a `bound` outside 0 to 1, or a `confidence` outside 0.5 to 1.
    """

    curve: Curve
    bound: float = 0.02
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.bound < 1:
            raise InvalidValue(f"the bound is {self.bound}; use the share of hits that may be wrong, between 0 and 1")
        if not 0.5 <= self.confidence < 1:
            raise InvalidValue(f"the confidence is {self.confidence}; use a share from 0.5 to below 1")

    def decide(self, score: float, seen: Sequence[Observation]) -> Decision:
        """Accept if the lower credible bound of the answer's probability of being right reaches 1 − `bound`."""
        sure = self.probability(score, seen)
        accept = sure >= 1 - self.bound
        known = f"{sum(o.right for o in seen)} of {len(seen)} earlier checks right" if seen else "not checked yet"
        return Decision(
            accept,
            f"score {score:.3f}, {known}: right with probability {sure:.3f} at least "
            f"({self.confidence:.0%} credible), {'enough for' if accept else 'below'} {1 - self.bound:.3f}",
            sure,
        )

    def probability(self, score: float, seen: Sequence[Observation] = ()) -> float:
        """The lower `confidence` credible bound of P(right | score) for an entry of which `seen` is known."""
        offset = self.curve.spread * _quantile(self.curve, seen, 1 - self.confidence)
        return self.curve.probability(score, offset)


def _quantile(curve: Curve, seen: Sequence[Observation], share: float) -> float:
    """The `share` quantile of an entry's offset, in standard deviations, after what has been `seen` of the entry."""
    weights = _NORMAL
    if seen:
        scores = np.array([o.score for o in seen])
        right = np.array([o.right for o in seen])
        logits = curve.intercept + curve.slope * scores[:, None] + curve.spread * _STEPS[None, :]
        likelihood = _log_likelihood(logits, right[:, None])
        weights = np.exp(likelihood - likelihood.max()) * _NORMAL
        weights /= weights.sum()
    return float(np.interp(share, np.cumsum(weights), _STEPS))


def _log_likelihood(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(-np.logaddexp(0, np.where(right, -logits, logits)).sum(axis=0))


def fit_curve(scores: ArrayLike, right: ArrayLike, entries: Sequence[object] | None = None) -> Curve:
    """The curve under which the labelled comparisons are most likely (maximum marginal likelihood).

    `scores` and `right`: one of each per comparison, shape (n,). `entries` names the cache entry of each comparison. Without
    it, every comparison counts as a different entry's, and the spread is 0. The offsets are integrated on a grid. The slope
    is never negative: a higher score never makes an answer less likely to be right. Raises `InvalidValue` for fewer than 20
    comparisons, for lengths that differ, for a score that is not finite, and if all comparisons are right or all are wrong.
    """
    with extra("semantic"):
        from scipy.optimize import minimize
        from scipy.special import logsumexp

    s, y = np.asarray(scores, np.float64), np.asarray(right, bool)
    if s.shape != y.shape or s.ndim != 1 or len(s) < 20:
        raise InvalidValue(f"{s.shape} scores and {y.shape} labels; give at least 20 of each, one per comparison")
    if not np.isfinite(s).all():
        raise InvalidValue("a score is not a finite number; leave comparisons without a score out")
    if y.all() or not y.any():
        raise InvalidValue(f"all {len(y)} comparisons are {'right' if y.all() else 'wrong'}; a threshold needs both kinds")
    groups = [*range(len(s))] if entries is None else list(entries)
    if len(groups) != len(s):
        raise InvalidValue(f"{len(groups)} entries for {len(s)} comparisons; give one per comparison")
    places = {entry: i for i, entry in enumerate(dict.fromkeys(groups))}
    member = np.array([places[entry] for entry in groups])
    middle = float(s.mean())

    def loss(parameters: NDArray[np.float64]) -> float:
        at, slope, spread = parameters
        logits = at + slope * (s - middle)[:, None] + (spread * _STEPS)[None, :]
        each = -np.logaddexp(0, np.where(y[:, None], -logits, logits))
        summed = np.zeros((len(places), len(_STEPS)))
        np.add.at(summed, member, each)
        # A weak pull towards a flat curve keeps the slope finite where the scores separate right from wrong.
        return float(-logsumexp(summed + np.log(_NORMAL), axis=1).sum() + 1e-4 * slope**2)

    spread = 0.0 if entries is None else 1.0
    found = minimize(
        loss, [0.0, 5.0, spread], bounds=[(-30, 30), (0, 200), (0, 0 if entries is None else 6)], method="L-BFGS-B"
    )
    at, slope, spread = (float(x) for x in found.x)
    return Curve(at - slope * middle, slope, spread)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold with its proof: of the `hits` calibration pairs that score at least `threshold`, `wrong` were wrong.

    With `confidence`, at most the share `bound` of hits is wrong in traffic like that of the calibration. `threshold` is
    infinite if no threshold can be shown to keep the bound.
    """

    threshold: float
    bound: float
    confidence: float
    hits: int
    wrong: int

    def __str__(self) -> str:
        if math.isinf(self.threshold):
            return f"no threshold is shown to keep false hits to {self.bound:.1%} with {self.confidence:.0%} confidence"
        return (
            f"from a score of {self.threshold:.3f}, at most {self.bound:.1%} of hits are wrong with {self.confidence:.0%} "
            f"confidence ({self.wrong} of {self.hits} were)"
        )


def calibrated_threshold(
    scores: ArrayLike, right: ArrayLike, *, bound: float, confidence: float = 0.95, first: int = 1
) -> Calibrated:
    """The lowest threshold for which labelled pairs prove that the share of wrong hits is at most `bound`.

    `scores` and `right`: one of each per pair, shape (n,). Fixed-sequence testing: thresholds are tried from the strictest
    on, each by the exact (Clopper–Pearson) upper bound of its false-hit rate, and the first that fails ends the search. So
    trying many thresholds costs no confidence. The steps depend on the number of hits alone, never on the labels, and begin
    with the fewest hits that could prove anything, or with `first` hits where that is more: a later beginning gives up the
    strictest thresholds, and does not end at one wrong hit among them. Raises `InvalidValue` if there is not one label per
    score, or if `bound` or `confidence` does not lie between 0 and 1.
    """
    with extra("semantic"):
        from scipy.stats import beta

    s, y = np.asarray(scores, np.float64), np.asarray(right, bool)
    if s.shape != y.shape or s.ndim != 1:
        raise InvalidValue(f"{s.shape} scores and {y.shape} labels; give one label per score")
    if not (0 < bound < 1 and 0 < confidence < 1):
        raise InvalidValue(f"bound {bound} and confidence {confidence} must lie between 0 and 1")
    order = np.argsort(-s, kind="stable")
    wrong = np.cumsum(~y[order])
    fewest = math.ceil(math.log(1 - confidence) / math.log(1 - bound))  # this many hits, none of them wrong, prove the bound
    best = Calibrated(math.inf, bound, confidence, 0, 0)
    fewest = max(fewest, first)
    step = max(1, fewest // 4)
    for hits in range(fewest, len(s) + 1, step):
        if hits < len(s) and s[order[hits]] == s[order[hits - 1]]:
            continue  # pairs of equal score are taken in together
        faults = int(wrong[hits - 1])
        if faults < hits and beta.ppf(confidence, faults + 1, hits - faults) > bound:
            break
        if faults == hits:
            break
        best = Calibrated(float(s[order[hits - 1]]), bound, confidence, hits, faults)
    return best


def upper_bound(wrong: int, checked: int, confidence: float = 0.95) -> float:
    """An upper bound on the share of wrong hits, if `wrong` of `checked` verified hits were wrong.

    The bound holds at all times together, so looking at it often does not weaken it. The mixture martingale ∫ p^k
    (1−p)^(n−k) dBeta(1/2, 1/2) / (p₀^k (1−p₀)^(n−k)) exceeds 1/(1−confidence) for the true p₀ with a chance of at most 1 −
    confidence over all n (Ville's inequality; H. Robbins, 1970). The bound is the largest p₀ at which the martingale does
    not exceed that value. It is 1 before anything was checked. Raises `InvalidValue` for counts that do not fit together and
    for a `confidence` that does not lie between 0 and 1.
    """
    with extra("semantic"):
        from scipy.optimize import brentq
        from scipy.special import betaln

    if not 0 <= wrong <= checked:
        raise InvalidValue(f"{wrong} wrong of {checked} checked; counts go from 0 to the number checked")
    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence is {confidence}; use a share between 0 and 1")
    evidence = float(betaln(wrong + 0.5, checked - wrong + 0.5) - betaln(0.5, 0.5)) + math.log(1 - confidence)

    def excess(p: float) -> float:
        return evidence - (wrong * math.log(p) if wrong else 0) - (checked - wrong) * math.log1p(-p)

    start, end = max(wrong / checked if checked else 0, 1e-12), 1 - 1e-12
    if wrong == checked or excess(end) < 0:
        return 1.0
    return float(brentq(excess, start, end))


def lower_bound(wrong: int, checked: int, confidence: float = 0.95) -> float:
    """A lower bound on the share of wrong hits, valid at all times together; see `upper_bound`."""
    return 1 - upper_bound(checked - wrong, checked, confidence)
