"""A/B tests that may be looked at after every answer: anytime-valid evidence on a difference of proportions.

A t-test that is read a hundred times, and stopped the first time it says "significant", is wrong far more often than its
5 %. A *test martingale* avoids this. It bets on the outcome at odds that are fair under the hypothesis. If the hypothesis is
true, the probability that the stake ever grows to 1/α is at most α (Ville's inequality). So a test that rejects at a stake
of 1/α may be read at any time and stopped at any time.

Here a bet puts a share λ of the stake on B being better. With d = right_B − right_A of a pair (−1, 0 or 1) and a
hypothetical difference δ, one pair multiplies the stake by 1 + λ·(d − δ); the expectation of this is 1 when the mean of d is
δ. The stake is split evenly over several λ, so that no single λ has to be chosen beforehand (Waudby-Smith & Ramdas,
"Estimating means of bounded random variables by betting", JRSS B 2024, with a fixed mixture of bets). A second stake bets on
A in the same way. The differences δ that neither stake rejects, each at α/2, form a confidence sequence: an interval that
holds the true difference at all times at once with probability 1 − α.

A pair is one request answered by both arms (shadow traffic), or the i-th request of each arm where users are split evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.extras import extra
from labkit.request import InvalidValue

Finding = Literal["B is better", "B is worse", "B is not worse", "go on"]
# A pair multiplies the stake by 1 + λ·(−1 − 1) at worst, so with λ below 1/2 the stake stays above 0, whatever δ is.
_BETS = np.geomspace(0.005, 0.499, 16)


def log_evidence(wins: ArrayLike, ties: ArrayLike, losses: ArrayLike, difference: float = 0.0) -> NDArray[np.float64]:
    """The natural log of a stake that started at 1 and bet on B being better by more than `difference` (−1 to 1).

    `wins` counts the pairs so far that only B got right, `losses` those that only A got right, and `ties` those that both or
    neither got right. Arrays give one result per element. exp of the result is an e-value: at 20 or more, the hypothesis "B
    is better by `difference` at most" is rejected at α = 5 %, at any time. Raises `InvalidValue` for a `difference` outside
    −1 to 1.
    """
    if not -1 <= difference <= 1:
        raise InvalidValue(f"the difference of two proportions lies from −1 to 1; {difference} does not")
    with extra("analysis"):
        from scipy.special import logsumexp  # not above: scipy takes half a second to import

    counts = [np.asarray(count, float)[..., None] for count in (wins, ties, losses)]
    growth = [np.log1p(_BETS * (outcome - difference)) for outcome in (1, 0, -1)]
    stakes = sum((count * rate for count, rate in zip(counts, growth, strict=True)), np.zeros(()))
    return np.asarray(logsumexp(stakes, axis=-1) - math.log(len(_BETS)), float)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """What the pairs so far say about arm B against arm A; `seen` returns the test with one more pair.

    `alpha` is the highest probability of ever being wrong. `margin` is the loss of quality (a difference of proportions)
    that B may have and still count as "not worse". Set both before the first pair; then the verdict may be read at any time.
    `wins`, `ties` and `losses` count pairs as in `log_evidence`. Raises `InvalidValue` for values outside their ranges.
    """

    alpha: float = 0.05
    margin: float = 0.0
    wins: int = 0
    ties: int = 0
    losses: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 <= self.margin < 1:
            raise InvalidValue(f"alpha {self.alpha} and margin {self.margin}: use alpha in (0, 1) and a margin in [0, 1)")
        if min(self.wins, self.ties, self.losses) < 0:
            raise InvalidValue(f"counts are {self.wins}, {self.ties}, {self.losses}; they are 0 or more")

    def seen(self, right_a: bool, right_b: bool) -> PairedTest:
        """The test after one more pair."""
        win, loss = int(right_b and not right_a), int(right_a and not right_b)
        wins, ties, losses = self.wins + win, self.ties + 1 - win - loss, self.losses + loss
        return PairedTest(self.alpha, self.margin, wins, ties, losses)

    @property
    def difference(self) -> float | None:
        """B's share of right answers less A's, so far; None before the first pair."""
        pairs = self.wins + self.ties + self.losses
        return (self.wins - self.losses) / pairs if pairs else None

    @property
    def interval(self) -> tuple[float, float]:
        """The lowest and highest difference not rejected; holds the true one at all times at once, probability 1 − alpha."""
        return _least(self.wins, self.ties, self.losses, self.alpha), -_least(self.losses, self.ties, self.wins, self.alpha)

    @property
    def verdict(self) -> Finding:
        """The finding so far: stop at the first that is not "go on".

        "B is not worse" means worse by less than `margin`, if at all, which is enough to choose a cheaper B. It is only
        found with a `margin` above 0.
        """
        low, high = self.interval
        if low > 0:
            return "B is better"
        if high < -self.margin:
            return "B is worse"
        return "B is not worse" if self.margin > 0 and low > -self.margin else "go on"


def _least(wins: int, ties: int, losses: int, alpha: float) -> float:
    """The smallest difference that betting on B does not reject at alpha / 2."""
    with extra("analysis"):
        from scipy.optimize import brentq

    needed = math.log(2 / alpha)

    def beyond(difference: float) -> float:
        return float(log_evidence(wins, ties, losses, difference)) - needed

    # The stake falls with δ for every λ, so all differences below the one crossing are rejected.
    return -1.0 if beyond(-1) < 0 else float(brentq(beyond, -1, 1, xtol=1e-9))
