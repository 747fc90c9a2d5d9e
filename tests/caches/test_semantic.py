"""The semantic cache on a known embedder and a scripted engine; with the real embedder where words matter."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from benchmarks import semantic_cache
from labkit.caches import CacheControl, CachePolicy, ResponseCache, SemanticCache, Store, asked_of, savings
from labkit.caches.acceptance import Curve, StaticThreshold, Verified
from labkit.caches.index import Index
from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    Event,
    InvalidValue,
    Message,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    stack,
)
from labkit.request.clock import run_virtual
from labkit.request.errors import StreamIncomplete
from tests.caches.engine import numbered
from tests.caches.words import Words

ASK = Request("may I return these boots", model="small", tenant="a")
SAME = replace(ASK, messages=(Message("user", "these boots may I return"),))
OTHER = replace(ASK, messages=(Message("user", "what does express delivery cost"),))


def answering(answer: Callable[[Request], str], asked: list[Request] | None = None):
    """An engine that says `answer(request)` after a second."""

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        sent = clock.now()
        if asked is not None:
            asked.append(request)
        await asyncio.sleep(1)
        yield Chunk(answer(request), clock.now(), usage=Usage(10, 1))
        yield Done(Usage(10, 1), Timing(sent, clock.now(), clock.now(), clock.now()), model=request.model, cost=Decimal(1))

    return handle


def shuffled(number: int) -> list[Request]:
    """One question in so many orders of its words."""
    orders = itertools.islice(itertools.permutations(["may", "I", "return", "these", "blue", "boots", "now"]), number)
    return [replace(ASK, messages=" ".join(words)) for words in orders]


def cache(store: Store | None = None, **more: object) -> SemanticCache:
    more.setdefault("acceptance", StaticThreshold(0.99))
    more.setdefault("verify", 0.0)
    return SemanticCache(Store() if store is None else store, Words(), **more)  # type: ignore[arg-type]


def texts(handler, *requests: Request, epoch: float = 1e6) -> list[str]:
    async def main() -> list[str]:
        return [(await complete(handler, request)).text for request in requests]

    return run_virtual(main(), epoch)


def test_other_words_for_the_same_get_the_old_answer_at_once_and_for_nothing() -> None:
    engine = numbered()

    async def main():
        handler = cache()(engine)
        return await complete(handler, ASK), await complete(handler, SAME), await complete(handler, OTHER)

    first, second, third = run_virtual(main(), 1e6)
    assert (second.text, second.reasoning) == (first.text, first.reasoning)
    assert third.text != first.text
    assert len(engine.asked) == 2
    done = second.done
    assert (done.usage, done.cost, done.route, done.timing.e2e) == (Usage(), 0, ("semantic-cache",), 0)
    assert done.response_id.rpartition("@")[0] == first.done.response_id


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "b"},
        {"permissions": frozenset({"staff"})},
        {"model": "large"},
        {"max_tokens": 5},
        {"stop": ("x",)},
        {"messages": (Message("system", "be rude"), *SAME.messages)},
        {"messages": (Message("user", "hello"), Message("assistant", "hi"), *SAME.messages)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_else_changes_the_answer_must_be_equal(change: dict) -> None:
    engine = numbered()
    texts(cache()(engine), ASK, replace(SAME, **change))
    assert len(engine.asked) == 2


def test_users_are_kept_apart_where_that_is_asked() -> None:
    for per_user, asked in ((False, 1), (True, 2)):
        engine = numbered()
        texts(cache(policy=CachePolicy(per_user=per_user))(engine), replace(ASK, user="x"), replace(SAME, user="y"))
        assert len(engine.asked) == asked


@pytest.mark.parametrize(
    ("cached", "new"),
    [
        ("can I return these boots", "can't I return these boots"),
        ("where is order 1234", "where is order 1243"),
        ("can I pay before delivery", "can I pay after delivery"),
        ("please ask Mira about the tent", "please ask Hera about the tent"),
        ("can I order a tent", "can I order a tent online"),
        ("how do I wash my blue tent now", "how do I wash my blue boots now"),
    ],
)
def test_what_says_something_else_is_refused_at_any_score(cached: str, new: str) -> None:
    engine, semantic = numbered(), cache(acceptance=StaticThreshold(-1))
    texts(semantic(engine), replace(ASK, messages=cached), replace(ASK, messages=new))
    assert len(engine.asked) == 2
    assert semantic.store.stats("semantic").misses == {"absent": 1, "contrast": 1}


def test_without_the_contrast_check_the_same_pair_is_a_wrong_hit() -> None:
    engine, semantic = numbered(), cache(acceptance=StaticThreshold(-1), contrast=lambda *_: ())
    texts(
        semantic(engine),
        replace(ASK, messages="where is order 1234"),
        replace(ASK, messages="is order 1243"),
    )
    assert len(engine.asked) == 1


def test_an_entry_is_gone_after_its_lifetime_its_facts_or_an_invalidation() -> None:
    facts = {"price": "1"}
    store = Store(versions=facts.get)

    def control(request: Request) -> CacheControl:
        return CacheControl(ttl_s=100, facts={"price": facts["price"]}, tags={"prices"})

    engine = numbered(gap_s=0.1)
    handler = cache(store, policy=CachePolicy(control))(engine)

    async def main() -> list[int]:
        counts = []

        async def ask() -> None:
            await complete(handler, SAME)
            counts.append(len(engine.asked))

        await complete(handler, ASK)
        await ask()
        await asyncio.sleep(101)
        await ask()  # too old
        facts["price"] = "2"
        await ask()  # made from another price
        store.delete(tag="prices", dry_run=True)
        await ask()
        store.delete(tag="prices", dry_run=False)
        await ask()
        store.advance_epoch("a", dry_run=False)
        await ask()
        await complete(handler, SAME)
        return [*counts, len(engine.asked)]

    assert run_virtual(main(), 1e6) == [1, 2, 3, 3, 4, 5, 5]


def test_an_invalidation_while_the_answer_is_made_keeps_it_out() -> None:
    store, engine = Store(), numbered()
    handler = cache(store)(engine)

    async def main() -> int:
        task = asyncio.create_task(complete(handler, ASK))
        await asyncio.sleep(1.5)
        store.delete(tenant="a", dry_run=False)
        await task
        await complete(handler, SAME)
        return len(engine.asked)

    assert run_virtual(main(), 1e6) == 2


def test_what_was_cut_short_failed_or_wanted_a_sample_is_not_kept() -> None:
    for engine in (numbered(without_done=True), numbered(fail_at=1), numbered(finish_reason="content_filter")):
        semantic = cache()
        with contextlib.suppress(EngineError, StreamIncomplete):
            texts(semantic(engine), ASK)
        assert len(semantic.store) == 0
    semantic = cache()
    texts(semantic(numbered()), replace(ASK, temperature=1.0))
    assert len(semantic.store) == 0


def test_a_semantic_answer_gets_no_second_life_in_the_response_cache_around_it() -> None:
    store, engine = Store(), numbered(gap_s=0.1)
    control = CacheControl(ttl_s=100)
    policy = CachePolicy(control)
    handler = stack(ResponseCache(store, policy), cache(store, policy=policy), engine=engine)

    async def main() -> list[int]:
        counts = []
        await complete(handler, ASK)
        await asyncio.sleep(90)
        await complete(handler, SAME)  # a semantic hit of an entry 90 s old
        counts.append(len(engine.asked))
        await asyncio.sleep(20)
        await complete(handler, SAME)  # 110 s old: word for word the same, but nobody may give it any more
        counts.append(len(engine.asked))
        return counts

    assert run_virtual(main(), 1e6) == [1, 2]


def test_verified_hits_are_asked_anew_and_counted() -> None:
    semantic = cache(verify=0.5, seed=1, contrast=lambda *_: ())
    texts(semantic(answering(lambda request: "an answer")), *shuffled(400))
    audit, stats = semantic.audit(), semantic.store.stats("semantic")
    assert audit.given + audit.checked + 1 == 400
    assert 150 < audit.checked < 250
    assert stats.hits == audit.given
    assert stats.misses == {"absent": 1, "verified": audit.checked}
    assert audit.wrong == 0
    assert audit.at_most < 0.05


def test_a_cache_that_is_shown_to_be_wrong_too_often_stops_giving() -> None:
    semantic = cache(verify=0.3, stop_above=0.1, seed=2, contrast=lambda *_: ())
    count = itertools.count()
    handler = semantic(answering(lambda request: f"never the same {next(count)}"))
    texts(handler, *shuffled(300))
    assert semantic.stopped
    assert semantic.audit().at_least > 0.1
    given = semantic.audit().given
    texts(handler, *shuffled(300), epoch=2e6)
    audit, misses = semantic.audit(), semantic.store.stats("semantic").misses
    assert audit.given == given
    stopped = 600 - given - audit.checked - misses["absent"]
    assert misses == {"absent": misses["absent"], "verified": audit.checked, "stopped": stopped}


def test_an_entry_that_was_wrong_is_trusted_less_and_the_others_as_before() -> None:
    curve = Curve(-6, 11, 2.0)
    semantic = cache(acceptance=Verified(curve, bound=0.1, confidence=0.5), contrast=lambda *_: (), verify=1.0)
    handler = semantic(answering(lambda r: r.messages[-1].content if "boots" in r.messages[-1].content else "yes"))
    boots, tents = "may I give these boots back", "shall we put some tents there"
    texts(handler, *(replace(ASK, messages=f"{text}{tail}") for tail in ("", " now") for text in (boots, tents)))

    def trusted(text: str) -> bool:
        asked = asked_of(replace(ASK, messages=f"{text} please"))
        assert asked is not None
        found = semantic.look(asked, semantic.encode(asked.text), 1e6 + 100)
        return next(c for c in found.candidates if c.text == text).decision.accept

    assert (trusted(boots), trusted(tents)) == (False, True)
    assert (semantic.audit().checked, semantic.audit().wrong) == (2, 1)


def test_a_hit_and_a_miss_can_be_explained() -> None:
    semantic = cache()
    texts(semantic(numbered()), replace(ASK, messages="where is order 1234 now"))
    asked = asked_of(replace(ASK, messages="where is order 1243 now"))
    assert asked is not None
    said = semantic.look(asked, semantic.encode(asked.text), 1e6 + 10).explain()
    assert "not given: “where is order 1234 now”" in said
    assert "literal: “1234” in the cached question, “1243” in the new" in said
    nothing = replace(asked, scope=replace(asked.scope, tenant="nobody"))
    assert "nothing stored" in semantic.look(nothing, semantic.encode(asked.text), 1e6).explain()


def test_another_process_and_the_next_one_find_what_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with Store(path) as one, Store(path) as two:
        engine = numbered()
        first, second = cache(one), cache(two)
        texts(second(engine), OTHER)  # opened, and knows its own entries
        texts(first(engine), ASK, epoch=1e6 + 10)
        texts(second(engine), SAME, epoch=1e6 + 20)
        assert len(engine.asked) == 2
    with Store(path) as three:
        texts(cache(three)(engine), SAME, OTHER, epoch=1e6 + 30)
        assert len(engine.asked) == 2


def test_vectors_of_another_embedder_or_size_are_a_clean_miss(tmp_path: Path) -> None:
    with Store(tmp_path / "cache.db") as store:
        engine = numbered()
        texts(cache(store)(engine), ASK)
        for number, words in enumerate((Words("words-2"), Words("words-1", dimension=32))):
            changed = SemanticCache(store, words, StaticThreshold(-1), verify=0)
            # The other embedder has its own entry by then, so what it must not find is the first one's.
            asked = asked_of(SAME)
            assert asked is not None
            assert changed.look(asked, changed.encode(asked.text), 1e6 + number).candidates == ()
    with pytest.raises(InvalidValue, match="shape"):
        Index(4).add("p", "k", np.zeros(5, np.float32))


def test_evicted_entries_leave_the_index_too() -> None:
    semantic = cache(Store(limit_bytes=30_000))
    engine = numbered(gap_s=0.0)
    requests = [replace(ASK, messages=f"question number{i} about thing{i}") for i in range(700)]
    texts(semantic(engine), *requests)
    live = sum(1 for _ in semantic.store.entries(layer="semantic"))
    assert live < 60
    assert len(semantic._meaning.index) <= live + 256 + len(semantic._meaning.index) // 2


_WRITER = """
import asyncio, sys
from labkit.caches import SemanticCache, StaticThreshold, Store
from labkit.request import Request, complete
from tests.caches.test_semantic import answering
from tests.caches.words import Words
async def main():
    store = Store(sys.argv[1])
    cache = SemanticCache(store, Words(), StaticThreshold(0.99), verify=0.2)
    handler = cache(answering(lambda r: "echo " + r.messages[-1].content))
    i = int(sys.argv[2])
    while True:
        i += 1
        await complete(handler, Request(f"question{i % 40} of{i % 7}", tenant="a"))
        print(f"question{i % 40} of{i % 7}", flush=True)
asyncio.sleep = lambda *_: asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0)
asyncio.run(main())
"""


def test_a_killed_cache_keeps_every_answer_it_had_finished(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    said: set[str] = set()
    for round_ in range(3):
        out = (tmp_path / "said").open("w")
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(round_ * 5)], stdout=out, cwd=os.getcwd())
        until = time.monotonic() + 60
        while (tmp_path / "said").stat().st_size < 300 + 500 * round_:
            assert writer.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        out.close()
        said |= set((tmp_path / "said").read_text().split("\n")[:-1])
    with Store(path) as store:
        semantic = cache(store)
        for text in said:
            asked = asked_of(Request(text, tenant="a"))
            assert asked is not None
            hit = semantic.look(asked, semantic.encode(text), time.time()).hit
            assert hit is not None, f"{text} was answered before the kill"
            assert hit.answer == f"echo {text}"


def test_random_traffic_never_crosses_a_border_and_the_accounts_are_exact(tmp_path: Path, dice: random.Random) -> None:
    facts = {"price": 0}
    epochs = {"a": 0, "b": 0}
    store = Store(tmp_path / "cache.db", limit_bytes=60_000, versions=lambda name: str(facts[name]))
    words = ["tent", "boots", "rope", "stove", "map"]

    def truth(request: Request) -> str:
        bag = " ".join(sorted(request.messages[-1].content.split()))
        who = f"{request.tenant} {sorted(request.permissions)} {request.model}"
        return f"{who} | {bag} | {facts['price']} | {epochs[request.tenant]} | {clock.unix_now():.3f}"

    def agree(old: str, new: str) -> bool:
        return old.split(" | ")[:3] == new.split(" | ")[:3]

    # The contrast check would refuse many of these bags of words; here the borders are to hold without its help.
    policy = CachePolicy(lambda r: CacheControl(ttl_s=60, facts={"price": str(facts["price"])}))
    semantic = cache(store, verify=0.1, seed=3, agree=agree, contrast=lambda *_: (), policy=policy)
    handler = semantic(answering(truth))

    async def main() -> tuple[int, int]:
        looked = hits = 0
        for _ in range(4000):
            bag = dice.sample(words, 3)
            request = Request(
                " ".join(bag),
                model=dice.choice(["small", "large"]),
                tenant=dice.choice(["a", "b"]),
                permissions=frozenset(dice.sample(["staff"], dice.randrange(2))),
            )
            answer = await complete(handler, request)
            looked += 1
            said, now = answer.text.split(" | "), truth(request).split(" | ")
            assert said[:4] == now[:4]
            if answer.done.route:
                hits += 1
                assert clock.unix_now() - float(said[4]) < 61
            if dice.random() < 0.01:
                facts["price"] += 1
            if dice.random() < 0.01:
                tenant = dice.choice(["a", "b"])
                epochs[tenant] += 1
                store.advance_epoch(tenant, dry_run=False)
            if dice.random() < 0.05:
                await asyncio.sleep(dice.choice([1, 10, 70]))
        return looked, hits

    looked, hits = run_virtual(main(), 1e6)
    stats, audit, by_words = store.stats("semantic"), semantic.audit(), store.stats("response")
    assert by_words.looked_up == looked
    assert stats.looked_up == looked - by_words.hits
    assert stats.hits == audit.given
    assert stats.hits + by_words.hits == hits
    assert min(stats.hits, by_words.hits) > 100
    assert audit.wrong == 0
    assert {"absent", "verified", "unlike"} <= set(stats.misses)


def test_cached_answers_are_in_the_books_as_saved(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        prices = {"*": self_defined("any", "50000", "0")}  # 10 tokens are 0.5
        texts(stack(cache(), Booked(ledger, prices), engine=numbered()), ASK, SAME, ASK)
        row = savings(ledger).iloc[0]
        assert (row.answers, row.unknown, row.saved, row.input_tokens) == (2, 0, Decimal("1.0"), 20)


def test_bad_settings_are_named() -> None:
    for bad in ({"verify": 1.5}, {"stop_above": 0.1, "verify": 0.0}, {"candidates": 0}):
        with pytest.raises(InvalidValue):
            cache(**bad)


def test_what_is_asked_word_for_word_needs_no_vector_and_need_be_no_question() -> None:
    engine, words = numbered(), Words()
    semantic = SemanticCache(Store(), words, StaticThreshold(0.99))
    tool = replace(ASK, messages=(Message("user", "2+2"), Message("tool", "4")))
    texts(semantic(engine), ASK, ASK, tool, tool)
    assert (len(engine.asked), words.encoded) == (2, 1)
    assert semantic.store.stats("response").hits == 2
    assert semantic.store.stats("semantic").looked_up == 1


def test_each_answer_is_kept_once_and_both_levers_share_it() -> None:
    store, engine = Store(), numbered()
    asked = texts(cache(store)(engine), ASK)
    assert texts(ResponseCache(store)(engine), ASK, epoch=1e6 + 10) == asked
    by_words, by_meaning = (list(store.entries(layer=layer)) for layer in ("response", "semantic"))
    assert [entry.key for entry in by_words] == [entry.key for entry in by_meaning]
    assert (b'"a1"' in by_words[0].value, b'"a1"' in by_meaning[0].value) == (True, False)


def test_an_answer_that_went_is_not_found_by_its_meaning_and_no_answer_takes_its_place() -> None:
    store, engine = Store(), numbered()
    semantic = cache(store)
    texts(semantic(engine), ASK)
    store.delete(layer="response", dry_run=False)
    assert texts(semantic(engine), SAME, epoch=1e6 + 10) == ["a2b2c2"]
    assert texts(semantic(engine), ASK, epoch=1e6 + 20) == ["a2b2c2"]


def test_a_miss_makes_three_calls_to_the_store_and_few_statements() -> None:
    store, statements, calls = Store(), [], []
    semantic = cache(store)
    for name in ("get", "put_together", "ticket", "follow", "put", "entries", "delete"):
        real = getattr(store, name)
        setattr(store, name, lambda *a, _real=real, _name=name, **k: (calls.append(_name), _real(*a, **k))[1])
    store._file.shared.check().set_trace_callback(statements.append)
    texts(semantic(numbered()), ASK)
    assert calls == ["get", "follow", "put_together"]
    sent = [text for text, _ in itertools.groupby(statements)]  # a statement is traced once more for each of its triggers
    assert len(sent) <= 13, sent


def test_a_file_that_is_set_aside_takes_what_was_found_by_meaning_with_it(tmp_path: Path) -> None:
    with Store(tmp_path / "cache.db") as store:
        engine, semantic = numbered(), cache(store)
        texts(semantic(engine), ASK, OTHER)
        for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
            (tmp_path / name).rename(tmp_path / f"{name}.away")
        assert texts(semantic(engine), SAME, epoch=1e6 + 10) == ["a3b3c3"]
        assert texts(semantic(engine), ASK, epoch=1e6 + 20) == ["a3b3c3"], "new entries are followed from the first one on"
        assert store.stats("semantic").hits == 1


def test_caches_with_equal_settings_are_equal() -> None:
    store, words = Store(), Words()
    one, other = (SemanticCache(store, words, StaticThreshold(0.9), seed=1) for _ in range(2))
    assert one == other
    assert one != SemanticCache(store, words, StaticThreshold(0.8), seed=1)
    assert repr(one).startswith("SemanticCache(store=Store(':memory:')")
    assert "Meaning" not in repr(one)


@pytest.mark.parametrize(
    ("arguments", "printed"), [([], ["lookup_table", "quality_table", "hard_table"]), (["--hard"], ["hard_table"])]
)
def test_the_benchmark_prints_its_tables_in_the_order_its_header_names_them(arguments, printed, monkeypatch):
    order: list[str] = []
    for name in ("hard_table", "quality_table", "lookup_table"):
        monkeypatch.setattr(semantic_cache, name, lambda *_, name=name: order.append(name))
    monkeypatch.setattr(semantic_cache, "embedder", lambda: None)
    monkeypatch.setattr("sys.argv", ["semantic_cache", *arguments])
    semantic_cache.main()
    assert order == printed
