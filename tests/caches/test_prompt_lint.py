"""The template linter: each thing that breaks a prefix is found, named and priced, and a good template is left in peace."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest

from labkit.caches.prompt_lint import FIXES, lint
from labkit.cost import self_defined
from labkit.request import InvalidValue, Message, Request

RULES = "You work at the support desk. Answer briefly. Never promise a refund. " * 5
PRICE = self_defined("m", input="3", output="15", cached="0.3")
QUESTIONS = ["Where is my tent?", "Can I return boots?", "What does express cost?", "My stove leaks."]


def words(text: str) -> int:
    return len(text.split())


def asked(make: Callable[[int, random.Random], str]) -> list[Request]:
    return [
        Request((Message("system", make(i, random.Random(i))), Message("user", question)))
        for i, question in enumerate(QUESTIONS)
    ]


def shuffled(rng: random.Random) -> str:
    items = list({"name": "Trailhead", "city": "Bergen", "open": True, "days": 60}.items())
    rng.shuffle(items)
    return json.dumps(dict(items))


BROKEN = {
    "timestamp": [
        lambda i, _: f"It is 2026-11-2{i} 14:0{i}:11. {RULES}",
        lambda i, _: f"Now: 2026-11-21T09:1{i}:55.12{i}Z\n{RULES}",
        lambda i, _: f"Time 9:1{i} AM. {RULES}",
    ],
    "identifier": [
        lambda i, rng: f"Trace {uuid.UUID(int=rng.getrandbits(128))}. {RULES}",
        lambda i, rng: f"Session sess-{rng.getrandbits(40):010x}1. {RULES}",
        lambda i, rng: f"Order {rng.randrange(10**6, 10**7)}. {RULES}",
    ],
    "json-order": [lambda i, rng: f"Facts: {shuffled(rng)}\n{RULES}"],
    "varying": [lambda i, _: f"The customer is {['Mira Solberg', 'Tom', 'Ada Lund', 'Yngve'][i]}, be kind. {RULES}"],
}


@pytest.mark.parametrize(("kind", "make"), [(kind, make) for kind, makes in BROKEN.items() for make in makes])
def test_what_breaks_the_prefix_is_named_and_priced(kind: str, make) -> None:
    findings = lint(asked(make), words, price=PRICE, requests_per_month=1_000_000)
    assert [f.kind for f in findings] == [kind]
    (found,) = findings
    assert found.found[0] != found.found[1]
    assert found.fix == FIXES[kind]
    # All the rules are lost, and nothing else but a few words around them.
    assert words(RULES) <= found.lost_tokens <= words(RULES) + 6
    assert found.shared_tokens <= 5
    assert found.usd_per_month == found.lost_tokens * Decimal("2.7")


def test_the_fix_ends_the_finding() -> None:
    assert lint(asked(lambda i, _: f"{RULES}It is 2026-11-2{i} 14:0{i}:11."), words) == ()
    assert lint(asked(lambda i, _: RULES), words) == ()
    assert lint([Request("the same words for everybody, all of them")] * 3, words) == ()


def test_two_breaks_are_two_findings_front_to_back() -> None:
    both = asked(lambda i, rng: f"At 14:0{i}:11. {RULES} Trace {uuid.UUID(int=rng.getrandbits(128))}. {RULES}")
    first, second = lint(both, words)
    assert (first.kind, second.kind) == ("timestamp", "identifier")
    assert second.shared_tokens > first.shared_tokens
    assert first.usd_per_month is None


def test_tools_in_another_order_are_found() -> None:
    tools = [
        {"type": "function", "function": {"name": name, "description": "x" * 40}} for name in ("search", "refund", "track")
    ]
    requests = []
    for i, question in enumerate(QUESTIONS):
        order = list(tools)
        random.Random(i).shuffle(order)
        requests.append(Request((Message("system", RULES), Message("user", question)), extra={"tools": order}))
    findings = lint(requests, words)
    assert findings[0].kind == "json-order"
    assert findings[0].lost_tokens >= words(RULES)


def test_one_request_shows_nothing() -> None:
    with pytest.raises(InvalidValue, match="1 requests show nothing"):
        lint([Request("hello")], words)
