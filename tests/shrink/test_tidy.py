"""What says nothing new goes, and nothing else: beside plain descriptions of what must be the same before and after."""

from __future__ import annotations

import asyncio
import random

import pytest

from labkit.request import InvalidRequest, InvalidValue, Message, Request, ToolCall
from labkit.shrink import FACTS, Protect, Shrunk, Tidy

SAID = "We ship within two days of the order, and we tell the customer by mail when the parcel leaves us."


def tidied(*messages: Message | str, **settings: object) -> Shrunk:
    given = tuple(Message("user", m) if isinstance(m, str) else m for m in messages)
    return asyncio.run(Tidy(**settings).shrink(Request(given)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("abc  ", "abc"),
        ("\n \nHello   there. Bye\n\n\n\nnow \n\n", "Hello there. Bye\n\nnow"),
        ("a \r\n\r\n\r\nb\r\n", "a\r\n\r\nb"),
        ("Be kind to them.\nBe kind  to them.\nBe brief.", "Be kind to them.\nBe brief."),
        (f"{SAID}\n\nSo.\n\n{SAID.replace(' we', '  we')}\n\nWhat now?", f"{SAID}\n\nSo.\n\nWhat now?"),
    ],
)
def test_what_goes(before: str, after: str) -> None:
    assert tidied(before).after[0].content == after


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\n",
        "```\na   b  \n\n\n\nc\n```",
        '"""\na   b\n"""',
        "  if x:\n\n\n    y   = 1",
        "key:  value\nother:   5",
        "- a   b\n1. c   d",
        "| a   | b |\n| c   | d |",
        "tent    40\nrope    7",
        "a\tb   c",
        'He said "a   b" to all.',
        'an open " and   blanks',
        "<keep>a   b</keep> is kept",
        "You must   ask first.",
        "1 tent for them.\n1 tent for them.",
        "yes\nyes\nno\nno",
        f"- {SAID}\n\n- {SAID}",
    ],
)
def test_what_stays(text: str) -> None:
    assert tidied(text).steps == ()


def test_the_same_text_goes_only_where_it_is_read_with_the_same_authority() -> None:
    system, user, ben = (
        Message("system", SAID),
        Message("user", f"{SAID}\n\nBye"),
        Message("user", f"{SAID}\n\nHi", name="Ben"),
    )
    assert tidied(system, user, ben).steps == ()
    done = tidied(user, ben, Message("user", f"{SAID}\n\nWhat now?"))
    assert [m.content for m in done.after] == [user.content, ben.content, "What now?"]
    assert "message 0 (user) says the same" in done.explain()
    assert done.lossless


def test_no_message_is_left_empty_and_no_mark_is_torn() -> None:
    assert tidied(SAID, SAID).steps == ()
    assert tidied(f"{SAID}\n\nx <keep>\n\n{SAID}\n\ny</keep>").steps == ()


def test_tools_calls_and_answers_are_left_alone() -> None:
    call = Message("assistant", f"{SAID}\n\n{SAID}   \n", (ToolCall("1", "look", "{}"),))
    answer = Message("tool", f"{SAID}  x  \n\n{SAID}", tool_call_id="1")
    assert tidied("a", call, answer).steps == ()


def test_an_instruction_stays_word_for_word() -> None:
    wanted = f"Remember: {SAID}"
    spaced = wanted.replace(" ", "  ", 1)
    done = tidied(Message("system", f"{spaced}\n\nA\n\n{wanted}"), protect=Protect(instructions=(wanted,)))
    assert wanted in done.after[0].content
    with pytest.raises(InvalidRequest, match="Never"):
        tidied("a", protect=Protect(instructions=("Never.",)))


def test_each_rule_can_be_left_out() -> None:
    text = f"{SAID}\n\n{SAID}\n\nBe kind to them.\nBe kind to them.   "
    assert tidied(text, duplicates=False).after[0].content == f"{SAID}\n\n{SAID}\n\nBe kind to them."
    assert tidied(text, repeated_lines=False, duplicates=False, white_space=False).steps == ()
    assert tidied(text, least=500).after[0].content.count("parcel") == 2
    with pytest.raises(InvalidValue, match="at least 1"):
        Tidy(least=0)


PIECES = (
    SAID, "Be kind to them.", "You must ask Anna first.", "Pay 40 euros.", "```", "  x = 1", "a  b", "a   b", "", "", " ",
    "\t", "<keep>", "</keep>", "| a  | b", "k:  v", '"', "- a  b", "שלום  עולם", "👩‍💻  ok \u2067a\u2069",
    "你好。你好。你好吗。", "\u0301x",
)  # fmt: skip


def test_any_text_keeps_its_lines_and_its_facts_and_is_done_at_once() -> None:
    rng = random.Random(0)
    for _ in range(200):
        texts = ["\n".join(rng.choice(PIECES) + rng.choice(["", " ", "\r"]) for _ in range(9)) for _ in range(2)]
        done = tidied(*texts)
        lines = [{" ".join(line.split()) for text in side for line in text.split("\n")} - {""} for side in _texts(done)]
        assert lines[0] == lines[1], texts
        facts = [{text[a:b] for text in side for a, b in FACTS.spans(text)} for side in _texts(done)]
        assert facts[0] == facts[1], texts
        assert tidied(*done.after).steps == (), texts
        spaced = tidied(*texts, duplicates=False, repeated_lines=False)
        for before, after in zip(*_texts(spaced), strict=True):
            assert [before[a:b] for a, b in FACTS.spans(before)] == [after[a:b] for a, b in FACTS.spans(after)]


def _texts(done: Shrunk) -> tuple[list[str], list[str]]:
    return [m.content for m in done.before], [m.content for m in done.after]
