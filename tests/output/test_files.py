"""The room's levers come back from a stack's file as they were, and answer as they did."""

from __future__ import annotations

import json

import pytest

from labkit.engines import ScriptedEngine
from labkit.output import (
    Cap,
    NoLoops,
    Slot,
    Staged,
    Stops,
    Structured,
    Template,
    ThinkFirst,
    ThinkingBudget,
    Verbosity,
)
from labkit.request import Request, complete, run_virtual, stack
from labkit.stacks import from_data, to_data

SCHEMA = {
    "type": "object",
    "properties": {"is": {"enum": ["a", 1, None]}, "of": {"type": "array", "items": {"enum": [1]}, "maxItems": 2}},
    "required": ["is", "of"],
    "additionalProperties": False,
}
LEVERS = (
    Cap({"chat": 20, "*": 60}, "continue"),
    Cap(9),
    NoLoops(4, 6),
    Staged(12, "More?", Verbosity("brief", 5, "last"), Verbosity("detailed", where="last")),
    Stops(("\n", "END")),
    Structured(SCHEMA, spacing="spaced", short_keys=True),
    Structured(choice=("a", "b"), at_once=True),
    Template('{"a": "{{x}}"}', {"x": Slot(regex="[a-z]{1,3}", tokens=3)}),
    ThinkFirst(Structured(regex="[0-9]{1,3}")),
    ThinkingBudget(40, 8),
    Verbosity("normal", words=7),
)


@pytest.mark.parametrize("lever", LEVERS, ids=lambda lever: type(lever).__name__)
def test_a_lever_comes_back(lever) -> None:
    engine = ScriptedEngine(("{", "}"))
    handler = stack(lever, engine=engine)
    data = json.loads(json.dumps(to_data(handler, names={"small": engine})))
    again = from_data(data, names={"small": engine})
    assert again == handler
    request = Request("What?", feature="chat")
    for each in (handler, again):
        run_virtual(complete(each, request))
    half = len(engine.asked) // 2
    assert engine.asked[:half] == engine.asked[half:]
