"""How long to wait before an attempt is made again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from labkit.request import InvalidValue, is_whole

Jitter = Literal["full", "equal", "none"]
_MOST_DOUBLINGS = 1000  # 2.0 ** 1000 is still a float


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double with each attempt that failed, from `first_s` up to `most_s` seconds.

    With n failed attempts the limit is min(most_s, first_s · 2ⁿ⁻¹). `jitter` says how the wait is drawn from it: "full",
    evenly between 0 and the limit; "equal", evenly between half of the limit and the limit; "none", the limit itself.
    Full jitter is the default: callers that failed together come back spread out, with the least work in all (M. Brooker,
    "Exponential Backoff And Jitter", AWS 2015). Raises `InvalidValue` for waits that are negative or not finite, for a
    `first_s` above `most_s`, and for an unknown jitter.
    """

    first_s: float = 0.5
    most_s: float = 8.0
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        if not 0 <= self.first_s <= self.most_s < math.inf:
            raise InvalidValue(
                f"the waits go from {self.first_s!r:.60} to {self.most_s!r:.60} s; use a first wait from 0 s and a longest "
                "one that is no shorter, both finite"
            )
        if self.jitter not in get_args(Jitter):
            raise InvalidValue(f"jitter is {self.jitter!r:.60}; use one of {', '.join(get_args(Jitter))}")

    def limit_s(self, failed: int) -> float:
        """The longest wait, in seconds, after `failed` attempts. Raises `InvalidValue` for fewer than one."""
        if not is_whole(failed, 1):
            raise InvalidValue(f"{failed!r:.60} attempts failed; a wait follows at least one")
        return min(self.most_s, self.first_s * 2.0 ** min(failed - 1, _MOST_DOUBLINGS))

    def wait_s(self, failed: int, dice: Random) -> float:
        """The wait, in seconds, after `failed` attempts, drawn with `dice`."""
        limit = self.limit_s(failed)
        if self.jitter == "none":
            return limit
        return dice.uniform(0.0 if self.jitter == "full" else limit / 2, limit)
