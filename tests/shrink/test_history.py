"""Windows and budgets: what goes is old, a tool's call never loses its results, and protected text stays."""

from __future__ import annotations

import asyncio
import random

import pytest

from labkit.engines import ScriptedEngine
from labkit.request import InvalidRequest, InvalidValue, Message, Request, ToolCall, complete, run_virtual, stack
from labkit.shrink import FACTS, MARKED, NOTHING, InstructionMissing, Protect, Shrunk, TokenBudget, Turn, Window, turns
from tests.shrink.talk import talk, words

PROTECTS = (NOTHING, MARKED, FACTS)
ROUNDS = 300


def run(lever, messages) -> Shrunk:
    return asyncio.run(lever.shrink(Request(messages)))


def u(text: str) -> Message:
    return Message("user", text)


def a(text: str, *calls: str) -> Message:
    return Message("assistant", text, tuple(ToolCall(each, "look", "{}") for each in calls))


def t(text: str, call: str = "") -> Message:
    return Message("tool", text, tool_call_id=call)


S = Message("system", "be kind")


def pairs(messages) -> bool:
    """Whether each result has its call before it and each call has its results, or is the last to have spoken."""
    calls = {call.id for message in messages for call in message.tool_calls}
    results = {message.tool_call_id for message in messages if message.role == "tool"}
    return calls == results


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ((S,), ()),
        ((u("q"),), (((0,),),)),
        ((S, u("q"), a("r"), u("s")), (((1,), (2,)), ((3,),))),
        ((a("hi"), u("q")), (((0,),), ((1,),))),
        ((u("q"), a("", "x", "y"), t("1", "y"), t("2", "x"), a("r")), (((0,), (1, 2, 3), (4,)),)),
        ((u("q"), a("", "x"), t("1", "x"), a("", "x"), t("2", "x"), u("s")), (((0,), (1, 2), (3, 4)), ((5,),))),
        ((u("q"), a("", "x"), S, t("1", "x"), u("s")), (((0,), (1, 3)), ((4,),))),
        ((u("q"), a("", "x"), u("well?"), t("1", "x"), a("r")), (((0,), (1, 2, 3), (4,)),)),
        ((u("q"), a("", "x", "y"), t("1", "x"), a("so"), t("2", "y"), u("s")), (((0,), (1, 2, 3, 4)), ((5,),))),
        ((u("q"), a("", ""), t("1"), t("2")), (((0,), (1, 2, 3)),)),
        ((t("lost", "z"), u("q")), (((0,),), ((1,),))),
    ],
)
def test_a_conversation_falls_into_turns_and_calls_stay_with_their_results(messages, wanted) -> None:
    assert turns(messages) == tuple(Turn(parts) for parts in wanted)


def test_random_conversations_are_divided_without_loss_and_never_between_call_and_result() -> None:
    rng = random.Random(1)
    assert ROUNDS > 0
    for _ in range(ROUNDS):
        messages = talk(rng)
        parts = [part for turn in turns(messages) for part in turn.parts]
        told = [n for n, message in enumerate(messages) if message.role != "system"]
        assert sorted(number for part in parts for number in part) == told
        assert [part[0] for part in parts] == sorted(part[0] for part in parts)
        for part in parts:
            assert pairs([messages[n] for n in part])


def read(message: Message) -> tuple[str, ...]:
    return (message.content, *(call.arguments for call in message.tool_calls))


def kept(messages, after) -> list[int]:
    """The numbers of the messages that stay; a message is the same object before and after."""
    ids = [id(message) for message in messages]
    return [ids.index(id(message)) for message in after]


def test_a_window_keeps_the_system_the_last_turns_and_all_older_turns_with_facts() -> None:
    rng = random.Random(2)
    assert ROUNDS > 0
    for _ in range(ROUNDS):
        messages, n, protect, pin = talk(rng), rng.randrange(1, 5), rng.choice(PROTECTS), rng.random() < 0.5
        found = turns(messages)
        shrunk = run(Window(n, pin, protect), messages)
        wanted = [k for k, message in enumerate(messages) if message.role == "system"]
        for place, turn in enumerate(found):
            facts = any(protect.spans(text) for k in turn.messages for text in read(messages[k]))
            if place >= len(found) - n or (pin and place == 0) or facts:
                wanted += turn.messages
        assert kept(messages, shrunk.after) == sorted(wanted)
        assert pairs(shrunk.after)


def test_a_window_that_forgets_everything_old() -> None:
    messages = (S, u("I am Ann, order 7"), a("fine"), u("it broke"), a("oh"), u("what now?"))
    assert [m.content for m in run(Window(1, protect=NOTHING), messages).after] == ["be kind", "what now?"]
    assert [m.content for m in run(Window(1), messages).after] == ["be kind", "I am Ann, order 7", "fine", "what now?"]
    assert [m.content for m in run(Window(1, True, NOTHING), messages).after][1:] == [
        "I am Ann, order 7",
        "fine",
        "what now?",
    ]
    assert "older than the last 1 turns" in run(Window(1), messages).explain()


def must_stay(lever: TokenBudget, messages) -> set[int]:
    found = turns(messages)
    stay = {n for n, message in enumerate(messages) if message.role == "system"}
    for place, turn in enumerate(found):
        for number, part in enumerate(turn.parts):
            whole = turn.messages if place < len(found) - 1 else part
            facts = any(lever.protect.spans(text) for k in whole for text in read(messages[k]))
            last = place == len(found) - 1 and number in (0, len(turn.parts) - 1)
            if facts or last or (lever.pin_first and place == 0):
                stay.update(part)
    return stay


def test_a_budget_is_never_exceeded_and_one_that_is_too_small_says_what_is_needed() -> None:
    rng = random.Random(3)
    refused = shortened = 0
    for _ in range(ROUNDS):
        messages = talk(rng)
        lever = TokenBudget(rng.randrange(1, 400), words, rng.choice((0, 4)), rng.random() < 0.3, rng.choice(PROTECTS))
        sizes = [lever.measure(message) for message in messages]
        stay = must_stay(lever, messages)
        needed = sum(sizes[n] for n in stay)
        if sum(sizes) > lever.tokens and needed > lever.tokens:
            refused += 1
            with pytest.raises(InvalidRequest, match=f"allow at least {needed}"):
                run(lever, messages)
            lever = TokenBudget(needed, words, lever.marks, lever.pin_first, lever.protect)
        shrunk = run(lever, messages)
        left = kept(messages, shrunk.after)
        assert left == sorted(left)
        assert stay <= set(left)
        assert sum(sizes[n] for n in left) <= lever.tokens
        assert pairs(shrunk.after)
        gone = [n for n in range(len(messages)) if n not in left]
        if gone:  # no gaps: the newest part that went has nothing optional before it, and would not have fitted
            shortened += 1
            assert not [n for n in left if n < max(gone) and n not in stay]
            parts = [p for p in _optional(messages) if not stay.issuperset(p) and set(p) <= set(gone)]
            assert sum(sizes[n] for n in left) + sum(sizes[n] for n in max(parts)) > lever.tokens
    assert refused > 20
    assert shortened > 20


def _optional(messages) -> list[tuple[int, ...]]:
    *older, last = turns(messages)
    return [turn.messages for turn in older] + list(last.parts[1:-1])


def test_marks_of_the_template_count() -> None:
    messages = (u("abcd"), a("abcd"), u("abcd"))
    assert len(run(TokenBudget(3, words, marks=0, protect=NOTHING), messages).after) == 3
    assert len(run(TokenBudget(3, words, marks=1, protect=NOTHING), messages).after) == 1


def test_the_budget_counts_with_the_labs_tokenizer_unless_told_otherwise() -> None:
    from labkit.tokens import tokenizer

    messages = (Message("system", "You work at the desk."), u("Hello there."))
    assert TokenBudget(10, marks=2).measure(messages[0]) == tokenizer("lab").count("You work at the desk.") + 2
    assert sum(map(TokenBudget(10, marks=2).measure, messages)) + 1 == tokenizer("lab").count_chat(messages)


def test_settings_and_prompts_that_cannot_work_are_refused() -> None:
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(InvalidValue, match="turns"):
            Window(bad)
        with pytest.raises(InvalidValue, match="tokens"):
            TokenBudget(bad)
    with pytest.raises(InvalidValue, match="marks"):
        TokenBudget(5, marks=-1)
    with pytest.raises(InvalidValue, match="count"):
        TokenBudget(5, count=3)
    rule = Protect(instructions=("Never pay cash.",))
    for lever in (Window(1, protect=rule), TokenBudget(9, words, protect=rule)):
        with pytest.raises(InvalidRequest, match="Never pay cash"):
            run(lever, (u("hi"),))
    assert issubclass(InstructionMissing, InvalidRequest)


def test_a_window_in_a_stack_sends_what_is_left() -> None:
    engine = ScriptedEngine("ok")
    messages = (S, u("hm"), a("hm"), u("and?"))
    answer = run_virtual(complete(stack(Window(1, protect=NOTHING), engine=engine), Request(messages)))
    assert [m.content for m in engine.asked[0].messages] == ["be kind", "and?"]
    assert answer.done.route == ("shrink:Window",)
