"""List prices and costs of requests, against providers' own rules and genai-prices' own arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as PeerUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import UnknownPrice, listed, output_input_ratio, price_of, price_request, self_defined
from labkit.cost.prices import Rates
from labkit.request import InvalidRequest, Usage

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
SAMPLE = [
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-4o"),
    ("openai", "gpt-4.1-nano"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-haiku-5-5"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"),
    ("mistral", "mistral-large-2512"),
    ("deepseek", "deepseek-v3.2"),
]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, write, fresh = (draw(st.integers(0, 150_000)) for _ in range(3))
    output = draw(st.integers(0, 20_000))
    return Usage(cached + write + fresh, output, cached, write, draw(st.integers(0, output)))


@pytest.mark.parametrize(("provider", "model"), SAMPLE)
@settings(max_examples=40, deadline=None)
@given(usage=usages())
def test_a_request_costs_what_genai_prices_computes(provider: str, model: str, usage: Usage) -> None:
    price = price_of(model, provider, AT)
    # genai-prices bills a cache write only where the provider lists one; elsewhere such tokens are plain input to it.
    peer = calc_price(
        PeerUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=AT,
    )
    assert price_request(usage, price).total == peer.total_price


@given(usage=usages(), rates=st.lists(st.decimals(0, 100, places=4), min_size=4, max_size=4))
def test_no_token_is_counted_twice(usage: Usage, rates: list[Decimal]) -> None:
    fresh, output, cached, write = rates
    price = self_defined("m", fresh, output, cached, write)
    plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    by_hand = (
        plain * fresh + usage.cached_tokens * cached + usage.cache_write_tokens * write + usage.output_tokens * output
    ) / 1_000_000
    cost = price_request(usage, price)
    assert cost.total == by_hand == cost.input + cost.output


def test_cache_rates_follow_anthropics_prompt_caching_page() -> None:
    # "5-minute cache write tokens are 1.25 times the base input tokens price; cache read tokens are 0.1 times."
    for model in ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5"):
        rates = price_of(model, "anthropic", AT).rates
        assert rates.cache_write == rates.input * Decimal("1.25")
        assert rates.cached == rates.input * Decimal("0.1")


def test_batch_is_half_price_as_anthropics_and_openais_batch_pages_say() -> None:
    for provider, model in (("anthropic", "claude-haiku-4-5"), ("openai", "gpt-5-mini")):
        price = price_of(model, provider, AT)
        usage = Usage(10_000, 500)
        assert price_request(usage, price, batch=True).total * 2 == price_request(usage, price).total


def test_batch_never_costs_more_than_standard() -> None:
    checked = 0
    for price in listed(at=AT):
        if price.batch is not None:
            checked += 1
            assert price.batch.input <= price.rates.input, price.model
            assert price.batch.output <= price.rates.output, price.model
    assert checked > 20


def test_above_a_tier_the_whole_request_is_billed_at_the_higher_rate() -> None:
    # Gemini API pricing page: gemini-2.5-pro costs 1.25 USD per million input tokens up to 200k, 2.50 above.
    price = price_of("gemini-2.5-pro", "google", AT)
    assert price_request(Usage(200_000, 0), price).total == Decimal("0.25")
    assert price_request(Usage(200_001, 0), price).total == 200_001 * Decimal("2.5") / 1_000_000


@pytest.mark.parametrize("name", ["gpt-5-minni", "claud-sonnet-4-5", "no-such-model-at-all"])
def test_an_unknown_model_is_named_with_what_comes_close(name: str) -> None:
    with pytest.raises(UnknownPrice, match=name):
        price_of(name)


def test_a_missing_batch_price_is_an_error_not_a_guess() -> None:
    with pytest.raises(UnknownPrice, match="batch"):
        price_request(Usage(1, 1), self_defined("m", "1", "2"), batch=True)


@pytest.mark.parametrize("bad", [1.5, Decimal("-1"), Decimal("NaN"), Decimal("Infinity")])
def test_a_rate_that_is_no_price_is_refused(bad: object) -> None:
    with pytest.raises(InvalidRequest, match="input"):
        Rates(bad, Decimal(1), Decimal(1), Decimal(1))  # type: ignore[arg-type]


def test_ratios_are_output_over_input() -> None:
    ratios = output_input_ratio("anthropic", AT)
    assert ratios["claude-sonnet-4-5"] == 5
