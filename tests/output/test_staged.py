"""Short first, detail on request: the same conversation, one question to every cache, and its bill."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.caches import ResponseCache, Store
from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger
from labkit.output import Staged, StagedBill, Verbosity
from labkit.request import InvalidValue, Message, Request, complete, run_virtual, stack

from .writer import Writer

ASKED = Request((Message("system", "Desk."), Message("user", "Why?")), max_tokens=100, idempotency_key="k")


def rendered(request: Request) -> str:
    return "".join(f"<{message.role}>{message.content}" for message in request.messages)


def test_a_short_answer_then_the_detail() -> None:
    engine = Writer(tuple(f"{i} " for i in range(60)))
    staged = Staged(tokens=4)
    handler = stack(staged, engine=engine)
    short = run_virtual(complete(handler, ASKED))
    detail = run_virtual(complete(handler, staged.detail(ASKED, short)))
    assert (short.done.usage.output_tokens, detail.done.usage.output_tokens) == (4, 60)
    assert (short.done.route, detail.done.route) == (("output:staged-short",), ("output:staged-detail",))
    assert [message.content for message in engine.asked[0].messages] == ["Desk. Answer briefly.", "Why?"]
    told = [message.content for message in engine.asked[1].messages]
    assert told == ["Desk. Answer in detail.", "Why?", "0 1 2 3 ", staged.more]
    assert engine.asked[1].max_tokens == 100


@given(st.text("abc .", min_size=1, max_size=12), st.text("xyz", max_size=8), st.sampled_from(["Desk.", "Desk. ", ""]))
def test_with_the_instruction_last_the_detail_begins_with_all_that_was_read_and_written(asked, answer, system) -> None:
    staged = Staged(short=Verbosity("brief", where="last"), long=Verbosity("detailed", where="last"))
    request = Request((Message("system", system), Message("user", asked)))
    first, second = staged.asking(request), staged.asking(staged.detail(request, answer))
    assert rendered(second).startswith(f"{rendered(first)}<assistant>{answer}")


def test_a_level_in_the_system_prompt_keeps_no_more_than_what_stands_before_it() -> None:
    first, second = Staged().asking(ASKED), Staged().asking(Staged().detail(ASKED, "So."))
    shared = "<system>Desk. Answer "
    assert rendered(first).startswith(shared)
    assert rendered(second).startswith(shared)
    assert not rendered(second).startswith(rendered(first))


def test_two_clicks_are_one_question_and_are_paid_once(tmp_path) -> None:
    engine = Writer(tuple("abcdefgh"))
    staged = Staged(tokens=2)
    with Ledger(":memory:") as ledger, Store(tmp_path / "s.db") as store:
        handler = stack(Booked(ledger, {"*": self_defined("w", "1", "2")}), ResponseCache(store), staged, engine=engine)

        async def clicks():
            short = await complete(handler, ASKED)
            return [await complete(handler, staged.detail(ASKED, short)) for _ in range(2)]

        first, second = run_virtual(clicks())
        assert first.text == second.text == "abcdefgh"
        assert len(engine.asked) == 2
        assert [row.idempotency_key for row in ledger.rows()] == ["k", "k~detail", "k~detail"]
        assert ledger.rows()[-1].cost == 0


@given(*[st.decimals(0, 100, places=3)] * 3, st.floats(0, 1))
def test_the_bill(brief: Decimal, more: Decimal, detailed: Decimal, share: float) -> None:
    bill = StagedBill(brief, more, detailed)
    assert bill.staged(0) == brief
    assert bill.staged(1) == brief + more
    if more:
        even = bill.break_even
        assert abs(brief + even * more - detailed) < Decimal("1e-18")
        if abs(Decimal(share) - even) > Decimal("1e-9"):
            assert (bill.staged(share) < detailed) == (Decimal(share) < even)
    with pytest.raises(InvalidValue, match="from 0 to 1"):
        bill.staged(share + 1.1)


def test_the_bill_of_measured_answers() -> None:
    price = self_defined("w", "1000000", "2000000")
    staged = Staged(tokens=2)
    handler = stack(staged, engine=Writer(tuple("abcdefgh")))
    brief = run_virtual(complete(handler, ASKED))
    more = run_virtual(complete(handler, staged.detail(ASKED, brief)))
    detailed = run_virtual(complete(Writer(tuple("abcdefgh")), ASKED))
    bill = StagedBill.of((brief,), (more,), (detailed,), price)
    assert (bill.brief, bill.more, bill.detailed) == (2 + 4, 4 + 16, 2 + 16)
    assert bill.break_even == Decimal(12) / 20
    assert bill.table(0.5)["staged"] == (16, 0.0, 0.0)
    assert bill.table(0.5)["always brief"][2] == float("inf")
    with pytest.raises(InvalidValue, match="all three kinds"):
        StagedBill.of((brief,), (), (detailed,), price)


def test_a_first_question_that_looks_like_the_last_one_is_no_detail() -> None:
    staged = Staged()
    assert not staged.is_detail(Request(staged.more))
    assert not staged.is_detail(ASKED)
    assert staged.is_detail(staged.detail(ASKED, "So."))
    for wrong in ({"tokens": 0}, {"more": " "}, {"short": "brief"}, {"long": None}):
        with pytest.raises(InvalidValue):
            Staged(**wrong)
