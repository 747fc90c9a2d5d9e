"""Whatever fails: every attempt is in the books, and an answer that was paid for reaches its caller."""

from __future__ import annotations

from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.output import Cap, NoLoops, Slot, Staged, Stops, Structured, Template, ThinkFirst, ThinkingBudget, Verbosity
from labkit.request import EngineError, Request, complete, run_virtual, stack

from .writer import Writer

PRICE = self_defined("writer", "3", "15", cached="1")
LEVERS = st.sampled_from(
    [
        Cap(3), Cap(3, "again"), Cap(3, "continue"), Cap(5, "continue"), Staged(tokens=4), Stops(("#",)), NoLoops(),
        Structured(regex="x+"), ThinkFirst(Structured(regex="x+")), ThinkingBudget(3, 4), Verbosity("brief", words=3),
        Template("a b {{slot}}d {{more}}", {"slot": Slot(tokens=2)}),
    ]
)  # fmt: skip


@given(st.lists(LEVERS, min_size=1, max_size=3), st.sets(st.integers(1, 6)), st.integers(0, 3), st.integers(1, 9))
@settings(max_examples=150)
def test_every_attempt_is_booked_and_no_paid_answer_is_lost(levers, fails, after, limit) -> None:
    engine = _Patient(tuple(f"{letter} " for letter in "abcdefgh"), frozenset(fails), after)
    with Ledger(":memory:") as ledger:
        handler = stack(Booked(ledger, {"*": PRICE}), *levers, engine=engine)
        request = Request("Why?", max_tokens=limit, idempotency_key="k")
        answer = failure = None
        try:
            answer = run_virtual(complete(handler, request))
        except EngineError as error:
            failure = error
        rows = ledger.rows()
    assert len(rows) == len(engine.asked)
    known = [row.usage for row in rows if row.usage is not None]
    assert known == [usage for usage in engine.told if usage.output_tokens or usage not in engine.failed]
    completed = [row for row in rows if row.outcome == "completed"]
    if failure is not None:
        assert not completed  # what was whole would have been delivered
    else:
        assert answer is not None
        assert completed
        assert bool([row for row in rows if row.outcome == "failed"]) <= bool(answer.done.faults)
        spoken = answer.text + answer.reasoning
        assert spoken or not any(row.output_tokens for row in completed)


class _Patient(Writer):
    """A writer that answers anew where it is told to go on from what it never wrote, and remembers which tries failed."""

    def __init__(self, tokens, fails, after) -> None:
        super().__init__(tokens, fails, after)
        self.failed = []

    async def __call__(self, request):
        if request.extra.get("continue_final_message"):
            said = request.messages[-1].content
            if not "".join(self.tokens).startswith(said) or said not in _beginnings(self.tokens):
                request = Request(request.messages, max_tokens=request.max_tokens, stop=request.stop)
        before = len(self.told)
        try:
            async for event in super().__call__(request):
                yield event
        except EngineError:
            self.failed += self.told[before:]
            raise


def _beginnings(tokens):
    return {"".join(tokens[:i]) for i in range(len(tokens) + 1)}


@given(st.lists(LEVERS, min_size=1, max_size=3), st.integers(0, 8))
@settings(max_examples=60)
def test_a_reader_who_leaves_ends_every_stream_below(levers, taken) -> None:
    engine = ScriptedEngine(tuple("abcdefgh"), finish_reason="length")
    handler = stack(*levers, engine=engine)

    async def leave():
        async with aclosing(handler(Request("Why?", max_tokens=8))) as events:
            for _ in range(taken):
                if await anext(events, None) is None:
                    break
        assert engine.closed == len(engine.asked)

    run_virtual(leave())
