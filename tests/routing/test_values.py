"""Choosers, judges, signals and validators are values: they print their settings, compare, and are checked when made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from decimal import Decimal

import pytest

import labkit.routing as room
from labkit.engines import ScriptedEngine
from labkit.request import InvalidValue, stack
from labkit.routing import (
    AllOf,
    AsksForAgent,
    Breaker,
    CalibratedJudge,
    CalibratedSignal,
    Calibration,
    Cascade,
    Fallback,
    Finished,
    Floor,
    HashedWords,
    Hedge,
    JsonSchema,
    KeepsRule,
    Lowest,
    Margin,
    Route,
    RoutingContext,
    RoutingPolicy,
    Rule,
    Rules,
    Score,
    SelfConsistency,
    SequenceLogprob,
    Shadow,
    Split,
    UnsafePhrases,
    Valid,
)

TWO = RoutingPolicy("1", ("s", "l"), (0.5,), {"l": ("s",)}, (Floor("l", feature="x"),), {"t": Decimal("1.5")}, "user")
PLAIN = RoutingPolicy("1", ("s", "l"), (0.5,))
RULES = Rules((Rule(0.1, words=frozenset({"a"})), Rule(0.4, min_chars=20)))
CALIBRATION = Calibration("isotonic", (0.0, 1.0), (0.1, 0.9))
SCHEMA = JsonSchema({"type": "object"})


def values():
    return [
        TWO,
        RULES,
        SCHEMA,
        Route(PLAIN, RULES),
        Route(
            PLAIN, CalibratedSignal(Lowest((RULES, AsksForAgent())), CALIBRATION), RoutingContext(breaker=Breaker(2, 5.0))
        ),
        Cascade(PLAIN, AllOf((SequenceLogprob("total"), Valid((Finished(), SCHEMA, UnsafePhrases(("x",)))))), 2),
        Cascade(PLAIN, CalibratedJudge(Margin("mean"), CALIBRATION), context=RoutingContext(first_token_s=5.0)),
        Fallback(("a", "b"), Breaker(2, 5.0), 9.0),
        Hedge(1.5),
        Split("x", 0.25),
        Shadow(0.5, 3, 2),
        HashedWords(64),
    ]


@pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
def test_a_value_prints_all_that_it_takes_to_make_it_again(value):
    again = eval(repr(value), {**vars(room), "Decimal": Decimal})
    assert again == value
    assert repr(again) == repr(value)
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, None)


def test_values_with_other_settings_are_other_values():
    assert values() == values()
    assert Hedge(1) != Hedge(2)
    assert Cascade(PLAIN, Margin()) != Cascade(PLAIN, Margin("mean"))
    assert Route(PLAIN, RULES) != Route(PLAIN, RULES, RoutingContext(breaker=Breaker(1)))
    assert Fallback("a", Breaker(1)) != Fallback("a", Breaker(2))


def test_a_stack_of_choosers_prints_and_compares():
    small, large = ScriptedEngine(model="s"), ScriptedEngine(model="l")
    one, other = (stack(Cascade(PLAIN, Margin()), engine={"s": small, "l": large}) for _ in range(2))
    assert one == other
    assert str(one).splitlines()[0] == repr(Cascade(PLAIN, Margin()))
    assert one != stack(Cascade(PLAIN, Margin()), engine={"s": large, "l": large})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Route("p", RULES), "'p' is no RoutingPolicy"),
        (lambda: Route(PLAIN, "signal"), "needs a signal"),
        (lambda: Route(PLAIN, AsksForAgent), "a class: make a value"),
        (lambda: Route(PLAIN, RULES, Breaker()), "no RoutingContext"),
        (lambda: Route(TWO, RULES), "budgets; give"),
        (lambda: Cascade(PLAIN, Margin), "a class: make a value"),
        (lambda: Cascade(PLAIN, Margin(), -1), "logprobs is -1"),
        (lambda: Cascade(PLAIN, Margin(), "2"), "logprobs is '2'"),
        (lambda: RoutingContext(first_token_s=0), "first_token_s is 0"),
        (lambda: RoutingContext(first_token_s=float("inf")), "not for ever"),
        (lambda: RoutingContext(breaker=3), "give a Breaker"),
        (lambda: RoutingContext(spent=3), "spent is a function"),
        (lambda: RoutingContext(observe=3), "observe is a function"),
        (lambda: Hedge("1"), "after_s is '1'"),
        (lambda: stack(Hedge(1), engine={"a": ScriptedEngine()}), "two models or more"),
        (lambda: SelfConsistency("model"), "a handler is a function"),
        (lambda: SelfConsistency(ScriptedEngine(), n=1.5), "1.5 samples"),
        (lambda: CalibratedJudge(Margin(), 3), "no Calibration"),
        (lambda: Calibration("isotonic", (0.0, 1.0), (0.0, 5.0)), "ys from 0 to 1"),
        (lambda: Calibration("isotonic", (1.0, 0.0), (0.0, 1.0)), "rising xs"),
        (lambda: AllOf(("x",)), "takes functions"),
        (lambda: Valid((Finished,)), "a class: make a value"),
        (lambda: Rules(("x",)), "Rule"),
        (lambda: JsonSchema([]), "is an object"),
        (lambda: KeepsRule("x", "y"), "'x' needs a function"),
        (lambda: UnsafePhrases(()), "at least one"),
        (lambda: UnsafePhrases("\u200b"), "at least one letter"),
        (lambda: Score("0.5", "me"), "me gives a score of '0.5'"),
        (lambda: Score(0.5, "me", cost=0.1), "money is a Decimal"),
        (lambda: Rule(0.5, words=(3,)), "give strings"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_when_the_value_is_made(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()


def test_the_room_opens_without_the_libraries_that_only_its_statistics_need():
    heavy = ("scipy", "sklearn", "pandas", "jsonschema", "torch", "sentence_transformers")
    code = f"import labkit.routing, sys; print(*(name for name in {heavy} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
