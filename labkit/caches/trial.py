"""A trial of a cache on labelled traffic: its answers, how many of them are wrong, and what everything costs.

The stack under trial is the real one, on the virtual clock. Only the engine is replaced, by a *desk* that knows every right
answer. So wrong answers can be counted, and a week takes seconds. Answers are priced from their tokens, and the cache from
its look-ups and its storage; you say what a wrong answer costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from labkit.caches import streams
from labkit.extras import extra
from labkit.request import Chunk, Done, Event, Handler, InvalidValue, Request, Timing, Usage, clock, complete

if TYPE_CHECKING:
    import pandas as pd

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """A request at a time (seconds from the start), with the one answer that is right then and the tokens it would take."""

    at: float
    request: Request
    answer: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was given.

    `at`: when, in seconds from the start. `layer`: which layer gave it ("engine" if no cache did). `right`: whether it was
    right. `usage`: the tokens that were used.
    """

    at: float
    layer: str
    right: bool
    usage: Usage


def try_out(
    asked: Sequence[Labelled], build: Callable[[Handler], Handler], *, epoch: float = 0.0, answer_s: float = 0.5
) -> list[Given]:
    """Send every request at its time to the stack that `build` puts around the desk; one `Given` each, in the same order.

    The desk gives the answer that is right at that time, `answer_s` seconds after it is asked. `epoch` is the virtual
    clock's start, in seconds since 1970. A request is sent after the answer to the one before it. Raises `InvalidValue` if
    times go backwards, and whatever the stack raises.
    """
    for before, after in pairwise(asked):
        if after.at < before.at:
            raise InvalidValue(f"a request at {after.at} s comes after one at {before.at} s; sort them by time")
    current = asked[0] if asked else None  # one request at a time, so the desk knows which one it answers

    async def desk(request: Request) -> AsyncGenerator[Event, None]:
        known = current
        assert known is not None
        sent, unix = clock.now(), clock.unix_now()
        await asyncio.sleep(answer_s)
        yield Chunk(known.answer, clock.now(), known.usage.output_tokens, usage=known.usage)
        yield Done(known.usage, Timing(sent, clock.now(), clock.now(), clock.now(), unix), model=request.model)

    stack = build(desk)

    async def one(item: Labelled) -> Given:
        nonlocal current
        current = item
        found = await complete(stack, item.request)
        layer = streams.layer_of(found.done.route) or "engine"
        return Given(item.at, layer, found.text == item.answer, found.done.usage)

    async def main() -> list[Given]:
        given = []
        for item in asked:
            await asyncio.sleep(max(0.0, item.at - clock.now()))
            given.append(await one(item))
        return given

    return clock.run_virtual(main(), epoch)


@dataclass(frozen=True, slots=True)
class Overheads:
    """What a cache costs besides the engine, in USD.

    `look_usd`: for each look-up (embedding and search). `storage_usd`: for each day. `wrong_usd`: for each wrong answer that
    was given. Raises `InvalidValue` for an amount below 0.
    """

    look_usd: float = 0.0
    storage_usd: float = 0.0
    wrong_usd: float = 0.0

    def __post_init__(self) -> None:
        for name in ("look_usd", "storage_usd", "wrong_usd"):
            if not getattr(self, name) >= 0:
                raise InvalidValue(f"{name} is {getattr(self, name)}; use USD from 0")


def daily_bill(
    given: Iterable[Given], asked: Sequence[Labelled], price: Callable[[Usage], Decimal], overheads: Overheads
) -> pd.DataFrame:
    """One row for each day with requests: `requests`, `hits`, `wrong`, and amounts in USD.

    `without`: the cost without any cache. `engine`, `looking`, `storage` and `wrong_usd`: the costs with the cache. `net` =
    `without` minus these four. `looking` counts a look-up for each answer of the semantic cache, and for each answer of the
    engine, since the cache was searched before the engine was asked.
    """
    with extra("analysis"):
        import pandas as pd  # takes a third of a second

    days: dict[int, dict[str, float]] = {}
    for answer, item in zip(given, asked, strict=True):
        day = days.setdefault(int(item.at // DAY) + 1, dict.fromkeys(_COLUMNS, 0.0))
        day["requests"] += 1
        day["hits"] += answer.layer != "engine"
        day["wrong"] += not answer.right
        day["without"] += float(price(item.usage))
        day["engine"] += float(price(answer.usage))
        day["looking"] += overheads.look_usd * (answer.layer in ("semantic", "engine"))
        day["wrong_usd"] += overheads.wrong_usd * (not answer.right)
    for day in days.values():
        day["storage"] = overheads.storage_usd
        day["net"] = day["without"] - day["engine"] - day["looking"] - day["storage"] - day["wrong_usd"]
    return pd.DataFrame.from_dict(days, orient="index").rename_axis("day")


_COLUMNS = ("requests", "hits", "wrong", "without", "engine", "looking", "storage", "wrong_usd", "net")


def summary(bills: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The bills side by side, one row for each.

    Columns: the hit rate, the wrong answers per hit, the amounts in USD over all days, and the net saving as a share of
    `without`.
    """
    import pandas as pd

    rows = {}
    for name, bill in bills.items():
        total = bill.sum()
        rows[name] = {
            "hit rate": total.hits / total.requests,
            "wrong per hit": total.wrong / total.hits if total.hits else 0.0,
            **{column: total[column] for column in _COLUMNS[3:]},
            "net saving": total.net / total.without,
        }
    return pd.DataFrame.from_dict(rows, orient="index")
