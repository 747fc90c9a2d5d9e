"""What levers write on the route of an answer: `kind` or `kind:detail`, outermost first.

The kinds are constants here. Names that users choose (models, experiments, pools) stand only behind the colon, so no name
can be mistaken for a kind.
"""

from __future__ import annotations

from typing import Final

RESPONSE_CACHE: Final = "response-cache"
SEMANTIC_CACHE: Final = "semantic-cache"
SINGLE_FLIGHT: Final = "single-flight"
ROUTE: Final = "route"
CASCADE: Final = "cascade"
FALLBACK: Final = "fallback"
HEDGE: Final = "hedge"
SPLIT: Final = "split"
CANCELLED_EARLY: Final = "cancelled-early"
POOL: Final = "pool"
OFF_PEAK: Final = "off-peak"
COALESCING_WINDOW: Final = "coalescing-window"
SHRINK: Final = "shrink"
OUTPUT: Final = "output"
RETRY: Final = "retry"
IDEMPOTENT: Final = "idempotent"
PARTIAL: Final = "partial"
RESUME: Final = "resume"
BUDGET: Final = "budget"

REPEATED: Final = (RESPONSE_CACHE, SEMANTIC_CACHE, SINGLE_FLIGHT, IDEMPOTENT)
"""The kinds that say that an answer was not computed for this request."""


def hop(kind: str, detail: str) -> str:
    """The hop of `kind` with `detail`, a name that users chose."""
    return f"{kind}:{detail}"


def kinds(route: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of the hops of `route`."""
    return tuple(each.partition(":")[0] for each in route)
