"""Cuts that would remove, change, glue or invent what must stay, and those that may be made all the same."""

from __future__ import annotations

import random
import time

import pytest

from labkit.request import InvalidValue, Message
from labkit.shrink import (
    DATES,
    MARKED,
    NAMES,
    NEGATIONS,
    NUMBERS,
    SAFETY,
    Cut,
    Protect,
    ProtectedTextLost,
    Shrunk,
    harmless,
)


def cut(text: str, gone: str, left: str = "", nth: int = 0) -> Cut:
    at = -1
    for _ in range(nth + 1):
        at = text.index(gone, at + 1)
    return Cut(0, at, at + len(gone), left)


def tried(text: str, protect: Protect, *cuts: Cut) -> str:
    return Shrunk.of((Message("user", text),), cuts, protect).after[0].content


@pytest.mark.parametrize(
    ("text", "gone", "left", "protect"),
    [
        ("4 of 40", "4 ", "", NUMBERS),  # it stands in "40" still
        ("5 and 5", "5", "", NUMBERS),  # one of two
        ("4 a5", " a", "", NUMBERS),  # read as 45
        ("4 a5", " a", ".", NUMBERS),
        ("a - b 5", " b ", "", NUMBERS),  # read as -5
        ("costs 40 and %", " and ", " ", NUMBERS),
        ("we don't", "n't", "", NEGATIONS),
        ("do n't", " ", "", NEGATIONS),
        ("no a n", " a ", "", NEGATIONS),  # read as non
        ("a cup is not full", "t ", "", NEGATIONS),
        ("has a note", "e", "", NEGATIONS),  # a "not" that nobody said
        ("has many", "many", "40", NUMBERS),
        ("has 40", "40", "41", NUMBERS),
        ("has 40 and 41", "40 and 41", "41 and 40", NUMBERS),
        ("Hello. Never pay.", "lo.", "", SAFETY),  # the sentence would be another
        ("You must ask first.", "first", "", SAFETY),
        ("a <keep>b</keep>", "</keep>", "", MARKED),
        ("go on 3 March 2026", " March", "", DATES | NUMBERS),
        ("ask Anna", "na", "", NAMES),
        ("not 40", "not 40", "", NUMBERS | NEGATIONS),
    ],
)
def test_harm_is_refused_and_left_out(text: str, gone: str, left: str, protect: Protect) -> None:
    planned = cut(text, gone, left)
    with pytest.raises(ProtectedTextLost, match="protected"):
        tried(text, protect, planned)
    assert harmless((Message("user", text),), (planned,), protect) == ()


@pytest.mark.parametrize(
    ("text", "gone", "left", "after", "protect"),
    [
        ("4 and then 5", " and then", "", "4 5", NUMBERS),
        ("we met Anna", "we met ", "", "Anna", NAMES),  # begins a sentence now, and stands there all the same
        ("above 40 euros net", "above 40 euros", "over 40 euros", "over 40 euros net", NUMBERS),
        ("Hello there. Never pay. Bye", "Hello there. ", "", "Never pay. Bye", SAFETY),
        ("has 这不是 a", " a", "", "has 这不是", NEGATIONS),
    ],
)
def test_what_does_no_harm_is_made(text: str, gone: str, left: str, after: str, protect: Protect) -> None:
    planned = cut(text, gone, left)
    assert tried(text, protect, planned) == after
    assert harmless((Message("user", text),), (planned,), protect) == (planned,)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [("👩‍💻 works", 0, 1), ("e\u0301a", 0, 1), ("🇩🇪", 1, 2), ("a\r\nb", 1, 2), ("\ud83d\ude00", 0, 1), ("क्षि", 2, 3)],
)
def test_a_visible_character_does_not_come_apart(text: str, start: int, end: int) -> None:
    with pytest.raises(InvalidValue, match="visible character"):
        tried(text, NUMBERS, Cut(0, start, end))


def test_two_characters_are_not_joined() -> None:
    with pytest.raises(InvalidValue, match="visible character"):
        tried("a\n\u0301", NUMBERS, Cut(0, 1, 2))


def test_marks_of_direction_go_in_pairs() -> None:
    text = "say \u2067שלום\u2069 now"
    with pytest.raises(InvalidValue, match="marks of direction"):
        tried(text, NUMBERS, Cut(0, 4, 6))
    assert tried(text, NUMBERS, Cut(0, 4, 10)) == "say  now"
    assert harmless((Message("user", text),), (Cut(0, 0, 3), Cut(0, 9, 10)), NUMBERS) == (Cut(0, 0, 3),)


def test_the_harmless_cuts_of_a_list_are_those_that_can_be_made_together() -> None:
    text = "4 a5 and do not b"
    cuts = (cut(text, " a"), cut(text, "and "), cut(text, "not"), Cut(0, 16, 17))
    left = harmless((Message("user", text),), cuts, NUMBERS | NEGATIONS)
    assert left == (cuts[1], cuts[3])
    with pytest.raises(InvalidValue, match="outside"):
        harmless((), cuts, NUMBERS)


def test_a_lossless_cut_may_move_what_is_protected_and_others_beside_it_may_not() -> None:
    text = "b 5 a 4"
    moved = Cut(0, 0, 7, "a 4 b 5", lossless=True)
    assert tried(text, NUMBERS, moved) == "a 4 b 5"
    text = "40 and 41"
    with pytest.raises(ProtectedTextLost, match="41"):
        tried(text, NUMBERS, Cut(0, 0, 2, "forty", lossless=True), Cut(0, 7, 9))


def test_random_cuts_that_pass_leave_every_protected_text_in_its_order() -> None:
    """Looked at from outside: the texts that a regular expression finds before and after are the same, one by one."""
    rng = random.Random(0)
    passed = 0
    for _ in range(3_000):
        text = "".join(
            rng.choice(["4", "5", " ", " ", "no", "n't", "a", "not", "b ", ". ", "-", "%", "\n"]) for _ in range(14)
        )
        edges = sorted(rng.sample(range(len(text) + 1), 4)) if len(text) > 3 else [0, 0, 0, 0]
        cuts = [Cut(0, edges[0], edges[1]), Cut(0, edges[2], edges[3], rng.choice(["", "", " ", "4"]))]
        protect = rng.choice([NUMBERS, NEGATIONS, NUMBERS | NEGATIONS])
        made = harmless((Message("user", text),), cuts, protect)
        after = tried(text, protect, *made)
        assert [text[a:b] for a, b in protect.spans(text)] == [after[a:b] for a, b in protect.spans(after)], (text, made)
        passed += len(made)
    assert passed > 500


def test_ten_thousand_tokens_are_checked_in_a_blink() -> None:
    sentence = "Please send a tent to Anna by 3 March 2026; it must not cost more than 40 euros. "
    cuts = [Cut(0, at, at + 7) for at in range(0, 480 * len(sentence), len(sentence))]
    began = time.process_time()
    made = Shrunk.of((Message("user", sentence * 480),), cuts, NUMBERS | DATES | NAMES | NEGATIONS)
    assert time.process_time() - began < 1.0
    assert made.saved(len) == 7 * len(cuts)
