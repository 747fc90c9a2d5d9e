"""Chapter 14's question: what a person's day of calls costs, the most that a device which answers them may cost a day."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal

from labkit.cost import Price
from labkit.latency import percentile
from labkit.logs.bills import at_list_price
from labkit.logs.call import Call, Log
from labkit.logs.numbers import TIME, USAGE, Need, OwnNumber, cannot, of, ratio

DAY_S = 86_400
WRITE_OFF_DAYS = 1_095
"""Three years: how long a device is written off over, where the caller names no other time."""
USER = Need("user of the calls", "whose call each one was, as a stable id without a name")
_WHAT = "what a user's day of calls costs"


def nearby(log: Log, prices: Mapping[str, Price] | None = None, days: int = WRITE_OFF_DAYS) -> OwnNumber:
    """US dollars for a user and calendar day at list prices, over every day of the log from the user's first call on.

    A device answers for one user, and it stands idle on days without a call: those days count. So the number is the most
    that a device may cost a day, with hardware, energy and upkeep, where it answers every call as well as the API does.
    Times `days`, it is the price at which a device never pays. Users are the sample: the interval is that of the ratio of
    their dollars to their days, and one user's calls stay together. Days are those of UTC. `prices` maps models to price
    lists and wins over the catalogue's; calls without a price are in no sum. Shadows are no user's calls.
    """
    calls = [call for call in log.calls if call.user and call.at is not None and not call.shadow]
    needs = [need for need, name in ((USER, "user"), (TIME, "at"), (USAGE, "usage")) if not log.has[name]]
    if needs or not calls:
        return cannot("14", _WHAT, "USD", log, *(needs or [USER]))
    spent: defaultdict[str, Decimal] = defaultdict(Decimal)  # users whose calls have no price are in no ratio
    asked: Counter[tuple[str, int]] = Counter()
    first: dict[str, int] = {}
    unpriced: Counter[str] = Counter()
    for call in calls:
        day, whose = _day(call), _whose(call)
        asked[whose, day] += 1
        first[whose] = min(first.get(whose, day), day)
        usd = at_list_price(call, prices or {}) if call.usage is not None else None
        if usd is None:
            unpriced[call.model] += 1
        else:
            spent[whose] += usd
    last = max(_day(call) for call in calls)
    there = {whose: last - first[whose] + 1 for whose in spent}
    found = ratio((float(spent[whose]), span) for whose, span in there.items())
    if found is None:
        return cannot("14", _WHAT, "USD", log, _price_of(unpriced))
    needs = [_price_of(unpriced)] if unpriced else []
    spans = sum(there.values())
    on = [count for (whose, _), count in asked.items() if whose in spent]
    rows = [
        ("users and their days", f"{len(there):,} users, {spans:,} days"),
        ("days with a call", f"{100 * len(on) / spans:.1f} %"),
        ("calls on such a day: median, 19 of 20, most", _spread(on)),
        (f"a device written off over {days:,} days may cost, all in", f"{found.value * days:.4g} USD"),
    ]
    rows += [("the dearest tenth of users, of all dollars", f"{100 * _top(list(spent.values())):.1f} %")]
    rows += [("calls without a price, in no sum", f"{sum(unpriced.values()):,}")] if unpriced else []
    rows += [("calls without a user or a time", f"{len(log) - len(calls):,}")] if len(calls) < len(log) else []
    between = None if found.interval is None else (max(0.0, found.interval[0]), found.interval[1])
    told = "" if between is None else f" ({between[0]:.3g} to {between[1]:.3g})"
    sentence = (
        f"{of(log)}: a user's day costs {found.value:.3g} USD at list prices{told}, so a device written off over "
        f"{days:,} days has to cost less than {found.value * days:.4g} USD with its energy and upkeep, and answer as well."
    )
    return OwnNumber("14", _WHAT, found.value, "USD", sentence, between, tuple(needs), tuple(rows))


def _day(call: Call) -> int:
    assert call.at is not None, "calls without a time were left out"
    return math.floor(call.at / DAY_S)


def _whose(call: Call) -> str:
    """The user, of that tenant: two tenants may count their users alike."""
    return f"{call.tenant}\x00{call.user}"


def _price_of(unpriced: Counter[str]) -> Need:
    named = ", ".join(repr(model) for model, _ in unpriced.most_common(5)) or "the calls"
    return Need(f"price for {named}", "the model's name as its price list has it")


def _spread(counts: list[int]) -> str:
    return f"{percentile(counts, 50):,.0f}, {percentile(counts, 95):,.0f}, {max(counts):,}"


def _top(spent: list[Decimal]) -> float:
    """The share of all dollars that the dearest tenth of the users spends, rounded up to whole users."""
    whole = sum(spent, Decimal(0))
    return float(sum(sorted(spent, reverse=True)[: math.ceil(len(spent) / 10)], Decimal(0)) / whole) if whole else 0.0
