from collections import defaultdict
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.ledger import Ledger, LedgerError, Row, cut, spend, tokens, waste

KINDS = ["fresh_input", "cached_input", "cache_write", "visible_output", "reasoning"]


@st.composite
def rows(draw):
    parts = [draw(st.integers(0, 1000)) for _ in range(5)]
    fresh, cached, written, visible, reasoning = parts
    return Row(
        provider="lab",
        outcome=draw(st.sampled_from(["completed", "failed", "cancelled"])),
        input_tokens=fresh + cached + written,
        output_tokens=visible + reasoning,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        cost=draw(st.none() | st.decimals(0, 10**6, places=9)),
        currency=draw(st.sampled_from(["USD", "EUR"])),
        feature=draw(st.sampled_from(["a", "b"])),
        idempotency_key=draw(st.sampled_from(["", "k1", "k2"])),
        attempt=draw(st.integers(1, 3)),
        shadow=draw(st.booleans()),
        finish_reasons=draw(st.sampled_from([(), ("stop",), ("length",), ("repetition",), ("content_filter",)])),
    )


def brute_reason(row, everything):
    if row.shadow:
        return "shadow"
    if row.outcome != "completed":
        return row.outcome
    if row.idempotency_key and any(
        o.idempotency_key == row.idempotency_key and o.attempt > row.attempt and o.outcome == "completed" and not o.shadow
        for o in everything
    ):
        return "superseded"
    return None


def brute(rows, key):
    out = defaultdict(lambda: [0, 0, 0, 0, 0, 0, 0, Decimal(0)])
    for r in rows:
        if key(r) is None:
            continue
        t = out[key(r)]
        parts = [
            r.input_tokens - r.cached_tokens - r.cache_write_tokens, r.cached_tokens, r.cache_write_tokens,
            r.output_tokens - r.reasoning_tokens, r.reasoning_tokens,
        ]  # fmt: skip
        for i, v in enumerate([1, int(r.cost is None), *parts, r.cost or 0]):
            t[i] += v
    return dict(out)


def as_dict(frame, keys):
    values = ["attempts", "unpriced", *KINDS, "labkit.cost"]
    return {tuple(r[k] for k in keys): [r[v] for v in values] for r in frame.to_dict("records")}


@given(st.lists(rows(), max_size=25))
@settings(max_examples=60, deadline=None)
def test_spend_and_waste_agree_with_adding_the_rows_one_by_one(given_rows):
    with localcontext(prec=60), Ledger(":memory:") as ledger:
        ledger.extend(given_rows)
        by_feature = spend(ledger, by=["labkit.feature"])
        assert as_dict(by_feature, ["labkit.feature", "labkit.currency"]) == brute(
            given_rows, lambda r: (r.feature, r.currency)
        )

        def reason(r):
            why = brute_reason(r, given_rows)
            return why and (why, r.currency)

        assert as_dict(waste(ledger), ["reason", "labkit.currency"]) == brute(given_rows, reason)
        how = {
            id(r): (r.finish_reasons[0], r.currency)
            for r in given_rows
            if not r.shadow and r.outcome == "completed" and r.finish_reasons in (("length",), ("repetition",))
        }
        assert as_dict(cut(ledger), ["reason", "labkit.currency"]) == brute(given_rows, lambda r: how.get(id(r)))
        every_token = sum(r.input_tokens + r.output_tokens for r in given_rows)
        assert int(tokens(ledger).sum()) == every_token


def test_cached_tokens_are_not_counted_twice():
    with Ledger(":memory:") as ledger:
        ledger.append(Row(provider="lab", input_tokens=100, cached_tokens=60, cache_write_tokens=10, output_tokens=5))
        assert tokens(ledger).to_dict() == dict(zip(KINDS, [30, 60, 10, 5, 0], strict=True))


def test_currencies_are_never_added():
    with Ledger(":memory:") as ledger:
        ledger.extend(Row(provider="lab", cost=Decimal(1), currency=c) for c in ("USD", "EUR", "USD"))
        assert dict(spend(ledger)[["labkit.currency", "labkit.cost"]].values.tolist()) == {
            "EUR": Decimal(1),
            "USD": Decimal(2),
        }


def test_a_retry_that_delivered_is_not_waste_but_the_failure_before_it_is():
    with Ledger(":memory:") as ledger:
        first = Row(provider="lab", outcome="failed", idempotency_key="k", attempt=1, cost=Decimal("0.3"))
        second = Row(provider="lab", idempotency_key="k", attempt=2, cost=Decimal("0.5"))
        ledger.extend([first, second])
        assert waste(ledger)[["reason", "labkit.cost"]].values.tolist() == [["failed", Decimal("0.3")]]


def test_the_same_key_of_another_tenant_is_another_request():
    with Ledger(":memory:") as ledger:
        ledger.extend(Row(provider="lab", tenant=t, idempotency_key="k", attempt=a) for t, a in (("x", 1), ("y", 2)))
        assert waste(ledger).empty


def test_an_output_counted_from_chunks_is_in_the_totals():
    with Ledger(":memory:") as ledger:
        ledger.append(Row(provider="lab", outcome="cancelled", output_tokens=7, usage_source="counted"))
        assert tokens(ledger)["visible_output"] == 7


def test_an_empty_ledger_has_spent_nothing():
    with Ledger(":memory:") as ledger:
        assert spend(ledger).empty
        assert waste(ledger, by=["labkit.user"]).empty
        assert tokens(ledger).to_dict() == dict.fromkeys(KINDS, 0)


def test_a_misspelt_attribute_is_refused_with_the_right_one():
    with Ledger(":memory:") as ledger, pytest.raises(LedgerError, match=r"labkit\.tenant"):
        spend(ledger, by=["labkit.tennant"])


@pytest.mark.parametrize("name", ["feature", 'labkit.feature" --', "1; DROP TABLE attempts"])
def test_a_name_that_is_no_attribute_is_refused(name):
    with Ledger(":memory:") as ledger, pytest.raises(LedgerError):
        spend(ledger, by=[name])
