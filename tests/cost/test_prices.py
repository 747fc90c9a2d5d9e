"""List prices and costs of requests, against providers' own rules and genai-prices' own arithmetic."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from genai_prices import Usage as PeerUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import (
    Rates,
    Scenario,
    UnknownPrice,
    api_month,
    listed,
    output_input_ratio,
    price_of,
    price_request,
    self_defined,
)
from labkit.request import InvalidValue, Usage

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
        assert rates.cache_write == rates.fresh_input * Decimal("1.25")
        assert rates.cached_input == rates.fresh_input * Decimal("0.1")


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
            assert price.batch.fresh_input <= price.rates.fresh_input, price.model
            assert price.batch.visible_output <= price.rates.visible_output, price.model
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
    with pytest.raises(InvalidValue, match="input"):
        Rates(bad, Decimal(1), Decimal(1), Decimal(1))  # type: ignore[arg-type]


def test_ratios_are_output_over_input() -> None:
    ratios = output_input_ratio("anthropic", AT)
    assert ratios["claude-sonnet-4-5"] == 5


# DeepSeek's page: V4 Pro costs 1.32 and 3.96 USD from 01:00 to 04:00 and from 06:00 to 10:00 UTC, half of it otherwise.
PEAK = {1: True, 3: True, 4: False, 6: True, 9: True, 10: False, 21: False, 0: False}


@pytest.mark.parametrize(("hour", "peak"), PEAK.items())
def test_a_price_by_the_hour_is_the_hours_own_and_says_which(hour: int, peak: bool) -> None:
    moment = datetime(2026, 11, 25, hour, 30, tzinfo=UTC)
    price = price_of("deepseek-v4-pro", "deepseek", moment)
    assert price.rates.fresh_input == Decimal("1.32") / (1 if peak else 2)
    assert (
        price.rates.fresh_input
        == calc_price(
            PeerUsage(input_tokens=1_000_000), "deepseek-v4-pro", provider_id="deepseek", genai_request_timestamp=moment
        ).total_price
    )
    begin, end = price.as_of.removeprefix("2026-11-25, ").removesuffix(" UTC").split(" to ")
    assert begin <= f"{hour:02}:30" < end
    other = price_of("deepseek-v4-pro", "deepseek", moment.replace(hour=2))
    assert other.at(moment) == price
    assert other.at(moment.astimezone(timezone(timedelta(hours=9)))) == price
    assert other.at(moment.replace(tzinfo=None)) == price


def test_a_month_is_priced_over_all_hours_whoever_looks_when() -> None:
    scenario = Scenario(models=("deepseek/deepseek-v4-pro",))
    rows = [api_month(scenario, price_of("deepseek-v4-pro", "deepseek", AT.replace(hour=hour))) for hour in range(24)]
    by_hour = [
        api_month(scenario, replace(price_of("deepseek-v4-pro", "deepseek", AT.replace(hour=hour)), day=())).total
        for hour in range(24)
    ]
    assert len(set(by_hour)) == 2
    assert {(row.total, row.note) for row in rows} == {(rows[0].total, rows[0].note)}
    assert float(rows[0].total) == pytest.approx(float(sum(by_hour) / 24), rel=1e-12)
    assert "mean over the hours" in rows[0].note


def test_the_mean_of_a_day_weighs_each_price_by_its_hours_with_tiers_batch_and_reasoning() -> None:
    one, two = Decimal(1), Decimal(2)
    night = replace(self_defined("m", "1", "2"), batch=Rates(one, one, one, one), tiers=((100, Rates(two, two, two, two)),))
    peak = replace(
        self_defined("m", "5", "6"), batch=Rates(two, two, two, two), rates=Rates(*map(Decimal, (5, 6, 5, 5)), Decimal(10))
    )
    price = replace(night, day=((time(0), night), (time(18), peak)))
    mean = price.over_the_day()
    assert mean.rates == Rates(two, Decimal(3), two, two, Decimal(4))  # reasoning: 2 of output for 18 h, 10 for 6
    assert mean.rates_for(101).fresh_input == Decimal("2.75")
    assert mean.rates_for(101, batch=True).fresh_input == Decimal("1.25")
    assert mean.day == ()
    assert mean.over_the_day() is mean
    assert replace(price, day=((time(0), replace(night, batch=None)), (time(18), peak))).over_the_day().batch is None
    for day in (((time(1), night),), ((time(0), night), (time(0), peak)), ((time(0), price),)):
        with pytest.raises(InvalidValue, match="ascending from 00:00"):
            replace(night, day=day)


def test_every_hour_of_every_price_by_the_hour_is_what_genai_prices_computes() -> None:
    hourly = [price for price in listed("deepseek", AT) if price.day]
    assert "deepseek-v4-pro" in {price.model for price in hourly}
    for price in hourly:
        for hour in range(24):
            moment = AT.replace(hour=hour)
            peer = calc_price(
                PeerUsage(input_tokens=10_000, output_tokens=700, cache_read_tokens=4_000),
                price.model,
                provider_id="deepseek",
                genai_request_timestamp=moment,
            )
            assert price_request(Usage(10_000, 700, 4_000), price.at(moment)).total == peer.total_price


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("mistral", "mistral-large-latest"),  # Large 3 since 2025-12-02
        ("mistral", "codestral-latest"),  # the newer one's cached tokens cost otherwise
        ("mistral", "devstral-small-latest"),  # deprecated
        ("x-ai", "grok-4-latest"),
        ("openai", "gpt-5-nano-latest"),
        ("anthropic", "claude-opus-4-10"),  # no 4.1
        ("anthropic", "claude-haiku-4-55-20270101"),
        ("google", "claude-opus-4-10@20270101"),
    ],
)
def test_a_name_that_the_catalogue_takes_for_an_older_model_has_no_price(provider: str, name: str) -> None:
    with pytest.raises(UnknownPrice, match=name):
        price_of(name, provider, AT)


@pytest.mark.parametrize(
    ("provider", "name", "model"),
    [
        ("mistral", "mistral-medium-latest", "mistral-medium-latest"),  # listed by itself
        ("mistral", "pixtral-large-latest", "pixtral-large"),  # there is no other
        ("google", "gemini-flash-latest", "gemini-3.8-flash"),  # the newest of its family
        ("google", "gemini-2.5-flash-latest", "gemini-2.5-flash"),
        ("openai", "chatgpt-4o-latest", "chatgpt-4o-latest"),
        ("openai", "gpt-5.1-chat-latest", "gpt-5.1"),
        ("anthropic", "claude-3-5-haiku-latest", "claude-3-5-haiku-latest"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4-0"),
        ("anthropic", "claude-2.1", "claude-2"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-5.2-20251211", "gpt-5.2"),
        ("openai", "ft:gpt-4o-2024-08-06:mine::1", "ft:gpt-4o"),
    ],
)
def test_dated_names_and_aliases_that_mean_what_they_are_taken_for_are_priced(provider: str, name: str, model: str) -> None:
    assert price_of(name, provider, AT).model == model
