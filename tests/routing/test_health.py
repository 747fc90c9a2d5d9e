from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines import ScriptedEngine
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    EngineStalled,
    InvalidRequest,
    InvalidValue,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
    complete,
    stack,
    within,
)
from labkit.routing import AllDown, Breaker, CircuitOpen, Fallback

Q = Request("q")
run = clock.run_virtual


def fallback(models, order, breaker, **options):
    return stack(Fallback(order, breaker, **options), engine=models)


async def ask(handler, request=Q):
    """The text, or the error."""
    try:
        return (await complete(handler, request)).text
    except EngineError as error:
        return error


def test_a_circuit_opens_after_failures_in_a_row_and_one_probe_closes_it():
    engine, breaker = ScriptedEngine(("a",), fail_at=0, gap_s=0), Breaker(failures=3, cool_down_s=10)
    handler = fallback({"m": engine}, ["m"], breaker)

    async def main():
        for _ in range(3):
            assert "fell over" in str(await ask(handler))
        assert breaker.state("m") == "open"
        await asyncio.sleep(4)
        refused = await ask(handler)
        assert isinstance(refused, CircuitOpen)
        assert refused.retry_after_s == 6
        assert "6 s more; its last error: the engine fell over" in str(refused)
        assert len(engine.asked) == 3
        await asyncio.sleep(6)
        assert breaker.state("m") == "half-open"
        assert "fell over" in str(await ask(handler))
        assert breaker.state("m") == "open", "one failed probe is enough"
        await asyncio.sleep(10)
        engine.fail_at = None
        assert await ask(handler) == "a"
        assert breaker.state("m") == "closed"
        engine.fail_at = 0
        await ask(handler)
        assert breaker.state("m") == "closed", "the count began anew"

    run(main())


@given(st.lists(st.tuples(st.sampled_from([0.0, 3.0, 5.0, 20.0]), st.booleans()), max_size=40), st.integers(1, 3))
def test_any_sequence_of_requests_meets_the_circuit_that_the_rules_describe(history, failures):
    engine, breaker = ScriptedEngine(("a",), gap_s=0), Breaker(failures, cool_down_s=10)
    handler = fallback({"m": engine}, ["m"], breaker)

    async def main():
        open_until, in_a_row = None, 0
        for pause, works in history:
            await asyncio.sleep(pause)
            engine.fail_at = None if works else 0
            before, answer = len(engine.asked), await ask(handler)
            turned_away = open_until is not None and clock.now() < open_until
            assert (len(engine.asked) == before) == turned_away == isinstance(answer, CircuitOpen)
            if turned_away:
                continue
            in_a_row = 0 if works else in_a_row + 1
            if works:
                open_until = None
            elif open_until is not None or in_a_row == failures:
                open_until, in_a_row = clock.now() + 10, 0

    run(main())


def test_a_success_between_failures_starts_the_count_again():
    engine, breaker = ScriptedEngine(("a",), gap_s=0), Breaker(failures=2)
    handler = fallback({"m": engine}, ["m"], breaker)

    async def main():
        for fail_at in (0, None, 0):
            engine.fail_at = fail_at
            await ask(handler)
        return breaker.state("m")

    assert run(main()) == "closed"


def test_while_a_probe_is_under_way_all_others_are_turned_away_at_once():
    engine, breaker = ScriptedEngine(("a",), fail_at=0, gap_s=1), Breaker(failures=1, cool_down_s=5)
    handler = fallback({"m": engine}, ["m"], breaker)

    async def main():
        await ask(handler)
        await asyncio.sleep(5)
        engine.fail_at = None
        answers = await asyncio.gather(*(ask(handler) for _ in range(4)))
        assert answers[0] == "a"
        assert all(isinstance(answer, CircuitOpen) and "probe" in str(answer) for answer in answers[1:])
        assert len(engine.asked) == 2

    run(main())


def test_a_probe_whose_caller_leaves_makes_room_for_the_next():
    engine, breaker = ScriptedEngine(("a",), fail_at=0, gap_s=1), Breaker(failures=1, cool_down_s=5)
    handler = fallback({"m": engine}, ["m"], breaker)

    async def main():
        await ask(handler)
        await asyncio.sleep(5)
        engine.fail_at = None
        task = asyncio.create_task(ask(handler))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert breaker.state("m") == "half-open"
        assert await ask(handler) == "a"

    run(main())


def test_what_began_before_the_circuit_opened_has_no_say_after_it():
    breaker = Breaker(failures=1, cool_down_s=10)
    slow, quick = ScriptedEngine(("a",), delay_s=5, gap_s=0), ScriptedEngine(fail_at=0, gap_s=0)

    async def main():
        late = asyncio.create_task(ask(fallback({"m": slow}, ["m"], breaker)))
        await asyncio.sleep(1)
        await ask(fallback({"m": quick}, ["m"], breaker))
        assert await late == "a"
        return breaker.state("m")

    assert run(main()) == "open"


def test_a_failure_that_began_before_the_circuit_opened_does_not_open_it_again():
    breaker = Breaker(failures=1, cool_down_s=10)
    slow, quick, well = (
        ScriptedEngine(fail_at=0, gap_s=20),
        ScriptedEngine(fail_at=0, gap_s=0),
        ScriptedEngine(("a",), gap_s=0),
    )

    async def main():
        late = asyncio.create_task(ask(fallback({"m": slow}, ["m"], breaker)))
        await asyncio.sleep(1)
        await ask(fallback({"m": quick}, ["m"], breaker))
        await asyncio.sleep(10)
        assert await ask(fallback({"m": well}, ["m"], breaker)) == "a"
        assert isinstance(await late, EngineError)
        return breaker.state("m")

    assert run(main()) == "closed"


def test_a_deadline_inside_is_told_from_a_stalled_engine():
    other = ScriptedEngine()

    async def main():
        models = {"a": ScriptedEngine(delay_s=50), "b": other}
        await complete(fallback(models, ["a", "b"], Breaker()), within(Q, 3))

    with pytest.raises(DeadlineExceeded):
        run(main())
    assert not other.asked


@pytest.mark.parametrize(
    ("status", "state"), [(400, "closed"), (422, "closed"), (429, "open"), (401, "open"), (None, "open")]
)
def test_a_malformed_request_says_nothing_about_the_engines_health(status, state):
    engine, breaker = ScriptedEngine(fail_at=0, error=EngineError("no", status=status)), Breaker(failures=1)

    async def main():
        await ask(fallback({"m": engine}, ["m"], breaker))
        return breaker.state("m")

    assert run(main()) == state


def test_a_deadline_that_passes_is_not_the_engines_failure():
    breaker = Breaker(failures=1)
    handler = fallback({"m": ScriptedEngine(delay_s=50)}, ["m"], breaker)

    async def main():
        with pytest.raises(DeadlineExceeded):
            await complete(handler, within(Q, 3))
        assert clock.now() == 3
        return breaker.state("m")

    assert run(main()) == "closed"


def test_the_next_model_answers_and_the_route_and_the_latency_tell_of_the_first():
    models = {"a": ScriptedEngine(fail_at=0, gap_s=2), "b": ScriptedEngine(("b",), gap_s=1)}

    async def main():
        return await complete(fallback(models, ["a", "b"], Breaker()), Q)

    answer = run(main())
    assert (answer.text, answer.done.model) == ("b", "b")
    assert answer.done.route == ("fallback:a>b",)
    assert (answer.done.timing.ttft, answer.done.timing.e2e) == (3, 3)


def test_an_answer_from_the_first_passes_as_it_is():
    answer = run(complete(fallback({"a": ScriptedEngine(("x",)), "b": ScriptedEngine()}, ["a", "b"], Breaker()), Q))
    assert answer.done.route == ()


def test_after_the_first_token_an_error_is_raised_and_nobody_else_is_asked():
    other = ScriptedEngine()

    async def main():
        events = fallback({"a": ScriptedEngine(fail_at=1), "b": other}, ["a", "b"], Breaker())(Q)
        assert (await anext(events)).text == "a "
        with pytest.raises(EngineError, match="fell over"):
            await anext(events)

    run(main())
    assert not other.asked


def test_an_empty_opening_chunk_is_not_yet_an_answer():
    async def opens_and_falls(request):
        yield Chunk("", clock.now())
        raise EngineError("gone")

    handler = fallback({"a": opens_and_falls, "b": ScriptedEngine(("b",))}, ["a", "b"], Breaker())
    answer = run(complete(handler, Q))
    assert [chunk.text for chunk in answer.chunks] == ["b"]


def test_a_stream_without_a_done_is_a_failure():
    async def nothing(request):
        return
        yield

    async def half(request):
        yield Chunk("h", clock.now())

    assert run(ask(fallback({"a": nothing, "b": ScriptedEngine(("b",))}, ["a", "b"], Breaker()))) == "b"
    assert isinstance(run(ask(fallback({"a": half}, ["a"], Breaker()))), StreamIncomplete)


def test_an_answer_of_no_words_is_an_answer():
    async def silent(request):
        yield Done(Usage(1, 0), Timing(0.0))

    assert run(ask(fallback({"a": silent, "b": ScriptedEngine()}, ["a", "b"], Breaker()))) == ""


def test_all_down_names_each_models_last_error_within_bounded_time():
    models = {
        "dead": ScriptedEngine(fail_at=0, gap_s=0),
        "mute": ScriptedEngine(delay_s=1e6),
        "open": ScriptedEngine(fail_at=0, gap_s=0, error=EngineError("out of memory")),
    }
    breaker = Breaker(failures=1, cool_down_s=60)

    async def main():
        await ask(fallback(models, ["open"], breaker))
        error = await ask(fallback(models, ["dead", "mute", "open"], breaker, first_token_s=30))
        return error, clock.now()

    error, took = run(main())
    assert isinstance(error, AllDown)
    assert took == 30 <= 3 * 30
    for part in ("dead: the engine fell over", "mute: no token within 30 s", "open: open is left alone"):
        assert part in str(error)
    assert isinstance(error.errors["mute"], EngineStalled)
    assert models["mute"].closed == 1, "the mute engine was told to stop"
    assert error.retry_after_s == 0


def test_with_every_circuit_open_the_shortest_wait_is_told_at_once():
    models = {name: ScriptedEngine(fail_at=0, gap_s=0) for name in "ab"}
    breaker = Breaker(failures=1, cool_down_s=10)

    async def main():
        await ask(fallback(models, ["a"], breaker))
        await asyncio.sleep(3)
        await ask(fallback(models, ["b"], breaker))
        return (await ask(fallback(models, ["b", "a"], breaker))).retry_after_s, clock.now()

    assert run(main()) == (7, 3)


def test_errors_that_are_not_the_engines_are_raised_at_once():
    other = ScriptedEngine()
    models = {"a": ScriptedEngine(fail_at=0, error=InvalidRequest("nonsense")), "b": other}
    with pytest.raises(InvalidRequest, match="nonsense"):
        run(complete(fallback(models, ["a", "b"], Breaker()), Q))
    assert not other.asked


@pytest.mark.parametrize(
    ("order", "says"), [([], "the order is"), (["x"], "names x"), (["a", "a"], "the order is"), ([1], "give strings")]
)
def test_an_order_that_cannot_be_followed_is_refused(order, says):
    with pytest.raises(InvalidValue, match=says):
        fallback({"a": ScriptedEngine()}, order, Breaker())


def test_breakers_that_never_open_or_never_hold_are_refused():
    for wrong in (
        {"failures": 0},
        {"failures": 1.5},
        {"cool_down_s": 0},
        {"cool_down_s": float("nan")},
        {"cool_down_s": "10"},
    ):
        with pytest.raises(InvalidValue):
            Breaker(**wrong)
    with pytest.raises(InvalidValue, match="first_token_s"):
        fallback({"a": ScriptedEngine()}, ["a"], Breaker(), first_token_s=0)
