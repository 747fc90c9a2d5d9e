"""What to do when an engine fails, and what that costs.

`Retry` makes an attempt again where the failure may pass (`retryable`), waits by `Backoff`, and keeps the request's
deadline. Its budgets are shared by many requests, so that retries cannot outgrow the traffic: `Ratio` (Finagle's rule),
`Quota` (botocore's) and `Dollars`. `Idempotent` gives one paid answer for one idempotency key. Where an answer breaks off
half way, `Resume` goes on with it on another engine (`resume_cost` is the price), and `Partials` hands out what had come.

What failures cost: `with_failures` and `with_timeouts` give the cost multiplier, tokens paid over tokens useful, in closed
form, and `multiplier_of` reads it from a ledger. `Mishaps` makes failures happen on a schedule. `storm` runs an outage
whose retries keep the engine busy after it is over. `sketch` computes the same many times as fast, and `phase_diagram` says
at which load, number of attempts and budget the engine comes back.

Three more means are in other rooms, and there is one of each. The circuit breaker is `labkit.routing.Breaker`, which
`labkit.routing.Fallback` asks before each model. Bulkheads, which keep one group's requests from taking all of the
places, are the pools of `labkit.batching`: `Pool`, `Gate` and `Pooled`. The deadline is part of every request
(`labkit.request.within`).

From the outside in, an order that works: `Idempotent`, `Partials`, `Resume`, `Retry`, then a `Fallback` with its breaker,
and `Mishaps` next to an engine.
"""

from labkit.resilience.attempted import Attempted
from labkit.resilience.backoff import Backoff
from labkit.resilience.idempotent import Idempotent, KeyReused
from labkit.resilience.mishaps import MISHAP_FIELD, Mishap, MishapKind, Mishaps
from labkit.resilience.multiplier import Again, PaidAndUseful, multiplier_of, with_failures, with_timeouts
from labkit.resilience.partials import Partials, is_prose
from labkit.resilience.resume import CannotResume, Resume, ResumeCost, resume_cost
from labkit.resilience.retry import Retry, RetryCounts, retryable
from labkit.resilience.retry_budget import Allowance, Dollars, Quota, Ratio, RetryBudget, at_most_tokens
from labkit.resilience.storms import Phase, Storm, Weather, phase_diagram, sketch, storm

__all__ = [
    "MISHAP_FIELD",
    "Again",
    "Allowance",
    "Attempted",
    "Backoff",
    "CannotResume",
    "Dollars",
    "Idempotent",
    "KeyReused",
    "Mishap",
    "MishapKind",
    "Mishaps",
    "PaidAndUseful",
    "Partials",
    "Phase",
    "Quota",
    "Ratio",
    "Resume",
    "ResumeCost",
    "Retry",
    "RetryBudget",
    "RetryCounts",
    "Storm",
    "Weather",
    "at_most_tokens",
    "is_prose",
    "multiplier_of",
    "phase_diagram",
    "resume_cost",
    "retryable",
    "sketch",
    "storm",
    "with_failures",
    "with_timeouts",
]
