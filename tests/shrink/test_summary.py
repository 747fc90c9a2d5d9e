"""Rolling summaries: made once for each boundary, from the last one; booked by themselves; never at the price of a fact."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from itertools import pairwise

import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine, connect
from labkit.ledger import Booked, Ledger, spend
from labkit.request import InvalidRequest, InvalidValue, Message, Request, ToolCall, complete, run_virtual, stack
from labkit.shrink import (
    FACTS,
    MARKED,
    NOTHING,
    Protect,
    RollingSummary,
    SummaryFailed,
    SummaryStore,
    balance,
    missing,
    purpose,
)

S = Message("system", "You are the desk.")


def told(turns: int, length: int = 30) -> tuple[Message, ...]:
    """A conversation of so many turns; the last has only its question."""
    messages = [S]
    for n in range(turns):
        messages += [Message("user", f"question {n} " + "x" * length), Message("assistant", f"answer {n} " + "y" * length)]
    return tuple(messages[:-1])


def model(**more) -> ScriptedEngine:
    """Sums a conversation up to the numbers in it, those of the last summary included."""

    def pieces(request: Request) -> tuple[str, ...]:
        text = " ".join(contents(request.messages[1:-1]))
        return ("asked", *(f" {n}" for n in sorted({int(n) for n in re.findall(r"\d+", text)})))

    return ScriptedEngine(pieces, gap_s=0, model="summer", **more)


def contents(messages) -> list[str]:
    return [message.content for message in messages]


def shrink(lever, messages, **more):
    return asyncio.run(lever.shrink(Request(messages, **more)))


def test_nothing_is_asked_before_the_boundary_and_then_once_a_boundary() -> None:
    engine, store = model(), SummaryStore()
    lever = RollingSummary(engine, every=3, keep=2, protect=NOTHING, summaries=store)
    asked = []
    for n in range(1, 13):
        after = shrink(lever, told(n)).after
        asked.append(len(engine.asked))
        covered = max(0, n - 2) // 3 * 3
        assert contents(after)[1 + 2 * bool(covered) :] == contents(told(n))[1 + 2 * covered :]
        if covered:
            said = "asked " + " ".join(str(i) for i in range(covered))
            assert contents(after)[:3] == [S.content, "What was said so far?", said]
            assert [m.role for m in after[:4]] == ["system", "user", "assistant", "user"]
    assert asked == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert len(store) == 3


def test_a_new_summary_is_asked_as_the_conversation_went_on_with_the_last_one_in_it() -> None:
    engine = model()
    stands = ("So far: {summary}.", "Noted.")
    lever = RollingSummary(engine, 2, 1, "How does it stand?", stands, protect=NOTHING, summaries=SummaryStore())
    sent = [shrink(lever, told(n, 20)).after for n in (3, 4, 5)]
    question = Message("user", "How does it stand?")
    assert engine.asked[0].messages == (*told(3, 20)[:5], question)
    so_far = (S, Message("user", "So far: asked 0 1."), Message("assistant", "Noted."))
    assert engine.asked[1].messages == (*so_far, *told(5, 20)[5:9], question)
    # the prompt of the last turn is the beginning of the next summary's: that is what a prefix cache serves
    assert engine.asked[1].messages[: len(sent[1])] == sent[1]
    assert contents(sent[2])[:3] == [S.content, "So far: asked 0 1 2 3.", "Noted."]


def test_a_long_conversation_seen_for_the_first_time_is_summed_up_in_one_go() -> None:
    engine = model()
    lever = RollingSummary(engine, every=2, keep=1, protect=NOTHING)
    assert "asked 0 1 2 3 4 5 6 7" in contents(shrink(lever, told(9)).after)
    assert len(engine.asked) == 1


def test_between_two_moves_the_start_of_the_prompt_stays_the_same() -> None:
    def starts(every: int) -> int:
        """How many of 20 turns begin with all that the prompt of the turn before held, but for its question."""
        lever = RollingSummary(model(), every=every, keep=2, protect=NOTHING, summaries=SummaryStore())
        sent = [contents(shrink(lever, told(n)).after) for n in range(1, 21)]
        return sum(later[: len(first)] == first for first, later in pairwise(sent))

    assert starts(1) == 1  # only while nothing is summed up yet
    assert starts(4) == 19 - 4  # all but the four turns at which the boundary moves: to 4, 8, 12 and 16


def test_an_edited_turn_is_summed_up_anew_and_other_conversations_and_tenants_are_strangers() -> None:
    engine = model()
    lever = RollingSummary(engine, every=2, keep=1, protect=NOTHING, summaries=SummaryStore())
    edited = (S, Message("user", "question 77 " + "x" * 30), *told(3)[2:])
    for messages, tenant, asked in ((told(3), "", 1), (edited, "", 2), (told(3), "", 2), (told(3), "other", 3)):
        shrink(lever, messages, tenant=tenant)
        assert len(engine.asked) == asked


def test_two_requests_at_once_pay_one_summary() -> None:
    engine = model(delay_s=0.02)
    lever = stack(RollingSummary(engine, every=2, keep=1, protect=NOTHING), engine=ScriptedEngine("ok", gap_s=0))

    async def both():
        return await asyncio.gather(*(complete(lever, Request(told(3))) for _ in range(5)))

    assert all(answer.text == "ok" for answer in asyncio.run(both()))
    assert len(engine.asked) == 1


TOOLS = (
    S, Message("user", "where is TS-1?"), Message("assistant", "", (ToolCall("a", "look", '{"id": "TS-1"}'),)),
    Message("tool", "in Cronville", tool_call_id="a"), Message("assistant", "It is in Cronville, and on its way to you."),
    Message("user", "thanks, and when will it come?"), Message("assistant", "On Monday."), Message("user", "good"),
)  # fmt: skip


def test_calls_go_with_their_results_and_the_model_sees_them_first() -> None:
    engine = ScriptedEngine(("TS-1 is in Cronville",), gap_s=0)
    after = shrink(RollingSummary(engine, every=2, keep=1, protect=NOTHING), TOOLS).after
    assert contents(after) == [S.content, "What was said so far?", "TS-1 is in Cronville", "good"]
    assert not any(message.tool_calls or message.role == "tool" for message in after)
    assert engine.asked[0].messages[:-1] == TOOLS[:-1]


def test_every_removed_message_is_explained_with_the_facts_that_the_summary_left_out() -> None:
    engine = ScriptedEngine(("The order is in Cronville.",), gap_s=0)
    shrunk = shrink(RollingSummary(engine, every=2, keep=1, protect=NOTHING), TOOLS)
    lines = shrunk.explain().splitlines()
    assert len(lines) == 6
    assert all("6 messages in one summary" in line and "TS-1" in line for line in lines)
    assert not shrunk.lossless


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (ScriptedEngine(("The order",), gap_s=0), "lost 'TS-1'"),
        (ScriptedEngine(("TS-12 is on its way",), gap_s=0), "lost 'TS-1'"),
        (ScriptedEngine((" ",), gap_s=0), "ended with 'stop'"),
        (ScriptedEngine(("TS-1",), gap_s=0, finish_reason="length"), "ended with 'length'"),
        (ScriptedEngine(tuple("TS-1 " + "long " * 50), gap_s=0), "characters"),
        (ScriptedEngine(("TS-1",), gap_s=0, fail_at=0), "fell over"),
    ],
)
def test_a_summary_that_fails_costs_nobody_the_answer_and_is_not_paid_twice(engine, why) -> None:
    answering, ledger = ScriptedEngine("ok", gap_s=0), Ledger(":memory:")
    lever = RollingSummary(engine, every=2, keep=1, protect=Protect((r"TS-\d+",)))
    handler = stack(Booked(ledger), lever, engine=answering)
    for _ in range(2):
        answer = run_virtual(complete(handler, Request(TOOLS)))
        assert answer.text == "ok"
        assert why in str(answer.done.faults[0])
        assert answer.done.route == ()
    assert [request.messages for request in answering.asked] == [TOOLS, TOOLS]
    transient = engine.fail_at is not None
    assert len(engine.asked) == 1 + transient  # an engine that fell over may stand again
    assert len(ledger) == 3 + transient


def test_where_no_answer_can_hold_it_the_summary_stands_in_the_question() -> None:
    messages = (S, Message("user", "a " * 30), Message("user", "b " * 30), Message("user", "c"))
    after = shrink(RollingSummary(ScriptedEngine(("a, b",), gap_s=0), 2, 1, protect=NOTHING), messages).after
    assert contents(after) == [S.content, "What was said so far? a, b", "c"]
    only_tools = (Message("tool", "x" * 30), Message("user", "c"))
    with pytest.raises(SummaryFailed, match="no message that could hold"):
        shrink(RollingSummary(ScriptedEngine(("a",), gap_s=0), 1, 1, protect=NOTHING), only_tools)


def test_protected_marks_and_facts_are_looked_for_in_the_summary() -> None:
    messages = (
        S,
        Message("user", "<keep>no nuts</keep> please " + "x" * 40),
        Message("assistant", "ok"),
        Message("user", "go on"),
    )
    kept = ScriptedEngine(("<keep>no nuts</keep>",), gap_s=0)
    lost = ScriptedEngine(("no nuts",), gap_s=0)
    assert contents(shrink(RollingSummary(kept, 1, 1, protect=MARKED), messages).after)[2] == "<keep>no nuts</keep>"
    with pytest.raises(SummaryFailed, match="no nuts"):
        shrink(RollingSummary(lost, 1, 1, protect=MARKED), messages)


def test_what_counts_as_missing() -> None:
    figures = Protect((r"\d+", r"[A-Z]\w+"))
    assert missing(figures, ["4 of 40 for Ann"], "40 for Annual") == ("4", "Ann")
    assert missing(figures, ["4 of 40 for Ann", "4"], "Ann: 4, 40") == ()
    assert missing(Protect(("不退款",)), ["我们不退款的"], "说明不退款了") == ()
    assert missing(NOTHING, ["4"], "") == ()
    assert "TS-12345" in missing(FACTS, ["order TS-12345"], "the order")


def test_summaries_are_booked_under_their_own_feature_wherever_the_books_stand() -> None:
    for order in ((0, 1), (1, 0)):
        ledger, engine = Ledger(":memory:"), model()
        levers = (Booked(ledger, {"*": self_defined("any", "1", "1")}), RollingSummary(engine, 2, 1, protect=NOTHING))
        handler = stack(*(levers[i] for i in order), engine=ScriptedEngine("ok", gap_s=0))
        asked = Request(
            told(3),
            tenant="t",
            user="u",
            feature="chat",
            workflow="w",
            idempotency_key="k",
            attempt=2,
            extra={"tools": [], "ignore_eos": True},
        )
        run_virtual(complete(handler, asked))
        rows = {row.feature: row for row in ledger.rows()}
        assert set(rows) == {"chat", "chat/summary"}
        assert {(row.tenant, row.user, row.workflow) for row in rows.values()} == {("t", "u", "w")}
        assert rows["chat/summary"].idempotency_key == ""
        assert rows["chat/summary"].request_model == "summer"
        assert engine.asked[0].extra == {"tools": [], "tool_choice": "none"}
        frame = spend(ledger, by=["labkit.feature"])
        assert frame["attempts"].tolist() == [1, 1]
    assert purpose("") == "summary"


def conversation(ledger: Ledger, turns: int, cost_of_summary: str, **engine) -> None:
    """A conversation of 10 turns in two ways: whole, and with summaries."""

    def reads(request: Request) -> ScriptedEngine:
        return ScriptedEngine("ok", gap_s=0, input_tokens=sum(map(len, contents(request.messages))))(request)

    prices = {"*": self_defined("any", "1", "1"), "summer": self_defined("summer", cost_of_summary, cost_of_summary)}
    short = stack(
        Booked(ledger, prices),
        RollingSummary(model(**engine), 4, 2, protect=NOTHING, summaries=SummaryStore()),
        engine=reads,
    )
    whole = stack(Booked(ledger, prices), engine=reads)
    for n in range(1, turns + 1):
        run_virtual(complete(short, Request(told(n), feature="short")))
        run_virtual(complete(whole, Request(told(n), feature="whole")))


def test_the_ledger_tells_whether_summaries_pay() -> None:
    ledger = Ledger(":memory:")
    conversation(ledger, 12, "1", input_tokens=500)
    found = balance(ledger, "short", "whole")
    assert (found.shortened.answers, found.whole.answers, found.summaries.answers) == (12, 12, 2)
    costs = {
        feature: sum(row.cost for row in ledger.rows() if row.feature == feature)
        for feature in ("short", "whole", "short/summary")
    }
    assert found.saved == costs["whole"] - costs["short"]
    assert found.spent == costs["short/summary"]
    assert found.gain == found.saved - found.spent > 0
    assert "a gain of" in str(found)
    assert found.currency == "USD"


def test_a_summary_that_costs_more_than_it_saves_is_a_loss() -> None:
    ledger = Ledger(":memory:")
    conversation(ledger, 7, "100", input_tokens=500)
    found = balance(ledger, "short", "whole")
    assert found.saved > 0
    assert found.gain < 0
    assert "a loss of" in str(found)


def test_a_balance_of_unequal_traffic_is_scaled_to_the_shortened_answers() -> None:
    ledger = Ledger(":memory:")
    engine = stack(
        Booked(ledger, {"*": self_defined("any", "1", "0")}), engine=ScriptedEngine("ok", gap_s=0, input_tokens=1_000_000)
    )
    for feature, times in (("short", 2), ("whole", 4)):
        for _ in range(times):
            run_virtual(complete(engine, Request("q", feature=feature)))
    assert balance(ledger, "short", "whole").saved == Decimal(0)


def test_a_ledger_that_cannot_tell_says_what_it_lacks() -> None:
    ledger = Ledger(":memory:")
    with pytest.raises(InvalidValue, match="'short'"):
        balance(ledger, "short", "whole")
    run_virtual(complete(stack(Booked(ledger), engine=ScriptedEngine("ok", gap_s=0)), Request("q", feature="short")))
    with pytest.raises(InvalidValue, match="no price"):
        balance(ledger, "short", "whole")


def test_settings_that_cannot_work_are_refused() -> None:
    bad = {"every": 0, "keep": 0, "max_tokens": 0, "stands": ("a", "b")}
    for name, value in bad.items():
        with pytest.raises(InvalidValue, match=name):
            RollingSummary(model(), **{name: value})
    with pytest.raises(InvalidValue, match="handler"):
        RollingSummary(7)
    with pytest.raises(InvalidValue, match="limit"):
        SummaryStore(0)
    with pytest.raises(InvalidRequest, match="Be brave"):
        shrink(RollingSummary(model(), protect=Protect(instructions=("Be brave.",))), told(2))


def test_the_store_forgets_what_was_unused_for_longest() -> None:
    engine = model()
    lever = RollingSummary(engine, every=2, keep=1, protect=NOTHING, summaries=SummaryStore(limit=2))
    for n in (3, 5, 7):
        shrink(lever, told(n))
    assert len(lever.summaries) == 2
    shrink(lever, told(7))
    assert len(engine.asked) == 3
    shrink(lever, told(3))
    assert len(engine.asked) == 4


@pytest.mark.live
def test_a_live_engine_serves_the_conversation_before_a_summary_from_its_cache() -> None:
    """Booked live: each summary's prompt begins as the prompts of the answers before it did."""
    ledger = Ledger(":memory:")

    async def talk() -> None:
        async with await connect("vllm", "small", linger_s=0, progress=str, block_size=32) as engine:
            lever = RollingSummary(engine, every=3, keep=1, max_tokens=24, protect=NOTHING)
            handler = stack(Booked(ledger), lever, engine=engine)
            for n in range(1, 8):
                await complete(handler, Request(told(n, 60), feature="chat", max_tokens=4))

    asyncio.run(talk())
    answers, summaries = ([row for row in ledger.rows() if row.feature == name] for name in ("chat", "chat/summary"))
    assert len(answers) == 7
    assert len(summaries) == 2
    for row in summaries:
        assert row.input_tokens is not None
        assert row.cached_tokens is not None
        # all but the last answer and the question for the summary stood in the prompt of the turn before
        assert row.cached_tokens >= row.input_tokens / 2
        assert row.cached_tokens % 32 == 0
