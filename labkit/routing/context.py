"""What `Route` and `Cascade` need besides a policy: tenants' spending, a breaker, a first-token limit, an observer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from labkit.request import Request
from labkit.routing.checks import check_function, check_seconds
from labkit.routing.health import Breaker, check_breaker
from labkit.routing.signals import Score

Spent = Callable[[str], Decimal]
"""What a tenant has spent in the budget's period, in the currency of the policy's budgets."""
Why = Literal["score", "only", "budget"]


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """What was decided for a request, for the records: by which policy, on which scores, and which models were chosen.

    `models` are in the order in which the lever asks them; fallbacks after an engine error are not among them. `why` is
    "score" where scores decided, "only" where the floors or the session left one model to choose, and "budget" where the
    tenant's budget was spent.
    """

    policy: str
    models: tuple[str, ...]
    scores: tuple[Score, ...]
    why: Why


Observe = Callable[[Request, RoutingDecision], None]


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """What a `Route` or a `Cascade` works with besides its policy.

    - `spent` tells what a tenant has spent; policies with budgets need it. It is called when a request arrives, so requests
      that are under way together can overrun a budget by what they cost.
    - `breaker` holds the circuits. None makes a new breaker wherever the lever is placed. Share one breaker among all levers
      that ask the same engines.
    - `first_token_s`: a model that sends no token for this many seconds counts as stalled.
    - `observe` is called with each decision before the answer is delivered.

    Where `spent` or `observe` fails, the request goes on as if it had not been given, and the failure is on `Done.faults`.
    Raises `InvalidValue` for settings of the wrong kind.
    """

    spent: Spent | None = None
    breaker: Breaker | None = None
    first_token_s: float = 60.0
    observe: Observe | None = None

    def __post_init__(self) -> None:
        if self.spent is not None:
            check_function(self.spent, "spent is a function from a tenant to what it has spent")
        if self.observe is not None:
            check_function(self.observe, "observe is a function of a request and its RoutingDecision")
        check_breaker(self.breaker)
        check_seconds("first_token_s", self.first_token_s)
