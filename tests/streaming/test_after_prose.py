"""Which bracket of an answer that talks begins its JSON document."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.streaming import AfterProse, Final, Malformed, PartialJSON, progressive
from tests.streaming.engine import cut

DOCUMENTS = [{"answer": 42}, [{"a": 1}, {"b": ["x", None]}], {"text": "see [1], {x} and ```", "n": {"m": []}}]
PROSE = [
    "See [1] for details: ",
    "As [the docs](http://x.example/a[1]) say: ",
    'As ["the docs"](http://x.example) say: ',
    "![a picture](u) [^1] [[wiki]] [1, 2] [INST] ",
    "- [ ] open\n- [x] done\n",
    "[1] begins the text\n\n",
    "In [0, 1], [-1.5, 2e3] and [true]: ",
    "[true](u) and [null]. ",
    "Use {name}, {{name}}, {1, 2}, {'a': 1}, {} and \\\\frac{1}{2}. ",
    'The format is `{"answer": 0}`, that is {"answer": number}: ',
    'One of ["red", "blue"] it is: ',
    '```python\nx = {"answer": [0]}\n```\n',
    "```\ncode\n```\n[2] says: ",
    'She said "[" and "{" and [" once. ',
    "Here:\n```json\n",
    "~~~\n",
    "",
]


def document(text):
    """The document that a text holds, or why there is none."""
    last = list(progressive([text], after_prose=True))[-1]
    return last.value if isinstance(last, Final) else last


@pytest.mark.parametrize("prose", PROSE)
@pytest.mark.parametrize("wanted", DOCUMENTS, ids=["object", "list", "brackets in strings"])
@pytest.mark.parametrize("after", ["", '\n```\nSee [1] or {"b": 1}.'])
def test_brackets_in_the_prose_are_not_taken_for_the_document(prose, wanted, after):
    text = prose + json.dumps(wanted)
    found = list(progressive([text + after], after_prose=True))
    assert found[-1] == Final((), wanted, len(text))
    alone = list(progressive([json.dumps(wanted)]))
    assert [(f.path, f.value) for f in found] == [(f.path, f.value) for f in alone]


@given(
    st.lists(
        st.sampled_from([*PROSE, *map(json.dumps, DOCUMENTS), "[1, 2]", '{"a"', "\n", ": ", "]", "}", "[", '"']), max_size=7
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_any_text_gives_the_same_answer_however_it_is_cut(pieces, marks):
    text = "".join(pieces)
    whole = list(progressive([text], after_prose=True))
    assert list(progressive(cut(text, marks), after_prose=True)) == whole
    assert list(progressive(text, after_prose=True)) == whole
    ends = [found for found in whole if isinstance(found, Malformed) or found.path == ()]
    assert ends == whole[-1:]


def test_a_field_is_told_while_the_document_is_written():
    reader = AfterProse()
    assert reader.feed('See [1]: {"a": "x", "b": ') == [Final(("a",), "x", 18)]
    assert reader.feed("12,") == [Final(("b",), 12, 28)]
    listed = AfterProse()
    assert listed.feed('["boots"') == []
    assert listed.feed(",") == [Final((0,), "boots", 9)], "a list of strings that begins the answer is no prose"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[1, 2, 3]", [1, 2, 3]),
        ("Here it is: [1, 2]\nAnything else?", [1, 2]),
        ("It is [1], so:\n[[1, 2], [3, 4]]\n", [[1, 2], [3, 4]]),
        ("```json\n[]\n```", []),
        ("Empty: {}", {}),
        ('The colours are ["red", "blue"].', ["red", "blue"]),
        ('`{"a": 1}`', {"a": 1}),
        ('```python\n{"a": 1}\n```', {"a": 1}),
    ],
)
def test_what_looks_like_prose_is_the_document_where_there_is_no_other(text, wanted):
    assert document(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "no document", "See [1].", "As [1] and [2, 3] say, {} is empty.", "[the docs](u)", "[[["]
)
def test_a_text_without_a_document_says_so_at_its_end(text):
    assert document(text) == Malformed(len(text), "no JSON document in the text")


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ('Here: {"a": 1, "b" 2}', 21, "colon"),
        ('{"a": x', 7, "invalid"),
        ('Here: {"a": 1', 13, "premature EOF"),
    ],
)
def test_a_broken_document_is_told_where_it_breaks(text, at, why):
    reader = AfterProse()
    *_, fault = reader.feed(text) + reader.end()
    assert isinstance(fault, Malformed)
    assert fault.at == at
    assert why in fault.why
    assert reader.feed('{"a": 1}') == reader.end() == []


def test_a_text_of_brackets_is_read_in_a_number_of_steps_that_grows_with_its_length(monkeypatch):
    steps = []
    feed = PartialJSON.feed
    monkeypatch.setattr(PartialJSON, "feed", lambda self, text: steps.append(1) or feed(self, text))
    for text in ("[", '["[\\"', "see [1, 2] ", '{"a', '[ "a", [1], '):
        counts = []
        for times in (400, 800):
            steps.clear()
            list(progressive([text * times], after_prose=True))
            counts.append(len(steps))
        assert counts[1] <= 2.2 * counts[0] + 10, text
