"""How large a batch may be when its run must not take too long."""

from __future__ import annotations

from labkit.batching.numbers import seconds, whole
from labkit.request import InvalidValue


class BatchSize:
    """The size that a latency budget allows, found by trying: additive increase, multiplicative decrease.

    After a full batch that ran within `latency_budget_s − max_wait_s`, one item more is allowed, up to `max_size`. After any
    batch that ran longer, the size falls to nine tenths of that batch (Clipper: Crankshaw et al., NSDI 2017, section 4.3.1).
    Only the run is compared with the budget: under overload the queue makes items late, and smaller batches would make it
    longer. Without a budget the size is `max_size`; with one it begins at 1. Raises `InvalidValue` for a `max_size` below 1
    and for a budget that `max_wait_s` uses up.
    """

    def __init__(self, max_size: int, max_wait_s: float, latency_budget_s: float | None = None) -> None:
        if not whole(max_size, 1):
            raise InvalidValue(f"max_size is {max_size!r}; a batch has at least 1 item")
        if latency_budget_s is not None and not (seconds(latency_budget_s) and latency_budget_s > max_wait_s):
            raise InvalidValue(
                f"latency_budget_s is {latency_budget_s!r}, and max_wait_s ({max_wait_s}) leaves none of it "
                "to run in; wait less"
            )
        self._max_size = max_size
        self._run_s = None if latency_budget_s is None else latency_budget_s - max_wait_s
        self.allowed = max_size if latency_budget_s is None else 1

    def ran(self, items: int, seconds: float) -> None:
        """Record that a batch of `items` ran for `seconds`."""
        if self._run_s is None:
            return
        if seconds > self._run_s:
            # From the size that ran late, which may be below the allowed one; the result is at least one smaller, down to 1.
            self.allowed = max(1, min(self.allowed, items) * 9 // 10)
        elif items >= self.allowed:
            self.allowed = min(self._max_size, self.allowed + 1)
