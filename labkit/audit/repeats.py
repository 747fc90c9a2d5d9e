"""What is asked again: word for word (a response cache), and in other words (a semantic cache, at a bound on errors)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from labkit.audit.advice import Advice, Fact, Remedy
from labkit.audit.money import Kinds, Prices, Seen, Tier, Tokens
from labkit.audit.prompts import asked, digest
from labkit.audit.sample import Recent, Reservoir
from labkit.cost import Cost
from labkit.extras import extra
from labkit.logs import Need

TTL_S = 3600.0
SAMPLE = 2000
_KEPT = 2_000_000
"""Different prompts that are remembered; beyond these, the oldest are forgotten."""
PROMPTS = Need(
    "prompts", "each request's messages, or a hash of them as `prompt_hash`, under the access rules of your users' texts"
)
_PAIRS = Need(
    "threshold with a bound on wrong answers",
    "a file of labelled pairs of questions (columns score and same; chapter 04 makes one), given as --pairs",
)
_EXACT = Remedy(
    "Response cache for exact repeats", "04", "low",
    "one lever before the model, no change to prompts; lifetimes and tenants have to be set",
    "Calls of equal model, tenant and messages are counted by a hash; a hit saves the whole call. From the repeats within "
    f"{TTL_S / 3600:g} h of the answer's making to repeats at any time. Answers that must differ, or that hold facts which "
    "change, may not be served again: the log does not say which do.",
    prompts=True,
)  # fmt: skip
_OTHER_WORDS = Remedy(
    "Semantic cache for paraphrases", "04", "high",
    "a threshold from labelled pairs, checks of what is served, and an index beside the model",
    f"In a sample of {SAMPLE:,} calls, each as likely (algorithm R), a call counts as a hit where an earlier one of the "
    "sample has the same tenant, model and messages before the last, other words in the last, and at least the similarity "
    "at which labelled pairs prove at most 2 % of the hits wrong (95 %). The range is the interval of that share (Clopper "
    "and Pearson), on the cost of the hits. Earlier calls outside of the sample are not seen, so there are more hits.",
    prompts=True,
)  # fmt: skip
_TENANT = Need("tenants", "whose data each answer may hold; without it one user's answer may reach another")
_FAILED = ("failed", "cancelled")
Encode = Callable[[Sequence[str]], Any]
"""From texts to unit vectors, a row each."""


class Repeated:
    """Calls whose prompt came before word for word, to the same model, from the same tenant."""

    def __init__(self, show: bool = False) -> None:
        self.shown: dict[bytes, list[Any]] = {}
        self._show = show
        self._written: Recent[bytes, float] = Recent(_KEPT)
        self._asked = self._tenants = 0
        self._soon, self._ever = Tokens(), Tokens()

    def take(self, one: Seen) -> None:
        """The next call."""
        call = one.call
        key = asked(call, one.chain)
        if key is None:
            return
        self._asked += 1
        self._tenants += bool(call.tenant)
        now, before = call.at or 0.0, self._written.get(key)
        if before is not None:
            self._ever.add(one.tier, one.kinds)
            if self._show and call.turns and (key in self.shown or len(self.shown) < 1000):
                self.shown.setdefault(key, [0, call.turns[-1][1][:200]])[0] += 1
            if abs(now - before) < TTL_S:
                self._soon.add(one.tier, one.kinds)
                return
        if call.status not in _FAILED:  # a failed call leaves no answer to keep
            self._written.put(key, now)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """From what an entry that lives an hour would answer to what one that lives forever would."""
        if not self._asked:
            return Advice(_EXACT, needs=(PROMPTS,))
        low, high = self._soon.cost(prices), self._ever.cost(prices)
        facts = [
            Fact("calls with a prompt", f"{self._asked:,}"),
            Fact("repeats within an hour", _share(self._soon.calls, self._asked), low.total),
            Fact("repeats at any time", _share(self._ever.calls, self._asked), high.total),
        ]
        if self._written.forgotten:
            facts.append(Fact("prompts forgotten to save memory, so that there are more", f"{self._written.forgotten:,}"))
        return Advice(_EXACT, low, high, () if self._tenants else (_TENANT,), tuple(facts))


class Alike:
    """Calls whose question was asked before in other words: looked for in a sample, at a threshold from labelled pairs."""

    def __init__(self, threshold: float | None = None, encode: Encode | None = None) -> None:
        self._threshold, self._encode = threshold, encode
        self._sample: Reservoir[tuple[int, str, str, bytes, Tier | None, Kinds]] = Reservoir(SAMPLE)

    def take(self, one: Seen) -> None:
        """The next call."""
        call = one.call
        if call.turns and call.status not in _FAILED and (place := self._sample.place()) is not None:
            context = digest(repr((call.tenant, call.model, call.turns[:-1])))
            text = call.turns[-1][1]
            self._sample.put(place, (self._sample.offered, text, normalised(text), context, one.tier, one.kinds))

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """The sample's hits, with the interval of their share; all others of the log were not looked at."""
        drawn = sorted(self._sample.items)
        if not drawn:
            return Advice(_OTHER_WORDS, needs=(PROMPTS,))
        plain: set[tuple[bytes, str]] = set()
        same = 0
        for _, _, text, context, _, _ in drawn:
            same += (context, text) in plain
            plain.add((context, text))
        facts: tuple[Fact, ...] = (
            Fact("calls in the sample", f"{len(drawn):,} of {self._sample.offered:,}"),
            Fact("the same up to case, punctuation and spaces", _share(same, len(drawn))),
        )
        if self._threshold is None or self._encode is None:
            return Advice(_OTHER_WORDS, needs=(_PAIRS,), facts=facts)
        hits = self._hits(drawn)
        found = Tokens()
        for one in [drawn[place] for place in hits] or drawn:
            found.add(one[4], one[5])
        each = _scaled(
            found.cost(prices), self._sample.offered / len(drawn) / found.calls
        )  # of a hit; without any, of a call
        low, high = (_scaled(each, end * len(drawn)) for end in _interval(len(hits), len(drawn)))
        facts += (
            Fact("paraphrases in the sample", _share(len(hits), len(drawn))),
            Fact("similarity from which a hit counts", f"{self._threshold:.3f}"),
        )
        return Advice(_OTHER_WORDS, low, high, facts=facts)

    def _hits(self, drawn: Sequence[tuple[int, str, str, bytes, Tier | None, Kinds]]) -> list[int]:
        assert self._encode is not None, "asked only with both"
        assert self._threshold is not None, "asked only with both"
        vectors = np.asarray(self._encode([one[1] for one in drawn]))
        by_context: dict[bytes, list[int]] = {}
        hits = []
        for place, one in enumerate(drawn):
            earlier = by_context.setdefault(one[3], [])
            other = bool(earlier) and all(drawn[at][1] != one[1] for at in earlier)  # word for word is the other cache's
            if other and float(np.max(vectors[earlier] @ vectors[place])) >= self._threshold:
                hits.append(place)
            earlier.append(place)
        return hits


def normalised(text: str) -> str:
    """The text without case, punctuation and runs of spaces."""
    return " ".join(re.sub(r"[^\w\s]+", " ", text.casefold()).split())


def _share(of: int, n: int) -> str:
    return f"{of:,} ({100 * of / n:.1f} %)" if n else f"{of:,}"


def _scaled(cost: Cost, by: float) -> Cost:
    return cost * Decimal(repr(by))


def _interval(hits: int, n: int) -> tuple[float, float]:
    with extra("analysis"):
        from scipy.stats import beta
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
