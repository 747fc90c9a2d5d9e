from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel
from labkit.ledger import Ledger, booked, tokens
from labkit.request import InvalidRequest, Request, Usage, complete
from labkit.streaming import any_of, enough_words, gone, json_complete, repeating, said, stop_when, tokens_saved
from tests.streaming.engine import Scripted, run

ASKED = Request("q", model="m")


@pytest.mark.parametrize("running", [True, False], ids=["running counts", "counted chunks"])
def test_the_engine_is_closed_before_the_done_and_the_done_says_what_was_used(running):
    engine = Scripted(("one ", "two ", "three ", "four "), running_usage=running)

    async def main():
        events = stop_when(engine, lambda text: text.endswith("two "))(ASKED)
        return [(event, engine.closed) async for event in events]

    seen = run(main())
    assert [event.text for event, _ in seen[:-1]] == ["one ", "two "]
    done, closed = seen[-1]
    assert closed == 1
    assert (engine.produced, engine.finished) == (2, 0)
    assert done.usage == (Usage(10, 2) if running else Usage(0, 2))
    assert (done.finish_reason, done.route, done.model) == ("stop", ("cancelled-early",), "m")
    assert (done.timing.ttft, done.timing.e2e) == (1, 2)


def test_an_answer_that_never_meets_the_condition_passes_as_it_is():
    engine = Scripted()

    async def main():
        return await complete(stop_when(engine, lambda text: "z" in text), ASKED), await complete(engine, ASKED)

    through, direct = run(main())
    assert through.text == direct.text
    assert through.done.route == direct.done.route == ("engine",)


def test_an_error_passes_and_a_reader_who_leaves_closes_the_engine():
    engine = Scripted(fail_after=1)
    with pytest.raises(ConnectionError):
        run(complete(stop_when(engine, lambda _: False), ASKED))

    async def leave():
        await asyncio.wait_for(complete(stop_when(engine, lambda _: False), ASKED), 0.5)

    with pytest.raises(TimeoutError):
        run(leave())
    assert engine.closed == engine.started == 2


def test_the_books_inside_count_what_the_done_outside_says():
    engine = Scripted(("a ", "b ", "c "))

    async def main(ledger):
        return await complete(stop_when(booked(engine, ledger, provider="lab"), enough_words(1)), ASKED)

    with Ledger(":memory:") as ledger:
        done = run(main(ledger)).done
        counted = tokens(ledger)
    assert counted["visible_output"] == done.usage.output_tokens == 1


def test_a_stopped_answer_frees_the_modelled_engine_for_others():
    settings = EngineSettings(num_blocks=100, max_num_seqs=1)
    latency = LatencyModel(step_s=1.0, sequence_s=0, linear_s=0, weights_s=0, pair_s=0, kv_s=0)
    ids = {"prompt_token_ids": [1, 2, 3]}

    async def main():
        async with ModelledEngine(latency, settings) as engine:
            first = complete(stop_when(engine, enough_words(5)), Request("q", max_tokens=100, extra=ids))
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
    text = before + document
    assert [n for n in range(len(text) + 1) if json_complete(text[:n])] == [len(text)]
    assert json_complete(text + "\n``` and more")


def test_words_count_when_they_are_whole():
    condition = enough_words(2)
    assert [condition(text) for text in ("", "one", "one two", "one two ", "one two t", " one  two\n")] == [0, 0, 0, 1, 1, 1]


def test_a_loop_is_noticed_but_not_a_rule_or_a_list():
    loops = repeating()
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
    loops = repeating(times=3, at_least=12, longest=20)
    brute = any(
        3 * size >= 12 and text[-size:].strip() and text[-3 * size :] == text[-size:] * 3
        for size in range(1, 21)
        if 3 * size <= len(text)
    )
    assert loops(text) == brute


def test_a_text_too_short_for_a_loop_is_none():
    loops = repeating()
    assert not any(loops(text) for text in ("", "a", "a" * 59, " " * 59))
    assert loops("a" * 60)


def test_conditions_combine_and_say_what_is_wrong_with_them():
    left = []
    condition = any_of(said(r"\b(yes|no)\b"), gone(lambda: bool(left)))
    assert not condition("well")
    assert condition("well, yes")
    left.append(1)
    assert condition("well")
    for wrong in (lambda: enough_words(0), lambda: said("("), lambda: repeating(times=1)):
        with pytest.raises(InvalidRequest):
            wrong()


def test_what_is_saved_is_what_was_expected_and_not_generated():
    assert tokens_saved(120.5, 20) == 100.5
    assert tokens_saved(10, 20) == 0
    for wrong in ((-1, 2), (1, -2), (float("nan"), 2)):
        with pytest.raises(InvalidRequest):
            tokens_saved(*wrong)
