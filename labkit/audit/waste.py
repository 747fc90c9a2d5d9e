"""Tokens that were paid for nothing, long tails of answers, and text in prompts that says nothing new."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal

from labkit.audit.advice import Advice, Fact, Remedy
from labkit.audit.money import OTHERS, Kinds, Prices, Seen, Tier, Tokens, cost_of, summed
from labkit.audit.prompts import digest
from labkit.audit.repeats import PROMPTS
from labkit.audit.sample import Recent, Reservoir
from labkit.cost import Cost
from labkit.logs import Call, Log, Need, is_cut, spare

ENOUGH = 30
"""So many whole answers a feature needs before a cap is spoken of."""
_CAP = 95
_KEPT = 1_000_000
"""Requests whose last attempt is remembered, so that attempts may lie so far apart in the log."""
_FEATURES = 200
"""Features whose answers are told apart; the rest are one."""
_SAMPLE = 200
_FAILURES = Remedy(
    "Fewer failures, retries and answers for nobody", "12", "medium",
    "deadlines, retry budgets and stopping a stream when its reader leaves, at every client",
    "The tokens of attempts that completed although a later attempt of the same request did, too (the low end), and with "
    "them those of failed and cancelled calls (the high end, which no lever reaches whole). Tokens of failed calls count as "
    "far as the log has them; many providers report none.",
)  # fmt: skip
_TAILS = Remedy(
    "Cap on the longest answers", "10", "low",
    "max_tokens for each feature, and a check of what becomes of the answers that are cut",
    f"For each feature with {ENOUGH} whole answers or more, the tokens beyond the {_CAP}th percentile of their lengths. A "
    "cap there would not have paid for them, and would have cut one answer in twenty. Where each of those has to be asked "
    "again, nothing is saved: the low end. Answers that should be short by their prompt save more.",
)  # fmt: skip
_CONTEXT = Remedy(
    "Context that was never needed", "09", "medium",
    "a lever before the model, or a change of the templates; answers have to be compared",
    f"In a sample of {_SAMPLE} prompts, each as likely, the characters that can go with nothing lost: white space, what one "
    "prompt says twice, JSON written shorter. Their share, with its interval, is taken of the money for fresh input. What "
    "is retrieved and never used is not seen: that takes answers with and without it.",
    prompts=True,
)  # fmt: skip
_OUTCOMES = Need("outcomes", "whether each call completed, failed, or was cancelled by its caller")
_FINISH = Need("finish reasons", "each response's finish_reason, to tell whole answers from cut ones")
_ATTEMPTS = Need("attempt numbers", "the number of each attempt, and one idempotency key for all of a request")


class Wasted:
    """Attempts that failed, that a later attempt of the same request replaced, or whose reader left."""

    def __init__(self) -> None:
        self._known = self._numbered = 0
        self._failed, self._replaced, self._left, self._shadow = Tokens(), Tokens(), Tokens(), Tokens()
        self._winner: Recent[bytes, tuple[int, Tier | None, Kinds]] = Recent(_KEPT)

    def take(self, one: Seen) -> None:
        """The next call."""
        call = one.call
        self._known += bool(call.status)
        self._numbered += call.attempt is not None
        if call.shadow:
            self._shadow.add(one.tier, one.kinds)
        elif call.status == "failed":
            self._failed.add(one.tier, one.kinds)
        elif call.status == "cancelled":
            self._left.add(one.tier, one.kinds)
        elif call.request and call.attempt is not None:
            key = digest(f"{call.tenant}\0{call.request}")
            now = (call.attempt, one.tier, one.kinds)
            before = self._winner.get(key)
            if before is not None and before[0] != now[0]:
                loser, now = sorted((before, now), key=lambda each: each[0])
                self._replaced.add(loser[1], loser[2])
            self._winner.put(key, now)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """From the attempts that a later one replaced to all that nobody got the answer of."""
        facts = tuple(
            _told(what, "calls", tokens, prices)
            for what, tokens in (
                ("failed", self._failed),
                ("replaced by a later attempt", self._replaced),
                ("cancelled", self._left),
                ("shadow calls, made on purpose", self._shadow),
            )
        )
        needs = tuple(need for need, known in ((_OUTCOMES, self._known), (_ATTEMPTS, self._numbered)) if not known)
        if len(needs) == 2:
            return Advice(_FAILURES, needs=needs)
        low = self._replaced.cost(prices)
        return Advice(_FAILURES, low, low + self._failed.cost(prices) + self._left.cost(prices), needs, facts)


class Tails:
    """The lengths of whole answers, by feature."""

    def __init__(self) -> None:
        self._lengths: defaultdict[str, defaultdict[Tier, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
        self._cut = Tokens()
        self._known = 0

    def take(self, one: Seen) -> None:
        """The next call."""
        call = one.call
        if call.usage is None or one.tier is None or call.status in ("failed", "cancelled"):
            return
        if is_cut(call):
            self._cut.add(one.tier, one.kinds)
        elif call.usage.output_tokens:
            apart = call.feature in self._lengths or len(self._lengths) < _FEATURES
            self._lengths[call.feature if apart else OTHERS][one.tier][call.usage.output_tokens] += 1
        self._known += bool(call.finish)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """From nothing, where each cut answer has to be asked again, to the tokens beyond the cap."""
        costs, found = [], []
        for feature, by_tier in self._lengths.items():
            every: Counter[int] = Counter()
            for counts in by_tier.values():
                every.update(counts)
            if every.total() < ENOUGH:
                continue
            cap = percentile_of(every, _CAP)
            beyond = Cost()
            for tier, counts in by_tier.items():
                over = sum((length - cap) * n for length, n in counts.items() if length > cap)
                if (rates := prices.rates(tier)) is not None:
                    beyond += cost_of((0, 0, 0, over, 0), rates)
            costs.append(beyond)
            fact = Fact(f"{feature or 'all calls'}: 19 of 20 answers have at most", f"{cap:,} tokens", beyond.total)
            found.append((-beyond.total, fact.what, fact))
        cut = _told("cut at a limit already", "answers", self._cut, prices)
        if not costs:
            need = Need("whole answers with a price", f"at least {ENOUGH} of one feature, with usage and finish reason")
            return Advice(_TAILS, needs=(need,), facts=(cut,))
        needs = () if self._known else (_FINISH,)
        shown = tuple(fact for _, _, fact in sorted(found)[:5])
        return Advice(_TAILS, Cost(), summed(costs), needs, (*shown, cut))


class Redundant:
    """White space, what a prompt says twice, and JSON that can be written shorter."""

    def __init__(self) -> None:
        self._sample: Reservoir[Call] = Reservoir(_SAMPLE)

    def take(self, one: Seen) -> None:
        """The next call."""
        if one.call.turns and (place := self._sample.place()) is not None:
            self._sample.put(place, one.call)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - the bill is priced already
        """The share of a sample's text that says nothing new, on the money for fresh input."""
        if not self._sample.items:
            return Advice(_CONTEXT, needs=(PROMPTS,))
        found = spare(Log("sample", "sample", tuple(self._sample.items)), _SAMPLE)
        if found.number is None:
            return Advice(_CONTEXT, needs=found.needs)
        ends = found.interval or (found.number, found.number)
        low, high = (Cost(fresh_input=bill.fresh_input * Decimal(repr(max(0.0, end))) / 100) for end in ends)
        return Advice(_CONTEXT, low, high, facts=tuple(Fact(what, value) for what, value in found.rows))


def _told(what: str, of: str, tokens: Tokens, prices: Prices) -> Fact:
    return Fact(what, f"{tokens.calls:,} {of}", tokens.cost(prices).total)


def percentile_of(counts: Counter[int], percent: int) -> int:
    """The smallest length that at least so many percent of the answers do not exceed."""
    wanted, passed = counts.total() * percent, 0
    for length in sorted(counts):
        passed += counts[length]
        if 100 * passed >= wanted:
            return length
    return max(counts)
