"""What can go wrong with a budget: it is spent, its file is in trouble, or an answer cost more than was set aside."""

from __future__ import annotations

from decimal import Decimal

from labkit.request import EngineError, LabError


class BudgetExhausted(EngineError):
    """The most that the request can cost does not fit into a budget, or no budget covers it; nothing was sent.

    `status` is 402, which is final: asking again before the budget is refilled gives the same answer. `left` is what the
    budget still has, and `needed` the most that the request can cost, in USD; both are None where no budget covers it.
    `retry_after_s` is the number of seconds after which it would fit, even if nothing that is set aside now becomes free;
    None where it never will.
    """

    def __init__(
        self,
        message: str,
        *,
        left: Decimal | None = None,
        needed: Decimal | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=402, retry_after_s=retry_after_s)
        self.left = left
        self.needed = needed


class PursesError(LabError):
    """The file of the purses could not be opened, read or written. Without it nothing new is let through."""


class Overspent(LabError):
    """An answer cost more than was set aside for it, so the budget's limit may be exceeded by the difference."""
