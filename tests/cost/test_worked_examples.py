"""Costs that somebody else worked out and published, computed again. Each test names the document it comes from."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest

from labkit.cost import Cost, Scenario, api_month, price_of, price_request, price_workflow
from labkit.request import Usage

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
CENT, HUNDREDTH_OF_A_CENT = Decimal("0.01"), Decimal("0.0001")


def _rounded(amount: Decimal, to: Decimal) -> Decimal:
    return amount.quantize(to, ROUND_HALF_UP)


def test_the_usage_block_in_openais_prompt_caching_announcement() -> None:
    """OpenAI, "Prompt Caching in the API", 1 October 2024: price table and usage block (2006 prompt, 1920 cached, 300 out).

    gpt-4o-2024-08-06 at 2.50, 1.25 cached and 10.00 USD per million: 86 × 2.50 + 1920 × 1.25 + 300 × 10 = 5,615 millionths.
    """
    price = price_of("gpt-4o-2024-08-06", "openai", AT)
    cost = price_request(Usage(input_tokens=2006, output_tokens=300, cached_tokens=1920), price)
    assert cost == Cost(Decimal("0.000215"), Decimal("0.0024"), Decimal(0), Decimal("0.003"), Decimal(0))
    assert cost.total == Decimal("0.005615")


@pytest.mark.parametrize(
    ("model", "input_rate", "cached_rate", "output_rate"),
    [("gpt-4o-2024-08-06", "2.50", "1.25", "10.00"), ("gpt-4o-mini-2024-07-18", "0.15", "0.075", "0.60")],
)
def test_the_price_table_in_openais_prompt_caching_announcement(
    model: str, input_rate: str, cached_rate: str, output_rate: str
) -> None:
    """OpenAI, "Prompt Caching in the API", 1 October 2024. (o1-mini, also in it, has become cheaper since.)"""
    rates = price_of(model, "openai", AT).rates
    assert (rates.fresh_input, rates.cached_input, rates.visible_output) == (
        Decimal(input_rate),
        Decimal(cached_rate),
        Decimal(output_rate),
    )


@pytest.mark.parametrize(
    ("cached", "fresh", "output", "published"),
    [(0, 14045, 606, "0.0412"), (14464, 201, 606, "0.0246"), (15104, 181, 641, "0.0257")],
)
def test_three_chat_turns_checked_against_openais_dashboard(cached: int, fresh: int, output: int, published: str) -> None:
    """llmindset.co.uk, "OpenAI Prompt Caching", 4 October 2024: turn costs, which its author compared with OpenAI's bill."""
    cost = price_request(Usage(cached + fresh, output, cached), price_of("gpt-4o-2024-08-06", "openai", AT))
    assert _rounded(cost.total, HUNDREDTH_OF_A_CENT) == Decimal(published)


@pytest.mark.parametrize(
    ("tokens", "batch", "published"), [(250_000, False, "1.55"), (250_000, True, "0.77"), (199_999, False, "0.63")]
)
def test_scenarios_on_both_sides_of_anthropics_long_context_tier(tokens: int, batch: bool, published: str) -> None:
    """eonsr.com, "Claude Sonnet 4 pricing: 1M context switch explained": scenarios A and B, 2,000 output tokens.

    It explains the section "Long context pricing" of Anthropic's pricing page. Claude Sonnet 4.5 has the same prices.
    Its 0.77 is 0.7725, its 1.55 is 1.545.
    """
    cost = price_request(Usage(tokens, 2_000), price_of("claude-sonnet-4-5", "anthropic", AT), batch)
    assert _rounded(cost.total, CENT) == Decimal(published)


def test_cached_tokens_count_towards_the_long_context_tier() -> None:
    """Anthropic, pricing page, "Long context pricing": cache reads and writes count as input at the threshold."""
    price = price_of("claude-sonnet-4-5", "anthropic", AT)
    cost = price_request(Usage(200_001, 0, cached_tokens=150_000, cache_write_tokens=50_000), price)
    assert cost == Cost(1 * Decimal("0.000006"), 150_000 * Decimal("0.0000006"), 50_000 * Decimal("0.0000075"))


def test_a_week_of_code_reviews_standard_and_batch() -> None:
    """claudecodeguides.com, "Claude Batch API 50% Discount Complete Guide": 5,000 reviews with Opus 4.7.

    20,000 tokens in and 5,000 out each make 1,125.00 USD standard and 562.50 USD as a batch.
    """
    price = price_of("claude-opus-4-7", "anthropic", AT)
    reviews = [Usage(20_000, 5_000)] * 5_000
    assert price_workflow(reviews, price).total == Decimal("1125.00")
    assert price_workflow(reviews, price, batch=True).total == Decimal("562.50")


def test_a_thousand_document_summaries_a_day() -> None:
    """deploybase.ai, "Google Gemini 2.5 Pricing", March 2026: 50,000 in, 2,000 out; 0.0825 USD each, 82.50 USD a day."""
    price = price_of("gemini-2.5-pro", "google", AT)
    assert price_request(Usage(50_000, 2_000), price).total == Decimal("0.0825")
    day = Scenario(users=1_000, requests_per_user=1, input_tokens=50_000, output_tokens=2_000, retry_rate=0, days=1)
    assert api_month(day, price).total == Decimal("82.50")


def test_the_input_side_of_a_gemini_request_with_a_cached_prompt() -> None:
    """Google AI developer forum, "Question about Gemini API caching pricing": 11,500 prompt tokens, 10,000 cached."""
    cost = price_request(Usage(11_500, 0, cached_tokens=10_000), price_of("gemini-2.5-pro", "google", AT))
    assert cost.fresh_input == Decimal("0.001875")
    assert cost.cached_input == Decimal("0.00125")


@pytest.mark.parametrize(
    ("model", "standard", "batch"),
    [("claude-opus-4-7", ("5", "25"), ("2.5", "12.5")), ("claude-haiku-4-5", ("1", "5"), ("0.5", "2.5"))],
)
def test_the_table_of_anthropics_batch_processing_page(
    model: str, standard: tuple[str, str], batch: tuple[str, str]
) -> None:
    """Anthropic, "Batch processing", pricing: all usage is charged at 50 % of the standard API prices."""
    price = price_of(model, "anthropic", AT)
    assert price.batch is not None
    assert (price.rates.fresh_input, price.rates.visible_output) == tuple(map(Decimal, standard))
    assert (price.batch.fresh_input, price.batch.visible_output) == tuple(map(Decimal, batch))


def test_caching_pays_off_at_the_second_call_as_anthropics_multipliers_say() -> None:
    """Anthropic, "Prompt caching", pricing: writes cost 1.25 times, reads 0.1 times the input price.

    Two calls with a 10,000-token prefix: 1.25 + 0.1 < 2. One call alone: 1.25 > 1.
    """
    price = price_of("claude-haiku-4-5", "anthropic", AT)
    plain = price_request(Usage(10_000, 0), price).total
    write = price_request(Usage(10_000, 0, cache_write_tokens=10_000), price).total
    read = price_request(Usage(10_000, 0, cached_tokens=10_000), price).total
    assert (write / plain, read / plain) == (Decimal("1.25"), Decimal("0.1"))
    assert write > plain
    assert write + read < 2 * plain


def test_perplexitys_deep_research_prices_reasoning_apart_from_output() -> None:
    """Perplexity, pricing page, Sonar Deep Research: 2 USD input, 8 USD output, 3 USD reasoning, per million tokens."""
    cost = price_request(Usage(0, 3_000_000, reasoning_tokens=2_000_000), price_of("sonar-deep-research", "perplexity", AT))
    assert (cost.visible_output, cost.reasoning) == (8, 6)
