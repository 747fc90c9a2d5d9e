"""A log as a ledger: the totals are those of the log, and nothing that is unknown becomes 0."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger, Row
from labkit.logs import Call, Log, prices_of, read_log, to_ledger
from labkit.request import InvalidValue, Usage
from labkit.spending import Slice, attribute, explain_change

LIST = self_defined("m", input="2", output="8", cached="0.2")


def test_a_foreign_log_is_attributed_by_version_and_its_total_is_an_independent_sum(tmp_path: Path) -> None:
    lines = [
        {
            "id": f"c{n}", "timestamp": f"2026-03-0{2 + n % 2}T09:00:00Z", "model": "openai/m", "status": "success",
            "prompt_tokens": 100 + n, "completion_tokens": n, "spend": n / 10, "feature": "desk",
            "metadata": {"prompt_version": "v1" if n < 5 else "v2"},
        }
        for n in range(10)
    ]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    log = read_log(path)
    assert log.has["prompt_version"] == 10
    with to_ledger(log) as ledger:
        table = attribute(Slice(ledger), ["prompt_version", "provider"])
        wanted = {version: sum((Decimal(n) / 10 for n in numbers), Decimal(0))
                  for version, numbers in (("v1", range(5)), ("v2", range(5, 10)))}  # fmt: skip
        assert dict(zip(table["prompt_version"], table["cost"], strict=True)) == wanted
        assert set(table["provider"]) == {"openai"}
        old, new = (Slice(ledger, only={"prompt_version": version}) for version in ("v1", "v2"))
        assert sum(explain_change(old, new).parts(6).values()) == wanted["v2"] - wanted["v1"]


def test_what_a_call_lacks_its_row_lacks_and_what_has_a_price_is_priced() -> None:
    usage = Usage(1000, 10, cached_tokens=500)
    log = Log("log", "test", (
        Call(1, 0.0, "m", usage, session="s"),
        Call(2, 5.0, "other", usage, ttft=9.0, duration=1.0, status="failed", request="r", attempt=2, shadow=True),
        Call(3, model="m", cost=Decimal(7), status="cancelled", user="u", tenant="t", prompt_version="v2"),
    ))  # fmt: skip
    with to_ledger(log, {"m": LIST}, currency="USD") as ledger:
        first, second, third = ledger.rows()
    assert (first.cost, first.workflow, first.outcome) == (price_request(usage, LIST).total, "s", "completed")
    assert first.note == "the log does not say how it ended"
    assert (second.cost, second.outcome, second.attempt, second.idempotency_key, second.shadow) == (
        None,
        "failed",
        2,
        "r",
        True,
    )
    assert (second.sent, second.first_token, second.done) == (5.0, None, 6.0)
    assert (third.cost, third.usage, third.started_unix, third.prompt_version) == (Decimal(7), None, None, "v2")
    assert (third.outcome, third.user, third.tenant) == ("cancelled", "u", "t")


def test_a_ledger_read_as_a_log_and_booked_again_is_the_same_bill(tmp_path: Path) -> None:
    rows = [
        Row(provider="lab", request_model="m", input_tokens=n, output_tokens=1, cost=Decimal(n), prompt_version=f"v{n % 2}")
        for n in range(1, 6)
    ]
    with Ledger(tmp_path / "books.db") as ledger:
        ledger.extend(rows)
        wanted = attribute(Slice(ledger), ["prompt_version"])
    with to_ledger(read_log(tmp_path / "books.db")) as again:
        assert attribute(Slice(again), ["prompt_version"]).equals(wanted)


def test_the_catalogues_prices_tell_longer_answers_from_dearer_tokens() -> None:
    lines = [Call(n, 86_400.0 * (n % 2), "openai/gpt-4o-mini", Usage(100, 10 + n % 2 * 90)) for n in range(1, 9)]
    log = Log("log", "test", (*lines, Call(10, 0.0, "in-house", Usage(1, 1))))
    prices = prices_of(log)
    assert set(prices) == {"openai/gpt-4o-mini"}
    with to_ledger(log, prices) as ledger:
        found = explain_change(Slice(ledger, 0, 9, prices=prices), Slice(ledger, 9, prices=prices), ())
    assert found.unpriced == (1, 0)
    assert found.parts(9)["tokens out"] > 0
    assert found.parts(9)["price"] == found.parts(9)["unsplit"] == 0


def test_a_call_that_fits_no_row_is_named_by_its_line() -> None:
    with pytest.raises(InvalidValue, match="line 4 of the log"):
        to_ledger(Log("log", "test", (Call(4, float("inf")),)))
