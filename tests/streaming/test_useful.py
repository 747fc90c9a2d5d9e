from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import Chunk, InvalidValue
from labkit.streaming import FirstUseful, JsonFields, first_useful_at
from tests.streaming.engine import cut


def useful_part(text, kind):
    """The answer up to and with the character that made it useful."""
    finder = FirstUseful(kind)
    at = finder.feed(text)
    at = finder.end() if at is None else at
    return None if at is None else text[:at]


@pytest.mark.parametrize(
    ("answer", "useful"),
    [
        ("Your order ships on Monday. It weighs 3 kg.", "Your order ships on Monday. "),
        ("Sure! I'd be happy to help you with that. The tent is 3.5 kg. More.", None),
        ("Sure! I'd be happy to help you with that. The tent is green. More.", "The tent is green. "),
        ("Sure, your order ships Monday. Bye.", "Sure, your order ships Monday. "),
        ("Hello Anna! Thank you for reaching out to us. No. We do not.", "No. "),
        ("Dear Ms Berg,\n\nYes.\nBye", "Yes.\n"),
        ("Great question! Here is the answer:\n42.\nBye", "42.\n"),
        ("I understand your frustration. Let me check that for you. It left on 3 May.\n", "It left on 3 May.\n"),
        ("Okay. Hmm... Wait until e.g. Dr. Moe calls! Then", "Okay. Hmm... Wait until e.g. Dr. Moe calls! "),
        ("1. Open the valve. 2. Wait.", "1. Open the valve. "),
        ("See shop.example/boots for 3.14 of them? Or", "See shop.example/boots for 3.14 of them? "),
        ('He said "stop." Then', 'He said "stop." '),
        ("Certainly！ 注文は発送されました。次に", "Certainly！ 注文は発送されました。"),
        ("As an AI language model I have no opinion. Buy the red one. Ok", "Buy the red one. "),
        ("no full stop here", "no full stop here"),
        ("Yes", "Yes"),
    ],
)
def test_prose_is_useful_at_the_end_of_the_first_sentence_that_says_something(answer, useful):
    part = useful_part(answer, "prose")
    if useful is None:
        assert part == answer[: answer.index(" More.") + 1]
    else:
        assert part is not None
        assert part.endswith(useful)


@pytest.mark.parametrize(
    "answer", ["", "Hello!", "Sure! I'd be happy to help you with that.", "Hi there! Thanks. ", "...", "Here:\n"]
)
def test_an_answer_of_greetings_and_fillers_is_never_useful(answer):
    assert useful_part(answer, "prose") is None


@pytest.mark.parametrize(
    ("answer", "useful"),
    [
        ("Here are some:\n- boots\n- tents", "- boots\n"),
        ("1. **Boots**:\n   - waterproof\n2. Tents", "   - waterproof\n"),
        ("* \n* rope", "* rope"),
        ("- rope", "- rope"),
        ("2) rope\nand", "2) rope\n"),
        ("no list - at all\n", None),
        ("-5 degrees\n", None),
    ],
)
def test_a_list_is_useful_with_its_first_whole_item(answer, useful):
    part = useful_part(answer, "list")
    assert part is None if useful is None else part.endswith(useful)


@pytest.mark.parametrize(
    ("answer", "kind", "useful"),
    [
        ('{"id": 12, "total": "3"}', JsonFields("id"), '{"id": 12,'),
        ('{"id": 12, "total": "3"}', JsonFields("total"), '{"id": 12, "total": "3"'),
        ('{"id": 12, "total": "3"}', JsonFields("total", "id"), '{"id": 12,'),
        ('Here: ```json\n{"o": {"id": [1, 2]}}```', JsonFields(("o", "id", 0)), 'Here: ```json\n{"o": {"id": [1,'),
        ('{"o": {"id": 1}}', JsonFields("o"), '{"o": {"id": 1}'),
        ('See [1]: {"o": "x", "p": 1}', JsonFields((("p",), ("o",))), 'See [1]: {"o": "x"'),
        ("Here: [1, 2]", JsonFields((0,)), "Here: [1, 2]"),
        ('{"o": 1}', JsonFields("p"), None),
        ('{"o" 1, "p": 1}', JsonFields("p"), None),
    ],
)
def test_json_is_useful_with_the_first_wanted_value(answer, kind, useful):
    assert useful_part(answer, kind) == useful


PIECES = ["Sure! ", "Hi Anna,\n", "The tent ", "is 3.5 kg. ", "Dr. ", "e.g. ", "\n", "- ", "1. ", "boots", ":", " ", "\r\n"]
PIECES += ['{"a": ', "12", ', "b": [', '"x"', "]", "}", ".", "注文。"]
TEXT = st.lists(st.sampled_from(PIECES)).map("".join)
KINDS = st.sampled_from(["prose", "list", JsonFields("a"), JsonFields(("b", 0), "b")])


@given(TEXT, KINDS, st.lists(st.integers(0, 200)))
def test_the_moment_does_not_depend_on_how_the_answer_is_cut(text, kind, marks):
    whole, by_character, by_piece = FirstUseful(kind), FirstUseful(kind), FirstUseful(kind)
    whole.feed(text)
    for character in text:
        by_character.feed(character)
    pieces = cut(text, marks)
    for piece in pieces:
        by_piece.feed(piece)
    at = whole.end()
    assert at == by_character.end() == by_piece.end()

    chunks = [Chunk(piece, at=float(i)) for i, piece in enumerate(pieces)]
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    assert first_useful_at(chunks, kind) == (None if at is None else next(i for i, end in enumerate(ends) if end >= at))


@given(TEXT, KINDS)
def test_more_text_never_moves_a_moment_that_has_been(text, kind):
    finder = FirstUseful(kind)
    seen = [at for character in text if (at := finder.feed(character)) is not None]
    assert len(set(seen)) <= 1


def test_the_first_useful_token_comes_after_the_first_one_and_reasoning_is_nobodys_use():
    texts = ["", "Sure! ", "Happy to help", ". ", "It is red. ", "Really."]
    chunks = [Chunk(text, at=10.0 + i, reasoning="" if text else "It is red. ") for i, text in enumerate(texts)]
    assert first_useful_at(chunks, "prose") == 14.0
    assert first_useful_at(chunks[:3], "prose") is None
    assert first_useful_at([*chunks[:4], Chunk("Red", 20.0), Chunk("", 21.0)], "prose") == 20.0


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidValue, match="'poem' is unknown"):
        FirstUseful("poem")
    with pytest.raises(InvalidValue, match="no field"):
        JsonFields()
    with pytest.raises(InvalidValue, match="no path to a field"):
        JsonFields("a", (("b",), 1.5))
