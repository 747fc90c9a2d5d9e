"""What the levers that choose a model share beside their policy: the purse, the breaker, patience, and who is told."""

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
    """What was decided for a request, for the records: by which policy, on which scores, and who was asked, in order.

    `why` is "score" where scores decided, "only" where floors or the session left one model, "budget" where it was spent.
    """

    policy: str
    models: tuple[str, ...]
    scores: tuple[Score, ...]
    why: Why


Observe = Callable[[Request, RoutingDecision], None]


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """What a `Route` or a `Cascade` works with beside its policy.

    - `spent` says what a tenant has spent; policies with budgets need it. It is asked when a request arrives, so requests
      under way together can overrun a budget by what they cost.
    - `breaker` holds the circuits; None for new ones in each place. Share one among all that ask the same engines.
    - `first_token_s`: a model that sends no token for so many seconds counts as stalled.
    - `observe` sees each decision before the answer is handed on.

    Where `spent` or `observe` fails, the request goes on as if there were none, and the failure is on `Done.faults`.
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
