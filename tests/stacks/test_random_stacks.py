"""The books of any stack are right: some random ones here, more by `python -m stacks.random_stacks` in tests."""

from __future__ import annotations

from collections import Counter

import pytest

from labkit.ledger import booking
from labkit.request import books, hops
from stacks.random_stacks import check

IN_CI = 600


def test_the_books_of_random_stacks_are_what_their_engines_and_caches_counted():
    seen = sum((check(seed) for seed in range(IN_CI)), Counter())
    levers = {
        "Booked", "ResponseCache", "SemanticCache", "SingleFlight", "Paced", "StopWhen", "CoalescingWindow", "Pooled",
        "OffPeak",
        "Route", "Cascade", "Fallback", "Hedge", "Split", "Shadow", "Idempotent", "Partials", "Retry", "Resume",
    }  # fmt: skip
    outcomes = {"outcome completed", "outcome cancelled", "outcome failed", "hits", "computed", "delivered"}
    wanted = levers | outcomes | {*hops.REPEATED, hops.PARTIAL, hops.RETRY, hops.RESUME}
    assert wanted <= set(seen), f"never seen: {sorted(wanted - set(seen))}"


def test_a_hit_that_is_not_recorded_is_noticed(monkeypatch):
    for module in ("response", "semantic", "singleflight", "repeats"):
        monkeypatch.setattr(f"labkit.caches.{module}.served", lambda events, request, beneath: events, raising=False)
    assert noticed()


def test_an_attempt_that_is_recorded_twice_is_noticed(monkeypatch):
    monkeypatch.setattr(booking, "joined", lambda ones, more: (*ones, *more))
    assert noticed()


def test_an_attempt_of_a_cancelled_stream_that_is_lost_is_noticed(monkeypatch):
    monkeypatch.setattr(booking._Page, "cut", lambda *_, **__: None)
    assert noticed()


def test_a_forwarding_handler_that_is_booked_beside_what_it_forwards_to_is_noticed(monkeypatch):
    monkeypatch.setattr(books._Watch, "recorded", property(lambda _: False, lambda *_: None), raising=False)
    assert noticed()


def noticed() -> bool:
    """Whether any of the first stacks fails its check."""
    for seed in range(60):
        try:
            check(seed)
        except AssertionError:
            return True
    pytest.fail("the check saw nothing wrong")
