"""What a dashboard of spending shows: today beside yesterday, and who and what it went to.

Yesterday is shown up to the same time of day, so that a morning is not held against a whole day; days are UTC, as in the
ledger. Money is added up exactly, within one currency. A request counts where its first attempt stands, and as solved where
its first whole answer stands; so every number is a sum over attempts, and the parts of a split add up to the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

from labkit.request import InvalidValue, Usage
from labkit.spending.mirror import SPLITS, Mirror

DAY_S = 86_400
HOUR_S = 3_600
REASONS = ("failed", "cancelled", "shadow", "superseded")
"""Why an attempt was paid for and served nobody (see `labkit.ledger.waste`)."""
_SHOWN = 8
_USAGE = ("read", "out", "cached", "written", "reasoning")
_SUMS = (
    "count(*)", "count(cost)", "sum(opens::BIGINT)", "sum(solves::BIGINT)", "sum(served::BIGINT)",
    *(f"sum({name})" for name in (*_USAGE, "told")), "sum(cost)",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over attempts of one currency.

    `cost` is what is known to have been paid: a lower bound where `unpriced` attempts are among them, whose cost nobody
    knows. `solved`: requests that got a whole answer, which the ledger cannot tell from a right one. `served`: attempts that
    a cache of ours answered. `told`: input tokens of the attempts that say how many of them the provider had cached.
    """

    attempts: int = 0
    unpriced: int = 0
    requests: int = 0
    solved: int = 0
    served: int = 0
    usage: Usage = field(default_factory=Usage)
    told: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: Sums) -> Sums:
        with localcontext(prec=60, rounding=ROUND_HALF_EVEN):
            return Sums(
                self.attempts + other.attempts,
                self.unpriced + other.unpriced,
                self.requests + other.requests,
                self.solved + other.solved,
                self.served + other.served,
                self.usage + other.usage,
                self.told + other.told,
                self.cost + other.cost,
            )

    @property
    def priced(self) -> int:
        """The attempts whose cost is known."""
        return self.attempts - self.unpriced

    @property
    def known_cost(self) -> Decimal | None:
        """`cost`; None where nobody priced any of the attempts there are."""
        return None if self.attempts and not self.priced else self.cost

    @property
    def per_solved(self) -> Decimal | None:
        """What was paid for each solved request, failed tries and all; None without solved requests or known cost."""
        with localcontext(prec=60):
            return None if not self.solved or self.known_cost is None else self.cost / self.solved

    @property
    def cached_share(self) -> float | None:
        """The share of input tokens that the provider had cached; None where no attempt says so."""
        return self.usage.cached_tokens / self.told if self.told else None

    @property
    def served_share(self) -> float | None:
        """The share of attempts that a cache of ours answered; None without attempts."""
        return self.served / self.attempts if self.attempts else None

    @property
    def attempts_per_request(self) -> float | None:
        """Attempts for each request; None without requests."""
        return self.attempts / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Period:
    """One of the two periods of a board: all its attempts, those made again (`retried`), and those for nothing by reason."""

    all: Sums = field(default_factory=Sums)
    retried: Sums = field(default_factory=Sums)
    wasted: Mapping[str, Sums] = field(default_factory=dict)

    @property
    def for_nothing(self) -> Sums:
        """All attempts that were paid for and served nobody."""
        return sum(self.wasted.values(), Sums())


@dataclass(frozen=True, slots=True)
class SpentBy:
    """One value of the dimension that is split by: its totals, and what it had cost in the period before."""

    name: str
    now: Sums
    cost_before: Decimal


@dataclass(frozen=True, slots=True)
class Costly:
    """One request by what its attempts cost in the period: `number` is that of its first attempt in the ledger.

    `started` is when its first attempt in the period began, in seconds since 1970, and `model` that of its last.
    """

    number: int
    started: float
    model: str
    attempts: int
    unpriced: int
    cost: Decimal
    answered: bool


@dataclass(frozen=True, slots=True)
class DayView:
    """What is asked of a board: the day of `until` (seconds since 1970, UTC) up to it, and the day before to the same time.

    `by` is the dimension to split by, `only` keeps attempts with these values of dimensions, `currency` is the one to add up
    ("" for the one of most attempts). Raises `InvalidValue` for an unknown dimension or a time that is none.
    """

    until: float
    by: str = "organisation"
    only: Mapping[str, str] = field(default_factory=dict)
    currency: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.until) or not 0 <= self.until < 253_402_300_800:
            raise InvalidValue(f"until is {self.until}; give seconds since 1970, as time.time() does")
        for name in (self.by, *self.only):
            if name not in SPLITS:
                raise InvalidValue(f"a dashboard cannot be split by {name!r}; use {', '.join(SPLITS)}")

    @property
    def since(self) -> float:
        """The midnight at which the day began; a day that ends at midnight is the one before it."""
        return math.ceil(self.until / DAY_S - 1) * DAY_S if self.until else -DAY_S

    @property
    def day(self) -> str:
        """The date, such as 2026-11-30."""
        return datetime.fromtimestamp(max(self.since, 0), UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Board:
    """The answer to a `DayView`.

    `before` is the day before up to the same time, `whole_before` all of it. `hours` has the totals of each hour from the
    midnight at which the day before began, by its number: 0 to 23 are that day's, 24 to 47 this day's. `top` are the
    costliest values of the dimension and `others` the rest of the `values` that both days have. `currencies` counts the
    attempts of both days by currency. `undated` attempts have no time and stand in no period, `later` ones start after the
    period, and `last`, where neither day has attempts, is when the last one before them started (None without one).
    """

    view: DayView
    currency: str
    now: Period
    before: Period
    whole_before: Sums
    hours: Mapping[int, Sums]
    top: tuple[SpentBy, ...]
    others: SpentBy | None
    values: int
    requests: tuple[Costly, ...]
    currencies: Mapping[str, int]
    attempts: int
    undated: int
    later: int
    last: float | None


def board(mirror: Mirror, view: DayView, *, shown: int = _SHOWN) -> Board:
    """What `view` asks of the attempts that `mirror` has read, with `shown` spenders and requests.

    Raises `LedgerError` for amounts too large to add up.
    """
    where, values = _where(view)
    cells = _cells(mirror, view, where, values)
    currencies: Counter[str] = Counter()
    for cell in cells:
        currencies[cell.currency] += cell.totals.attempts
    currency = view.currency or max(sorted(currencies), key=lambda name: currencies[name], default="USD")
    chosen = [cell for cell in cells if cell.currency == currency]
    now = _period([cell for cell in chosen if cell.now])
    before = _period([cell for cell in chosen if cell.before])
    hours: dict[int, Sums] = {}
    for cell in chosen:
        hours[cell.hour] = hours.get(cell.hour, Sums()) + cell.totals
    within, bounds = f"{where} AND currency = ?", [*values, currency]
    top, groups = _top(mirror, view, within, bounds, shown)
    others = None
    if groups > len(top):
        others = _others(now.all, before.all, top)
    # Three questions, since each alone is answered from DuckDB's notes on its blocks, without a look into most of them.
    undated, later = (
        mirror.select(f"SELECT count(*) FROM attempts WHERE {condition}")[0][0]
        for condition in ("started IS NULL", f"NOT {_before(view.until)}")
    )
    last = mirror.select(f"SELECT max(started) FROM attempts WHERE {_before(view.until)}")[0][0] if not cells else None
    return Board(
        view, currency, now, before,
        sum((cell.totals for cell in chosen if not cell.now), Sums()),
        hours, tuple(top), others, groups, _costly(mirror, view, within, bounds, shown),
        dict(currencies), mirror.attempts, undated, later, last,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cell:
    """The attempts of one hour that are alike in what a board tells apart."""

    now: bool
    before: bool
    hour: int
    waste: str | None
    retried: bool
    currency: str
    totals: Sums


def _where(view: DayView) -> tuple[str, list[object]]:
    """Both days as a condition, with the values of its marks."""
    chosen = "".join(f' AND "{name}" = ?' for name in view.only)
    return f"{_from(view.since - DAY_S)} AND {_before(view.until)}{chosen}", [*view.only.values()]


# Times are written out and are no `?` marks: DuckDB then compares faster.
def _from(time_s: float) -> str:
    return f"started >= {time_s!r}::DOUBLE"


def _before(time_s: float) -> str:
    return f"started < {time_s!r}::DOUBLE"


def _cells(mirror: Mirror, view: DayView, where: str, values: Sequence[object]) -> list[_Cell]:
    start = f"{view.since - DAY_S!r}::DOUBLE"
    rows = mirror.select(
        f"SELECT {_from(view.since)} AS now, {_before(view.until - DAY_S)} AS before, "
        f"floor((started - {start}) / {HOUR_S})::INTEGER AS hour, waste, attempt > 1 AS retried, currency, "
        f"{', '.join(_SUMS)} FROM attempts WHERE {where} GROUP BY ALL",
        values,
    )
    return [
        _Cell(now, before, hour, waste, again, money, _totals(sums))
        for now, before, hour, waste, again, money, *sums in rows
    ]


def _totals(sums: Sequence[Any]) -> Sums:
    """`Sums` from a row of `_SUMS`, whose sums are None where there is nothing to add."""
    attempts, priced, requests, solved, served, *tokens, told, cost = sums
    usage = Usage(*(int(count or 0) for count in tokens))
    return Sums(
        attempts, attempts - priced, int(requests or 0), int(solved or 0), int(served or 0), usage, int(told or 0),
        Decimal(cost or 0),
    )  # fmt: skip


def _period(cells: Sequence[_Cell]) -> Period:
    wasted = {reason: [cell.totals for cell in cells if cell.waste == reason] for reason in REASONS}
    return Period(
        sum((cell.totals for cell in cells), Sums()),
        sum((cell.totals for cell in cells if cell.retried), Sums()),
        {reason: sum(found, Sums()) for reason, found in wasted.items() if found},
    )


def _top(mirror: Mirror, view: DayView, where: str, values: Sequence[object], shown: int) -> tuple[list[SpentBy], int]:
    """The costliest values of the dimension, and how many values there are; what was costly yesterday breaks a tie.

    Two steps, since it costs much less to rank thousands of users by one sum than to add up all sums of each.
    """
    ranked = mirror.select(
        f'SELECT "{view.by}" AS name, count(*) OVER (), sum(cost) FILTER ({_from(view.since)}) AS paid, '
        f"sum(cost) FILTER ({_before(view.until - DAY_S)}) AS had FROM attempts WHERE {where} GROUP BY name "
        f"ORDER BY paid DESC NULLS LAST, count(*) FILTER ({_from(view.since)}) DESC, had DESC NULLS LAST, name LIMIT ?",
        [*values, shown],
    )
    marks = ", ".join("?" * len(ranked)) or "NULL"
    sums = mirror.select(
        f'SELECT "{view.by}", {", ".join(_SUMS)} FROM attempts WHERE {where} AND started >= ? AND "{view.by}" IN ({marks}) '
        "GROUP BY ALL",
        [*values, view.since, *(row[0] for row in ranked)],
    )
    totals = {name: _totals(row) for name, *row in sums}
    found = [SpentBy(name, totals.get(name, Sums()), Decimal(had or 0)) for name, _, _, had in ranked]
    return found, ranked[0][1] if ranked else 0


def _others(now: Sums, before: Sums, top: Sequence[SpentBy]) -> SpentBy:
    """What is left of both periods when the top is taken away."""
    taken = sum((one.now for one in top), Sums())
    with localcontext(prec=60, rounding=ROUND_HALF_EVEN):
        left = Sums(
            now.attempts - taken.attempts,
            now.unpriced - taken.unpriced,
            now.requests - taken.requests,
            now.solved - taken.solved,
            now.served - taken.served,
            Usage(*(getattr(now.usage, name) - getattr(taken.usage, name) for name in Usage.__dataclass_fields__)),
            now.told - taken.told,
            now.cost - taken.cost,
        )
        had = before.cost - sum((one.cost_before for one in top), Decimal(0))
    return SpentBy("", left, had)


def _costly(mirror: Mirror, view: DayView, where: str, values: Sequence[object], shown: int) -> tuple[Costly, ...]:
    """The requests that cost most in the period.

    A request is either a single attempt, and then among the costliest attempts, or one of the few that were repeated. So
    these are all that are added up by request.
    """
    rows = mirror.select(
        f"""WITH chosen AS (SELECT n, request, started, model, waste, cost FROM attempts
          WHERE {where} AND {_from(view.since)}),
        costly AS (SELECT request FROM chosen ORDER BY cost DESC NULLS LAST, n LIMIT ?)
        SELECT request, min(started), arg_max(model, n), count(*), count(*) - count(cost), coalesce(sum(cost), 0),
          bool_or(waste IS NULL)
        FROM chosen WHERE request IN (SELECT request FROM costly UNION ALL SELECT request FROM repeated)
        GROUP BY request ORDER BY sum(cost) DESC NULLS LAST, request LIMIT ?""",
        [*values, shown, shown],
    )
    return tuple(Costly(*row) for row in rows)
