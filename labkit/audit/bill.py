"""Where the money goes: the bill of a log by model, feature, tenant and kind of token, and what nobody has a price of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from labkit.audit.money import MOST, OTHERS, Prices, Seen, Tokens, summed
from labkit.cost import Cost

_DAY_S = 86400.0
_GAP, _RARE = 30, 100
_LINES = 20


@dataclass(frozen=True, slots=True)
class SpendingGroup:
    """A model, feature or tenant: its calls, and of those that have a price the tokens in and out and the cost.

    `unpriced` counts those that have none.
    """

    name: str
    calls: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost: Cost


@dataclass(slots=True)
class _Day:
    """The calls of one day: the times of the first and last, how many, and where the first few stand."""

    first: float
    last: float
    calls: int = 0
    lines: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LogSpan:
    """The time that a log covers, from its `first` to its `last` call, s.

    `far` counts calls whose times lie far from all others, which are left out: one clock that is a year off would turn a day
    into a year. `lines` are the first few of those: file and line.
    """

    first: float
    last: float
    far: int
    lines: tuple[tuple[str, int], ...]


class Bill:
    """Adds up what the calls of a log cost."""

    def __init__(self) -> None:
        self.file = ""
        """Which file the calls come from that are taken now."""
        self.calls = self.without_usage = 0
        self.lines_without: list[tuple[str, int]] = []
        """The first calls without usage: file and line."""
        self._days: dict[int, _Day] = {}
        self.unpriced: Counter[str] = Counter()
        self.unpriced_tokens: Counter[str] = Counter()
        self.told: dict[str, Decimal] = {}
        self._by: dict[str, dict[str, Tokens]] = {"model": {}, "feature": {}, "tenant": {}}

    def take(self, one: Seen) -> None:
        """The next call."""
        call = one.call
        self.calls += 1
        if call.at is not None:
            day = self._days.get(int(call.at // _DAY_S))
            if day is None:
                day = self._days.setdefault(int(call.at // _DAY_S), _Day(call.at, call.at))
            day.calls += 1
            day.first, day.last = min(day.first, call.at), max(day.last, call.at)
            if len(day.lines) < _LINES:
                day.lines.append((self.file, call.line))
        if call.cost is not None:
            self.told[call.currency] = self.told.get(call.currency, Decimal(0)) + call.cost
        if call.usage is None:
            self.without_usage += 1
            if len(self.lines_without) < _LINES:
                self.lines_without.append((self.file, call.line))
            return
        if one.tier is None:
            name = call.model if call.model in self.unpriced or len(self.unpriced) < MOST else OTHERS
            self.unpriced[name] += 1
            self.unpriced_tokens[name] += sum(one.kinds)
        for what, name in (("model", call.model), ("feature", call.feature), ("tenant", call.tenant)):
            groups = self._by[what]
            tokens = groups.get(name)
            if tokens is None:
                name = name if len(groups) < MOST else OTHERS
                tokens = groups.setdefault(name, Tokens())
            tokens.add(one.tier, one.kinds)

    def span(self) -> LogSpan | None:
        """The time that the calls cover; None where none has a time.

        Days with more than `_GAP` days between them are groups of their own. Groups that have together at most one call in
        `_RARE` are far from the others.
        """
        groups: list[list[int]] = []
        for day in sorted(self._days):
            if groups and day - groups[-1][-1] <= _GAP:
                groups[-1].append(day)
            else:
                groups.append([day])
        if not groups:
            return None
        sizes = [sum(self._days[day].calls for day in group) for group in groups]
        most = max(sizes)
        rare = _RARE * (sum(sizes) - most) <= sum(sizes)
        kept = groups[sizes.index(most)] if rare else [day for group in groups for day in group]
        far = [self._days[day] for day in sorted(self._days.keys() - set(kept))]
        lines = sorted(line for day in far for line in day.lines)[:_LINES]
        first, last = min(self._days[day].first for day in kept), max(self._days[day].last for day in kept)
        return LogSpan(first, last, sum(day.calls for day in far), tuple(lines))

    def cost(self, prices: Prices) -> Cost:
        """The whole bill, of the calls that have a price."""
        return summed(tokens.cost(prices) for tokens in self._by["model"].values())

    def tokens(self) -> tuple[int, ...]:
        """The tokens of the calls that have a price, by kind."""
        counted = [kinds for tokens in self._by["model"].values() for kinds in tokens.by_tier.values()]
        return tuple(sum(kinds[place] for kinds in counted) for place in range(5))

    def spenders(self, what: str, prices: Prices) -> tuple[SpendingGroup, ...]:
        """All models, features or tenants, the dearest first."""
        found = []
        for name, tokens in self._by[what].items():
            kinds = list(tokens.by_tier.values())
            into, out = (sum(count[place] for count in kinds for place in places) for places in ((0, 1, 2), (3, 4)))
            found.append(SpendingGroup(name, tokens.calls, tokens.unpriced, into, out, tokens.cost(prices)))

        def order(one: SpendingGroup) -> tuple[Decimal, int, str]:
            return (-one.cost.total, -one.calls, one.name)

        return tuple(sorted(found, key=order))
