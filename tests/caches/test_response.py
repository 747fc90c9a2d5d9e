from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.caches import CacheControl, CachePolicy, ResponseCache, Store, savings
from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger, Row, spend, tokens
from labkit.request import (
    Chunk,
    Done,
    InvalidValue,
    Request,
    Timing,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    clock,
    complete,
    stack,
)
from tests.caches.engine import numbered

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
    engine = numbered()
    first, again = asks(ResponseCache(store)(engine), ASKED, ASKED)
    assert len(engine.asked) == 1
    assert again.text == first.text == "a1b1c1"
    assert [chunk.text for chunk in again.chunks] == [chunk.text for chunk in first.chunks]
    assert again.done.usage == Usage()
    assert again.done.cost == 0
    assert again.done.route == ("response-cache",)
    assert again.done.timing.e2e == 0
    assert (again.done.model, again.done.finish_reason) == ("m", "stop")
    assert again.done.response_id.rpartition("@")[0] == first.done.response_id
    assert first.done.route == ()


def test_everything_a_chunk_says_comes_back(store):
    async def engine(request):
        spoken = TokenLogprob("é", -0.25, (("é", -0.25), ("\ud800", -3.5)))
        yield Chunk("", clock.now(), 2, reasoning="hm \ud800")
        yield Chunk("é", clock.now(), 3, logprobs=(spoken,))
        yield Chunk("", clock.now(), tool_calls=(ToolCallDelta(0, "c1", "get_weather", '{"city":"Oslo"}'),))
        yield Done(Usage(1, 5), Timing(clock.now(), done=clock.now(), started_unix=clock.unix_now()), "tool_calls", "m")

    first, again = asks(ResponseCache(store)(engine), ASKED, ASKED)
    assert [replace(c, usage=None) for c in again.chunks] == list(first.chunks)
    assert again.tool_calls == first.tool_calls == (ToolCall("c1", "get_weather", '{"city":"Oslo"}'),)
    assert first.done.response_id == "" != again.done.response_id, "an answer without an id is found by its time"


@pytest.mark.parametrize("other", [{"tenant": "t"}, {"permissions": {"p"}}, {"model": "n"}, {"max_tokens": 5}], ids=str)
def test_nobody_else_gets_the_answer(store, other):
    engine = numbered()
    asks(ResponseCache(store)(engine), ASKED, replace(ASKED, **other))
    assert len(engine.asked) == 2


def test_users_share_within_a_tenant_unless_told_otherwise(store):
    engine = numbered()
    ana, bob = replace(ASKED, user="ana"), replace(ASKED, user="bob")
    asks(ResponseCache(store)(engine), ana, bob)
    assert len(engine.asked) == 1
    asks(ResponseCache(store, CachePolicy(per_user=True))(engine), ana, bob, ana)
    assert len(engine.asked) == 3


def test_another_system_version_asks_again(store):
    engine = numbered()
    for version in ("1", "2", "1"):
        asks(ResponseCache(store, CachePolicy(CacheControl(ttl_s=None), system_version=version))(engine), ASKED)
    assert len(engine.asked) == 2


@pytest.mark.parametrize("reason", ["content_filter", "abort", "error", ""])
def test_an_answer_that_ended_otherwise_is_not_kept(store, reason):
    engine = numbered(finish_reason=reason)
    asks(ResponseCache(store)(engine), ASKED, ASKED)
    assert len(engine.asked) == 2
    assert len(store) == 0


def test_an_answer_cut_by_max_tokens_is_kept_for_it_would_be_cut_again(store):
    engine = numbered(finish_reason="length")
    asks(ResponseCache(store)(engine), ASKED, ASKED)
    assert len(engine.asked) == 1


def test_incomplete_failed_and_cancelled_streams_are_never_kept(store):
    async def main():
        for engine in (numbered(without_done=True), numbered(fail_at=2)):
            with pytest.raises(Exception, match=r"without a Done|fell over"):
                await complete(ResponseCache(store)(engine), ASKED)
        task = asyncio.create_task(complete(ResponseCache(store)(numbered()), ASKED))
        await asyncio.sleep(2.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
    assert len(store) == 0


def test_a_stream_goes_into_the_cache_although_its_first_reader_left_when_another_stayed(store):
    engine = numbered()
    handler = ResponseCache(store)(engine)

    async def main():
        leader, follower = (asyncio.create_task(complete(handler, ASKED)) for _ in range(2))
        await asyncio.sleep(1.5)
        leader.cancel()
        await follower
        return await complete(handler, ASKED)

    assert run(main()).done.route == ("response-cache",)
    assert len(engine.asked) == 1


def test_samples_are_fresh_unless_they_have_a_seed_or_one_will_do(store):
    engine = numbered()
    sampled = replace(ASKED, temperature=0.7)
    asks(ResponseCache(store)(engine), sampled, sampled)
    assert len(engine.asked) == 2
    asks(ResponseCache(store)(engine), replace(sampled, seed=1), replace(sampled, seed=1))
    assert len(engine.asked) == 3
    asks(ResponseCache(store, CachePolicy(cache_sampled=True))(engine), sampled, sampled)
    assert len(engine.asked) == 4


def test_no_store_and_no_cache_do_what_they_say(store):
    engine = numbered()
    plain = ResponseCache(store)(engine)
    asks(ResponseCache(store, CachePolicy(CacheControl(no_store=True)))(engine), ASKED)
    asks(plain, ASKED)
    assert len(engine.asked) == 2
    refresh = ResponseCache(store, CachePolicy(CacheControl(no_cache=True, ttl_s=None)))(engine)
    assert asks(refresh, ASKED)[0].text == "a3b3c3"
    assert asks(plain, ASKED)[0].text == "a3b3c3", "the refreshed answer replaced the old one"


def test_an_answer_grows_old(store):
    engine = numbered()
    handler = ResponseCache(store, CachePolicy(lambda _: CacheControl(ttl_s=100)))(engine)

    async def main():
        for wait in (0, 90, 12):  # an answer takes 3 s, and its age counts from when it began
            await asyncio.sleep(wait)
            await complete(handler, ASKED)

    run(main())
    assert len(engine.asked) == 2
    assert store.stats().misses == {"absent": 1, "expired": 1}


def test_a_fact_that_changes_during_the_work_or_after_it_makes_the_answer_stale():
    prices = {"plan": "v1"}
    with Store(versions=prices.get) as store:
        engine = numbered()
        handler = ResponseCache(store, CachePolicy(lambda _: CacheControl(facts={"plan": prices["plan"]})))(engine)

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
        engine = numbered()
        policy = CachePolicy(lambda _: CacheControl(tags=frozenset({"x"}), facts=dict(versions), ttl_s=None))
        handler = ResponseCache(store, policy)(engine)

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
    engine = numbered()
    prices = {"*": self_defined("any", "1000", "10000")}  # 0.001 an input token, 0.01 an output token

    async def main(ledger):
        handler = stack(Booked(ledger, prices), ResponseCache(store), engine=engine)
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
        prices = {"*": self_defined("any", "0", "1000000")}
        handler = stack(ResponseCache(store), Booked(ledger, prices), engine=numbered())
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
    engine = numbered()
    handler = ResponseCache(store)(engine)
    asks(handler, ASKED)
    store._file.shared.check().execute("DROP TABLE entries")
    assert [a.text for a in asks(handler, ASKED, ASKED)] == ["a2b2c2", "a3b3c3"]
    assert store.stats().misses == {"absent": 1, "unavailable": 2}
    assert store.stats().refused == {"unavailable": 2}
    assert len(caplog.records) == 1, "said once"


def test_what_the_store_could_not_do_is_told_on_the_answer(store):
    handler = ResponseCache(store)(numbered())
    store._file.shared.check().execute("DROP TABLE entries")
    (answer,) = asks(handler, ASKED)
    assert answer.text == "a1b1c1"
    assert {fault.where for fault in answer.done.faults} == {"response-cache"}
    assert "no such table: entries" in str(answer.done.faults[0])


class Odd(Chunk):
    """A chunk of a kind that the lab's form of events does not know."""


@pytest.mark.parametrize(
    "odd",
    [Odd("b", 0.0), Chunk("b", 0.0, logprobs=((1, 2),)), Chunk("b", 0.0, tokens=1.5)],
    ids=["another kind", "other logprobs", "half a token"],
)
def test_an_answer_that_would_come_back_as_another_is_not_kept(store, odd):
    async def engine(request):
        yield odd
        yield Done(Usage(1, 5), Timing(clock.now(), done=clock.now()), "stop", "m")

    first, again = asks(ResponseCache(store)(engine), ASKED, ASKED)
    assert (first.done.route, again.done.route) == ((), ())
    assert len(store) == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"cost": Decimal("NaN")}, {"cost": Decimal("1e400")}, {"cost": Decimal(-1)}, {"usage": Usage(10**30, 10**30)},
        {"response_id": "\ud800"}, {"model": "\udfff"}, {"finish_reason": 7}, {"response_id": 7},
        {"finish_reason": ["stop"]}, {"timing": Timing(float("nan"), done=float("inf"), started_unix=float("nan"))},
        {"route": (7,)},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_the_end_of_an_answer_says_it_is_delivered_and_what_comes_again_has_its_words(store, odd):
    async def engine(request):
        yield Chunk("yes", clock.now())
        yield replace(Done(Usage(1, 5), Timing(clock.now(), done=clock.now()), "stop", "m"), **odd)

    first, again = asks(ResponseCache(store)(engine), ASKED, ASKED)
    assert first.text == again.text == "yes"
    kept = "finish_reason" not in odd and odd.get("response_id") != 7 and "route" not in odd
    assert (again.done.route == ("response-cache",)) == kept


def test_repeated_ids_of_a_server_do_not_lend_a_cheap_answer_the_cost_of_a_dear_one(store):
    async def ollama(request):  # two questions, one id
        dear = "essay" in request.messages[-1].content
        t = clock.now()
        await asyncio.sleep(1)
        yield Chunk("an answer", clock.now())
        usage, cost = (Usage(90_000, 2_000), Decimal(5)) if dear else (Usage(100, 10), Decimal("0.01"))
        timing = Timing(t, clock.now(), clock.now(), clock.now(), clock.unix_now() - 1)
        yield Done(usage, timing, response_id="chatcmpl-7", cost=cost)

    with Ledger(":memory:") as ledger:
        asks(
            stack(Booked(ledger), ResponseCache(store), engine=ollama),
            *map(Request, ("what is 2+2?", "an essay on tents", "what is 2+2?", "an essay on tents", "what is 2+2?")),
        )
        (row,) = savings(ledger).to_dict("records")
        assert (row["answers"], row["unknown"], row["saved"]) == (3, 0, Decimal("5.02"))
        assert row["input_tokens"] == 90_200


def test_an_id_without_a_time_tells_the_original_only_where_one_attempt_has_it():
    rows = [("a", "1", (), 10), ("b", "2", (), 10), ("b", "9", (), 10), *[(i, "0", ("response-cache",), 0) for i in "abc"]]
    with Ledger(":memory:") as ledger:
        for id_, cost, route, tokens_ in rows:
            ledger.append(Row(provider="p", response_id=id_, cost=Decimal(cost), route=route, input_tokens=tokens_))
        (row,) = savings(ledger).to_dict("records")
        assert (row["answers"], row["unknown"], row["saved"]) == (3, 2, 1)


def test_settings_of_the_wrong_kind_are_named(store):
    with pytest.raises(InvalidValue, match="a cache needs a Store"):
        ResponseCache("cache.db")
    with pytest.raises(InvalidValue, match="give a CachePolicy"):
        ResponseCache(store, CacheControl())
    with pytest.raises(InvalidValue, match="control is 5"):
        CachePolicy(5)


def test_caches_with_equal_settings_are_equal_and_print_themselves(store):
    control = CacheControl(ttl_s=60)
    assert ResponseCache(store, CachePolicy(control)) == ResponseCache(store, CachePolicy(CacheControl(ttl_s=60)))
    assert ResponseCache(store) != ResponseCache(Store())
    assert repr(ResponseCache(store)).startswith("ResponseCache(store=Store(':memory:'), policy=CachePolicy(")


def test_a_miss_looks_once_and_stores_once(store):
    statements, calls = [], []
    for name in ("get", "put_together", "ticket", "follow", "put"):
        real = getattr(store, name)
        setattr(store, name, lambda *a, _real=real, _name=name, **k: (calls.append(_name), _real(*a, **k))[1])
    store._file.shared.check().set_trace_callback(statements.append)
    asks(ResponseCache(store)(numbered()), ASKED)
    assert calls == ["get", "put_together"]
    sent = [text for text, _ in itertools.groupby(statements)]  # a statement is traced once more for each of its triggers
    assert len(sent) <= 10, sent
