"""How alike is alike enough: when a semantic cache may give an old answer to a new question.

A fixed threshold says nothing about how often it is wrong. What follows are three ways to decide, and one to check:

- `StaticThreshold`: the usual number, kept as the baseline.
- `calibrated_threshold`: the lowest threshold whose false-hit rate on labelled pairs is *proved* to lie under a bound, with
  a stated confidence (fixed-sequence testing with exact binomial bounds: Angelopoulos et al., "Learn then Test",
  arXiv 2110.01052). It holds for traffic like the calibration's.
- `Verified`: a threshold of its own for every cached answer, learned while it serves. The chance that an answer fits is
  logistic in the score, with one offset per entry, as in vCache (Schroeder et al., arXiv 2502.03771), which fits every
  entry alone; here entries share a prior fitted on labelled pairs, so a new one need not be wrong a few times first. What
  has been seen of an entry (its answer compared with a fresh one) moves its own offset, and only that.
- `upper_bound`: whatever the model says, some hits are asked anew and compared. From these counts alone comes a bound on
  the false-hit rate that holds at every moment at once, however often one looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.request import InvalidValue

_STEPS = np.linspace(-4, 4, 65)  # of an entry's offset, in standard deviations
_NORMAL = np.exp(-(_STEPS**2) / 2) / np.exp(-(_STEPS**2) / 2).sum()


@dataclass(frozen=True, slots=True)
class Observation:
    """A cached answer compared with a fresh one: the new question's score, and whether the old answer was right."""

    score: float
    right: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to give the old answer, and why in words. `probability` that it is right, None where nobody estimated it."""

    accept: bool
    why: str
    probability: float | None = None


class Acceptance(Protocol):
    """Decides on a score from −1 to 1 and what has been seen of that entry before."""

    def decide(self, score: float, seen: Sequence[Observation]) -> Decision:
        """Whether the entry's answer may be given."""
        ...


@dataclass(frozen=True, slots=True)
class StaticThreshold:
    """Every score from `threshold` on is alike enough, for every entry and for ever."""

    threshold: float

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise InvalidValue(f"the threshold is {self.threshold}; cosine scores lie between -1 and 1")

    def decide(self, score: float, seen: Sequence[Observation]) -> Decision:  # noqa: ARG002 - it learns nothing
        """Whether `score` reaches the threshold, whatever has been seen."""
        accept = score >= self.threshold
        return Decision(
            accept, f"score {score:.3f} {'reaches' if accept else 'is below'} the threshold {self.threshold:.3f}"
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """P(right | score) = 1 / (1 + exp(−(intercept + slope · score + offset))); offset ~ Normal(0, `spread`) by entry."""

    intercept: float
    slope: float
    spread: float

    def probability(self, score: float, offset: float = 0.0) -> float:
        """Chance that an entry's answer is right at `score`."""
        from scipy.special import expit

        return float(expit(self.intercept + self.slope * score + offset))


@dataclass(frozen=True, slots=True)
class Verified:
    """Gives an answer where it is believed, with `confidence`, to be wrong at most once in 1/`bound` times.

    The belief is the posterior of the entry's offset after what has been `seen` of it. That makes a statement about each
    hit that is as good as the curve's form; `upper_bound` of the verified hits is the one that assumes nothing.
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
        """Whether the entry's lower credible probability of being right reaches 1 − `bound`."""
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
        """Lower `confidence` credible bound of P(right | score) for an entry of which this has been seen."""
        offset = self.curve.spread * _quantile(self.curve, seen, 1 - self.confidence)
        return self.curve.probability(score, offset)


def _quantile(curve: Curve, seen: Sequence[Observation], share: float) -> float:
    """The `share` quantile of an entry's offset, in standard deviations, after what has been seen of it."""
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
    """The curve that makes labelled comparisons likeliest: maximum marginal likelihood, offsets integrated on a grid.

    `scores` and `right`: one of each per comparison, shape (n,). `entries` says which cache entry each one is about;
    without it every comparison counts as another entry's and the spread is 0. The slope is kept from 0 up: more alike is
    never less right. Raises `InvalidValue` for fewer than 20 comparisons, or all of one kind.
    """
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
        # A weak pull towards flat curves keeps separable data finite.
        return float(-logsumexp(summed + np.log(_NORMAL), axis=1).sum() + 1e-4 * slope**2)

    spread = 0.0 if entries is None else 1.0
    found = minimize(
        loss, [0.0, 5.0, spread], bounds=[(-30, 30), (0, 200), (0, 0 if entries is None else 6)], method="L-BFGS-B"
    )
    at, slope, spread = (float(x) for x in found.x)
    return Curve(at - slope * middle, slope, spread)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold with its proof: of `hits` calibration pairs at or above it `wrong` were wrong.

    With `confidence`, at most `bound` of the hits of traffic like the calibration's are. `threshold` is infinite where no
    threshold can be shown to keep the bound.
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


def calibrated_threshold(scores: ArrayLike, right: ArrayLike, *, bound: float, confidence: float = 0.95) -> Calibrated:
    """The lowest threshold that labelled pairs prove to keep the share of wrong hits to `bound`.

    Fixed-sequence testing: thresholds are tried from the strictest on, each by the exact (Clopper–Pearson) upper bound of
    its false-hit rate, and the first that fails ends the search. So trying many costs no confidence. Steps are chosen by
    the number of hits alone, from the fewest that could prove anything, never by the labels. Raises `InvalidValue`.
    """
    from scipy.stats import beta

    s, y = np.asarray(scores, np.float64), np.asarray(right, bool)
    if s.shape != y.shape or s.ndim != 1:
        raise InvalidValue(f"{s.shape} scores and {y.shape} labels; give one label per score")
    if not (0 < bound < 1 and 0 < confidence < 1):
        raise InvalidValue(f"bound {bound} and confidence {confidence} must lie between 0 and 1")
    order = np.argsort(-s, kind="stable")
    wrong = np.cumsum(~y[order])
    fewest = math.ceil(math.log(1 - confidence) / math.log(1 - bound))  # so many without a fault prove the bound
    best = Calibrated(math.inf, bound, confidence, 0, 0)
    step = max(1, fewest // 4)
    for hits in range(fewest, len(s) + 1, step):
        if hits < len(s) and s[order[hits]] == s[order[hits - 1]]:
            continue  # ties come in together
        faults = int(wrong[hits - 1])
        if faults < hits and beta.ppf(confidence, faults + 1, hits - faults) > bound:
            break
        if faults == hits:
            break
        best = Calibrated(float(s[order[hits - 1]]), bound, confidence, hits, faults)
    return best


def upper_bound(wrong: int, checked: int, confidence: float = 0.95) -> float:
    """A bound on the share of wrong hits from `wrong` of `checked` verified ones, valid at every moment at once.

    The mixture martingale ∫ p^k (1−p)^(n−k) dBeta(1/2, 1/2) / (p₀^k (1−p₀)^(n−k)) exceeds 1/(1−confidence) for the true p₀
    with a chance of at most 1 − confidence over all n (Ville's inequality; H. Robbins, 1970), so the largest p₀ where it
    does not is a bound one may watch without spoiling it. 1 before anything was checked.
    """
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
    """What the share of wrong hits is at least; see `upper_bound`."""
    return 1 - upper_bound(checked - wrong, checked, confidence)
