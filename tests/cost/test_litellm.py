"""List prices against a second, independently kept price table: litellm's, a frozen excerpt of it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from labkit.cost import Price, Rates, price_of

EXCERPT = json.loads((Path(__file__).parent / "data" / "litellm_excerpt.json").read_text())["models"]
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
KINDS = {
    "input_cost_per_token": "fresh_input",
    "output_cost_per_token": "visible_output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
}
# Where the two tables differ, and why.
DIFFERENT = {
    "gpt-5.6": "litellm's commit has the price from before the cut of 21 August 2026; for a day before it both agree",
    "claude-4-sonnet-20250514": "litellm lists the long-context beta's rates, genai-prices only the 200,000-token window",
}


def _price(name: str, at: datetime = AT) -> Price:
    return price_of(name.rpartition("/")[2], EXCERPT[name]["provider"], at)


def _peer(name: str) -> dict[str, dict[str, Decimal]]:
    """litellm's prices per million tokens: standard, batch, and by tier ("above_200k")."""
    found: dict[str, dict[str, Decimal]] = {}
    for field, value in EXCERPT[name].items():
        match = re.fullmatch(r"(\w+?_cost(?:_per_token)?)(?:_(batches|above_\d+k)(?:_tokens)?)?", field)
        if match and match[1] in KINDS:
            found.setdefault(match[2] or "standard", {})[KINDS[match[1]]] = Decimal(value) * 1_000_000
    return found


def _ours(price: Price) -> dict[str, Rates]:
    tiers = {f"above_{start // 1000}k": rates for start, rates in price.tiers}
    return {"standard": price.rates, **tiers, **({"batches": price.batch} if price.batch else {})}


def _disagreements(name: str, at: datetime = AT) -> list[str]:
    ours, said = _ours(_price(name, at)), []
    for part, amounts in _peer(name).items():
        for kind, amount in amounts.items():
            mine = getattr(ours[part], kind) if part in ours else None
            if mine != amount:
                said.append(f"{part} {kind}: {mine} here, {amount} in litellm")
    return said


def test_the_excerpt_is_read_whole() -> None:
    parts = {part for name in EXCERPT for part in _peer(name)}
    assert parts == {"standard", "batches", "above_200k", "above_272k"}
    assert sum(len(amounts) for name in EXCERPT for amounts in _peer(name).values()) == sum(
        len(fields) - 1 for fields in EXCERPT.values()
    )


@pytest.mark.parametrize("name", [name for name in EXCERPT if name not in DIFFERENT])
def test_both_tables_name_the_same_price(name: str) -> None:
    assert _disagreements(name) == []


def test_gpt_5_6_was_cut_after_litellms_commit_and_agreed_before() -> None:
    assert any("input" in line for line in _disagreements("gpt-5.6"))
    # genai-prices models batch prices from later on only.
    before = _disagreements("gpt-5.6", datetime(2026, 8, 20, tzinfo=UTC))
    assert [line for line in before if not line.startswith("batches")] == []


def test_sonnet_4s_only_difference_is_the_long_context_tier() -> None:
    said = _disagreements("claude-4-sonnet-20250514")
    assert said
    assert all(line.startswith("above_200k") for line in said)
    assert _price("claude-4-sonnet-20250514").context_window == 200_000
