"""What each preset keeps, in many scripts, and in time that grows with the text alone."""

from __future__ import annotations

import random
import time

import pytest
import regex

from labkit.request import InvalidValue
from labkit.shrink import (
    DATES,
    FACTS,
    LINKS,
    MARKED,
    NAMES,
    NEGATIONS,
    NOTHING,
    NUMBERS,
    SAFETY,
    Protect,
    marked,
)
from labkit.shrink.graphemes import splits
from labkit.shrink.trie import any_of


def kept(protect: Protect, text: str) -> list[str]:
    return [text[start:end] for start, end in protect.spans(text)]


@pytest.mark.parametrize(
    ("protect", "text", "found"),
    [
        (NUMBERS, "pay 40, not 1,200.50.", ["40", "1,200.50"]),
        (NUMBERS, "about 12 % or -3 °C, $40 or EUR 40", ["12 %", "-3 °C", "$40", "EUR 40"]),
        (NUMBERS, "order TS-12345 (v1.2.3-rc1) at 192.168.0.1:80", ["TS-12345", "v1.2.3-rc1", "192.168.0.1:80"]),
        (NUMBERS, "1e-7, ½ and 2nd", ["1e-7", "½", "2nd"]),
        (NUMBERS, "٤٥ دينار, ४२, 5个苹果, 三十 days", ["٤٥", "४२", "5个", "三十"]),
        (NUMBERS, "Twenty of one dozen; someone", ["Twenty", "one", "dozen"]),
        (DATES, "by 3 March 2026, May 4th, 1. März; may go on Monday", ["3 March 2026", "May 4th", "1. März", "Monday"]),
        (NAMES, "The tent of Anna Ødegård and I saw VIP at “Blue Tent”.", ["Anna", "Ødegård", "VIP", "“Blue Tent”"]),
        (NAMES, "Tell @anna about Łódź.", ["@anna", "Łódź"]),
        (LINKS, "see https://a.b/c?d=1 or write to a.b@c.de", ["https://a.b/c?d=1", "a.b@c.de"]),
        (NEGATIONS, "I don't, cannot; never no note", ["don't", "cannot", "never", "no"]),
        (NEGATIONS, "nicht ne pas non não geen nie не", ["nicht", "ne", "pas", "non", "não", "geen", "nie", "не"]),
        (NEGATIONS, "这不是。没有。できない यह नहीं है ولا", ["不", "没", "ない", "नहीं", "ولا"]),
        (SAFETY, "Be kind. You must not pay 3.5 euros (ever). Thanks!", ["You must not pay 3.5 euros (ever)."]),
        (SAFETY, "Be kind\nNiemals zahlen\nThanks", ["Niemals zahlen"]),
        (SAFETY, "你好。必须确认。谢谢", ["必须确认。"]),
        (SAFETY, "under  no", []),
        (MARKED, "a <keep>b\nc</keep> d <keep>e", ["<keep>b\nc</keep>"]),
        (marked("evidence", "q"), "<evidence id=1>b</evidence> <q>c</q>", ["<evidence id=1>b</evidence>", "<q>c</q>"]),
        (NOTHING, "40 not", []),
    ],
)  # fmt: skip
def test_what_is_kept(protect: Protect, text: str, found: list[str]) -> None:
    assert kept(protect, text) == found


def test_presets_join_and_know_what_they_joined() -> None:
    assert kept(NUMBERS | NEGATIONS, "not 40") == ["not", "40"]
    assert (NUMBERS | NUMBERS) == NUMBERS
    assert (NUMBERS | Protect(instructions=("Be kind.",))).instructions == ("Be kind.",)
    assert kept(Protect(instructions=("abc", "cd")), "abcd abc") == ["abcd", "abc"]


def test_a_tag_that_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidValue, match="no name of a tag"):
        marked("a b")
    with pytest.raises(InvalidValue, match="no regular expression"):
        Protect(patterns=("(",))
    with pytest.raises(InvalidValue, match="no kind; use some of numbers"):
        Protect(kinds=("figures",))  # type: ignore[arg-type]


HOSTILE = (
    "a", "1", "1,", "<keep>", "<keep ", '"', "A", "a-", "a@", ".", "1.", " ", "not ", "n't", "x.5 ", "\n", "never\n",
    "never ", "EUR ", "一", "«", "`a", "A'", "5 ", "(A", "!)", "$ ", "https://", "5 May ",
    "\u202e", "\u0301", "🇩", "\ud800",
)  # fmt: skip


def test_hostile_texts_take_no_longer_than_their_length_says() -> None:
    def seconds(characters: int) -> float:
        began = time.process_time()
        for piece in HOSTILE:
            FACTS.spans(piece * (characters // len(piece)))
        return time.process_time() - began

    seconds(1_000)
    assert seconds(60_000) < 60 * max(
        seconds(4_000), 0.01
    )  # 15 times the length; a quadratic pattern takes 225 times as long


def test_a_word_list_finds_what_its_words_say() -> None:
    pattern = any_of("no not notice don't kein* only if", None) + "|" + any_of("only if, only", ",")
    plain = r"(?i)\b(?:no|not|notice|don['’]t|kein\w*|only|if|only\sif)\b"
    rng = random.Random(0)
    for _ in range(2_000):
        text = "".join(rng.choice(["no", "t", "ice", " ", "Don’t", "KEIN", "er", "only", " if", ".", "i"]) for _ in range(8))
        found = {p for m in regex.finditer(pattern, text, overlapped=True) for p in range(*m.span())}
        assert found == {p for m in regex.finditer(plain, text, overlapped=True) for p in range(*m.span())}, text


def test_no_visible_character_comes_apart() -> None:
    """Beside the package `regex`, which knows Unicode's rules for them (\\X)."""
    rng = random.Random(0)
    pieces = "a \r\n\u0301\u200d👨👩🏽🇩🇪️\u0915\u094d\u0924\u093fจำกัด각\u1100\u1161\u11a8\u0600١ｶﾞ\U000e0067\U000e007f"
    for _ in range(5_000):
        text = "".join(rng.choice(pieces) for _ in range(8))
        inside = set(range(1, 8)) - {m.start() for m in regex.finditer(r"\X", text)}
        assert all(splits(text, at) for at in inside), text
    assert not any(splits("plain text, né 5个", at) for at in range(17))
    assert splits("\ud83d\ude00", 1)
