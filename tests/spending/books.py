"""Random ledgers whose attempts are booked as `Booked` would, in part at a price list."""

import random
from dataclasses import replace
from decimal import Decimal

from hypothesis import strategies as st

from labkit.cost import Price, Rates, price_request, self_defined
from labkit.ledger import Row

SMALL = self_defined("small", input="0.25", output="2", cached="0.025")
LARGE = Price(
    "large", "lab", Rates(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), Decimal(12)), "test", "",
    tiers=((1000, Rates(Decimal(6), Decimal(22), Decimal("0.6"), Decimal("7.5"), Decimal(20))),),
)  # fmt: skip
PRICES = {"small": SMALL, "large": LARGE}


@st.composite
def rows(draw, currencies=("USD", "EUR")):
    fresh, cached, written, visible, reasoning = (draw(st.integers(0, 900)) for _ in range(5))
    model = draw(st.sampled_from(["small", "large", "unknown"]))
    row = Row(
        provider="lab",
        request_model=model,
        response_model=draw(st.sampled_from([None, "small", "answering"])),
        outcome=draw(st.sampled_from(["completed", "failed", "cancelled"])),
        input_tokens=fresh + cached + written,
        output_tokens=visible + reasoning,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        currency=draw(st.sampled_from(currencies)),
        tenant=draw(st.sampled_from(["north", "south"])),
        feature=draw(st.sampled_from(["a", "b"])),
        prompt_version=draw(st.sampled_from(["", "v2"])),
        idempotency_key=draw(st.sampled_from(["", "k1", "k2"])),
        attempt=draw(st.integers(1, 3)),
        shadow=draw(st.booleans()),
        started_unix=draw(st.floats(0, 200_000)),
    )
    how = draw(st.sampled_from(["list", "list", "sum", "nobody", "cache"]))
    if how == "list" and model in PRICES:
        return replace(row, cost=price_request(row.usage, PRICES[model]).total)
    if how == "cache":
        nothing = dict.fromkeys(
            ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"), 0
        )
        return replace(row, route=("fallback:x", "response-cache"), cost=Decimal(0), **nothing)
    return replace(row, cost=None if how == "nobody" else draw(st.decimals(0, 10**4, places=9)))


def two_busy_days(until, attempts, seed=0):
    """Attempts of the two days before `until`, as a small company has them: retries, failures, caches, shadow, no price."""
    chance = random.Random(seed)
    found, again = [], None
    for number in range(attempts):
        at = until - 2 * 86_400 + (number + 1) * 2 * 86_400 / (attempts + 1)
        if again is not None and chance.random() < 0.8:
            row = replace(
                again, attempt=again.attempt + 1, attempt_id=f"a{number}", started_unix=at, sent=at, error_type=None
            )
        else:
            row = Row(
                provider="lab", attempt_id=f"a{number}", request_model=chance.choice(["small", "small", "large"]),
                tenant=chance.choice(["northwind", "northwind", "contoso", "fabrikam", "adatum", "litware", "tailspin",
                                      "wingtip", "proseware", "margie", "a datum corporation with a very long name"]),
                user=f"u{chance.randrange(200):03}", feature=chance.choice(["desk", "desk", "search", "summaries", ""]),
                prompt_version=chance.choice(["v1", "v2"]), idempotency_key=f"k{number}", started_unix=at, sent=at,
            )  # fmt: skip
        again = None
        read = chance.randrange(200, 4000)
        cached = chance.choice([0, 0, read // 2, read // 4 * 3])
        row = replace(
            row, outcome="completed", error_type=None, finish_reasons=("stop",), usage_source="reported", input_tokens=read,
            output_tokens=chance.randrange(10, 600), cached_tokens=cached, shadow=chance.random() < 0.01,
            first_token=at + chance.uniform(0.2, 0.9), done=at + chance.uniform(1, 6), response_model=row.request_model,
        )  # fmt: skip
        luck = chance.random()
        if luck < 0.05:
            row = replace(row, outcome="failed", error_type="503", output_tokens=0, first_token=None, finish_reasons=())
            again = row
        elif luck < 0.07:
            row = replace(row, outcome="cancelled", finish_reasons=())
        elif luck < 0.17 and row.attempt == 1:
            nothing = dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), 0)
            row = replace(row, route=("response-cache",), cost=Decimal(0), **nothing)
        if luck > 0.99:
            row = replace(row, request_model="new-model", response_model="new-model")
        price = PRICES.get(row.request_model)
        found.append(
            row if price is None or row.cost is not None else replace(row, cost=price_request(row.usage, price).total)
        )
    return found
