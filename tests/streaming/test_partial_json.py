from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labkit.streaming import Final, Malformed, PartialJSON, progressive
from tests.streaming.engine import cut

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MARKS = st.lists(st.integers(0, 300), max_size=8)


def inside(document, path):
    for step in path:
        document = document[step]
    return document


def paths(value, path=()):
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, child in children for p in paths(child, (*path, key))] + [path]


@given(VALUES, MARKS, st.booleans(), st.sampled_from([None, 1]))
def test_every_value_is_told_once_children_first_and_is_what_json_reads(value, marks, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    found = list(progressive(cut(text, marks)))
    assert [f.path for f in found] == paths(value)
    document = json.loads(text)
    for final in found:
        told = inside(document, final.path)
        assert final.value == told
        assert type(final.value) is type(told)


@given(VALUES, st.integers(0, 300), st.integers(0, 300))
def test_what_is_final_before_a_cut_is_the_same_in_every_way_the_text_may_go_on(value, mark, noise):
    text = json.dumps(value)
    prefix = text[: mark % (len(text) + 1)]
    early = PartialJSON().feed(prefix)
    assert all(isinstance(found, Final) and found.at <= len(prefix) for found in early)
    assert [f for f in progressive([text]) if isinstance(f, Final) and f.at <= len(prefix)][: len(early)] == early
    # however it goes on instead, what was told stays what was told
    assert list(progressive([prefix, '"x]}7'[noise % 5 :]]))[: len(early)] == early


@example('0"', [])  # yajl alone takes half a string after a number for nothing
@example('{} "', [])
@given(st.text(st.sampled_from('{}[]",:01-.eE tfnul\\"ab\x00é'), max_size=25), MARKS)
def test_any_text_gives_the_same_answer_however_it_is_cut_and_json_agrees_whether_it_is_whole(text, marks):
    whole = list(progressive([text]))
    assert list(progressive(cut(text, marks))) == whole
    assert list(progressive(text)) == whole
    try:
        document = json.loads(text, object_pairs_hook=_no_twins)
    except ValueError:
        assert isinstance(whole[-1], Malformed)
        assert sum(isinstance(found, Malformed) for found in whole) == 1
    else:
        assert whole[-1] == Final((), document, whole[-1].at)


def _no_twins(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("twins")
    return dict(pairs)


def test_a_number_is_final_only_with_what_follows_it():
    parser = PartialJSON()
    assert parser.feed('{"price": 1') == []
    assert parser.feed("2.5") == []
    assert parser.feed(",") == [Final(("price",), 12.5, 15)]
    assert parser.feed(' "name": "ten') == []
    assert parser.feed('t"') == [Final(("name",), "tent", 30)]
    lone = PartialJSON()
    assert lone.feed("12") == []
    assert lone.end() == [Final((), 12, 2)]


@pytest.mark.parametrize(
    ("text", "at", "why", "before"),
    [
        ('{"a": 1, "b" 2}', 15, "colon", {("a",): 1}),
        ('{"a": [1, 2}', 12, "after array element", {("a", 0): 1, ("a", 1): 2}),
        ('{"a": 1', 7, "premature EOF", {("a",): 1}),
        (
            '{"a": {"b": true}} thanks',
            20,
            "trailing garbage",
            {("a", "b"): True, ("a",): {"b": True}, (): {"a": {"b": True}}},
        ),
        ('{"a": 1, "a": 2}', 12, "comes twice", {("a",): 1}),
        ("[\ud83d]", 2, "half of a character", {}),
        ('["\\x"]', 4, "invalid escape", {}),
        ('["\\ud8"]', 7, "four hexadecimal digits", {}),
        ('["a\tb"]', 4, "must be escaped", {}),
        ("[" * 1001, 1001, "more than 1000 containers", {}),
        ("", 0, "EOF", {}),
    ],
)
def test_a_fault_is_told_with_its_place_and_what_was_final_stays(text, at, why, before):
    parser = PartialJSON()
    found = parser.feed(text)
    found += parser.end()
    *finals, fault = found
    assert isinstance(fault, Malformed)
    assert fault.at == at
    assert why in fault.why
    assert {final.path: final.value for final in finals} == before
    assert parser.feed('{"more": 1}') == parser.end() == [], "nothing becomes final after a fault"


HALVES = st.lists(
    st.sampled_from(["\\ud83d", "\\ude00", "\ud83d", "\ude00", "\\u0041", "x", "\\n", "\U0001f600"]), max_size=8
)


@example(["\\ude00"], [])
@example(["\ud83d", "\ude00"], [3])
@given(HALVES, MARKS)
def test_halves_of_a_character_are_kept_and_joined_wherever_they_meet(pieces, marks):
    text = '{"' + "".join(pieces) + '": ["' + "".join(pieces) + '"]}'
    halves = json.loads(text)
    ((key, (read,)),) = halves.items()
    joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", _join, key)
    assert key == read
    assert list(progressive(cut(text, marks)))[-1].value == {joined: [joined]}


def _join(pair):
    high, low = map(ord, pair[0])
    return chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)
