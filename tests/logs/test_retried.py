"""Chapter 12's question of a log, against counts by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.logs import QUESTIONS, Call, Log, wasted
from labkit.logs.retried import worst_minute
from labkit.request import Usage


def log_of(*calls: Call) -> Log:
    return Log("x.jsonl", "JSON lines", tuple(replace(call, line=i) for i, call in enumerate(calls, 1)))


def call(status: str, tokens: int, attempt: int | None = None, request: str = "", **fields: object) -> Call:
    return Call(0, 0.0, "m", Usage(tokens - 1, 1), status=status, attempt=attempt, request=request, **fields)  # type: ignore[arg-type]


def test_failed_and_replaced_attempts_served_nobody() -> None:
    found = wasted(
        log_of(
            call("failed", 10, 1, "a", cost=Decimal("0.5")),
            call("completed", 20, 2, "a", cost=Decimal(1)),
            call("completed", 30, 1, "b", cost=Decimal(2)),  # came late: attempt 2 was made, and completed as well
            call("completed", 30, 2, "b", cost=Decimal(2)),
            call("completed", 5, 1, "c"),
            call("cancelled", 5, 1, "d"),
        )
    )
    assert found.number == pytest.approx(100 * (10 + 30) / 100)
    rows = dict(found.rows)
    assert rows["failed attempts"] == "1 of 6"
    assert rows["answers that a later attempt replaced"] == "1"
    assert rows["attempts behind the first"] == "2"
    assert rows["paid for them, by the log"] == "2.5"
    assert not found.needs
    assert QUESTIONS["12"] is wasted


def test_the_same_request_of_two_tenants_is_two_requests() -> None:
    one, two = call("completed", 10, 1, "a", tenant="x"), call("completed", 10, 2, "a", tenant="y")
    assert wasted(log_of(one, two)).number == 0
    assert wasted(log_of(one, replace(two, tenant="x"))).number == 50
    assert wasted(log_of(replace(two, tenant="x"), one)).number == 50
    assert wasted(log_of(one, replace(two, tenant="x", shadow=True))).number == 0


def test_a_log_of_successes_is_told_what_it_may_lack() -> None:
    found = wasted(log_of(call("completed", 10, 1, "a"), call("completed", 10, 1, "b")))
    assert found.number == 0
    assert found.interval is None
    assert [need.lacks for need in found.needs] == ["failed attempts"]


def test_the_interval_is_that_of_a_ratio() -> None:
    calls = [call("failed" if i % 5 == 0 else "completed", 10 + i % 7, 1) for i in range(100)]
    found = wasted(log_of(*calls))
    assert found.interval is not None
    assert found.interval[0] < found.number < found.interval[1]


def test_tokens_that_nobody_counted_are_unknown_and_said_to_be() -> None:
    found = wasted(log_of(replace(call("failed", 10, 1), usage=None), call("completed", 10, 1)))
    assert found.number == 0
    assert dict(found.rows)["of them without token counts"] == "1"
    assert found.needs


def test_a_log_that_cannot_tell_says_what_to_log() -> None:
    nothing = wasted(log_of(Call(0), Call(0)))
    assert nothing.number is None
    assert len(nothing.needs) == 2
    no_tokens = wasted(log_of(Call(0, status="failed")))
    assert no_tokens.number is None
    assert "token counts" in no_tokens.sentence
    only_status = wasted(log_of(replace(call("failed", 10), attempt=None), call("completed", 10)))
    assert only_status.number == 50
    assert [need.lacks for need in only_status.needs] == ["attempt numbers"]


def test_the_worst_minute_by_brute_force() -> None:
    rng = random.Random(1)
    calls = [replace(call("completed", 9, rng.choice((1, 1, 2, 3))), at=rng.uniform(0, 300)) for _ in range(400)]
    minutes = [[one for one in calls if 60 * n <= (one.at or 0.0) < 60 * (n + 1)] for n in range(5)]
    by_hand = max(len(each) / sum(one.attempt == 1 for one in each) for each in minutes)
    assert worst_minute(calls) == pytest.approx(by_hand)
    assert worst_minute(calls[:19]) is None
    assert worst_minute(replace(one, attempt=None) for one in calls) is None
