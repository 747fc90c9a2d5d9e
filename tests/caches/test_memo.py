"""Embedding, retrieval and tool-result caches: computed once, never across a border, never stale, never an error."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from labkit.caches import (
    CacheControl,
    CachedEmbedder,
    CachePolicy,
    Scope,
    SemanticCache,
    StaticThreshold,
    Store,
    accounts,
    cached_search,
    reading_tool,
    writing_tool,
)
from labkit.caches.memo import Memo, Passage
from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger
from labkit.request import InvalidRequest, InvalidValue, Message, Request, clock, complete, stack
from labkit.request.clock import run_virtual
from tests.caches.engine import numbered
from tests.caches.words import Words

A, B = Scope("a"), Scope("b")
STAFF = Scope("a", frozenset({"staff"}))


def test_an_embedding_is_computed_once_and_is_the_same_one(tmp_path: Path) -> None:
    with Store(tmp_path / "cache.db") as store:
        words = Words()
        cached = CachedEmbedder(words, store, A, now=lambda: 1e6)
        texts = ["red tent", "blue rope", "red tent"]
        np.testing.assert_array_equal(cached.encode(texts), Words().encode(texts))
        assert words.encoded == 2
        np.testing.assert_array_equal(cached.encode(["blue rope", "new map"]), Words().encode(["blue rope", "new map"]))
        assert words.encoded == 3
        assert cached.encode([]).shape == (0, 64)
        assert store.stats("embedding").hits == 1
        for other in (
            CachedEmbedder(words, store, B, now=lambda: 1e6),
            CachedEmbedder(Words("w2"), store, A, now=lambda: 1e6),
        ):
            other.encode(["red tent"])
        assert store.stats("embedding").hits == 1
        with pytest.raises(InvalidValue):
            cached.encode("red tent")


def test_a_search_is_repeated_for_another_corpus_permission_or_size_only() -> None:
    version, asked = ["1"], []

    async def search(scope: Scope, query: str, n: int) -> list[Passage]:
        asked.append((scope, query, n))
        return [Passage(f"p{i}", f"{query} {i} for {scope.tenant}", 1 / (i + 1)) for i in range(n)]

    async def main() -> None:
        find = cached_search(search, Store(), version=lambda: version[0])
        first = await find(A, "tents", 2)
        assert await find(A, "tents", 2) == first == await search(A, "tents", 2)
        for scope, n in ((A, 3), (B, 2), (STAFF, 2)):
            before = len(asked)
            await find(scope, "tents", n)
            assert len(asked) == before + 1
        version[0] = "2"
        before = len(asked)
        await find(A, "tents", 2)
        assert len(asked) == before + 1

    run_virtual(main(), 1e6)


def test_a_tool_that_writes_takes_out_what_it_made_stale_even_where_it_fails() -> None:
    store, stock, read = Store(), {"tent": 5}, []

    async def look(scope: Scope, arguments) -> int:
        read.append(arguments)
        await asyncio.sleep(1)
        return stock[arguments["item"]]

    async def sell(scope: Scope, arguments) -> str:
        await asyncio.sleep(1)
        stock[arguments["item"]] -= 1
        if arguments.get("fail"):
            raise ConnectionError("sold, but the line broke")
        return "sold"

    def tags(arguments) -> frozenset[str]:
        return frozenset({f"item {arguments['item']}"})

    looking = reading_tool(look, store, "stock", control=lambda arguments: CacheControl(ttl_s=60, tags=tags(arguments)))
    selling = writing_tool(sell, store, stale=tags)

    async def main() -> None:
        assert await looking(A, {"item": "tent", "shop": 1}) == 5
        assert await looking(A, {"shop": 1, "item": "tent"}) == 5  # the same arguments in another order
        assert len(read) == 1
        during = asyncio.create_task(looking(A, {"item": "tent"}))  # reads while the sale is under way
        assert await selling(A, {"item": "tent"}) == "sold"
        await during
        assert await looking(A, {"item": "tent"}) == 4
        with pytest.raises(ConnectionError):
            await selling(A, {"item": "tent", "fail": True})
        assert await looking(A, {"item": "tent", "shop": 1}) == 3
        await asyncio.sleep(61)
        before = len(read)
        await looking(A, {"item": "tent", "shop": 1})
        assert len(read) == before + 1

    run_virtual(main(), 1e6)


def test_one_computation_serves_all_who_wait_and_stops_when_the_last_has_left() -> None:
    begun, ended, cancelled = [], [], []

    async def compute() -> int:
        begun.append(clock.now())
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(clock.now())
            raise
        ended.append(clock.now())
        return 7

    async def main() -> None:
        memo = Memo(Store(), "tool", None)
        tasks = [asyncio.create_task(memo.result(A, "k", compute)) for _ in range(5)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [7] * 4
        assert (len(begun), len(ended)) == (1, 1)
        left = [asyncio.create_task(memo.result(A, "other", compute)) for _ in range(2)]
        await asyncio.sleep(1)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)
        assert len(cancelled) == 1

    run_virtual(main(), 1e6)


def test_errors_and_what_is_no_json_are_not_kept() -> None:
    tries = []

    async def failing() -> int:
        tries.append(1)
        raise ConnectionError("down")

    async def set_of() -> object:
        return {1, 2}

    async def main() -> None:
        store = Store()
        memo = Memo(store, "tool", None)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await memo.result(A, "k", failing)
        assert len(tries) == 2
        with pytest.raises(InvalidValue, match="no JSON"):
            await memo.result(A, "k", set_of)

        async def tool(scope, arguments):
            return 1

        with pytest.raises(InvalidRequest, match="arguments"):
            await reading_tool(tool, store, "t", control=lambda _: CacheControl())(A, {"x": {1}})
        assert len(store) == 0
        assert await memo.result(A, "n", lambda: tool(A, {}), CacheControl(no_store=True)) == 1
        assert store.stats("tool").refused == {"no-store": 1}

    run_virtual(main(), 1e6)


def test_layers_are_asked_in_order_and_each_keeps_its_accounts(tmp_path: Path) -> None:
    engine, store = numbered(gap_s=0.01), Store()
    semantic = SemanticCache(store, Words(), StaticThreshold(0.99), verify=0)
    ask = Request("may I return boots", model="small")
    same = Request("May I return boots", model="small")
    boots = Request("may i return BOOTS", model="small")
    with Ledger(tmp_path / "ledger.db") as ledger:
        handler = stack(Booked(ledger, {"*": self_defined("any", "25000", "0")}), semantic, engine=engine)

        async def main() -> list[tuple[str, ...]]:
            await asyncio.gather(*(complete(handler, ask) for _ in range(3)))
            return [(await complete(handler, request)).done.route for request in (ask, same, boots)]

        assert run_virtual(main(), 1e6) == [("response-cache",), ("semantic-cache",), ("semantic-cache",)]
        assert len(engine.asked) == 1
        found = accounts(store, ledger)
        assert found.loc["response", ["looked_up", "hits", "answers", "saved"]].tolist() == [6, 1, 1, Decimal("0.25")]
        assert found.loc["semantic", ["looked_up", "hits", "answers", "saved"]].tolist() == [3, 2, 2, Decimal("0.50")]
        assert found.loc["single flight", "answers"] == 2
        assert found.loc["response", "why_not"] == "absent 5"
        assert accounts(store).columns.tolist()[-1] == "gone"


def test_one_invalidation_reaches_every_layer_and_can_be_tried_dry_first() -> None:
    store = Store()
    control = CacheControl(tags={"prices"})
    handler = SemanticCache(store, Words(), StaticThreshold(0.99), policy=CachePolicy(control))(numbered(gap_s=0.01))

    async def tool(scope: Scope, arguments) -> int:
        return 5

    async def main() -> None:
        await complete(handler, Request((Message("user", "what is the price"),), tenant="a"))
        await reading_tool(tool, store, "price", control=lambda _: control)(A, {})
        dry = store.delete(tag="prices")
        assert {layer for layer, _, _ in dry.entries} == {"response", "semantic", "tool"}
        assert len(store) == 3
        assert store.delete(tag="prices", dry_run=False).entries == dry.entries
        assert len(store) == 0

    run_virtual(main(), 1e6)
