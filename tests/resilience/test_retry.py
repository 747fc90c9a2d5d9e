"""Retries: which failures, how often, when, and what is left alone. All on virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from decimal import Decimal

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.latency import LatencyModel, StepWork, ttft_seconds
from labkit.ledger import Booked, Ledger
from labkit.request import (
    DeadlineExceeded,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    InvalidValue,
    Request,
    StreamIncomplete,
    clock,
    complete,
    run_virtual,
    stack,
    within,
)
from labkit.resilience import Backoff, Dollars, Quota, Ratio, Retry, RetryCounts, retryable
from labkit.routing import AllDown, CircuitOpen, Fallback, Hedge
from resilience.engines import Scheduled

ASKED = Request("May I return it?")
STEADY = Backoff(1.0, 1.0, "none")
PRICE = self_defined("p", "1", "2")


def failure(status):
    return EngineError(f"status {status}", status)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_may_pass(status):
    assert retryable(failure(status))
    assert retryable(AllDown({"a": failure(400), "b": failure(status)}))


@pytest.mark.parametrize("status", [None, 200, 400, 401, 402, 403, 404, 413, 422, 501, 505])
def test_statuses_that_will_not(status):
    assert not retryable(failure(status))
    assert not retryable(AllDown({"a": failure(status), "b": CircuitOpen("left alone", 3.0)}))


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (EngineUnreachable("gone"), True),
        (EngineStalled("silent"), True),
        (StreamIncomplete("cut"), True),
        (CircuitOpen("left alone", 3.0), False),
        (InvalidRequest("bad"), False),
        (DeadlineExceeded("late"), False),
        (ValueError("a bug"), False),
        (EngineError("Error code: insufficient_quota", 429), False),
        (EngineError("You exceeded your current quota, please check your plan", 429), False),
        (EngineError("Budget has been exceeded! Current cost: 10.1", 429), False),
        (EngineError("Rate limit reached: 3 requests per minute", 429), True),
    ],
)
def test_other_errors(error, may_pass):
    assert retryable(error) is may_pass


KINDS = st.sampled_from([None, failure(503), failure(429), failure(400), EngineStalled("silent"), StreamIncomplete("cut")])


@settings(max_examples=40, deadline=None)
@given(st.lists(KINDS, max_size=6), st.integers(1, 5), st.integers(0, 99))
def test_attempts_and_waits_are_tenacitys_for_the_same_failures_and_dice(ends, attempts, seed):
    async def ours():
        engine = Scheduled(tuple(ends))
        try:
            return engine.at, (await complete(stack(Retry(attempts, seed=seed), engine=engine), ASKED)).text
        except EngineError as error:
            return engine.at, error

    async def theirs():
        engine = Scheduled(tuple(ends))
        random.seed(seed)
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),
            retry=tenacity.retry_if_exception(retryable),
            sleep=lambda seconds: clock.sleep_until(clock.now() + seconds),
            reraise=True,
        )
        try:
            return engine.at, (await retrying(complete, engine, ASKED)).text
        except EngineError as error:
            return engine.at, error

    assert run_virtual(ours()) == run_virtual(theirs())


def outcome(lever, engine, request=ASKED):
    """The answer or the error, and when it came."""

    async def main():
        try:
            found = await complete(stack(lever, engine=engine), request() if callable(request) else request)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            found = error
        return found, clock.now()

    return run_virtual(main())


def test_an_answer_after_two_failures_says_so_and_each_attempt_is_booked():
    ledger = Ledger(":memory:")
    engine = Scheduled((failure(503), failure(500)))
    retry = Retry(3, STEADY)
    answer, ended = outcome(retry, stack(Booked(ledger, {"*": PRICE}), engine=engine))
    assert answer.text == "a b c "
    assert answer.done.route == ("retry:3",)
    assert answer.done.timing.sent == 0
    assert ended == answer.done.timing.done == 1 + 1 + 1 + 1 + 3
    assert [(row.attempt, row.outcome) for row in ledger.rows()] == [(1, "failed"), (2, "failed"), (3, "completed")]
    assert retry.counts == RetryCounts(requests=1, attempts=3, answered=1)


def test_nothing_is_tried_again_once_content_has_reached_the_reader_and_what_came_is_booked():
    ledger = Ledger(":memory:")
    engine = Scheduled(((failure(503), 2),))
    retry = Retry(3, STEADY)
    error, _ = outcome(retry, stack(Booked(ledger, {"*": PRICE}), engine=engine))
    assert error.status == 503
    assert len(engine.asked) == 1
    assert "had reached the reader" in error.__notes__[0]
    (row,) = ledger.rows()
    assert (row.outcome, row.output_tokens, row.cost) == ("failed", 2, Decimal("0.000014"))
    assert retry.counts.after_content == 1


def test_an_answer_that_is_held_back_is_tried_again_after_content():
    engine = Scheduled(((failure(503), 2),))
    answer, ended = outcome(Retry(3, STEADY, whole=True), engine)
    assert (answer.text, ended) == ("a b c ", 3 + 1 + 3)
    assert {chunk.at for chunk in answer.chunks} == {7.0}


@pytest.mark.parametrize(("whole", "silence_s"), [(False, 0.5), (True, 2.5)])
def test_an_attempt_that_gives_nothing_for_too_long_is_stalled_and_closed(whole, silence_s):
    engine = Scheduled()
    error, ended = outcome(Retry(2, STEADY, silence_s=silence_s, whole=whole), engine)
    assert isinstance(error, EngineStalled)
    assert ended == pytest.approx(2 * silence_s + 1)
    assert [each.closed for each in engine.made] == [1, 1]


def test_the_limit_leaves_the_last_error_with_notes_of_the_others():
    ends = (failure(503), EngineStalled("silent"), failure(500))
    retry = Retry(3, STEADY)
    error, _ = outcome(retry, Scheduled(ends))
    assert error is ends[-1]
    (note,) = error.__notes__
    assert "3 attempts are the limit" in note
    assert "attempt 1 ended with EngineError: status 503; attempt 2 ended with EngineStalled: silent" in note
    assert retry.counts.limit_reached == 1


def test_no_attempt_before_the_time_that_the_engine_asked_for():
    engine = Scheduled((EngineError("slow down", 429, retry_after_s=20.0),))
    outcome(Retry(2, STEADY), engine)
    assert engine.at == [0, 21]


def test_a_wait_that_is_asked_for_and_is_too_long_ends_the_attempts():
    engine = Scheduled((EngineError("slow down", 429, retry_after_s=90.0),))
    retry = Retry(2, STEADY)
    error, ended = outcome(retry, engine)
    assert (error.status, ended, len(engine.at), retry.counts.out_of_time) == (429, 1, 1, 1)


def test_a_deadline_is_shared_and_no_wait_ends_after_it():
    engine = Scheduled((failure(503),) * 9)
    retry = Retry(9, STEADY)
    error, ended = outcome(retry, engine, lambda: within(ASKED, 5.5))
    assert (error.status, ended, engine.at) == (503, 5, [0, 2, 4])  # the next would begin at 6
    assert "a wait of 1 s would not end within the 0.5 s" in error.__notes__[0]
    assert retry.counts.out_of_time == 1


def test_an_attempt_that_cannot_finish_is_not_made():
    engine = Scheduled((failure(503),) * 9)
    error, ended = outcome(Retry(9, STEADY, expects=lambda _: 3.0), engine, lambda: within(ASKED, 8))
    assert (error.status, ended, engine.at) == (503, 5, [0, 2, 4])  # the next would take from 6 to 9
    assert "the 3 s of an attempt" in error.__notes__[0]
    engine = Scheduled()
    error, ended = outcome(Retry(expects=lambda _: 3.0), engine, lambda: within(ASKED, 2))
    assert isinstance(error, DeadlineExceeded)
    assert (ended, engine.at) == (0, [])


def test_the_latency_model_of_chapter_02_tells_what_cannot_finish():
    model = LatencyModel(step_s=0.01, sequence_s=0.0, linear_s=0.001, weights_s=0.0, pair_s=0.0, kv_s=0.0)

    def expects(request):
        """500 tokens read, then a step for each further token that may be written."""
        steps = [StepWork.of([(500, 0)])] + [StepWork.of([(1, 500 + n)]) for n in range(1, request.max_tokens)]
        return ttft_seconds(model, 500, steps)

    assert expects(Request("x", max_tokens=91)) == pytest.approx(0.51 + 90 * 0.011)  # 1.5 s
    ends = []
    for max_tokens in (91, 201):  # 1.5 s and 2.71 s; a failure at 1 s, a wait of 1 s, and a deadline at 4 s
        engine = Scheduled((failure(503),))
        ask = lambda tokens=max_tokens: within(Request("x", max_tokens=tokens), 4)  # noqa: E731
        outcome(Retry(2, STEADY, expects=expects), engine, ask)
        ends.append(engine.at)
    assert ends == [[0, 2], [0]]


@pytest.mark.parametrize("wrong", [lambda _: 1 / 0, lambda _: -1.0, lambda _: None, lambda _: float("nan")])
def test_an_estimate_that_fails_is_told_and_costs_no_answer(wrong):
    answer, _ = outcome(Retry(expects=wrong), Scheduled())
    assert answer.text == "a b c "
    assert [fault.where for fault in answer.done.faults] == ["retry"]


def test_a_judge_of_errors_that_fails_leaves_the_engines_error():
    error, _ = outcome(Retry(safe=lambda _: 1 / 0), Scheduled((failure(503),)))
    assert error.status == 503
    assert "could not judge" in error.__notes__[0]


def attempts_of(handler, count_of, budget=None):
    async def main():
        with pytest.raises(EngineError):
            await complete(handler, ASKED)
        return count_of()

    return run_virtual(main())


@pytest.mark.parametrize(("inner", "outer"), [(3, 3), (2, 4), (1, 5)])
def test_retries_multiply_and_a_shared_budget_bounds_them(inner, outer):
    def dead(budgets):
        engine = Scheduled((failure(503),) * 99)
        levers = (Retry(outer, STEADY, budgets), Retry(inner, STEADY, budgets))
        return attempts_of(stack(*levers, engine=engine), lambda: len(engine.at))

    assert dead(()) == inner * outer
    assert dead(Ratio(0, 0.2, 10, by=())) == min(1 + 2, inner * outer)  # a reserve of two retries


def test_over_a_fallback_and_a_hedge_the_attempts_multiply_by_the_models():
    for chooser in (Fallback(("a", "b")), Hedge(1.0)):
        models = {name: Scheduled((failure(503),) * 99) for name in ("a", "b")}
        handler = stack(Retry(2, STEADY), chooser, engine=models)
        assert attempts_of(handler, lambda models=models: sum(len(m.at) for m in models.values())) == 2 * 2


def test_a_request_is_counted_once_by_a_budget_of_two_retries():
    budget = Ratio(1.0, 0.0, 10, by=())

    async def main():
        await complete(stack(Retry(budgets=budget), Retry(budgets=budget), engine=Scheduled()), ASKED)
        return budget.left(ASKED)

    assert run_virtual(main()) == 1


def test_a_caller_that_leaves_while_it_waits_gives_back_what_was_taken():
    async def main():
        budgets = (Ratio(0, 1, 10), Quota(10), Dollars("1", "0", {"*": PRICE}))
        before = [budget.left(ASKED) for budget in budgets]
        handler = stack(Retry(2, Backoff(5, 5, "none"), budgets), engine=Scheduled((failure(503),)))
        task = asyncio.create_task(complete(handler, ASKED))
        await asyncio.sleep(3)
        during = [budget.left(ASKED) for budget in budgets]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return before, during, [budget.left(ASKED) for budget in budgets]

    before, during, after = run_virtual(main())
    assert before == after == [10, 10, 1]
    assert all(now < then for now, then in zip(during, before, strict=True))


def test_a_refusal_by_one_budget_costs_the_others_nothing():
    async def main():
        full, empty = Quota(100), Quota(0)
        retry = Retry(3, STEADY, (full, empty))
        with pytest.raises(EngineError) as caught:
            await complete(stack(retry, engine=Scheduled((failure(503),))), ASKED)
        return full.left(ASKED), full.refused, empty.refused, retry.counts.budget_empty, caught.value.__notes__[0]

    left, *refused, note = run_virtual(main())
    assert left == 100
    assert refused == [0, 1, 1]
    assert "budget Quota(start=0" in note


def test_an_engine_that_answers_a_cancellation_with_an_error_is_not_asked_again():
    asked = []

    async def stubborn(request):
        asked.append(request)
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise failure(503) from None
        yield

    async def main():
        task = asyncio.create_task(complete(stack(Retry(3, STEADY), engine=stubborn), ASKED))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
    assert len(asked) == 1


def test_a_reader_that_leaves_closes_the_engine():
    async def main():
        engine = ScriptedEngine()
        async with aclosing(stack(Retry(), engine=engine)(ASKED)) as events:
            await anext(events)
        return engine.closed, engine.finished

    assert run_virtual(main()) == (1, 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"attempts": 0}, "whole number from 1"),
        ({"backoff": 1.0}, "give a Backoff"),
        ({"budgets": (0.2,)}, "give retry budgets"),
        ({"budgets": Ratio}, "give retry budgets"),
        ({"safe": 503}, "give a function"),
        ({"expects": 3}, "give a function"),
        ({"silence_s": 0}, "some time to begin"),
        ({"longest_wait_s": -1}, "finite number from 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(given, told):
    with pytest.raises(InvalidValue, match=told):
        Retry(**given)
