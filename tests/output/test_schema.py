"""Schemas: what the lint finds, what the regular expression lets through, and keys that come back."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from labkit.output import lint_schema, ordered, pattern_of, shortened
from labkit.request import InvalidValue

NAMES = st.sampled_from(["answer", "steps", "order", "name", "a", "b", "total price"])


def closed(properties: dict, **more) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


@st.composite
def pairs(draw, depth=2):
    """A bounded schema and a value that fits it."""
    kinds = ["string", "integer", "boolean", "null", "enum", "const", "anyOf", "pattern"]
    kind = draw(st.sampled_from(kinds + (["object", "array", "object"] if depth else [])))
    match kind:
        case "string":
            text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6)
            return {"type": "string", "maxLength": 6}, draw(text)
        case "integer":
            return {"type": "integer", "minimum": -20, "maximum": 99}, draw(st.integers(-20, 99))
        case "boolean":
            return {"type": "boolean"}, draw(st.booleans())
        case "null":
            return {"type": "null"}, None
        case "enum":
            values = draw(st.lists(st.sampled_from(["x", "a.b", 3, None, "ü (1)"]), min_size=1, max_size=3, unique=True))
            return {"enum": values}, draw(st.sampled_from(values))
        case "const":
            return {"const": "so+so"}, "so+so"
        case "pattern":
            return {"type": "string", "pattern": "^[a-z]{1,3}$"}, draw(st.from_regex("[a-z]{1,3}", fullmatch=True))
        case "anyOf":
            found = draw(st.lists(pairs(depth=0), min_size=1, max_size=2))
            return {"anyOf": [schema for schema, _ in found]}, draw(st.sampled_from([value for _, value in found]))
        case "array":
            schema, _ = inner = draw(pairs(depth=0))
            n = draw(st.integers(0, 3))
            least = draw(st.integers(0, n))
            return {"type": "array", "items": schema, "minItems": least, "maxItems": 3}, [inner[1]] * n
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    found = [draw(pairs(depth=depth - 1)) for _ in names]
    return (
        closed({name: schema for name, (schema, _) in zip(names, found, strict=True)}),
        {name: value for name, (_, value) in zip(names, found, strict=True)},
    )


@given(pairs(), st.sampled_from([("spaced", (", ", ": ")), ("compact", (",", ":"))]))
@settings(max_examples=80)
def test_the_expression_lets_through_what_fits_written_in_its_one_way(pair, spacing) -> None:
    schema, value = pair
    kind, marks = spacing
    Draft202012Validator(schema).validate(value)
    pattern = re.compile(pattern_of(schema, kind))
    assert pattern.fullmatch(json.dumps(value, ensure_ascii=False, separators=marks))
    if isinstance(value, dict):
        other = (",", ":") if kind == "spaced" else (", ", ": ")
        assert not pattern.fullmatch(json.dumps(value, ensure_ascii=False, separators=other))
        assert not pattern.fullmatch(json.dumps(value, ensure_ascii=False, separators=marks).replace(":", ":\n", 1))


@given(pairs(), st.data())
@settings(max_examples=60)
def test_whatever_the_expression_lets_through_fits_the_schema_but_for_bounds_of_numbers(pair, data) -> None:
    schema, _ = pair
    text = data.draw(st.from_regex(re.compile(pattern_of(schema), re.ASCII), fullmatch=True))
    value = json.loads(text)
    bounds = {"minimum", "maximum"}
    found = [
        (error, {error.validator, *(e.validator for e in error.context)})
        for error in Draft202012Validator(schema).iter_errors(value)
    ]
    assert not [error for error, kinds in found if not kinds & bounds]


@given(pairs())
@settings(max_examples=60)
def test_what_the_lint_calls_bounded_is_bounded(pair) -> None:
    schema, _ = pair
    assert not [issue for issue in lint_schema(schema) if issue.rule in ("endless", "refused")]
    assert not re.search(r"[*+]|,\}", re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "", pattern_of(schema)))


TREE = {"$defs": {"node": closed({"next": {"$ref": "#/$defs/node"}})}, "$ref": "#/$defs/node"}


@pytest.mark.parametrize(
    ("schema", "path", "rule", "says"),
    [
        ({}, "$", "endless", "empty schema"),
        (closed({"a": True}), "$.properties.a", "endless", "empty schema"),
        (closed({"a": {"description": "x"}}), "$.properties.a", "endless", "no type"),
        (closed({"a": {"type": "string"}}), "$.properties.a", "endless", "maxLength"),
        (closed({"a": {"type": "string", "pattern": "^[a-z]+$"}}), "$.properties.a", "endless", "maxLength"),
        (closed({"a": {"type": "string", "pattern": "^a{2,}$"}}), "$.properties.a", "endless", "maxLength"),
        (closed({"a": {"type": "number", "minimum": 0, "maximum": 9}}), "$.properties.a", "endless", "behind its point"),
        (closed({"a": {"type": "integer", "minimum": 0}}), "$.properties.a", "endless", "minimum and maximum"),
        (closed({"a": {"type": ["integer", "null"]}}), "$.properties.a", "endless", "minimum and maximum"),
        (closed({"a": {"type": "array", "items": {"enum": [1]}}}), "$.properties.a", "endless", "maxItems"),
        (closed({"a": {"type": "array", "maxItems": 2}}), "$.properties.a", "endless", "array of anything"),
        ({"type": "object"}, "$", "endless", "any keys"),
        ({"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}, "$", "open", "additionalProperties"),
        ({**closed({"a": {"enum": [1]}}), "required": []}, "$.properties.a", "open", "optional"),
        (TREE, "$.properties.next", "endless", "holds itself"),
        (closed({"a": {"type": "string", "maxlength": 3, "maxLength": 3}}), "$.properties.a", "unchecked", "'maxlength'"),
        (closed({"a": {"type": "string", "maxLength": 3, "not": {"const": "x"}}}), "$.properties.a", "unchecked", "'not'"),
        (
            closed({"a": {"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 3}}),
            "$.properties.a", "refused", "enum",
        ),
        (
            closed({"a": {"type": "array", "items": {"enum": [1]}, "maxItems": 2, "uniqueItems": True}}),
            "$.properties.a", "refused", "uniqueItems",
        ),
        (closed({"a": {"type": "string", "format": "iban"}}), "$.properties.a", "refused", "'iban'"),
        (
            closed({"a": {"type": "string", "pattern": "^a$", "maxLength": 1}}),
            "$.properties.a", "refused", "into the pattern",
        ),
        ({"allOf": [{"enum": [1]}, {"enum": [1, 2]}]}, "$", "refused", "one schema"),
        (
            closed({"a": {"enum": [1]}}, patternProperties={"x": {"enum": [1]}}),
            "$", "refused", "name the properties",
        ),
    ],
)  # fmt: skip
def test_the_lint_names_the_place_and_the_fix(schema, path, rule, says) -> None:
    issues = lint_schema(schema)
    assert [(issue.path, issue.rule) for issue in issues if says in str(issue)] == [(path, rule)], issues


def test_a_clean_schema_has_no_issue() -> None:
    money = {"type": "string", "pattern": "^[0-9]{1,6}\\.[0-9]{2}$"}
    assert lint_schema(closed({"total": money, "on": {"type": "string", "format": "date"}})) == []


def test_what_is_no_schema_is_refused_with_its_path() -> None:
    with pytest.raises(InvalidValue, match=r"\$\.properties\.a\.type"):
        lint_schema(closed({"a": {"type": "strng"}}))
    with pytest.raises(InvalidValue, match=r"\$\.properties\.a refers to '#/\$defs/none'"):
        lint_schema(closed({"a": {"$ref": "#/$defs/none"}}))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({**closed({"a": {"enum": [1]}}), "required": []}, r"optional properties \(a\)"),
        ({"type": "object"}, "open object"),
        (closed({"a": {"type": "array", "items": {"enum": [1]}}}), r"\$\.properties\.a has an array without maxItems"),
        (TREE, "holds itself"),
        (closed({"a": True}), r"\$\.properties\.a is True"),
        ({}, "no type"),
    ],
)
def test_what_no_expression_can_say_is_refused_with_its_path(schema, says) -> None:
    with pytest.raises(InvalidValue, match=says):
        pattern_of(schema)


@given(pairs())
@settings(max_examples=60)
def test_short_keys_come_back(pair) -> None:
    schema, value = pair
    short, table = shortened(schema)

    def shorter(what):
        if isinstance(what, dict):
            return {table.short[key]: shorter(inner) for key, inner in what.items()}
        return [shorter(inner) for inner in what] if isinstance(what, list) else what

    Draft202012Validator(short).validate(shorter(value))
    assert table.restored(shorter(value)) == value
    assert len(set(table.short.values())) == len(table.short)


def test_short_keys_go_on_behind_z_and_are_told_once() -> None:
    schema = closed({f"property {i}": {"enum": [i]} for i in range(30)})
    _, table = shortened(schema)
    assert list(table.short.values())[24:29] == ["y", "z", "aa", "ab", "ac"]
    assert shortened(closed({"order": {"enum": [1]}, "name": {"enum": [1]}}))[1].told == "Keys: a is order, b is name."
    with pytest.raises(InvalidValue, match=r"\$\.properties\.a may have keys that it does not name"):
        shortened(closed({"a": {"type": "object", "properties": {}}}))


def test_the_order_of_fields() -> None:
    schema = closed({"answer": {"enum": [1]}, "steps": {"enum": [2]}, "note": {"enum": [3]}})
    assert list(ordered(schema, "steps", "answer")["properties"]) == ["steps", "answer", "note"]
    assert re.fullmatch(pattern_of(ordered(schema, "steps")), '{"steps": 2, "answer": 1, "note": 3}')
    with pytest.raises(InvalidValue, match=r"thoughts is no property of the schema; it has answer, steps, note"):
        ordered(schema, "thoughts")
