"""What a file of a stack may hold: the lab's values and functions by their names, and the objects that levers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from labkit.batching import CoalescingWindow, Gate, OffPeak, Pool, Pooled, feature_of
from labkit.budgets import Budgeted, Purses
from labkit.caches import (
    CacheControl,
    CachePolicy,
    Curve,
    ResponseCache,
    SemanticCache,
    SingleFlight,
    StaticThreshold,
    Store,
    Verified,
    differences,
    same_question,
    same_text,
)
from labkit.cost import Price, Rates, most_input_tokens
from labkit.embeddings import SentenceEmbedder, embedder
from labkit.engines import Recorded
from labkit.ledger import Booked, Ledger
from labkit.output import (
    Cap,
    NoLoops,
    Slot,
    Staged,
    Stops,
    Structured,
    Template,
    ThinkFirst,
    ThinkingBudget,
    Verbosity,
)
from labkit.resilience import (
    Backoff,
    Dollars,
    Idempotent,
    Mishap,
    Mishaps,
    Partials,
    Quota,
    Ratio,
    Resume,
    Retry,
    at_most_tokens,
    is_prose,
    retryable,
)
from labkit.routing import (
    AllOf,
    AsksForAgent,
    Breaker,
    CalibratedJudge,
    CalibratedSignal,
    Calibration,
    Cascade,
    Classifier,
    Fallback,
    Finished,
    Floor,
    Hedge,
    JsonSchema,
    KeepsRule,
    Lowest,
    Margin,
    Route,
    RoutingContext,
    RoutingPolicy,
    Rule,
    Rules,
    SelfConsistency,
    SequenceLogprob,
    Shadow,
    Split,
    UnsafePhrases,
    Valid,
)
from labkit.shrink import (
    BehindPrefix,
    Budget,
    ByNearness,
    ByPerplexity,
    Chunks,
    Compact,
    Diverse,
    DropRandom,
    FewShot,
    First,
    Holdout,
    KeepDrop,
    Nearest,
    Once,
    Option,
    Protect,
    RollingSummary,
    Sentences,
    Shot,
    ShotsInPrompt,
    Tidy,
    TokenBudget,
    TransformersScorer,
    Truncate,
    Window,
    by_score,
    lab_tokens,
)
from labkit.streaming import AnyOf, EnoughWords, Gone, JsonComplete, Paced, Repeating, Said, StopWhen

VALUES: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        AllOf, AnyOf, AsksForAgent, Backoff, BehindPrefix, Booked, Budget, Budgeted, ByNearness, ByPerplexity,
        CacheControl, CachePolicy, CalibratedJudge, CalibratedSignal, Calibration, Cap, Cascade, Chunks, Classifier,
        CoalescingWindow, Compact, Curve, Diverse, DropRandom, EnoughWords, Fallback, FewShot, Finished, First, Floor,
        Gone, Hedge, Holdout, Idempotent, JsonComplete, JsonSchema, KeepDrop, KeepsRule, Lowest, Margin, Mishap,
        Mishaps, Nearest, NoLoops, OffPeak, Once, Option, Paced, Partials, Pool, Pooled, Price, Protect, Rates,
        Recorded, Repeating, ResponseCache, Resume, Retry, RollingSummary, Route, RoutingContext, RoutingPolicy, Rule,
        Rules, Said, SelfConsistency, SemanticCache, Sentences, SequenceLogprob, Shadow, Shot, ShotsInPrompt,
        SingleFlight, Slot, Split, Staged, StaticThreshold, Stops, StopWhen, Structured, Template, ThinkFirst,
        ThinkingBudget, Tidy, TokenBudget, TransformersScorer, Truncate, UnsafePhrases, Valid, Verbosity, Verified,
        Window,
    )
}  # fmt: skip
"""Frozen dataclasses. They are written field by field, without fields that have their default."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        at_most_tokens, by_score, differences, feature_of, is_prose, lab_tokens, most_input_tokens, retryable,
        same_question, same_text,
    )
}  # fmt: skip
"""The lab's own functions that can be settings of levers."""


@dataclass(frozen=True, slots=True)
class SharedKind:
    """A kind of object with a state of its own that several levers may share: how to write it, and how to make it again."""

    kind: type
    write: Callable[[Any], dict[str, Any]]
    read: Callable[..., object]


def _store(store: Store) -> dict[str, Any]:
    changed = _changed(store, "clock_slack_s", "busy_timeout", "set_aside")
    return {"path": store.path, "limit_bytes": store.limit_bytes, **changed}


def _ledger(ledger: Ledger) -> dict[str, Any]:
    return {"path": ledger.path, **_changed(ledger, "busy_timeout")}


def _purses(purses: Purses) -> dict[str, Any]:
    return {"path": purses.path, **_changed(purses, "dead", "busy_timeout")}


def _changed(what: object, *settings: str) -> dict[str, Any]:
    """Those of the `settings` of `what` that differ from the defaults of its class."""
    defaults = signature(type(what)).parameters
    return {name: getattr(what, name) for name in settings if getattr(what, name) != defaults[name].default}


def _breaker(breaker: Breaker) -> dict[str, Any]:
    return {"failures": breaker.failures, "cool_down_s": breaker.cool_down_s}


def _ratio(ratio: Ratio) -> dict[str, Any]:
    settings = {"share": ratio.share, "per_second": ratio.per_second, "ttl_s": ratio.ttl_s}
    return {**settings, **_changed(ratio, "by")}


def _quota(quota: Quota) -> dict[str, Any]:
    return {"start": quota.start, **_changed(quota, "cost", "timeout_cost", "back", "by")}


def _dollars(dollars: Dollars) -> dict[str, Any]:
    settings = {"usd": dollars.usd, "per_s": dollars.per_s, "prices": dollars.prices}
    return {**settings, **_changed(dollars, "count", "by")}


def _gate(gate: Gate) -> dict[str, Any]:
    return {"seats": gate.seats, "pools": list(gate.pools), "priority_s": gate.priority_s}


def _make_gate(seats: int, pools: tuple[Pool, ...], **more: Any) -> Gate:
    return Gate(seats, *pools, **more)


def _embedder(of: SentenceEmbedder) -> dict[str, Any]:
    return {"model": of.model}


SHARED: Mapping[str, SharedKind] = {
    "Breaker": SharedKind(Breaker, _breaker, Breaker),
    "Dollars": SharedKind(Dollars, _dollars, Dollars),
    "Gate": SharedKind(Gate, _gate, _make_gate),
    "Ledger": SharedKind(Ledger, _ledger, Ledger),
    "Purses": SharedKind(Purses, _purses, Purses),
    "Quota": SharedKind(Quota, _quota, Quota),
    "Ratio": SharedKind(Ratio, _ratio, Ratio),
    "SentenceEmbedder": SharedKind(SentenceEmbedder, _embedder, embedder),
    "Store": SharedKind(Store, _store, Store),
}
"""The objects that levers may share, by kind.

A file holds only the settings that `write` returns. Functions that such an object was given (a store's `versions`) are not
in it.
"""
