"""The long build of chapter 01: a bill engine, from the ledger's rows to exact money by feature, workflow and token."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from labkit.cost import TOKEN_KINDS, Price, Rates, price_request
from labkit.ledger import Row
from labkit.request import Usage
from labkit.workbook.exercise import Exercise, Outcome, Stage, call, equals, holds

Engines = Callable[..., Any]
Line = dict[str, Any]


@dataclass(frozen=True)
class BillEngine:
    """Prices ledger rows, one attempt each, and adds them up, exactly."""

    prices: Mapping[str, Price]
    batched: Collection[str] = frozenset()

    def cost(self, row: Row) -> dict[str, Decimal] | None:
        """Dollars of one attempt by kind of token; None where nobody can know them."""
        price = self.prices.get(row.response_model or row.request_model)
        usage = row.usage
        if price is None or usage is None or row.input_tokens is None or row.output_tokens is None:
            return None
        if price.day:
            if row.started_unix is None:
                return None
            price = price.at(datetime.fromtimestamp(row.started_unix, UTC))
        batch = row.feature in self.batched
        rates, tiers = (price.batch, price.batch_tiers) if batch else (price.rates, price.tiers)
        if rates is None:
            return None
        for start, above in tiers:
            if row.input_tokens > start:
                rates = above
        return {kind: n * rates.of(kind) / 1_000_000 for kind, n in usage.by_kind().items()}

    def bill(self, rows: Sequence[Row], by: str) -> dict[str, dict[str, Any]]:
        """A line for each value of the rows' attribute `by`: attempts, unpriced, wasted, and dollars by kind of token."""
        served: dict[tuple[str, str], int] = {}
        for row in rows:
            if row.outcome == "completed" and row.idempotency_key and not row.shadow:
                request = (row.tenant, row.idempotency_key)
                served[request] = max(served.get(request, row.attempt), row.attempt)
        lines: dict[str, dict[str, Any]] = {}
        for row in rows:
            line = lines.setdefault(
                getattr(row, by),
                {"attempts": 0, "unpriced": 0, "wasted": Decimal(0), **dict.fromkeys(TOKEN_KINDS, Decimal(0))},
            )
            line["attempts"] += 1
            cost = self.cost(row)
            if cost is None:
                line["unpriced"] += 1
                continue
            for kind, usd in cost.items():
                line[kind] += usd
            latest = served.get((row.tenant, row.idempotency_key), row.attempt)
            if row.shadow or row.outcome != "completed" or row.attempt < latest:
                line["wasted"] += sum(cost.values())
        return lines


def _rates(rng: random.Random, reasoning: bool = False) -> Rates:
    amounts = [Decimal(rng.randrange(1, 4000)) / 1000 for _ in range(5)]
    return Rates(amounts[0], amounts[1], amounts[2], amounts[3], amounts[4] if reasoning else None)


def _price(rng: random.Random, model: str = "m", **more: Any) -> Price:
    return Price(model, "p", more.pop("rates", None) or _rates(rng), "drawn", "today", **more)


def _usage(rng: random.Random, most: int = 5000) -> Usage:
    cached, write, hidden = (rng.randrange(1, most // 4) for _ in range(3))
    return Usage(cached + write + rng.randrange(1, most // 2), hidden + rng.randrange(1, most), cached, write, hidden)


def _row(usage: Usage | None, model: str = "m", **more: Any) -> Row:
    """A row with that usage (None: its counts are unknown), answered by `model`."""
    counts: dict[str, Any] = {}
    if usage is not None:
        counts = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "usage_source": "reported",
        }
    return Row(**{"provider": "p", "response_model": model, **counts, **more})


def _by_kind(usage: Usage, price: Price, batch: bool = False) -> dict[str, Decimal]:
    """What the lab's own pricing says."""
    cost = price_request(usage, price, batch)
    return {kind: getattr(cost, kind) for kind in TOKEN_KINDS}


def _costs(engine: Any, row: Row, expected: dict[str, Decimal] | None, given: str, why: str = "") -> Iterator[Outcome]:
    """Whether `engine.cost(row)` is exactly `expected`, and money is Decimal."""
    found = call(engine.cost, row)
    exact = found == expected and (found is None or all(isinstance(usd, Decimal) for usd in found.values()))
    if isinstance(found, dict) and any(isinstance(usd, float) for usd in found.values()):
        why = "A float is not exact money. Tokens are whole numbers and rates are Decimal: so is their product."
    yield holds("cost(row), to the last digit", exact, given=given, expected=expected, actual=found, why=why)


def _one(answer: Engines, rng: random.Random) -> Iterator[Outcome]:
    for reasoning in (False, True):
        for _ in range(4):
            price, usage = _price(rng, rates=_rates(rng, reasoning)), _usage(rng)
            engine = call(answer, {"m": price, "other": _price(rng)})
            why = (
                "This list has a price of its own for reasoning: `rates.of(kind)` knows."
                if reasoning
                else "The five kinds are disjoint (`usage.by_kind()`); reasoning is billed as output here."
            )
            yield from _costs(engine, _row(usage), _by_kind(usage, price), f"{usage} at {price.rates}", why)
    small, large = _price(rng, "small"), _price(rng, "large")
    engine = call(answer, {"small": small, "large": large})
    usage = _usage(rng)
    asked = {"request_model": "small"}
    why = "The model that answered is billed; where the row does not name it, the one that was asked for."
    yield from _costs(engine, _row(usage, "large", **asked), _by_kind(usage, large), "asked small, answered large", why)
    given = "asked small, the answer names no model"
    yield from _costs(engine, _row(usage, **asked, response_model=None), _by_kind(usage, small), given, why)
    yield from _costs(engine, _row(Usage(0, 0), "small"), dict.fromkeys(TOKEN_KINDS, Decimal(0)), "no tokens at all")


def _tiers(answer: Engines, rng: random.Random) -> Iterator[Outcome]:
    price = _price(
        rng,
        tiers=((1000, _rates(rng)), (3000, _rates(rng))),
        batch=_rates(rng),
        batch_tiers=((2000, _rates(rng)),),
    )
    engine = call(answer, {"m": price}, {"night"})
    for tokens in (1, 1000, 1001, 2000, 2001, 3000, 3001, 9000):
        usage = Usage(tokens, 7, cached_tokens=tokens // 2)
        given = f"{tokens} input tokens; tiers start above 1,000 and 3,000, for batch above 2,000"
        why = "Exactly at a tier's start is still below it; above, *all* tokens of the request move, cached ones counted in."
        yield from _costs(engine, _row(usage, feature="chat"), _by_kind(usage, price), given, why)
        why = "A feature in `batched` pays the batch rates, with their own tiers."
        yield from _costs(engine, _row(usage, feature="night"), _by_kind(usage, price, True), f"in a batch: {given}", why)
    plain = call(answer, {"m": price})
    usage = Usage(1500, 7)
    yield from _costs(plain, _row(usage, feature="night"), _by_kind(usage, price), "an engine without batched features")


def _hours(answer: Engines, rng: random.Random) -> Iterator[Outcome]:
    parts = [
        (time(0), _price(rng)),
        (time(8, 30), _price(rng, tiers=((1000, _rates(rng)),))),
        (time(20), _price(rng)),
    ]
    price = replace(parts[0][1], day=tuple(parts))
    engine = call(answer, {"m": price})
    for hour, minute, part in ((0, 0, 0), (8, 29, 0), (8, 30, 1), (19, 59, 1), (20, 0, 2), (23, 59, 2)):
        at = datetime(2026, rng.randrange(1, 13), rng.randrange(1, 28), hour, minute, tzinfo=UTC)
        usage = _usage(rng)
        given = f"an attempt at {hour}:{minute:02} UTC; prices change at 0:00, 8:30 and 20:00"
        right = _by_kind(usage, parts[part][1])
        why = "`price.at(datetime.fromtimestamp(row.started_unix, UTC))` is the price at that hour."
        yield from _costs(engine, _row(usage, started_unix=at.timestamp()), right, given, why)
    flat = _price(rng)
    usage = _usage(rng)
    given = "an attempt of unknown hour, at a price that does not depend on it"
    yield from _costs(call(answer, {"m": flat}), _row(usage), _by_kind(usage, flat), given)


def _unknown(answer: Engines, rng: random.Random) -> Iterator[Outcome]:
    flat = _price(rng)
    day = replace(flat, day=((time(0), flat), (time(12), _price(rng))))
    engine = call(answer, {"m": flat, "day": day}, {"night"})
    usage = _usage(rng)
    why = "Nobody knows this cost, and 0 would be a lie that no total ever shows: return None."
    for given, row in (
        ("a model without a price", _row(usage, "x")),
        ("a stream that was cut: its input is unknown", _row(None, output_tokens=5, usage_source="counted")),
        ("an attempt whose output is unknown", _row(None, input_tokens=5)),
        ("a feature in `batched`, and a list without batch prices", _row(usage, feature="night")),
        ("a price that depends on the hour, and an unknown hour", _row(usage, "day")),
    ):
        yield from _costs(engine, row, None, given, why)


_FEATURES = ("intent", "extract", "policy", "night")


def _drawn(rng: random.Random, n: int = 60) -> list[Row]:
    """Rows of a few workflows: retries, shadows, failures, unknown models, some without a key."""
    return [
        _row(
            _usage(rng) if rng.random() < 0.9 else None,
            rng.choice(["m", "m", "large", "unlisted"]),
            feature=rng.choice(_FEATURES),
            workflow=f"case-{rng.randrange(6)}",
            tenant=rng.choice(["a", "b"]),
            idempotency_key=rng.choice(["", "k1", "k2", "k3", "k4", "k5"]),
            attempt=rng.randrange(1, 4),
            outcome=rng.choice(["completed", "completed", "completed", "failed", "cancelled"]),
            shadow=rng.random() < 0.2,
        )
        for _ in range(n)
    ]


def _served_nobody(row: Row, rows: Sequence[Row]) -> bool:
    """By comparing each row with each."""
    return (
        row.shadow
        or row.outcome != "completed"
        or any(
            later.idempotency_key == row.idempotency_key != ""
            and later.tenant == row.tenant
            and later.attempt > row.attempt
            and later.outcome == "completed"
            and not later.shadow
            for later in rows
        )
    )


def _expected(rows: Sequence[Row], prices: Mapping[str, Price], by: str) -> dict[str, Line]:
    """The bill, line by line, each from all rows."""
    lines: dict[str, Line] = {}
    for name in {getattr(row, by) for row in rows}:
        here = [row for row in rows if getattr(row, by) == name]
        known = [row for row in here if row.usage and row.response_model in prices]
        costs = [
            price_request(row.usage or Usage(), prices[row.response_model or ""], row.feature == "night") for row in known
        ]
        lines[name] = {
            "attempts": len(here),
            "unpriced": len(here) - len(known),
            "wasted": sum((c.total for c, r in zip(costs, known, strict=True) if _served_nobody(r, rows)), Decimal(0)),
            **{kind: sum((getattr(cost, kind) for cost in costs), Decimal(0)) for kind in TOKEN_KINDS},
        }
    return lines


def _bills(answer: Engines, rng: random.Random, keys: Sequence[str]) -> Iterator[Outcome]:
    """Whether these entries of the bill are right for drawn rows."""
    for by in ("feature", "workflow", "response_model", "tenant"):
        rows = _drawn(rng)
        prices = {model: _price(rng, model, batch=_rates(rng)) for model in ("m", "large")}
        found = call(call(answer, prices, {"night"}).bill, rows, by)
        right = _expected(rows, prices, by)
        given = f"{len(rows)} drawn rows, by {by}"
        if not isinstance(found, dict):
            yield holds("the bill is a dict of lines", False, given=given, expected=dict, actual=found)
            return
        yield equals(f"the lines of the bill, given {given}", set(found), set(right))
        for name, line in right.items():
            for key in keys:
                yield holds(
                    f"line {name!r}, {key}, to the last digit",
                    found[name].get(key) == line[key],
                    given=given,
                    expected=line[key],
                    actual=found[name].get(key),
                    why=_WHY.get(key, ""),
                )


_WHY = {
    "attempts": "Every row is an attempt that somebody may have to pay for: retries and shadows, too.",
    "unpriced": "Count the attempts that you could not price: with any of them, the line is a lower bound.",
    "wasted": "Shadows; what failed or was cancelled; what a later completed attempt at the same request replaced.",
}


def _lines(answer: Engines, rng: random.Random) -> Iterator[Outcome]:
    yield from _bills(answer, rng, ("attempts", "unpriced", *TOKEN_KINDS))
    cents = replace(_price(rng), rates=Rates(*[Decimal("0.1")] * 4))
    rows = [_row(Usage(1, 2), feature="chat") for _ in range(1000)]
    found = call(call(answer, {"m": cents}).bill, rows, "feature")["chat"]
    total = sum((found[kind] for kind in TOKEN_KINDS), Decimal(0))
    yield holds(
        "a thousand times three ten-millionths of a dollar",
        total == Decimal("0.0003"),
        given="1,000 rows of 1 token in and 2 out, at 0.1 dollars a million",
        expected=Decimal("0.0003"),
        actual=total,
        why="Round nothing on the way; whoever prints the bill rounds it once.",
    )
    yield equals("the bill of no rows", call(call(answer, {"m": cents}).bill, [], "feature"), {})


def _waste(answer: Engines, rng: random.Random) -> Iterator[Outcome]:
    price = _price(rng)
    engine = call(answer, {"m": price})
    usage = Usage(1000, 500)
    once = price_request(usage, price).total

    def rows(*changes: dict[str, Any]) -> list[Row]:
        return [_row(usage, **{"feature": "f", "tenant": "t", "idempotency_key": "k", **change}) for change in changes]

    cases = (
        ("one attempt", rows({}), 0),
        ("a shadow", rows({"shadow": True}), 1),
        ("a failed attempt, and the retry that delivered", rows({"outcome": "failed"}, {"attempt": 2}), 1),
        ("two completed attempts: the first answer was not good enough", rows({}, {"attempt": 2}), 1),
        ("the same, the later one first in the ledger", rows({"attempt": 2}, {}), 1),
        ("three completed attempts", rows({"attempt": 2}, {"attempt": 3}, {}), 2),
        ("a retry that failed: the first answer stands", rows({}, {"attempt": 2, "outcome": "failed"}), 1),
        ("a shadow is no retry", rows({}, {"attempt": 2, "shadow": True}), 1),
        ("two tenants, each with a key of the same name", rows({}, {"attempt": 2, "tenant": "u"}), 0),
        ("no key: nobody knows which belong together", rows(*({"attempt": n, "idempotency_key": ""} for n in (1, 2))), 0),
        ("a reader who left", rows({"outcome": "cancelled"}), 1),
        ("an attempt of another feature delivered", rows({}, {"attempt": 2, "feature": "g"}), 1),
    )
    for given, some, times in cases:
        found = call(engine.bill, some, "feature")["f"].get("wasted")
        yield holds(
            "wasted, to the last digit",
            found == times * once,
            given=given,
            expected=times * once,
            actual=found,
            why=_WHY["wasted"],
        )
    yield from _bills(answer, rng, ("wasted",))


class _Floats(BillEngine):
    """Near miss: money in floats."""

    def cost(self, row: Row) -> dict[str, Decimal] | None:
        found = super().cost(row)
        return found and {kind: float(usd) for kind, usd in found.items()}  # type: ignore[misc]


class _Zero(BillEngine):
    """Near miss: what is unknown costs nothing."""

    def cost(self, row: Row) -> dict[str, Decimal] | None:
        return super().cost(row) or dict.fromkeys(TOKEN_KINDS, Decimal(0))


class _Inclusive(BillEngine):
    """Near miss: cached tokens are billed twice, once as input."""

    def cost(self, row: Row) -> dict[str, Decimal] | None:
        found = super().cost(row)
        price = self.prices.get(row.response_model or "")
        if found and price and row.usage:
            found["fresh_input"] = row.usage.input_tokens * price.rates.fresh_input / 1_000_000
        return found


class _Retries(BillEngine):
    """Near miss: every attempt after the first is waste, and the first is not."""

    def bill(self, rows: Sequence[Row], by: str) -> dict[str, dict[str, Any]]:
        lines = super().bill(rows, by)
        for name, line in lines.items():
            again = [self.cost(r) for r in rows if getattr(r, by) == name and (r.attempt > 1 or r.shadow)]
            line["wasted"] = sum((sum(c.values()) for c in again if c), Decimal(0))
        return lines


class _Rounded(BillEngine):
    """Near miss: each line is rounded to a hundredth of a cent."""

    def bill(self, rows: Sequence[Row], by: str) -> dict[str, dict[str, Any]]:
        return {
            name: {key: round(v, 4) if isinstance(v, Decimal) else v for key, v in line.items()}
            for name, line in super().bill(rows, by).items()
        }


BUILD = Exercise(
    id="01.5",
    title="Build: a bill engine that is right to the last digit",
    minutes=40,
    difficulty=3,
    answer="BillEngine",
    stages=(
        Stage("one attempt, kind by kind", _one),
        Stage("context tiers and batches", _tiers),
        Stage("prices that depend on the hour", _hours),
        Stage("what nobody can know", _unknown),
        Stage("the bill by any attribute", _lines),
        Stage("what was paid for nothing", _waste),
    ),
    reference=BillEngine,
    hints=(
        "`row.usage.by_kind()` gives the tokens of five disjoint kinds, `rates.of(kind)` dollars per million of each. Which "
        "rates? Those of the model that answered, from `self.prices`.",
        "Start with `price.rates` and `price.tiers` (or `price.batch` and `price.batch_tiers`), and go through the tiers in "
        "order: each whose start is below the request's input tokens replaces the rates, for all of its tokens.",
        "Ask what has to be known before you compute: a price, the counts in and out, the hour if the price has a `day`, a "
        "batch price if the feature is batched. Where one is missing: None, and the line counts it in 'unpriced'.",
        "For the waste, go over the rows twice: first note, for each (tenant, key), the latest attempt that completed and "
        "was no shadow. A row with a smaller number than that was replaced.",
    ),
    wrong=(_Floats, _Zero, _Inclusive, _Retries, _Rounded),
    equivalent={
        "line 12: None or usage is None or row.input_tokens is None or (row.output_tokens is None) -> "
        "None or row.input_tokens is None or row.output_tokens is None": "a row with both counts has a usage",
    },
)
