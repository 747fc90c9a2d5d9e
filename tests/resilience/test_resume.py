"""An answer that breaks off and is gone on with: the bytes of one that did not, nothing twice, and every token booked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.caches import SingleFlight
from labkit.cost import price_request, self_defined
from labkit.ledger import Booked, Ledger
from labkit.output.asking import whole_key
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidValue,
    Request,
    Timing,
    ToolCallDelta,
    Usage,
    clock,
    complete,
    run_virtual,
    stack,
    within,
)
from labkit.resilience import CannotResume, Idempotent, Mishap, Mishaps, Resume, resume_cost
from labkit.routing import Breaker, Fallback

WORDS = tuple(f"word{number} " for number in range(12))
PRICE = self_defined("test", "1000000", "10000000")  # 1 a token read, 10 a token written


class Greedy:
    """Writes WORDS and stops; a word is a token and takes a second. It goes on behind what it is told that it wrote.

    A prompt has 5 tokens, and one for each word written before. `breaks` has, for each attempt, the number of words after
    which it breaks off (None: it does not; nor do those beyond).
    """

    model = "greedy"

    def __init__(self, *breaks: int | None, error: EngineError | None = None) -> None:
        self.breaks = breaks
        self.error = error or EngineError("the engine fell over", status=500)
        self.asked: list[Request] = []

    async def __call__(self, request: Request) -> AsyncGenerator:
        self.asked.append(request)
        at = self.breaks[len(self.asked) - 1] if len(self.asked) <= len(self.breaks) else None
        sent, left, read = clock.now(), list(WORDS), 5
        if request.extra.get("continue_final_message"):
            said = request.messages[-1].content
            while said:
                assert said.startswith(left[0]), f"it goes on with {left[0]!r}, not {said!r}"
                said, read = said.removeprefix(left.pop(0)), read + 1
        wrote = 0
        for word in left[: request.max_tokens]:
            if wrote == at:
                raise self.error
            await asyncio.sleep(1)
            wrote += 1
            yield Chunk(word, clock.now(), usage=Usage(read, wrote))
        if wrote == at:
            raise self.error
        reason = "stop" if wrote == len(left) < request.max_tokens else "length"  # to stop is a token as well
        yield Done(Usage(read, wrote), Timing(sent, sent + 1, clock.now(), clock.now(), 0.0), reason, self.model)


def resumed(engine, request=None, times=2):
    """The answer or the error, and the rows."""
    with Ledger(":memory:") as ledger:
        handler = stack(Booked(ledger, {"*": PRICE}), Resume(times), engine=engine)
        try:
            found = run_virtual(complete(handler, request or Request("Hello")))
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            found = error
        return found, list(ledger.rows())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 8), max_size=3), st.integers(1, 14))
def test_the_bytes_are_those_of_the_uninterrupted_answer(breaks, max_tokens):
    request = Request("Hello", max_tokens=max_tokens)
    whole, _ = resumed(Greedy(), request)
    engine = Greedy(*breaks)
    answer, rows = resumed(engine, request, times=3)
    assert answer.text == whole.text == "".join(WORDS[:max_tokens])
    assert answer.done.finish_reason == whole.done.finish_reason
    assert len(rows) == len(engine.asked) <= 4
    assert sum(row.output_tokens for row in rows) == whole.done.usage.output_tokens  # no token is written twice
    assert sum((row.usage for row in rows), Usage()) == answer.done.usage
    assert [row.attempt for row in rows] == list(range(1, len(rows) + 1))
    assert sum(row.cost for row in rows) == price_request(answer.done.usage, PRICE).total


def test_each_attempt_has_its_row_and_the_done_counts_all():
    engine = Greedy(4, 3)
    answer, rows = resumed(engine, Request("Hello", idempotency_key="k"))
    assert (answer.text, answer.done.route) == ("".join(WORDS), ("resume:3",))
    assert [(row.outcome, row.input_tokens, row.output_tokens) for row in rows] == [
        ("failed", 5, 4),
        ("failed", 9, 3),
        ("completed", 12, 5),
    ]
    assert answer.done.usage == Usage(26, 12)
    assert answer.done.cost is None
    assert answer.done.timing.e2e == 12.0
    assert answer.done.timing.ttft == 1.0
    assert [asked.max_tokens for asked in engine.asked] == [128, 124, 121]
    first, *rests = [asked.idempotency_key for asked in engine.asked]
    assert first == "k"
    assert len(set(rests)) == 2
    assert {whole_key(key) for key in rests} == {"k"}
    assert [chunk.usage.output_tokens for chunk in answer.chunks] == list(range(1, 13))


def test_the_next_engine_of_a_fallback_goes_on():
    first, second = Greedy(4, 0, 0, error=EngineError("gone", status=503)), Greedy()
    order = Fallback(("first", "second"), Breaker(failures=1))
    handler = stack(Resume(), order, engine={"first": first, "second": second})
    answer = run_virtual(complete(handler, Request("Hello")))
    assert answer.text == "".join(WORDS)
    assert (len(first.asked), len(second.asked)) == (1, 1)
    assert answer.done.route == ("resume:2", "fallback:first>second")


def test_a_stall_is_gone_on_with():
    mishap = Mishap("stall", after=3, wait_s=20.0, end_s=1.0)
    handler = stack(Resume(), Mishaps((mishap,)), engine=Greedy())
    answer = run_virtual(complete(handler, Request("Hello")))
    assert answer.text == "".join(WORDS)
    assert answer.done.route == ("resume:2",)


def test_an_answer_that_broke_off_behind_its_last_token_is_whole():
    engine = Greedy(6)
    answer, rows = resumed(engine, Request("Hello", max_tokens=6))
    assert (answer.text, answer.done.finish_reason) == ("".join(WORDS[:6]), "length")
    assert len(engine.asked) == len(rows) == 1


def test_before_the_first_word_the_error_is_raised_as_it_is():
    engine = Greedy(0)
    error, rows = resumed(engine)
    assert error is engine.error
    assert len(rows) == 1


def test_the_deadline_is_that_of_all_attempts():
    async def main():
        with pytest.raises(DeadlineExceeded) as caught:
            await complete(stack(Resume(), engine=Greedy(4)), within(Request("Hello"), 7.5))
        return clock.now(), caught.value.partial

    assert run_virtual(main()) == (7.5, "".join(WORDS[:7]))


def test_the_attempts_are_bounded():
    engine = Greedy(2, 2, 2, 2, 2)
    error, rows = resumed(engine, times=2)
    assert isinstance(error, CannotResume)
    assert "2 times it was" in str(error)
    assert error.__cause__ is engine.error
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request("Hello", response_format={"type": "json_object"}), "grammar"),
        (Request("Hello", extra={"structured_outputs": {"regex": "a*"}}), "grammar"),
    ],
)
def test_an_answer_in_a_form_is_not_gone_on_with(request_, why):
    engine = Greedy(3)
    error, rows = resumed(engine, request_)
    assert isinstance(error, CannotResume)
    assert why in str(error)
    assert (len(rows), rows[0].output_tokens) == (1, 3)


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (Chunk("", 0.0, tool_calls=(ToolCallDelta(0, "id", "f", "{"),)), "tool call"),
        (Chunk("", 0.0, reasoning="Let me see"), "thoughts"),
    ],
)
def test_tool_calls_and_thoughts_are_not_gone_on_with(chunk, why):
    async def engine(request):
        yield chunk
        raise EngineError("gone", status=500)

    error, rows = resumed(engine)
    assert isinstance(error, CannotResume)
    assert why in str(error)
    assert len(rows) == 1


def test_a_failure_that_would_not_pass_is_not_gone_on_with():
    engine = Greedy(3, error=EngineError("no money left", status=402))
    error, _ = resumed(engine)
    assert isinstance(error, CannotResume)
    assert len(engine.asked) == 1


def test_without_a_running_count_the_done_says_so():
    class Silent(Greedy):
        async def __call__(self, request):
            async for event in super().__call__(request):
                yield replace(event, usage=None) if isinstance(event, Chunk) else event

    answer, rows = resumed(Silent(4))
    assert answer.text == "".join(WORDS)
    assert answer.done.usage_note
    assert [row.cost for row in rows] == [None, Decimal(9 + 80)]


def test_a_reader_that_leaves_closes_the_engine():
    async def main():
        engine = Greedy(4)
        stream = stack(Resume(), engine=engine)(Request("Hello"))
        for _ in range(6):
            await anext(stream)
        await stream.aclose()
        return len(engine.asked)

    assert run_virtual(main()) == 2


def test_settings_that_cannot_work():
    with pytest.raises(InvalidValue, match="times"):
        Resume(0)


def test_the_price_by_hand():
    """1000 read at 1, 200 arrived: going on reads 1200; starting over reads 1000 and writes 200 at 10."""
    cost = resume_cost(1000, 200, PRICE)
    assert (cost.resumed, cost.again, cost.saved) == (1200, 3000, 1800)
    cached = self_defined("test", "1000000", "10000000", cached="100000")
    cost = resume_cost(1000, 200, cached, cached_share=0.5)
    assert (cost.resumed, cost.again) == (660, 2550)
    with pytest.raises(InvalidValue, match="cached_share"):
        resume_cost(1, 1, PRICE, cached_share=2)
    with pytest.raises(InvalidValue, match="received"):
        resume_cost(1, -1, PRICE)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 1))
def test_going_on_is_never_dearer_where_input_is_cheaper(prompt, received, share):
    cached = self_defined("test", "1", "10", cached="0.1")
    assert resume_cost(prompt, received, cached, share).saved >= 0


def test_the_price_is_what_the_ledger_holds():
    """The second attempt's input in the ledger is what `resume_cost` foretells."""
    _, rows = resumed(Greedy(4))
    assert rows[1].input_tokens == resume_cost(5, 4, PRICE).resumed


def test_the_same_request_sent_again_may_break_elsewhere():
    """An `Idempotent` below: after another break, the rest is another request, and not the old key used for a new one."""
    engine = Greedy(4, None, 2)
    handler = stack(Resume(), Idempotent(), engine=engine)

    async def main():
        return [(await complete(handler, Request("Hello", idempotency_key="k"))).text for _ in range(2)]

    assert run_virtual(main()) == ["".join(WORDS)] * 2
    assert [len(asked.messages[-1].content.split()) for asked in engine.asked] == [1, 4, 1, 2]


def test_what_a_cache_gives_counts_towards_the_length():
    """Two readers share a stream, which costs the second one nothing; both get no more than `max_tokens`."""
    handler = stack(Resume(), SingleFlight(), engine=Greedy(4))

    async def main():
        return await asyncio.gather(*(complete(handler, Request("Hello", max_tokens=6)) for _ in range(2)))

    assert [answer.text for answer in run_virtual(main())] == ["".join(WORDS[:6])] * 2
