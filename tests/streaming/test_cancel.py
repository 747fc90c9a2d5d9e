from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit import streaming
from labkit.engines import ScriptedEngine
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel
from labkit.ledger import Booked, Ledger, tokens
from labkit.request import InvalidValue, Request, Usage, complete, stack
from labkit.streaming import AnyOf, EnoughWords, Gone, JsonComplete, Repeating, Said, StopWhen, tokens_saved
from tests.streaming.engine import WatchedEngine, run

ASKED = Request("q", model="m")


@pytest.mark.parametrize("running", [True, False], ids=["running counts", "counted chunks"])
def test_the_engine_is_closed_before_the_done_and_the_done_says_what_was_used(running):
    engine = WatchedEngine(("one ", "two ", "three ", "four "), running_usage=running)

    async def main():
        events = StopWhen(lambda text: text.endswith("two "))(engine)(ASKED)
        return [(event, engine.closed) async for event in events]

    seen = run(main())
    assert [event.text for event, _ in seen[:-1]] == ["one ", "two "]
    done, closed = seen[-1]
    assert closed == 1
    assert (engine.produced, engine.finished) == (2, 0)
    assert done.usage == (Usage(10, 2) if running else Usage(0, 2))
    assert (done.finish_reason, done.route, done.model, done.cost) == ("stop", ("cancelled-early",), "m", None)
    assert (done.timing.ttft, done.timing.e2e) == (1, 2)


def test_an_answer_that_never_meets_the_condition_passes_as_it_is():
    engine = ScriptedEngine()

    async def main():
        return await complete(StopWhen(lambda text: "z" in text)(engine), ASKED), await complete(engine, ASKED)

    through, direct = run(main())
    assert through.text == direct.text
    assert through.done.route == direct.done.route == ()


def test_an_error_passes_and_a_reader_who_leaves_closes_the_engine():
    engine = ScriptedEngine(fail_at=1, error=ConnectionError("the engine fell over"))
    with pytest.raises(ConnectionError):
        run(complete(StopWhen(lambda _: False)(engine), ASKED))

    async def leave():
        await asyncio.wait_for(complete(StopWhen(lambda _: False)(engine), ASKED), 0.5)

    with pytest.raises(TimeoutError):
        run(leave())
    assert engine.closed == len(engine.asked) == 2


@pytest.mark.parametrize("outside", [True, False], ids=["ledger outside", "ledger inside"])
def test_wherever_the_books_stand_they_count_once_what_the_done_says(outside):
    engine = ScriptedEngine()

    async def main(ledger):
        levers = Booked(ledger, provider="lab"), StopWhen(EnoughWords(1))
        return await complete(stack(*(levers if outside else levers[::-1]), engine=engine), ASKED)

    with Ledger(":memory:") as ledger:
        done = run(main(ledger)).done
        counted = tokens(ledger)
        (row,) = ledger.rows()
    assert counted["visible_output"] == done.usage.output_tokens == engine.used.output_tokens
    assert (row.outcome, row.usage) == ("cancelled", done.usage)


@pytest.mark.parametrize("reached", [0, 1, 2])
def test_a_condition_that_raises_never_costs_the_answer_and_is_told_beside_it(reached):
    engine, asked_with = ScriptedEngine(), []

    def condition(text):
        asked_with.append(text)
        if text.count(" ") > reached:
            raise KeyError("no such label")
        return False

    answer = run(complete(StopWhen(condition)(engine), ASKED))
    assert answer.text == "a b c "
    (fault,) = answer.done.faults
    assert (fault.where, type(fault.error)) == ("stop-when", KeyError)
    assert (answer.done.usage, answer.done.route, engine.finished) == (Usage(10, 3), (), 1)
    assert len(asked_with) == reached + 1, "it is asked no more"


def test_a_stack_that_stops_compares_and_says_what_it_is():
    engine = ScriptedEngine()
    lever = StopWhen(AnyOf(EnoughWords(8), Said("yes"), Repeating(), JsonComplete()))
    assert lever(engine) == StopWhen(AnyOf(EnoughWords(8), Said("yes"), Repeating(), JsonComplete()))(engine)
    assert lever != StopWhen(AnyOf(EnoughWords(9)))
    assert eval(repr(lever), dict(vars(streaming))) == lever
    assert replace(lever.condition) == lever.condition


def test_a_stopped_answer_frees_the_modelled_engine_for_others():
    settings = EngineSettings(num_blocks=100, max_num_seqs=1)
    latency = LatencyModel(step_s=1.0, sequence_s=0, linear_s=0, weights_s=0, pair_s=0, kv_s=0)
    ids = {"prompt_token_ids": [1, 2, 3]}

    async def main():
        async with ModelledEngine(latency, settings) as engine:
            first = complete(StopWhen(EnoughWords(5))(engine), Request("q", max_tokens=100, extra=ids))
            second = complete(engine, Request("q", max_tokens=2, extra=ids))
            return await asyncio.gather(first, second)

    stopped, other = run(main())
    assert stopped.done.usage.output_tokens == 5
    # five steps for the first, one that had begun when it was closed, then two for the second
    assert other.done.timing.e2e == pytest.approx(8)


VALUES = st.recursive(
    st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES, st.sampled_from(["", "Here: ", "See [1] or [it](u): ", "```json\n"]))
def test_json_is_complete_at_its_last_bracket_and_not_before(value, before):
    document = json.dumps({"v": value})
    json_complete = JsonComplete()
    text = before + document
    assert [n for n in range(len(text) + 1) if json_complete(text[:n])] == [len(text)]
    assert json_complete(text + "\n``` and more")


def test_words_count_when_they_are_whole():
    condition = EnoughWords(2)
    assert [condition(text) for text in ("", "one", "one two", "one two ", "one two t", " one  two\n")] == [0, 0, 0, 1, 1, 1]


def test_a_loop_is_noticed_but_not_a_rule_or_a_list():
    loops = Repeating()
    passage = "I am sorry, I cannot say. "
    assert not loops("Well: " + passage * 3)
    assert loops("Well: " + passage * 4)
    assert loops("no " * 40)
    assert loops("Well: " + passage * 5 + passage[:7]), "wherever in the passage the text stands"
    assert not loops("| --- | --- | --- |")
    assert not loops(" " * 500)
    assert not loops("".join(f"- item {i}: in stock\n" for i in range(50)))


@given(st.text(max_size=30), st.text(st.sampled_from("abc "), min_size=1, max_size=12), st.integers(1, 9))
def test_a_loop_is_what_a_search_through_all_passages_finds(before, passage, count):
    text = before + passage * count
    loops = Repeating(times=3, at_least=12, longest=20)
    brute = any(
        3 * size >= 12 and text[-size:].strip() and text[-3 * size :] == text[-size:] * 3
        for size in range(1, 21)
        if 3 * size <= len(text)
    )
    assert loops(text) == brute


def test_a_text_too_short_for_a_loop_is_none():
    loops = Repeating()
    assert not any(loops(text) for text in ("", "a", "a" * 59, " " * 59))
    assert loops("a" * 60)


def test_conditions_combine_and_say_what_is_wrong_with_them():
    left = []
    condition = AnyOf(Said(r"\b(yes|no)\b"), Gone(lambda: bool(left)))
    assert not condition("well")
    assert condition("well, yes")
    left.append(1)
    assert condition("well")


async def later(text):
    return bool(text)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: EnoughWords(0), "limit is 0"),
        (lambda: EnoughWords(float("nan")), "limit is nan"),
        (lambda: EnoughWords("8"), "limit is '8'"),
        (lambda: Said("("), "no regular expression"),
        (lambda: Said(3), "pattern is 3"),
        (lambda: Repeating(times=1), "times=1"),
        (lambda: Repeating(longest=0.5), "longest=0.5"),
        (lambda: Gone(True), "not True"),
        (lambda: AnyOf(), "no condition"),
        (lambda: AnyOf(EnoughWords(1), "yes"), "not 'yes'"),
        (lambda: StopWhen(EnoughWords), "EnoughWords is a class"),
        (lambda: StopWhen(None), "not None"),
        (lambda: StopWhen(later), "cannot await it"),
    ],
)
def test_a_condition_that_cannot_be_asked_is_refused_when_it_is_made(wrong, says):
    with pytest.raises(InvalidValue, match=says):
        wrong()


def test_what_is_saved_is_what_was_expected_and_not_generated():
    assert tokens_saved(120.5, 20) == 100.5
    assert tokens_saved(10, 20) == 0
    for wrong in ((-1, 2), (1, -2), (float("nan"), 2)):
        with pytest.raises(InvalidValue):
            tokens_saved(*wrong)
