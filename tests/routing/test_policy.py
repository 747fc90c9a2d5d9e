from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import InvalidValue, Request
from labkit.routing.policy import Floor, RoutingPolicy

THREE = RoutingPolicy(
    "3",
    ("s", "m", "l"),
    (0.8, 0.5),
    {"l": ("m",)},
    (Floor("m", feature="refund"), Floor("l", permission="legal")),
    {"acme": Decimal("12.30")},
    "workflow",
)


def test_json_brings_back_the_same_policy_with_its_cents():
    assert RoutingPolicy.from_json(THREE.to_json()) == THREE
    assert '"12.30"' in THREE.to_json()


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_json_brings_back_any_policy(models, data):
    names = st.sampled_from(models)
    thresholds = data.draw(st.lists(st.floats(0, 1), min_size=len(models) - 1, max_size=len(models) - 1))
    floors = tuple(
        Floor(data.draw(names), feature=f) for f in data.draw(st.lists(st.text(min_size=1), unique=True, max_size=3))
    )
    budgets = data.draw(st.dictionaries(st.text(), st.decimals(0, 1000, places=4), max_size=3))
    policy = RoutingPolicy("v", tuple(models), tuple(thresholds), floors=floors, budgets=budgets)
    assert RoutingPolicy.from_json(policy.to_json()) == policy
    assert policy.changes(policy) == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": ""}, "version"),
        ({"models": ()}, "at least one"),
        ({"models": ("s", "s", "l")}, "each once"),
        ({"thresholds": (0.5,)}, "1 thresholds for 3 models"),
        ({"thresholds": (0.5, 1.2)}, "threshold 1.2"),
        ({"thresholds": (0.5, float("nan"))}, "threshold nan"),
        ({"fallbacks": {"x": ("s",)}}, "'x', which is not among the models s, m, l"),
        ({"fallbacks": {"s": ("x",)}}, "fallback of 's' is 'x'"),
        ({"fallbacks": {"s": ("s",)}}, "name other models"),
        ({"floors": (Floor("x", feature="f"),)}, "a floor is set at 'x'"),
        ({"floors": (Floor("s", feature="f"), Floor("l", feature="f"))}, "contradict"),
        ({"budgets": {"t": Decimal(-1)}}, "budget of 't'"),
        ({"budgets": {"t": 0.1}}, "Decimal"),
        ({"sticky": "tenant"}, "sticky is 'tenant'"),
        ({"models": "sml"}, "2 thresholds for 1 models"),
        ({"models": ("s", 1, "l")}, "give strings"),
        ({"thresholds": ("0.5", 0.4)}, "give numbers"),
        ({"fallbacks": {"s": (1,)}}, "give strings"),
        ({"fallbacks": ["s"]}, "give a mapping"),
        ({"floors": ("s",)}, "Floor"),
        ({"version": 3}, "version"),
    ],
)
def test_a_policy_that_could_not_be_followed_is_refused(change, says):
    with pytest.raises(InvalidValue, match=says):
        replace(THREE, **change)


def test_a_floor_names_one_condition():
    with pytest.raises(InvalidValue, match="name one"):
        Floor("m")
    with pytest.raises(InvalidValue, match="name one"):
        Floor("m", "f", "p")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flors": []}, "no flors"),
        ({"floors": [{"model": "m", "feture": "x"}]}, "feture"),
        ({"models": "sml"}, "thresholds for 3 models|should be"),
        ({"models": [1, 2, 3]}, "should be a string"),
        ({"budgets": {"t": 0.1}}, "should be a string"),
        ({"budgets": {"t": "much"}}, "no policy"),
        ({"thresholds": ["high", 0.1]}, "no policy"),
        ({"fallbacks": []}, "no policy"),
    ],
)
def test_json_that_is_not_a_policy_is_refused(change, says):
    data = {**json.loads(THREE.to_json()), **change}
    if change == {"models": "sml"}:
        data["thresholds"] = [0.5]
    with pytest.raises(InvalidValue, match=says):
        RoutingPolicy.from_json(json.dumps(data))
    twice = THREE.to_json().replace('"floors":', '"floors": [], "floors":')
    for text in ("[]", "{}", "not json", twice, THREE.to_json().replace('"version": "3"', '"version": 3')):
        with pytest.raises(InvalidValue, match="no policy"):
            RoutingPolicy.from_json(text)


def test_the_highest_floor_that_holds_counts():
    assert THREE.allowed(Request("q")) == ("s", "m", "l")
    assert THREE.allowed(Request("q", feature="refund")) == ("m", "l")
    assert THREE.allowed(Request("q", feature="refund", permissions=frozenset({"legal"}))) == ("l",)


def test_a_difference_is_told_in_words():
    new = replace(
        THREE,
        version="4",
        thresholds=(0.7, 0.5),
        floors=(Floor("l", feature="refund"), Floor("m", feature="faq")),
        budgets={},
        fallbacks={},
        sticky="",
    )
    assert THREE.changes(new) == (
        "version 3 becomes 4",
        "threshold of s goes from 0.8 to 0.7",
        "fallbacks of l is dropped (was m)",
        "floor of permission legal is dropped (was l)",
        "floor of feature faq is new: m",
        "floor of feature refund goes from m to l",
        "budget of tenant acme is dropped (was 12.30)",
        "sessions by workflow become sessions by nothing",
    )
