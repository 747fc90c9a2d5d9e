"""Arrivals against their closed forms; the loops on the virtual clock, where every time is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import kstest

from labkit.lab import model_path
from labkit.load import ExactLengths, Run, by_hour, closed_loop, constant, from_times, gamma, open_loop, poisson
from labkit.request import Chunk, Done, Event, InvalidValue, Request, Timing, Usage, clock
from labkit.request.clock import run_virtual
from labkit.request.errors import EngineUnreachable

ASK = Request("hello")


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gamma_gaps_have_their_rate_and_spread(cv: float) -> None:
    gaps = np.diff(list(islice(gamma(20.0, cv, seed=1), 40_000)))
    assert gaps.mean() == pytest.approx(1 / 20, rel=4 * cv / 200)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_poisson_counts_are_as_spread_as_their_mean() -> None:
    counts = np.bincount(np.floor(list(islice(poisson(5.0, seed=3), 20_000))).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.1)


def test_arrivals_by_hour_are_a_poisson_process_of_each_hours_rate() -> None:
    rates, hour_s = [3.0, 0.0, 0.05, 10.0], 2.0
    days = [list(by_hour(rates, hour_s, seed)) for seed in range(2_000)]
    assert all(day == sorted(day) and (not day or 0 <= day[0] <= day[-1] < 8) for day in days)
    counts = np.array([np.histogram(day, bins=4, range=(0, 8))[0] for day in days])
    for rate, count in zip(rates, counts.T, strict=True):
        # Mean and variance of a Poisson count, each within five standard errors.
        assert abs(count.mean() - rate * hour_s) <= 5 * (rate * hour_s / len(days)) ** 0.5
        if rate >= 3:
            assert count.var() / count.mean() == pytest.approx(1, abs=5 * (2 / len(days)) ** 0.5)
    last = np.concatenate([day for day in days])
    assert kstest((last[last >= 6] - 6) / 2, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(counts[:, 0], counts[:, 3])[0, 1]) < 5 / len(days) ** 0.5, "hours know nothing of each other"


@example([0.0, 5e-324], 0.5)
@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=30).map(sorted), st.floats(0.1, 100))
def test_a_stretched_trace_keeps_its_shape(times: list[float], rate: float) -> None:
    found = list(from_times(times, rate))
    span = times[-1] - times[0]
    assert found[0] == 0
    if span > 0:
        assert (len(times) - 1) / found[-1] == pytest.approx(rate)
        for (a, b), (c, d) in zip(pairwise(times), pairwise(found), strict=True):
            assert (b - a) / span == pytest.approx((d - c) / found[-1], abs=1e-9)


def stalling(begin: float, end: float):
    """Answers 0.1 s after it is asked; asked between `begin` and `end`, not before `end`."""

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        sent = clock.now()
        await asyncio.sleep((end - sent if begin <= sent < end else 0) + 0.1)
        yield Chunk("yes", clock.now())
        yield Done(Usage(1, 1), Timing(sent, clock.now(), clock.now(), clock.now()))

    return handle


def test_a_closed_loop_hides_the_stall_that_an_open_loop_shows() -> None:
    async def both() -> tuple[Run, Run]:
        opened = await open_loop(stalling(10, 20), zip(islice(constant(10), 300), iter(lambda: ASK, None), strict=False))
        shut = await closed_loop(stalling(clock.now() + 10, clock.now() + 20), [ASK] * 200, 1)
        return opened, shut

    opened, shut = run_virtual(both())
    late = [s for s in opened.samples if s.ttft > 1]
    assert len(late) == pytest.approx(91, abs=1), "everybody who came in the first nine of the ten seconds waits a second"
    assert sum(s.ttft > 1 for s in shut.samples) == 1, "the one that was under way"
    assert all(s.send_delay == pytest.approx(0, abs=1e-6) for s in opened.samples)


def test_an_engine_that_dies_leaves_what_was_measured_and_the_reason() -> None:
    answered = stalling(0, 0)

    async def dies(request: Request) -> AsyncGenerator[Event, None]:
        if clock.now() > 5:
            raise EngineUnreachable("connection refused")
        async for event in answered(request):
            yield event

    load = zip(constant(10), iter(lambda: ASK, None), strict=False)
    run = run_virtual(open_loop(dies, load))
    assert not run.complete
    assert "5 requests in a row failed" in run.reason
    assert "connection refused" in run.reason
    good = [s for s in run.samples if not s.error]
    assert len(good) == pytest.approx(51, abs=1)
    assert len(run.samples) < 70, "the load ends soon after the engine"
    closed = run_virtual(closed_loop(dies, iter(lambda: ASK, None), 3))
    assert not closed.complete


@pytest.mark.parametrize(("asked", "sent"), [(5, 5), (6, 5), (20, 5)])
def test_a_run_is_complete_if_all_of_it_was_sent_even_where_the_last_five_failed(asked: int, sent: int) -> None:
    async def refuses(request: Request) -> AsyncGenerator[Event, None]:
        raise EngineUnreachable("connection refused")
        yield

    load = [(float(t), ASK) for t in range(asked)]
    for run in (run_virtual(open_loop(refuses, load)), run_virtual(closed_loop(refuses, [ASK] * asked, 1))):
        assert len(run.samples) == sent
        assert (run.complete, bool(run.reason)) == (asked == sent, asked > sent)


def test_who_takes_too_long_is_cut_off_and_kept() -> None:
    run = run_virtual(open_loop(stalling(0, 50), [(0.0, ASK), (60.0, ASK)], timeout_s=5))
    assert [s.error for s in run.samples] == ["no end after 5 s", ""]
    assert run.complete


def test_the_first_token_of_who_failed_is_the_first_with_content() -> None:
    async def dies(request: Request) -> AsyncGenerator[Event, None]:
        for text in ("", "a", "b", ""):
            await asyncio.sleep(1)
            yield Chunk(text, clock.now(), usage=Usage(3, 1) if text == "a" else None)
        raise EngineUnreachable("connection reset")

    (sample,) = run_virtual(open_loop(dies, [(0.0, ASK)])).samples
    assert sample.ttft == pytest.approx(2)
    assert sample.timing.last_token - sample.timing.sent == pytest.approx(3)
    assert (len(sample.chunks), sample.usage, sample.e2e) == (4, Usage(3, 1), None)


def test_the_steady_window_is_by_when_requests_were_due() -> None:
    run = run_virtual(open_loop(stalling(0, 0), [(float(t), ASK) for t in range(10)]))
    steady = run.steady(2, 0.05)
    assert [round(s.due - run.begin) for s in steady.samples] == list(range(2, 9 + 1))
    assert steady.seconds == pytest.approx(run.seconds - 2.05)
    with pytest.raises(InvalidValue, match="nothing left"):
        run.steady(100)


def test_a_run_comes_back_from_its_file(tmp_path: Path) -> None:
    run = run_virtual(open_loop(stalling(0, 2), [(0.0, ASK), (0.5, ASK), (5.0, ASK)], timeout_s=1))
    run.write(tmp_path / "run.jsonl")
    assert Run.read(tmp_path / "run.jsonl") == run
    (tmp_path / "no.jsonl").write_text("{}\n")
    with pytest.raises(InvalidValue, match="no run"):
        Run.read(tmp_path / "no.jsonl")


@given(st.integers(16, 400), st.integers(1, 50))
def test_prompts_have_exactly_their_length(prompt: int, output: int) -> None:
    made = MAKE(prompt, output)
    text = made.messages[0].content
    ids = MAKE._tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert (len(ids), made.max_tokens) == (prompt, output)


MAKE = ExactLengths(str(model_path("small")))


def test_prompts_do_not_share_a_beginning() -> None:
    beginnings = {MAKE(64, 1).messages[0].content[:40] for _ in range(50)}
    assert len(beginnings) == 50


def test_loads_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidValue, match="rate is 0"):
        poisson(0, 1)
    with pytest.raises(InvalidValue, match="cv is -1"):
        gamma(1, -1, 1)
    with pytest.raises(InvalidValue, match="hour 1 is -1"):
        by_hour([1, -1], 1, 1)
    with pytest.raises(InvalidValue, match="hour_s is 0"):
        by_hour([1], 0, 1)
    with pytest.raises(InvalidValue, match="no arrival times"):
        from_times([])
    with pytest.raises(InvalidValue, match="arrival 1 at 1 s comes before arrival 0 at 2 s"):
        from_times([2, 1])
    with pytest.raises(InvalidValue, match="sort the load"):
        run_virtual(open_loop(stalling(0, 0), [(1.0, ASK), (0.0, ASK)]))
    with pytest.raises(InvalidValue, match="concurrency is 0"):
        run_virtual(closed_loop(stalling(0, 0), [ASK], 0))
    with pytest.raises(InvalidValue, match="cannot hold the chat template"):
        MAKE(2, 1)
