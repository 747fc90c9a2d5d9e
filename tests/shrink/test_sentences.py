"""Sentences: where they end, in many scripts; and which of them stay for a question."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.embeddings import embedder
from labkit.lab.tasks import Deck, policy_example
from labkit.request import InvalidRequest, InvalidValue, Message, Request
from labkit.shrink import FACTS, MARKED, NOTHING, Sentences, sentences
from tests.caches.words import Words
from tests.shrink.talk import SAID, words


@pytest.mark.parametrize(
    "wanted",
    [
        ["Hello there. ", "Who are you? ", "I am Ann!"],
        ["Dr. Smith paid $3.50 at 5 p.m. on Mr. J. Doe's card. ", "He left."],
        ["Bring e.g. a lamp, i.e. light, cf. Fig. 3 and No. 5. ", "We said no. ", "Then we left."],
        ["He works for Acme Inc. in the U.S. market. ", "Acme Inc. ", "Sold it."],
        ["It costs 1.5 euros, see www.shop.example/a.html or v2.0.1. ", "Fine."],
        ['"Really?" he asked. ', '"Yes." ', "They left…  ", "Then nothing."],
        ["Wait... what? ", "Yes!!! ", "Good."],
        ["Am 3. März kommt z. B. Herr Dr. Meier. ", "Er bleibt bis ca. 5 Uhr. ", "Schön."],
        ["M. Dupont est là. ", "Mme Durand aussi, p.ex. demain. ", "Bien."],
        ["你好。", "今天很好！", "你的订单号是123.45吗？", "“是的。”", "谢谢"],
        ["これはペンです。", "本当ですか？", "はい"],
        ["मेरा नाम राम है। ", "आप कौन हैं? ", "ठीक है।"],
        ["هل أنت بخير؟ ", "نعم. ", "شكرا"],
        ["Привет. ", "Как дела? ", "Хорошо."],
        [
            "Rules:\n",
            "- no cash. ",
            "Never.\n",
            "- cards only\n",
            "* gift cards\n",
            "1. first\n",
            "2) second\n\n",
            "The end.",
        ],
        ["# Title\n", "Some text here. ", "More.\n", "| a | b |\n", "| 1 | 2 |\n", "Last."],
        ["Name: Ann\n", "City: Cronville\n", "Done."],
        ["This line of prose was broken by an editor at some width, long before\nits end came here. ", "Next."],
        ["a short line\n", "Another line\n", "Third"],
        ["Use this:\n", "```py\nx = 1. \nY = 2. Z\n```\n", "Done. ", "Really."],
        ["<policy>\n", "No cash. ", "Cards.\n", "</policy>"],
        ["one giant token"],
    ],
)
def test_where_sentences_end(wanted) -> None:
    text = "".join(wanted)
    assert [text[a:b] for a, b in sentences(text)] == wanted


@given(st.text() | st.lists(st.sampled_from([*SAID, ". ", "\n", "```\n", "- ", "。", "Dr. ", "3. ", " "])).map("".join))
def test_sentences_leave_nothing_out_and_none_is_blank(text) -> None:
    found = sentences(text)
    assert "".join(text[a:b] for a, b in found) == text
    assert all(a < b for a, b in found)
    assert len(found) < 2 or all(text[a:b].strip() for a, b in found)


def test_hostile_texts_take_no_longer_for_their_length() -> None:
    for piece in (".", " ", "\n", "!" + '"', "```\n", "。", "a. ", "1. ", "<a", "\n\n- "):
        assert "".join(a for a in (piece * 50_000)) == "".join((piece * 50_000)[a:b] for a, b in sentences(piece * 50_000))


EMBEDDER = Words()
CONTEXT = "Answer the question. <context>Tents are green. Boots are red! The lamp costs 5 euros. Ropes are long.</context>"


def shrink(lever, *messages: Message):
    return asyncio.run(lever.shrink(Request(messages)))


def two(question: str, context: str = CONTEXT) -> tuple[Message, Message]:
    return Message("system", context), Message("user", question)


def test_the_nearest_sentences_stay_in_their_order_and_the_others_are_explained() -> None:
    shrunk = shrink(Sentences(EMBEDDER, tokens=9, count=words), *two("which boots are tents are"))
    assert shrunk.after[0].content == "Answer the question. <context>Tents are green. Boots are red! </context>"
    lines = shrunk.explain().splitlines()
    assert len(lines) == 2
    assert all("to the question, no room in 9 tokens" in line for line in lines)


def test_a_threshold_keeps_what_is_near_enough() -> None:
    lever = Sentences(EMBEDDER, threshold=0.3, protect=NOTHING)
    kept = {s.start for s in lever.rated(two("boots are red!")) if s.similarity >= 0.3}
    shrunk = shrink(lever, *two("boots are red!"))
    assert "Boots are red!" in shrunk.after[0].content
    assert len(kept) == 4 - len(shrunk.steps[0].cuts)
    assert "below the threshold" in shrunk.explain()
    both = shrink(Sentences(EMBEDDER, tokens=0, threshold=0.3, count=words), *two("boots are red!"))
    assert both.after[0].content == "Answer the question. <context></context>"


def test_the_question_is_what_the_user_says_beside_the_context_and_tags_may_have_attributes() -> None:
    text = '<context id="7">Tents are green. Boots are red!</context>\nwhat about boots'
    shrunk = shrink(Sentences(EMBEDDER, tokens=4, count=words), Message("user", text))
    assert shrunk.after[0].content == '<context id="7">Boots are red!</context>\nwhat about boots'
    for left in (CONTEXT.replace("</context>", ""), "no marks", "<contextual>a. B.</contextual>"):
        assert shrink(Sentences(EMBEDDER, tokens=0), *two("q", left)).after[0].content == left
    assert shrink(Sentences(EMBEDDER, tokens=0), Message("system", CONTEXT)).after[0].content == CONTEXT


def test_an_open_end_is_the_end_of_the_message() -> None:
    lever = Sentences(EMBEDDER, tokens=4, begin="by this policy.", end="", count=words)
    text = "Decide by this policy. Tents are green. Boots are red!"
    assert shrink(lever, *two("boots", text)).after[0].content == "Decide by this policy. Boots are red!"


def test_budgets_hold_protected_sentences_stay_and_too_small_budgets_say_what_they_need() -> None:
    rng = random.Random(13)
    refused = 0
    for _ in range(150):
        body = "".join(rng.choice(SAID) + rng.choice((". ", "\n", "。", "! ")) for _ in range(rng.randrange(1, 8)))
        messages = (Message("system", f"x <context>{body}</context>"), Message("user", "Where is my order?"))
        lever = Sentences(EMBEDDER, rng.randrange(0, 60), count=words, protect=rng.choice((NOTHING, MARKED, FACTS)))
        try:
            after = shrink(lever, *messages).after
        except InvalidRequest as error:
            needed = int(str(error).partition("need ")[2].split(";")[0])
            refused += 1
            assert needed > lever.tokens
            lever = Sentences(EMBEDDER, needed, count=words, protect=lever.protect)
            after = shrink(lever, *messages).after
        kept = after[0].content.removeprefix("x <context>").removesuffix("</context>")
        assert words(kept) <= lever.tokens
        assert after[1] == messages[1]
        spans = [messages[0].content[a:b] for a, b in lever.protect.spans(messages[0].content)]
        assert [after[0].content[a:b] for a, b in lever.protect.spans(after[0].content)] == spans
    assert refused > 10


def test_the_embedder_finds_the_rule_for_the_product_and_loses_the_rule_for_everyone() -> None:
    lever = Sentences(embedder(), tokens=40, begin="Decide the return by this policy.", end="")
    rounds, found, members = 12, 0, 0
    for seed in range(rounds):
        system, told, _, steps = policy_example(Deck("test", random.Random(seed)), 5, 15)
        after = shrink(lever, *two(told, system)).after[0].content
        found += f"Return window {steps.split()[1]} " in after
        members += "Members get" in after
    assert found == rounds
    assert members < rounds / 2  # it names no product: what `<keep>` is for
    system, told, *_ = policy_example(Deck("test", random.Random(0)), 5, 15)
    marked = system.replace("Members get", "<keep>Members get").replace("more days.", "more days.</keep>", 1)
    assert "Members get" in shrink(lever, *two(told, marked)).after[0].content


def test_settings_that_cannot_work_are_refused() -> None:
    bad = (
        ({}, "neither tokens nor threshold"), ({"tokens": -1}, "tokens is"), ({"threshold": 2}, "threshold is"),
        ({"tokens": 1, "begin": ""}, "begin is"), ({"tokens": 1, "count": 3}, "count is"),
    )  # fmt: skip
    for settings, message in bad:
        with pytest.raises(InvalidValue, match=message):
            Sentences(EMBEDDER, **settings)
    with pytest.raises(InvalidValue, match="embedder is"):
        Sentences("minilm", tokens=3)
