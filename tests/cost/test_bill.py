"""What holds for every bill, whatever the price: parts, monotony, batch."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as PeerUsage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import (
    TOKEN_KINDS,
    Cost,
    Price,
    Rates,
    UnknownPrice,
    catalogue_date,
    listed,
    price_of,
    price_request,
    price_workflow,
    self_defined,
)
from labkit.request import InvalidValue, Usage

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
PEERS = {(p.id, m.id): (p, m) for p in get_snapshot().providers for m in p.models}
LIST = sorted(listed(at=AT), key=lambda price: (price.provider, price.model))
amounts = st.decimals("0", "100", places=3)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """A price with tiers that only rise, and a batch price at or below the standard one."""
    one = Rates(*(draw(amounts) for _ in range(4)), draw(st.none() | amounts))
    starts = sorted(draw(st.sets(st.integers(0, 20_000), max_size=2)))
    tiers, low = [], one
    for start in starts:
        low = Rates(*(None if rate is None else rate + draw(amounts) for rate in _amounts(low)))
        tiers.append((start, low))
    return Price("m", "p", one, "test", "2026-11-01", tuple(tiers), _half(one), tuple((s, _half(r)) for s, r in tiers))


def _amounts(rates: Rates) -> list[Decimal | None]:
    return [getattr(rates, f.name) for f in fields(rates)]


def _half(rates: Rates) -> Rates:
    return Rates(*(None if rate is None else rate / 2 for rate in _amounts(rates)))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, write, fresh = (draw(st.integers(0, 10_000)) for _ in range(3))
    output = draw(st.integers(0, 10_000))
    return Usage(cached + write + fresh, output, cached, write, draw(st.integers(0, output)))


@given(usages(), prices(), st.booleans())
def test_the_parts_sum_to_the_total(usage: Usage, price: Price, batch: bool) -> None:
    cost = price_request(usage, price, batch)
    assert sum((getattr(cost, kind) for kind in TOKEN_KINDS), Decimal(0)) == cost.total == cost.input + cost.output


@given(usages(), prices(), st.sampled_from(["fresh", "cached", "cache_write", "visible", "reasoning"]), st.integers(1, 5000))
def test_more_tokens_of_any_kind_never_cost_less(usage: Usage, price: Price, kind: str, more: int) -> None:
    more_input = replace(usage, input_tokens=usage.input_tokens + more)
    more_output = replace(usage, output_tokens=usage.output_tokens + more)
    grown = {
        "fresh": more_input,
        "cached": replace(more_input, cached_tokens=usage.cached_tokens + more),
        "cache_write": replace(more_input, cache_write_tokens=usage.cache_write_tokens + more),
        "visible": more_output,
        "reasoning": replace(more_output, reasoning_tokens=usage.reasoning_tokens + more),
    }[kind]
    assert price_request(grown, price).total >= price_request(usage, price).total


@given(usages(), prices())
def test_a_batch_never_costs_more(usage: Usage, price: Price) -> None:
    assert price_request(usage, price, batch=True).total <= price_request(usage, price).total


@given(usages(), prices())
def test_moving_a_token_into_the_cache_changes_only_its_own_price(usage: Usage, price: Price) -> None:
    fresh = usage.fresh_input_tokens
    moved = price_request(replace(usage, cached_tokens=usage.cached_tokens + fresh), price)
    rates = price.rates_for(usage.input_tokens)
    assert price_request(usage, price).total - moved.total == fresh * (rates.fresh_input - rates.cached_input) / 1_000_000


@given(st.lists(usages(), max_size=6), prices())
def test_a_workflow_costs_what_its_calls_cost(calls: list[Usage], price: Price) -> None:
    total = sum((price_request(usage, price).total for usage in calls), Decimal(0))
    assert price_workflow(calls, price).total == total


@pytest.mark.parametrize("batch", [False, True])
def test_every_listed_price_bills_as_genai_prices_does(batch: bool) -> None:
    """The whole catalogue, on both sides of every tier; per-request and per-search fees are the peer's only extras."""
    compared = 0
    for price in LIST:
        if batch and price.batch is None:
            continue
        provider, model = PEERS[price.provider, price.model]
        for tokens in (1_000, *(at for start, _ in price.tiers for at in (start, start + 1))):
            usage = Usage(tokens, 700, tokens // 3, tokens // 5, 200)
            peer = model.calc_price(
                PeerUsage(
                    input_tokens=tokens,
                    output_tokens=700,
                    cache_read_tokens=tokens // 3,
                    cache_write_tokens=tokens // 5,
                    output_reasoning_tokens=200,
                ),
                provider,
                genai_request_timestamp=AT,
                price_context={"processing": "batch"} if batch else None,
            )
            fee = (getattr(peer.model_price, "requests_kcount", None) or Decimal(0)) / 1000
            assert price_request(usage, price, batch).total == peer.total_price - fee, (price.provider, price.model, tokens)
            compared += 1
    assert compared > (50 if batch else 1500)


def test_every_listed_price_is_found_by_its_own_name() -> None:
    assert [price.model for price in LIST if price_of(price.model, price.provider, AT) != price] == []


def test_no_batch_price_in_the_catalogue_is_above_the_standard_one() -> None:
    offered = [price for price in LIST if price.batch is not None]
    assert len(offered) > 50
    for price in offered:
        for tokens in (1, *(start + 1 for start, _ in price.tiers)):
            pairs = zip(_amounts(price.rates_for(tokens, batch=True)), _amounts(price.rates_for(tokens)), strict=True)
            assert all(low <= high for low, high in pairs if low is not None and high is not None), price.model


def test_costs_add_and_multiply_part_by_part() -> None:
    one = Cost(Decimal(1), Decimal(2), Decimal(3), Decimal(4), Decimal(5))
    assert one + one == one * 2
    assert (one * 3).total == 45


def test_an_embedding_model_is_billed_for_what_it_reads() -> None:
    price = price_of("text-embedding-3-small", "openai", AT)
    assert price_request(Usage(1_000_000, 0), price).total == Decimal("0.02")
    assert price.model not in {listed_price.model for listed_price in listed("openai", AT)}


def test_a_model_listed_elsewhere_is_not_just_unknown() -> None:
    with pytest.raises(UnknownPrice, match=r"listed by .*openai"):
        price_of("gpt-5-mini", "google")
    with pytest.raises(UnknownPrice, match="no provider 'opnai'; there are openai"):
        list(listed("opnai"))


@pytest.mark.parametrize("given", [0.1, True, None, "a dollar", "1,5", "-1", "NaN"])
def test_an_amount_that_is_no_price_is_named(given: object) -> None:
    with pytest.raises(InvalidValue, match="input is"):
        self_defined("m", given, "1")  # type: ignore[arg-type]


@pytest.mark.parametrize("starts", [(200, 100), (100, 100), (-1,)])
def test_tiers_out_of_order_are_refused(starts: tuple[int, ...]) -> None:
    rates = self_defined("m", "1", "1").rates
    with pytest.raises(InvalidValue, match="ascending"):
        Price("m", "p", rates, "test", "", tuple((start, rates) for start in starts))


def test_a_price_knows_its_release_and_the_day_it_was_asked_for() -> None:
    price = price_of("gpt-5-mini", at=AT)
    assert price.source.startswith("genai-prices ")
    assert price.as_of == "2026-11-01"
    assert catalogue_date(AT) <= AT.date()
    assert price_of("gpt-5-mini", at=AT.replace(tzinfo=None)) == price


@settings(max_examples=30)
@given(st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)))
def test_a_price_change_takes_effect_on_its_day_and_not_before(at: datetime) -> None:
    """OpenAI cut gpt-5.6 from 5 to 4 USD per million input tokens on 21 August 2026."""
    assert price_of("gpt-5.6", "openai", at).rates.fresh_input == (4 if at >= datetime(2026, 8, 21) else 5)


def test_cache_writes_of_openai_are_billed_at_a_quarter_more_than_input() -> None:
    """From GPT-5.6 on, as OpenAI's pricing page says: 4 USD, a tenth for reads, 1.25 times for writes, 20 for output."""
    price = price_of("gpt-5.6", "openai", datetime(2026, 11, 25))
    worked = (1000 * 4 + 2000 * Decimal("0.4") + 7000 * 5 + 100 * 20) / Decimal(10**6)
    assert price_request(Usage(10_000, 100, 2000, 7000), price).total == worked == Decimal("0.0418")
