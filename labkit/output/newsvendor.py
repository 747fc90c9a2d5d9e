"""Where a cap on tokens should lie.

Too low a cap cuts answers that somebody needs; too high a one pays for those that never end. That is the newsvendor's
problem (Edgeworth, 1888; Arrow, Harris and Marschak, 1951): how many papers to buy before it is known how many will sell.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.output.lengths import AnswerLengths
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class CutCosts:
    """What a cap costs, in one currency: `token` is the price of an output token, and the others add to that.

    - `cut`: what one cut answer costs beside its own tokens, however much was missing: asked again, a whole second request;
      passed on, what a useless answer costs its reader.
    - `missing`: for each token that a cut answer still lacked: continued, the price of a token with what its second request
      adds to it.
    - `unused`: for each token that a cap allows and an answer does not need: the price of the part of a rate limit that
      `max_tokens` takes up, or of a place that an engine keeps free.
    - `runaway`: the share of answers that never end (a loop): each is cut, wherever the cap lies, and pays up to it.

    Raises `InvalidValue` for costs below 0, and for a share outside 0 to 1.
    """

    token: float
    cut: float = 0.0
    missing: float = 0.0
    unused: float = 0.0
    runaway: float = 0.0

    def __post_init__(self) -> None:
        if min(self.token, self.cut, self.missing, self.unused) < 0 or not 0 <= self.runaway < 1:
            raise InvalidValue(f"{self}: costs are 0 or more, and the share of runaways lies from 0 to below 1")

    def of(self, length: int, cap: int) -> float:
        """The cost of an answer that would have `length` tokens, under `cap`."""
        if length <= cap:
            return self.token * length + self.unused * (cap - length)
        return self.token * cap + self.cut + self.missing * (length - cap)

    @property
    def critical_ratio(self) -> float:
        """The share of answers that the best cap lets end, where a cut costs by its missing tokens alone (`cut` is 0).

        From the derivative of the mean cost: one more token of cap costs the runaways w · token and those that need it not
        (1 − w) · F · unused, and saves those that do (1 − w) · (1 − F) · (missing − token); w is the share of runaways. In
        the newsvendor's words, too little costs u = (1 − w)(missing − token), too much o = (1 − w) · unused, and the best F
        is (u − w · token) / (u + o), from 0 to 1.
        """
        short = (1 - self.runaway) * (self.missing - self.token)
        long = (1 - self.runaway) * self.unused
        if short + long <= 0:
            return 0.0
        return min(1.0, max(0.0, (short - self.runaway * self.token) / (short + long)))


@dataclass(frozen=True, slots=True)
class BestCap:
    """The cap with the lowest mean cost of an answer, beside the cost of the highest cap that the sample has."""

    tokens: int
    cost: float
    uncapped: float
    ends: float


def mean_cost(lengths: AnswerLengths, cap: int, costs: CutCosts) -> float:
    """The mean cost of an answer under `cap`, over the sample.

    Raises `InvalidValue` where answers of the sample were cut themselves: what they would have cost is unknown.
    """
    _known(lengths)
    ending = sum(costs.of(length, cap) for length in lengths.ended) / len(lengths)
    return (1 - costs.runaway) * ending + costs.runaway * (costs.token * cap + costs.cut)


def best_cap(lengths: AnswerLengths, costs: CutCosts) -> BestCap:
    """The cheapest cap for answers like those in `lengths`: an exact search.

    Between two lengths of the sample the mean cost is a straight line, so a cheapest cap is one of them, or 1. Of several
    the lowest is taken. Raises `InvalidValue` as `mean_cost` does.
    """
    _known(lengths)
    candidates = sorted({max(1, length) for length in lengths.ended} | {1})
    cap = min(candidates, key=lambda tokens: (mean_cost(lengths, tokens, costs), tokens))
    return BestCap(cap, mean_cost(lengths, cap, costs), mean_cost(lengths, candidates[-1], costs), 1 - lengths.longer(cap))


def _known(lengths: AnswerLengths) -> None:
    if lengths.cut:
        raise InvalidValue(
            f"{len(lengths.cut)} of {len(lengths)} answers were cut, so their lengths are unknown; measure with a higher "
            "max_tokens, and count answers that never end in CutCosts.runaway"
        )
