from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.caches import CacheControl, Scope, fingerprint, scope_of
from labkit.request import InvalidRequest, InvalidValue, Message, Request

ASKED = Request("When do you open?", model="small")


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("user", "When do you close?"),)},
        {"messages": (Message("system", "When do you open?"),)},
        {"messages": (Message("user", "When do you"), Message("user", " open?"))},
        {"model": "large"},
        {"max_tokens": 127},
        {"temperature": 0.1},
        {"top_p": 0.9},
        {"seed": 0},
        {"stop": ("\n",)},
        {"logprobs": 0},
        {"response_format": {"type": "json_object"}},
        {"extra": {"tools": [{"type": "function", "function": {"name": "now"}}]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_answer_changes_the_fingerprint(change):
    assert fingerprint(replace(ASKED, **change)) != fingerprint(ASKED)


def test_the_system_version_changes_the_fingerprint():
    assert fingerprint(ASKED, system_version="2") != fingerprint(ASKED, system_version="1")


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "t"}, {"user": "u"}, {"permissions": {"admin"}}, {"feature": "f"}, {"workflow": "w"},
        {"prompt_version": "v2"}, {"deadline": 5.0}, {"attempt": 2}, {"idempotency_key": "k"}, {"priority": 1},
        {"shadow": True}, {"temperature": 0}, {"temperature": -0.0},
    ],
    ids=str,
)  # fmt: skip
def test_who_asks_and_when_is_not_part_of_what_is_asked(change):
    assert fingerprint(replace(ASKED, **change)) == fingerprint(ASKED)


def test_composed_and_decomposed_letters_are_different_questions():
    assert fingerprint(Request("caf\u00e9")) != fingerprint(Request("cafe\u0301"))


def test_the_order_of_body_fields_does_not_matter_but_the_order_inside_a_schema_does():
    assert fingerprint(Request("x", extra={"a": 1, "b": 2})) == fingerprint(Request("x", extra={"b": 2, "a": 1}))
    schema = {"properties": {"street": {}, "town": {}}}
    turned = {"properties": {"town": {}, "street": {}}}
    assert fingerprint(Request("x", response_format=schema)) != fingerprint(Request("x", response_format=turned))


def test_what_is_no_json_is_refused_rather_than_confused():
    for bad in (float("nan"), object(), {1, 2}):
        with pytest.raises(InvalidRequest, match="JSON"):
            fingerprint(Request("x", extra={"bias": bad}))


names = st.text(max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
)
requests = st.builds(
    Request,
    st.lists(st.builds(Message, st.sampled_from(["system", "user"]), names), min_size=1, max_size=3).map(tuple),
    model=names,
    max_tokens=st.integers(1, 3),
    stop=st.lists(names, max_size=2).map(tuple),
    extra=st.dictionaries(names, json_values, max_size=2),
)


@given(requests, requests)
def test_fingerprints_are_equal_exactly_when_the_request_bodies_are(one, other):
    def body(request):
        # An independent canonical form: JSON keeps types apart (1 is not true), order is kept below the top.
        return json.dumps(
            [
                [[m.role, m.content] for m in request.messages], request.model, request.max_tokens, request.stop,
                sorted((name, json.dumps(value)) for name, value in request.extra.items()),
            ]
        )  # fmt: skip

    assert (fingerprint(one) == fingerprint(other)) == (body(one) == body(other))


scopes = st.builds(Scope, names, st.frozensets(names, max_size=3), names, names, names)


@given(scopes, scopes)
def test_scopes_have_one_text_each(one, other):
    assert (one.to_text() == other.to_text()) == (one == other)
    assert Scope.from_text(one.to_text()) == one


def test_a_scope_keeps_tenants_permissions_and_models_apart_and_users_on_request():
    request = Request("x", tenant="t", permissions={"a", "b"}, model="m", user="u")
    assert scope_of(request, system_version="7") == Scope("t", frozenset("ab"), "m", "7")
    assert scope_of(request, per_user=True).user == "u"
    with pytest.raises(InvalidValue, match="admin"):
        Scope(permissions="admin")


@pytest.mark.parametrize(
    "bad",
    [{"ttl_s": 0}, {"ttl_s": float("nan")}, {"ttl_s": float("inf")}, {"max_age_s": -1}, {"facts": {"price": 3}}],
    ids=str,
)
def test_a_control_that_means_nothing_is_refused_with_its_value(bad):
    with pytest.raises(InvalidValue, match=str(next(iter(bad.values()))).strip("{}").split(":")[0]):
        CacheControl(**bad)
