from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.caches import CacheControl, Store, response_cache, savings
from labkit.ledger import Ledger, booked, spend, tokens
from labkit.request import Chunk, Done, Request, Timing, TokenLogprob, Usage, clock, complete
from tests.caches.engine import Scripted

ASKED = Request("q", model="m")


runs = itertools.count(1)


def run(coroutine):
    # Each run is a day later: a clock that started over would have stepped back, and nothing would hit.
    return clock.run_virtual(asyncio.wait_for(coroutine, 1e9), epoch=86400.0 * next(runs))


def asks(handler, *requests):
    async def main():
        return [await complete(handler, request) for request in requests]

    return run(main())


@pytest.fixture
def store():
    with Store() as store:
        yield store


def test_a_question_asked_again_is_answered_at_once_with_the_same_words_and_no_tokens(store):
    engine = Scripted()
    first, again = asks(response_cache(engine, store), ASKED, ASKED)
    assert engine.started == 1
    assert again.text == first.text == "a1b1c1"
    assert [chunk.text for chunk in again.chunks] == [chunk.text for chunk in first.chunks]
    assert again.done.usage == Usage()
    assert again.done.cost == 0
    assert again.done.route == ("response-cache",)
    assert again.done.timing.e2e == 0
    assert (again.done.model, again.done.finish_reason, again.done.response_id) == ("m", "stop", "id-1")
    assert first.done.route == ("engine",)


def test_everything_a_chunk_says_comes_back(store):
    async def engine(request):
        spoken = TokenLogprob("é", -0.25, (("é", -0.25), ("\ud800", -3.5)))
        yield Chunk("", clock.now(), 2, reasoning="hm \ud800")
        yield Chunk("é", clock.now(), 3, logprobs=(spoken,))
        yield Done(Usage(1, 5), Timing(clock.now(), done=clock.now()), "stop", "m")

    first, again = asks(response_cache(engine, store), ASKED, ASKED)
    assert [replace(c, usage=None) for c in again.chunks] == list(first.chunks)
    assert first.done.response_id == again.done.response_id != ""


@pytest.mark.parametrize("other", [{"tenant": "t"}, {"permissions": {"p"}}, {"model": "n"}, {"max_tokens": 5}], ids=str)
def test_nobody_else_gets_the_answer(store, other):
    engine = Scripted()
    asks(response_cache(engine, store), ASKED, replace(ASKED, **other))
    assert engine.started == 2


def test_users_share_within_a_tenant_unless_told_otherwise(store):
    engine = Scripted()
    ana, bob = replace(ASKED, user="ana"), replace(ASKED, user="bob")
    asks(response_cache(engine, store), ana, bob)
    assert engine.started == 1
    asks(response_cache(engine, store, per_user=True), ana, bob, ana)
    assert engine.started == 3


def test_another_system_version_asks_again(store):
    engine = Scripted()
    for version in ("1", "2", "1"):
        asks(response_cache(engine, store, control=CacheControl(ttl_s=None), system_version=version), ASKED)
    assert engine.started == 2


@pytest.mark.parametrize("reason", ["content_filter", "abort", "error", ""])
def test_an_answer_that_ended_otherwise_is_not_kept(store, reason):
    engine = Scripted(finish_reason=reason)
    asks(response_cache(engine, store), ASKED, ASKED)
    assert engine.started == 2
    assert len(store) == 0


def test_an_answer_cut_by_max_tokens_is_kept_for_it_would_be_cut_again(store):
    engine = Scripted(finish_reason="length")
    asks(response_cache(engine, store), ASKED, ASKED)
    assert engine.started == 1


def test_incomplete_failed_and_cancelled_streams_are_never_kept(store):
    async def main():
        for engine in (Scripted(without_done=True), Scripted(fail_after=2)):
            with pytest.raises(Exception, match=r"without a Done|fell over"):
                await complete(response_cache(engine, store), ASKED)
        task = asyncio.create_task(complete(response_cache(Scripted(), store), ASKED))
        await asyncio.sleep(2.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
    assert len(store) == 0


def test_a_stream_goes_into_the_cache_although_its_first_reader_left_when_another_stayed(store):
    engine = Scripted()
    handler = response_cache(engine, store)

    async def main():
        leader, follower = (asyncio.create_task(complete(handler, ASKED)) for _ in range(2))
        await asyncio.sleep(1.5)
        leader.cancel()
        await follower
        return await complete(handler, ASKED)

    assert run(main()).done.route == ("response-cache",)
    assert engine.started == 1


def test_samples_are_fresh_unless_they_have_a_seed_or_one_will_do(store):
    engine = Scripted()
    sampled = replace(ASKED, temperature=0.7)
    asks(response_cache(engine, store), sampled, sampled)
    assert engine.started == 2
    asks(response_cache(engine, store), replace(sampled, seed=1), replace(sampled, seed=1))
    assert engine.started == 3
    asks(response_cache(engine, store, cache_sampled=True), sampled, sampled)
    assert engine.started == 4


def test_no_store_and_no_cache_do_what_they_say(store):
    engine = Scripted()
    plain = response_cache(engine, store)
    asks(response_cache(engine, store, control=CacheControl(no_store=True)), ASKED)
    asks(plain, ASKED)
    assert engine.started == 2
    refresh = response_cache(engine, store, control=CacheControl(no_cache=True, ttl_s=None))
    assert asks(refresh, ASKED)[0].text == "a3b3c3"
    assert asks(plain, ASKED)[0].text == "a3b3c3", "the refreshed answer replaced the old one"


def test_an_answer_grows_old(store):
    engine = Scripted()
    handler = response_cache(engine, store, control=lambda _: CacheControl(ttl_s=100))

    async def main():
        for wait in (0, 90, 12):  # an answer takes 3 s, and its age counts from when it began
            await asyncio.sleep(wait)
            await complete(handler, ASKED)

    run(main())
    assert engine.started == 2
    assert store.stats().misses == {"absent": 1, "expired": 1}


def test_a_fact_that_changes_during_the_work_or_after_it_makes_the_answer_stale():
    prices = {"plan": "v1"}
    with Store(versions=prices.get) as store:
        engine = Scripted()
        handler = response_cache(engine, store, control=lambda _: CacheControl(facts={"plan": prices["plan"]}))

        async def main():
            task = asyncio.create_task(complete(handler, ASKED))
            await asyncio.sleep(1.5)
            prices["plan"] = "v2"  # the running answer was made from v1
            await task
            answers = [await complete(handler, ASKED), await complete(handler, ASKED)]
            prices["plan"] = "v3"
            return [a.text for a in answers], (await complete(handler, ASKED)).text

        assert run(main()) == (["a2b2c2", "a2b2c2"], "a3b3c3")
        assert store.stats().refused == {"facts": 1}


@pytest.mark.parametrize("what", ["key", "tag", "tenant", "epoch", "fact"])
def test_nobody_boards_a_flight_that_left_before_an_invalidation_and_it_is_not_stored(what):
    versions = {"f": "1"}
    with Store(versions=versions.get) as store:
        engine = Scripted()
        handler = response_cache(
            engine, store, control=lambda _: CacheControl(tags=frozenset({"x"}), facts=dict(versions), ttl_s=None)
        )

        async def main():
            early = asyncio.create_task(complete(handler, ASKED))
            await asyncio.sleep(1.5)
            if what == "epoch":
                store.advance_epoch("", dry_run=False)
            elif what == "fact":
                versions["f"] = "2"
            else:
                store.delete(**{what: {"key": "k", "tag": "x", "tenant": ""}[what]}, dry_run=False)
            late = await complete(handler, ASKED)
            return (await early).text, late.text, (await complete(handler, ASKED)).text

        assert run(main()) == ("a1b1c1", "a2b2c2", "a2b2c2")
        assert store.stats().refused == {"facts" if what == "fact" else "invalidated": 1}


def test_the_books_show_what_was_not_paid_for(store):
    engine = Scripted()

    def price(_, usage):
        return Decimal(usage.input_tokens) / 1000 + Decimal(usage.output_tokens) / 100

    async def main(ledger):
        handler = booked(response_cache(engine, store), ledger, provider="lab", price=price)
        await asyncio.gather(*(complete(handler, replace(ASKED, feature="faq")) for _ in range(2)))
        for _ in range(3):
            await complete(handler, replace(ASKED, feature="faq"))
        await complete(handler, replace(ASKED, messages="other", feature="chat"))

    with Ledger(":memory:") as ledger:
        run(main(ledger))
        assert len(ledger) == 6
        books = spend(ledger)
        assert books["labkit.cost"].item() == 2 * (Decimal("0.010") + Decimal("0.03"))
        assert books["unpriced"].item() == 0
        assert tokens(ledger).sum() == 2 * 13
        saved = savings(ledger, ("labkit.feature",))
        assert saved["labkit.feature"].tolist() == ["faq"]
        assert (saved["answers"].item(), saved["unknown"].item()) == (4, 0)
        assert (saved["input_tokens"].item(), saved["output_tokens"].item()) == (40, 12)
        assert saved["saved"].item() == 4 * Decimal("0.04")


def test_a_replay_that_is_cut_short_costs_nothing_in_the_books(store):
    async def main(ledger):
        handler = booked(
            response_cache(Scripted(), store), ledger, provider="lab", price=lambda _, u: Decimal(u.output_tokens)
        )
        await complete(handler, ASKED)
        events = handler(ASKED)
        await anext(events)
        await events.aclose()

    with Ledger(":memory:") as ledger:
        run(main(ledger))
        assert [(row.outcome, row.output_tokens, row.cost) for row in ledger.rows()] == [
            ("completed", 3, 3),
            ("cancelled", 0, 0),
        ]


def test_a_store_that_fails_costs_hits_but_no_answers(store, caplog):
    engine = Scripted()
    handler = response_cache(engine, store)
    asks(handler, ASKED)
    store._file.check().execute("DROP TABLE entries")
    assert [a.text for a in asks(handler, ASKED, ASKED)] == ["a2b2c2", "a3b3c3"]
    assert store.stats().misses == {"absent": 1, "unavailable": 2}
    assert store.stats().refused == {"unavailable": 2}
    assert len(caplog.records) == 1, "said once"
