"""JSON written shorter comes back as it was, and what could not come back is left alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.request import InvalidValue, Message, Request, ToolCall
from labkit.shrink import Compact, ProtectedTextLost, Shrunk, marked, records

ROWS = {
    "total": 2,
    "orders": [
        {"id": 7, "name": "Tent", "address": {"city": "Fordham", "zip": "01230"}, "note": None},
        {"id": 8, "address": {"city": "Bexton", "zip": "0"}, "note": ""},
    ],
}
IN_COLUMNS = """{"total":2}

orders:
id|name|address.city|address.zip|note
7|Tent|Fordham|01230|null
8||Bexton|"0"|\"\"""".replace("|", "\t")


def told(content: str, role: Any = "tool") -> Message:
    return Message(role, content, tool_call_id="1" if role == "tool" else "")


def compacted(*messages: Message, **settings: Any) -> Shrunk:
    return asyncio.run(Compact(**{"count": len, **settings}).shrink(Request(messages)))


def same(a: object, b: object) -> bool:
    """Equal to the last digit: 1 is not 1.0, nor True, and 0.0 is not -0.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


TEXTS = st.text(max_size=8) | st.sampled_from(
    ["1", "-0", "true", "null", " ", "a b", "\t", "\n", "\n\n", '"', "{", "[", "", "a.b", "keys x", "keys ", "\ud800",
     "\u202e", "1e5", "NaN", "\u0301", "名前", "x:\n"]
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(10**30, 10**40)
    | st.floats(allow_nan=False, allow_infinity=False) | st.just(-0.0) | TEXTS
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS, inner, max_size=4)
        | st.lists(
            st.fixed_dictionaries({"id": inner, "long name": inner}, optional={"x": inner, "y.z": inner}),
            min_size=2,
            max_size=4,
        )
        | st.dictionaries(TEXTS, st.fixed_dictionaries({"a": inner}, optional={"b": inner}), min_size=2, max_size=4)
    ),
    max_leaves=25,
)
DOCUMENTS = st.lists(VALUES, max_size=4) | st.dictionaries(TEXTS, VALUES, max_size=4)


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
def test_every_form_comes_back_as_it_was(document: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    value = records.read(text)
    for write in (records.minified, records.columns, records.short_keys):
        written = write(value)
        if written is not None:
            assert same(json.loads(records.restore(written)), document)
            written.encode()  # no half of a pair of surrogates


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS)
def test_what_a_tool_answered_is_never_longer_and_comes_back(document: Any) -> None:
    text = json.dumps(document)
    done = compacted(told(text))
    after = done.after[0].content
    assert len(after) <= len(text)
    assert same(json.loads(records.restore(after)) if done.steps else json.loads(after), document)
    assert done.lossless
    assert compacted(*done.after).steps == ()


def test_the_columns_are_what_they_are_said_to_be() -> None:
    assert records.columns(records.read(json.dumps(ROWS))) == IN_COLUMNS
    assert json.loads(records.restore(IN_COLUMNS)) == ROWS
    assert records.columns(records.read('[{"a": 1}, {"b": 1}, {"c": 1}, {"d": 1}, {"e": 1}]')) is None  # mostly holes


def test_records_under_keys_get_a_column_of_keys_if_they_are_of_one_kind() -> None:
    rows = {"Köln": {"open": True, "seats": {"in": 7, "out": 0}}, "7": {"open": False, "seats": {"in": 1}}}
    written = records.columns(records.read(json.dumps(rows)))
    assert written == '(key)\topen\tseats.in\tseats.out\nKöln\ttrue\t7\t0\n"7"\tfalse\t1\t'
    assert json.loads(records.restore(written)) == rows
    assert records.columns(records.read('{"a": {"b": 1, "c": 2}, "d": {"e": 3, "f": 4}}')) is None


def test_short_keys_take_a_table_of_them_along() -> None:
    value = records.read(json.dumps([[{"preferred delivery window": n, "a": n}] for n in range(5)]))
    written = records.short_keys(value)
    assert written is not None
    assert written.startswith('keys {"b":"preferred delivery window"}\n[[{"b":0,"a":0}]')
    assert records.restore(written) == records.minified(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"a": ',
            '{"a": 1, "a": 2}',
            '{"a": NaN}',
            "[Infinity]",
            "[1, 2] and more",
            "5",
            '"a  b"',
            "",
            "no  JSON",
            "[01]",
        ),
        *("[" * 5_000 + "]" * 5_000, "[" * 101 + "]" * 101, '{"a": "\t"}'),
    ],
)
def test_what_could_not_come_back_is_left_alone(text: str) -> None:
    assert compacted(told(text)).steps == ()


def test_numbers_keep_their_digits() -> None:
    long = "9" * 5_000
    text = f"[1.0, 1, -0.0, 1E5, 0.10000000000000000001, {long}, 1e999]"
    assert compacted(told(text)).after[0].content == text.replace(" ", "")


def test_only_answers_of_tools_and_fences_are_written_anew() -> None:
    pretty = json.dumps(ROWS, indent=2)
    call = Message("assistant", pretty, (ToolCall("1", "look", "{}"),))
    done = compacted(
        told(pretty, "user"), call, told(f"  {pretty}\n"), told(f"See ```json\n{pretty}\n``` and answer.", "user")
    )
    assert [m.content for m in done.after[:2]] == [pretty, pretty]
    assert done.after[2].content == f"  {IN_COLUMNS}\n"
    assert done.after[2].tool_call_id == "1"
    assert done.after[3].content == f"See ```\n{IN_COLUMNS}\n``` and answer."
    assert f"JSON as columns: {len(IN_COLUMNS)} tokens, not {len(pretty)}" in done.explain()
    only = compacted(told(f"```json\n{pretty}\n```", "user"), forms=("minified",))
    assert only.after[0].content == f"```json\n{json.dumps(ROWS, separators=(',', ':'))}\n```"


def test_nulls_and_defaults_go_only_if_asked_and_the_cut_says_that_they_are_lost() -> None:
    done = compacted(told(json.dumps(ROWS)), drop_nulls=True, defaults={"note": "", "total": 3}, forms=("minified",))
    left = {"total": 2, "orders": [{k: v for k, v in row.items() if k != "note"} for row in ROWS["orders"]]}  # type: ignore[attr-defined]
    assert json.loads(done.after[0].content) == left
    assert not done.lossless
    assert "nulls and defaults are left out, which loses them" in done.explain()
    kept = compacted(told('[{"a": "<q>b</q>", "b": null}]'), drop_nulls=True, protect=marked("q"))
    assert kept.after[0].content == '[{"a":"<q>b</q>"}]'
    lost = compacted(told('[{"a": "<q>b</q>"}]'), defaults={"a": "<q>b</q>"}, protect=marked("q"))
    assert lost.after[0].content == '[{"a":"<q>b</q>"}]'


def test_what_is_no_compact_text_is_refused() -> None:
    for text in ("a\tb\n1", "keys [1]\n{}", "a b\n1", '{"a":1}\n\nb.c:\nid\n1\n2', ""):
        with pytest.raises(InvalidValue):
            records.restore(text)
    with pytest.raises(InvalidValue, match="minified, columns, keys"):
        Compact(forms=("xml",))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="give a function"):
        Compact(count="lab")  # type: ignore[arg-type]


def test_text_that_must_not_come_apart_at_its_edges_is_left_alone() -> None:
    with pytest.raises(InvalidValue, match="visible character"):
        Shrunk.of((told("[1, 2]\u0301"),), compacted(told("[1, 2]")).steps[0].cuts)
    assert issubclass(ProtectedTextLost, InvalidValue)
