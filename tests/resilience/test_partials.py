"""Parts of answers: handed out where allowed, counted as the ledger counts them."""

from __future__ import annotations

import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidValue,
    Request,
    StreamIncomplete,
    ToolCallDelta,
    Usage,
    clock,
    complete,
    run_virtual,
    stack,
    within,
)
from labkit.resilience import Partials, Retry
from resilience.engines import Scheduled

ASKED = Request("Tell me.")
FAILED = EngineError("status 503", 503)
PRICE = self_defined("p", "1", "2")


def outcome(handler, request=ASKED):
    """The answer or the error, and when it came."""

    async def main():
        try:
            found = await complete(handler, request() if callable(request) else request)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            found = error
        return found, clock.now()

    return run_virtual(main())


def test_a_stream_that_fails_after_content_ends_with_what_came():
    ledger = Ledger(":memory:")
    answer, _ = outcome(stack(Booked(ledger, {"*": PRICE}), Partials(), engine=Scheduled(((FAILED, 2),))))
    assert answer.text == "a b "
    assert (answer.done.finish_reason, answer.done.route) == ("partial", ("partial",))
    assert answer.done.faults[0].error is FAILED
    assert (answer.done.usage, answer.done.usage_note) == (Usage(10, 2), "")
    (row,) = ledger.rows()
    assert (row.outcome, row.usage) == ("failed", answer.done.usage)


def test_a_stream_without_an_end_is_a_part():
    answer, _ = outcome(stack(Partials(), engine=ScriptedEngine(without_done=True)))
    assert (answer.text, answer.done.finish_reason) == ("a b c ", "partial")
    assert isinstance(answer.done.faults[0].error, StreamIncomplete)


def test_what_fails_behind_an_end_is_no_second_end():
    async def babbling(request):
        async for event in ScriptedEngine()(request):
            yield event
        yield Chunk("more", clock.now())
        raise FAILED

    got = []

    async def main():
        async for event in stack(Partials(), engine=babbling)(ASKED):
            got.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(EngineError):
        run_virtual(main())
    assert sum(isinstance(event, Done) for event in got) == 1


def test_without_a_running_count_the_usage_says_what_is_missing():
    answer, _ = outcome(stack(Partials(), engine=Scheduled(((FAILED, 2),), running_usage=False)))
    assert answer.done.usage == Usage(0, 2)
    assert "input is unknown" in answer.done.usage_note


def test_a_deadline_gives_the_part_before_it():
    engine = ScriptedEngine()
    answer, ended = outcome(stack(Partials(margin_s=0.1), engine=engine), lambda: within(ASKED, 2.5))
    assert (answer.text, answer.done.finish_reason) == ("a b ", "partial")
    assert ended == pytest.approx(2.4)
    assert isinstance(answer.done.faults[0].error, DeadlineExceeded)
    assert engine.closed == 1


def test_nothing_is_handed_out_before_content_or_where_it_is_of_no_use():
    before, _ = outcome(stack(Partials(), engine=Scheduled((FAILED,))))
    json, _ = outcome(
        stack(Partials(), engine=Scheduled(((FAILED, 2),))), Request("x", response_format={"type": "json_object"})
    )
    tools, _ = outcome(stack(Partials(), engine=Scheduled(((FAILED, 2),))), Request("x", extra={"tools": [{}]}))
    never, _ = outcome(stack(Partials(allow=lambda _: False), engine=Scheduled(((FAILED, 2),))))
    wrong, _ = outcome(stack(Partials(allow=lambda _: 1 / 0), engine=Scheduled(((FAILED, 2),))))
    assert [before, json, tools, never, wrong] == [FAILED] * 5
    assert any("could not judge" in note for note in wrong.__notes__)


def test_an_answer_that_has_begun_to_call_a_tool_is_no_part():
    async def calling(request):
        yield Chunk("Let me look. ", clock.now())
        yield Chunk("", clock.now(), tool_calls=(ToolCallDelta(0, "c1", "search", '{"que'),))
        raise StreamIncomplete("cut")

    found, _ = outcome(stack(Partials(), engine=calling))
    assert isinstance(found, StreamIncomplete)


def test_a_bug_is_no_part_and_whole_answers_pass():
    found, _ = outcome(stack(Partials(), engine=Scheduled(((ValueError("a bug"), 2),))))
    assert isinstance(found, ValueError)
    whole, _ = outcome(stack(Partials(), engine=ScriptedEngine()))
    assert (whole.text, whole.done.finish_reason, whole.done.route) == ("a b c ", "stop", ())


def test_over_a_retry_only_what_could_not_be_tried_again_is_a_part():
    engine = Scheduled((FAILED, (FAILED, 1)))
    answer, _ = outcome(stack(Partials(), Retry(), engine=engine))
    assert (answer.text, len(engine.at)) == ("a ", 2)


@pytest.mark.parametrize("given", [{"allow": True}, {"margin_s": -1}])
def test_settings_that_cannot_work_are_refused(given):
    with pytest.raises(InvalidValue):
        Partials(**given)
