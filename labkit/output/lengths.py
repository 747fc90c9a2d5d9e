"""How long answers are: the distribution that a cap on tokens is chosen from, with what the sample can and cannot say.

An answer that a limit has cut tells only that it would have been longer. Left out, such answers make every percentile too
low; taken for whole ones, too. So they count as what they are, *censored* (Kaplan and Meier, 1958).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Self

from labkit.ledger import Row
from labkit.request import CUT_SHORT, Completion, InvalidValue, hops, is_whole
from labkit.routing import Interval

ENDED = ("stop", "tool_calls")


@dataclass(frozen=True, slots=True)
class AnswerLengths:
    """Output tokens (reasoning included) of answers. Those in `ended` ended by themselves, those in `cut` were cut there.

    Both are kept in order. Raises `InvalidValue` without an answer, and for counts that are not whole numbers from 0.
    """

    ended: tuple[int, ...]
    cut: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ended", "cut"):
            given = tuple(getattr(self, name))
            if not all(is_whole(tokens, 0) for tokens in given):
                raise InvalidValue(f"AnswerLengths.{name} holds {given!r:.80}; token counts are whole numbers from 0")
            object.__setattr__(self, name, tuple(sorted(given)))
        if not len(self):
            raise InvalidValue("there is no answer to learn a length from; measure some first")

    def __len__(self) -> int:
        return len(self.ended) + len(self.cut)

    @classmethod
    def of(cls, completions: Iterable[Completion]) -> Self:
        """The lengths of answers. Those that neither ended by themselves nor were cut (refusals) are left out."""
        return cls._of((done.finish_reason, done.usage.output_tokens) for done in (each.done for each in completions))

    @classmethod
    def of_rows(cls, rows: Iterable[Row], feature: str | None = None) -> Self:
        """The lengths of the answers computed for `feature` (None: for all) in a ledger's rows.

        Left out are attempts that did not complete, answers from caches, and counts that the engine did not report.
        """
        return cls._of(
            (row.finish_reasons[0] if row.finish_reasons else "", row.output_tokens)
            for row in rows
            if row.outcome == "completed"
            and row.output_tokens is not None
            and row.usage_source == "reported"
            and feature in (None, row.feature)
            and not set(hops.kinds(row.route)) & set(hops.REPEATED)
        )

    @classmethod
    def _of(cls, answers: Iterable[tuple[str, int | None]]) -> Self:
        found = [(reason, tokens) for reason, tokens in answers if tokens is not None]
        return cls(
            tuple(tokens for reason, tokens in found if reason in ENDED),
            tuple(tokens for reason, tokens in found if reason in CUT_SHORT),
        )

    def longer(self, tokens: int) -> float:
        """The share of answers that need more than `tokens` (Kaplan and Meier's estimate where some were cut before)."""
        share, left = 1.0, len(self)
        gone = Counter(self.cut)
        done = Counter(self.ended)
        for length in sorted(gone.keys() | done.keys()):
            if length > tokens:
                break
            share *= 1 - done[length] / left
            left -= done[length] + gone[length]
        return share

    def percentile(self, share: float, level: float = 0.95) -> Percentile:
        """The cap under which a `share` of answers ends by itself, with its interval from order statistics.

        Raises `InvalidValue` for a share that is not between 0 and 1, and where so many answers were cut that nobody knows.
        """
        if not 0 < share < 1 or not 0 < level < 1:
            raise InvalidValue(f"percentile {share} at level {level}; both lie between 0 and 1")
        found = next((length for length in dict.fromkeys(self.ended) if self.longer(length) <= 1 - share + 1e-12), None)
        if found is None:
            raise InvalidValue(
                f"{len(self.cut)} of {len(self)} answers were cut (the longest that ended has "
                f"{self.ended[-1] if self.ended else 0} tokens), so nobody knows the {100 * share:g} % point; measure again "
                "with a higher max_tokens, or ask for a lower one"
            )
        low, high = _ranks(len(self), share, level)
        at_least = sorted((*self.ended, *(tokens + 1 for tokens in self.cut)))  # a cut answer has at least one more
        known = sorted((*map(float, self.ended), *(math.inf for _ in self.cut)))
        return Percentile(
            share,
            found,
            at_least[low - 1] if low else 0,
            None if high > len(self) or math.isinf(known[high - 1]) else int(known[high - 1]),
            level,
        )

    def truncated(self, cap: int, level: float = 0.95) -> Interval:
        """The share of answers that a cap of `cap` tokens cuts, with Wilson's interval.

        Answers that were cut below the cap before may or may not have needed more: the interval holds for either.
        """
        surely = sum(tokens > cap for tokens in self.ended) + sum(tokens >= cap for tokens in self.cut)
        perhaps = surely + sum(tokens < cap for tokens in self.cut)
        return Interval(self.longer(cap), wilson(surely, len(self), level)[0], wilson(perhaps, len(self), level)[1], level)


@dataclass(frozen=True, slots=True)
class Percentile:
    """A cap of `tokens` lets a `share` of answers end; the true value lies from `low` to `high` at `level`.

    `high` is None where the sample is too small, or too much of it was cut, to say.
    """

    share: float
    tokens: int
    low: int
    high: int | None
    level: float


def wilson(of: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of the share `of` / `n`."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, half = of + z * z / 2, z * math.sqrt(of * (n - of) / n + z * z / 4)
    low, high = (centre - half) / (n + z * z), (centre + half) / (n + z * z)
    return (low if of else 0.0), (high if of < n else 1.0)


def _ranks(n: int, share: float, level: float) -> tuple[int, int]:
    """Ranks from 1 whose values enclose the quantile: exact, by the binomial (0 and n + 1 where none does)."""
    logs = [0.0, *accumulate(math.log(i) for i in range(1, n + 1))]
    chance = [
        math.exp(logs[n] - logs[k] - logs[n - k] + k * math.log(share) + (n - k) * math.log1p(-share)) for k in range(n + 1)
    ]
    tail = (1 - level) / 2
    below = list(accumulate(chance))  # below[k]: at most k values lie at or under the quantile
    low = max((rank for rank in range(1, n + 1) if below[rank - 1] <= tail), default=0)
    high = min((rank for rank in range(1, n + 1) if 1 - below[rank - 1] <= tail), default=n + 1)
    return low, high
