"""Trials against counts made by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from labkit.caches import CacheControl, CachePolicy, ResponseCache, SemanticCache, StaticThreshold, Store
from labkit.caches.trial import DAY, Labelled, Overheads, daily_bill, summary, try_out
from labkit.request import InvalidValue, Request, Usage
from tests.caches.words import Words


def week() -> list[Labelled]:
    def item(at: float, text: str, answer: str) -> Labelled:
        return Labelled(at, Request(text, model="m"), answer, Usage(100, 10))

    return [
        item(0, "boots price", "10"),
        item(5, "boots price", "10"),  # word for word
        item(10, "price boots", "10"),  # other words
        item(20, "tent price", "90"),
        item(DAY + 1, "boots price", "12"),  # dearer since the night
        item(DAY + 2, "boots price", "12"),
    ]


def test_without_a_cache_everything_is_right_and_paid_for() -> None:
    asked = week()
    given = try_out(asked, lambda desk: desk)
    assert [(g.layer, g.right) for g in given] == [("engine", True)] * 6
    bill = daily_bill(given, asked, lambda usage: Decimal(usage.input_tokens + 10 * usage.output_tokens), Overheads())
    assert bill.without.tolist() == bill.engine.tolist() == [800, 400]
    assert bill.net.tolist() == [0, 0]


def test_an_old_answer_that_is_no_longer_true_is_counted_as_wrong() -> None:
    asked = week()
    given = try_out(asked, ResponseCache(Store(), CachePolicy(CacheControl(ttl_s=None))))
    assert [(g.layer, g.right) for g in given] == [
        ("engine", True), ("response", True), ("engine", True), ("engine", True), ("response", False), ("response", False)
    ]  # fmt: skip
    fresh = try_out(asked, ResponseCache(Store(), CachePolicy(CacheControl(ttl_s=3600))))
    assert [g.layer for g in fresh] == ["engine", "response", "engine", "engine", "engine", "response"]
    assert all(g.right for g in fresh)


def test_every_cost_stands_in_its_column() -> None:
    asked = week()
    policy = CachePolicy(CacheControl(ttl_s=3600))
    given = try_out(asked, SemanticCache(Store(), Words(), StaticThreshold(0.99), policy=policy, verify=0))
    assert [g.layer for g in given] == ["engine", "response", "semantic", "engine", "engine", "response"]
    overheads = Overheads(look_usd=1, storage_usd=5, wrong_usd=1000)
    bill = daily_bill(given, asked, lambda usage: Decimal(usage.input_tokens), overheads)
    assert bill.to_dict("list") == {
        "requests": [4, 2], "hits": [2, 1], "wrong": [0, 0], "without": [400, 200], "engine": [200, 100], "looking": [3, 1],
        "storage": [5, 5], "wrong_usd": [0, 0], "net": [192, 94],
    }  # fmt: skip
    row = summary({"semantic": bill}).loc["semantic"]
    assert row["hit rate"] == 0.5
    assert row["net saving"] == pytest.approx(286 / 600)


def test_bad_trials_are_named() -> None:
    asked = week()
    with pytest.raises(InvalidValue, match="sort them"):
        try_out([asked[1], asked[0]], lambda desk: desk)
    with pytest.raises(InvalidValue, match="wrong_usd"):
        Overheads(wrong_usd=-1)
