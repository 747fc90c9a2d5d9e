"""Chapter 13: who spent it, why the bill changed, and an alert and a budget that stop it."""
# ruff: noqa: ARG001 - near misses keep the signature they share

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from math import prod
from typing import Any

from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b13 import BUILD
from labkit.workbook.chapters.day13 import BEGIN, CAUSES, LARGE, NEW, Provider, prices, two_days
from labkit.workbook.chapters.q13 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds

__all__ = [
    "BEGIN",
    "CAUSES",
    "CHAPTER",
    "LARGE",
    "MONTH_S",
    "NEW",
    "Failed",
    "Provider",
    "Purse",
    "bill_by",
    "burns",
    "prices",
    "two_days",
    "why_changed",
    "within",
]

MONTH_S = 30 * 24 * 3600


def bill_by(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, Decimal | None, int]]:
    """(value, dollars, unpriced attempts) for each value of the column `name`; dollars are None where none has a price."""
    found: dict[str, tuple[Decimal | None, int]] = {}
    for row in rows:
        usd, unpriced = found.get(row[name], (None, 0))
        if row["cost"] is None:
            unpriced += 1
        else:
            usd = (usd or Decimal(0)) + row["cost"]
        found[row[name]] = usd, unpriced
    lines = [(value, usd, unpriced) for value, (usd, unpriced) in found.items()]
    return sorted(lines, key=lambda line: (line[1] is not None, -(line[1] or 0), line[0]))


def _rows(*given: tuple[str, str | None]) -> list[dict[str, Any]]:
    return [{"feature": value, "cost": None if usd is None else Decimal(usd)} for value, usd in given]


def _check_bill(answer: Callable[..., Any], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, [], "feature", expected=[], why="Nothing was spent.")
    yield agree(
        answer,
        _rows(("desk", "0.10"), ("desk", "0.20"), ("bulk", "0.40")),
        "feature",
        expected=[("bulk", Decimal("0.40"), 0), ("desk", Decimal("0.30"), 0)],
        why="The dearest first, and 0.10 + 0.20 is 0.30 exactly.",
    )
    yield agree(
        answer,
        _rows(("desk", "0.10"), ("trial", None), ("desk", None), ("trial", None)),
        "feature",
        expected=[("trial", None, 2), ("desk", Decimal("0.10"), 1)],
        why="What nobody priced is not free: a value without any price has None, and comes first.",
    )
    yield agree(
        answer,
        _rows(("free", "0"), ("b", None), ("a", None)),
        "feature",
        expected=[("a", None, 1), ("b", None, 1), ("free", Decimal(0), 0)],
        why="A cost of 0 is known. Equals are in the order of their names.",
    )
    yield agree(
        answer,
        _rows(("b", "0.2"), ("a", "0.2"), ("c", "0.2")),
        "feature",
        expected=[(value, Decimal("0.2"), 0) for value in "abc"],
        why="Equals are in the order of their names.",
    )
    named = [{"feature": "desk", "tenant": tenant, "cost": Decimal(1)} for tenant in ("x", "y", "x")]
    yield agree(
        answer,
        named,
        "tenant",
        expected=[("x", Decimal(2), 0), ("y", Decimal(1), 0)],
        why="By the column that is asked for.",
    )
    yield agree(
        answer,
        _rows(("refunds", "-0.5"), ("free", "0"), ("desk", "0.1")),
        "feature",
        expected=[("desk", Decimal("0.1"), 0), ("free", Decimal(0), 0), ("refunds", Decimal("-0.5"), 0)],
        why="A credit is below 0, and stands behind what is free.",
    )
    for _ in range(20):
        given = _rows(
            *((rng.choice("abcd"), rng.choice((None, "0", "0.000125", "0.1", "1.30"))) for _ in range(rng.randrange(1, 20)))
        )
        yield agree(answer, given, "feature", expected=bill_by(given, "feature"))


def why_changed(before: Sequence[Fraction], after: Sequence[Fraction]) -> list[Fraction]:
    """What each factor did to a bill that is their product: the mean, over all orders, of what changing it then does."""
    parts = [Fraction(0)] * len(before)
    orders = list(permutations(range(len(before))))
    for order in orders:
        now = list(before)
        for which in order:
            was = prod(now)
            now[which] = after[which]
            parts[which] += prod(now) - was
    return [part / len(orders) for part in parts]


def _check_why(answer: Callable[..., Any], rng: random.Random) -> Iterator[Outcome]:
    def f(*numbers: int | str) -> list[Fraction]:
        return [Fraction(number) for number in numbers]

    yield agree(
        answer,
        f(100, 2),
        f(150, 3),
        expected=f(125, 125),
        why="The bill rose from 200 to 450. Requests first: 100 and 150; price first: 150 and 100. The means are 125 each.",
    )
    yield agree(answer, f(4, 5), f(4, 5), expected=f(0, 0), why="Nothing changed.")
    yield agree(answer, f(4, 5), f(4, 7), expected=f(0, 8), why="A factor that did not change has no part.")
    yield agree(answer, f(7), f(3), expected=f(-4), why="One factor is all of it; a bill may fall.")
    yield agree(answer, f(0, 5), f(2, 5), expected=f(10, 0), why="Nothing before: the new requests are all of it.")
    yield agree(
        answer,
        f(2, 3, 5),
        f(4, 3, 10),
        expected=f(45, 0, 45),
        why="From 30 to 120 by two factors that doubled: half of the 90 each.",
    )
    for _ in range(12):
        many = rng.choice((2, 3, 3, 4))
        before, after = ([Fraction(rng.randrange(0, 12), rng.choice((1, 2, 5))) for _ in range(many)] for _ in range(2))
        yield agree(answer, before, after, expected=why_changed(before, after))


def burns(
    spent: Sequence[tuple[float, float]], at: float, budget: float, factor: float, long_s: float, short_s: float
) -> bool:
    """Whether the burn rate at second `at` is above `factor` over the last `long_s` seconds and over the last `short_s`."""

    def rate(window_s: float) -> float:
        gone = sum(usd for when, usd in spent if at - window_s < when <= at)
        return (gone / window_s) / (budget / MONTH_S)

    return rate(long_s) > factor and rate(short_s) > factor


def _check_burns(answer: Callable[..., Any], rng: random.Random) -> Iterator[Outcome]:
    budget = 1.0 * MONTH_S  # a dollar a second
    steady = [(float(second), 4.0) for second in range(1, 101)]
    yield agree(answer, steady, 100.0, budget, 3.0, 64.0, 8.0, expected=True, why="4 USD a second are a burn rate of 4.")
    yield agree(answer, steady, 100.0, budget, 4.0, 64.0, 8.0, expected=False, why="At the factor is not above it.")
    yield agree(
        answer, steady, 110.0, budget, 3.0, 64.0, 8.0,
        expected=False, why="It is over: nothing was spent in the last 8 seconds, so nobody need get up.",
    )  # fmt: skip
    yield agree(
        answer, [(60.0, 900.0)], 64.0, budget, 15.0, 64.0, 8.0,
        expected=False, why="900 USD in 64 seconds are a rate of 14.06: a peak, and not yet enough to matter.",
    )  # fmt: skip
    yield agree(answer, [(60.0, 900.0)], 64.0, budget, 14.0, 64.0, 8.0, expected=True, why="14.06 is above 14.")
    for when, expected, why in (
        (100.0, True, "What is spent at this second counts."),
        (101.0, False, "What is spent later is not known yet."),
        (92.0, False, "8 seconds ago is just outside of the short window."),
        (93.0, True, ""),
    ):
        yield agree(answer, [(when, 1000.0)], 100.0, budget, 2.0, 64.0, 8.0, expected=expected, why=why)
    yield agree(
        answer, [(99.0, 256.0)], 100.0, budget, 4.0, 64.0, 8.0,
        expected=False, why="The long window is at the factor, and not above it.",
    )  # fmt: skip
    yield agree(
        answer, [(50.0, 1000.0), (99.0, 32.0)], 100.0, budget, 4.0, 64.0, 8.0,
        expected=False, why="The short window is at the factor, and not above it.",
    )  # fmt: skip
    long_ago = [(36.0, 5000.0), (99.0, 100.0)]
    yield agree(
        answer, long_ago, 100.0, budget, 2.0, 64.0, 8.0,
        expected=False, why="64 seconds ago is just outside of the long window.",
    )  # fmt: skip
    yield agree(answer, [], 100.0, budget, 1.0, 64.0, 8.0, expected=False, why="Nothing is spent.")
    yield agree(
        answer, steady, 100.0, 10 * budget, 0.5, 64.0, 8.0, expected=False, why="A budget ten times as large: a rate of 0.4."
    )
    for _ in range(20):
        spent = [(float(rng.randrange(0, 120)), float(rng.choice((1, 5, 20)))) for _ in range(rng.randrange(0, 60))]
        given = (spent, 100.0, budget, rng.choice((1.0, 2.0, 4.0)), 64.0, 8.0)
        yield agree(answer, *given, expected=burns(*given))


@dataclass
class Purse:
    """A budget of `limit` dollars: what is `spent`, and what is `held` for calls that are under way."""

    limit: Decimal
    spent: Decimal = Decimal(0)
    held: Decimal = Decimal(0)


class Failed(Exception):
    """A call failed. `usd` is what it cost all the same; None where nobody knows."""

    def __init__(self, usd: Decimal | None = None) -> None:
        super().__init__("the call failed")
        self.usd = usd


async def within(purse: Purse, most: Decimal, ask: Callable[[], Awaitable[tuple[str, Decimal]]]) -> str | None:
    """The answer of `ask()`, which costs at most `most`; None, and no call, where that does not fit into the purse."""
    if purse.spent + purse.held + most > purse.limit:
        return None
    purse.held += most
    cost = most
    try:
        answer, cost = await ask()
        return answer
    except Failed as failure:
        if failure.usd is not None:
            cost = failure.usd
        raise
    finally:
        purse.held -= most
        purse.spent += cost


def _d(text: str) -> Decimal:
    return Decimal(text)


def _told(purse: Purse) -> str:
    return f"spent {purse.spent}, held {purse.held}"


def _check_within(answer: Callable[..., Any], rng: random.Random) -> Iterator[Outcome]:
    def ends(how: str, purse: Purse, most: str = "0.40", usd: str | None = "0.10") -> tuple[str, bool]:
        """One call that ends in the way `how`; what the caller got, and whether the engine was asked."""
        asked = []

        async def ask() -> tuple[str, Decimal]:
            asked.append(purse.held)
            await asyncio.sleep(3600 if how == "left" else 0)
            if how == "failed":
                raise Failed(None if usd is None else _d(usd))
            if how == "broke":
                raise ValueError("a bug")
            return "nine to six", _d(usd or "0")

        async def one() -> str:
            task = asyncio.ensure_future(answer(purse, _d(most), ask))
            if how == "left":
                for _ in range(3):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                return repr(await task)
            except (Failed, ValueError, asyncio.CancelledError) as error:
                return type(error).__name__

        one.__name__ = "within"
        return call(one), bool(asked)

    for how, usd, spent, got, why in (
        ("answered", "0.10", "0.10", "'nine to six'", "Its last event says what it cost; the rest is free again."),
        ("failed", "0.05", "0.05", "Failed", "A failed call is paid for, too, and the caller hears of it."),
        ("failed", "0", "0", "Failed", "It is known that this one cost nothing."),
        ("failed", None, "0.40", "Failed", "Nobody knows what it cost: at most what was held, so that much counts."),
        ("broke", "0.10", "0.40", "ValueError", "Any other error: nobody knows what it cost."),
        ("left", "0.10", "0.40", "CancelledError", "The caller left: nobody knows what it cost."),
    ):
        purse = Purse(_d("1.00"))
        result, asked = ends(how, purse, usd=usd)
        yield holds(
            f"a call that {how}",
            result == got and asked and purse.spent == _d(spent) and purse.held == 0,
            given=f"a limit of 1.00, at most 0.40, the call {how}, and its cost is {usd}",
            expected=f"{got}; spent {spent}, held 0",
            actual=f"{result}; {_told(purse)}{'' if asked else '; the engine was not asked'}",
            why=why,
        )
    for spent, held, most, fits in (
        ("0.60", "0", "0.40", True),
        ("0.60", "0", "0.41", False),
        ("0.30", "0.30", "0.40", True),
        ("0.30", "0.31", "0.40", False),
        ("0", "0", "1.01", False),
        ("1.00", "0", "0", True),
    ):
        purse = Purse(_d("1.00"), _d(spent), _d(held))
        result, asked = ends("answered", purse, most, usd="0")
        wanted = "'nine to six'" if fits else "None"
        yield holds(
            "what fits exactly is let through, and nothing more",
            result == wanted and asked == fits and purse.spent == _d(spent) and purse.held == _d(held),
            given=f"a limit of 1.00, spent {spent}, held {held}; the call may cost {most} and is free",
            expected=f"{wanted}; spent {spent}, held {held}; the engine is {'asked' if fits else 'not asked'}",
            actual=f"{result}; {_told(purse)}; the engine was {'asked' if asked else 'not asked'}",
        )
    for _ in range(4):
        yield _race(answer, rng.randrange(10**6))


def _race(answer: Callable[..., Any], seed: int) -> Outcome:
    """Sixty calls at once on one purse, of which some fail and some callers leave."""
    purse, rng = Purse(_d("2.00")), random.Random(seed)
    paid: list[Decimal] = []
    worst: list[Decimal] = []

    async def ask(most: Decimal) -> tuple[str, Decimal]:
        worst.append(purse.spent + purse.held)
        cost = most * rng.randrange(0, 5) / 4
        for _ in range(rng.randrange(1, 5)):
            await asyncio.sleep(0)
        paid.append(cost)
        if rng.random() < 0.3:
            raise Failed(cost)
        return "yes", cost

    async def all_at_once() -> list[Any]:
        mosts = [_d(rng.choice(("0.05", "0.10", "0.25"))) for _ in range(60)]
        return await asyncio.gather(*[answer(purse, most, lambda m=most: ask(m)) for most in mosts], return_exceptions=True)

    got = call(all_at_once)
    refused, answered = sum(one is None for one in got), sum(one == "yes" for one in got)
    failed = sum(isinstance(one, Failed) for one in got)
    over = max([*worst, purse.spent], default=purse.spent) > purse.limit
    return holds(
        "sixty at once never overspend, and the purse has what was paid",
        not over and purse.spent == sum(paid) and purse.held == 0 and 0 < refused == 60 - answered - failed,
        given=f"sixty calls at once on 2.00 USD (seed {seed})",
        expected=f"at most 2.00 held and spent at any moment; at the end {sum(paid)} spent and 0 held; some refused",
        actual=f"{_told(purse)}; {answered} answered, {failed} failed, {refused} refused"
        + ("; at some moment more than the limit was held and spent" if over else ""),
    )


# --- near misses ------------------------------------------------------------------------------------------------------


def _unpriced_is_free(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, Decimal | None, int]]:
    """Near miss: adds 0 for what nobody priced."""
    free = [{**row, "cost": row["cost"] or Decimal(0)} for row in rows]
    counts = {value: unpriced for value, _, unpriced in bill_by(rows, name)}
    return [(value, usd, counts[value]) for value, usd, _ in bill_by(free, name)]


def _in_floats(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, Any, int]]:
    """Near miss: adds money in floats."""
    return [(value, None if usd is None else float(usd), n + 1) for value, usd, n in bill_by(rows, name)]


def _one_after_another(before: Sequence[Fraction], after: Sequence[Fraction]) -> list[Fraction]:
    """Near miss: one order only; the parts add up, and depend on it."""
    now = list(before)
    parts: list[Fraction] = []
    for which, value in enumerate(after):
        was = prod(now)
        now[which] = value
        parts.append(Fraction(prod(now) - was))
    return parts


def _each_alone(before: Sequence[Fraction], after: Sequence[Fraction]) -> list[Fraction]:
    """Near miss: each factor changed alone; the parts do not add up."""
    whole = prod(before)
    return [Fraction(prod([*before[:n], value, *before[n + 1 :]]) - whole) for n, value in enumerate(after)]


def _long_window_only(
    spent: Sequence[tuple[float, float]], at: float, budget: float, factor: float, long_s: float, short_s: float
) -> bool:
    """Near miss: still rings when it is over."""
    return burns(spent, at, budget, factor, long_s, long_s)


def _either_window(
    spent: Sequence[tuple[float, float]], at: float, budget: float, factor: float, long_s: float, short_s: float
) -> bool:
    """Near miss: rings for each peak."""
    given = (spent, at, budget, factor)
    return burns(*given, long_s, long_s) or burns(*given, short_s, short_s)


async def _charges_after(purse: Purse, most: Decimal, ask: Callable[[], Awaitable[tuple[str, Decimal]]]) -> str | None:
    """Near miss: looks at what is spent, and charges when the answer is there, as budgets usually do."""
    if purse.spent >= purse.limit:
        return None
    try:
        answer, cost = await ask()
    except Failed as failure:
        purse.spent += most if failure.usd is None else failure.usd
        raise
    except BaseException:
        purse.spent += most
        raise
    purse.spent += cost
    return answer


async def _leaks(purse: Purse, most: Decimal, ask: Callable[[], Awaitable[tuple[str, Decimal]]]) -> str | None:
    """Near miss: keeps the hold of a caller who leaves."""
    try:
        return await within(purse, most, ask)
    except asyncio.CancelledError:
        purse.spent -= most
        purse.held += most
        raise


async def _failures_are_free(purse: Purse, most: Decimal, ask: Callable[[], Awaitable[tuple[str, Decimal]]]) -> str | None:
    """Near miss: gives the whole hold back after a failure."""
    before = purse.spent
    try:
        return await within(purse, most, ask)
    except Failed:
        purse.spent = before
        raise


CHAPTER = Chapter(
    number="13",
    name="cost_dashboards",
    title="Cost dashboards: who, why, and how soon you know",
    predictions=("13.counters", "13.delay", "13.overspent"),
    claims=("13.double", "13.false_alerts", "13.refused"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("metrics",),
    exercises=(
        Exercise(
            id="13.1",
            title="A bill in which nothing is free by mistake",
            minutes=5,
            difficulty=1,
            answer="bill_by",
            check=_check_bill,
            reference=bill_by,
            hints=(
                "Go through the rows once, and keep for each value its dollars (None at first) and its unpriced attempts.",
                "A cost of None adds one to the unpriced; any other is added to the dollars, which begin at Decimal(0).",
                "Sort by the tuple (is it priced, minus dollars, value): False comes before True.",
            ),
            wrong=(_unpriced_is_free, _in_floats, lambda rows, name: bill_by(rows, name)[::-1]),
        ),
        Exercise(
            id="13.2",
            title="Parts that add up, in whatever order",
            minutes=8,
            difficulty=2,
            answer="why_changed",
            check=_check_why,
            reference=why_changed,
            hints=(
                "In one order: start from the factors before, and put the new values in one by one. What each step does "
                "to the product is that factor's part in this order.",
                "`permutations(range(len(before)))` gives all orders; add up the parts of each.",
                "Divide by the number of orders at the end. Fractions keep it exact.",
            ),
            wrong=(_one_after_another, _each_alone),
        ),
        Exercise(
            id="13.3",
            title="Is the budget burning?",
            minutes=6,
            difficulty=2,
            answer="burns",
            check=_check_burns,
            reference=burns,
            hints=(
                "The burn rate of a window: dollars a second in it, by the dollars a second that the budget allows.",
                "A window ends at `at`, which belongs to it, and begins `window_s` before, which does not.",
                "Both rates must be above the factor.",
            ),
            wrong=(_long_window_only, _either_window),
        ),
        Exercise(
            id="13.4",
            title="A purse that sixty callers cannot overdraw",
            minutes=9,
            difficulty=3,
            answer="within",
            check=_check_within,
            reference=within,
            hints=(
                "Between the check and `purse.held += most` there must be no `await`: then nobody can come between.",
                "What is spent and what is held both count against the limit. What fits exactly may pass.",
                "A `finally` runs on every way out. Begin with `cost = most`, and make it less where you know better.",
            ),
            wrong=(_charges_after, _leaks, _failures_are_free),
        ),
        BUILD,
    ),
)
