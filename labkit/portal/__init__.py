"""The running case of the book: one support portal, its month, and what every lever takes off it.

- The case: `PORTAL`, a `Portal` with its `desk`, `assistant` and `summaries` (`Desk`, `Assistant`, `Summaries`); every
  chapter takes lengths, rates and prices from it. `PORTAL.scenario()` is its desk in the calculator.
- Its month: `today(portal) -> Month`, made of `Calls`, `Machines` and `Fee`s; `month.usd`, `month.of("desk")`.
- What a lever does to it, a `Change` that makes a month from a month (`change.made(month)`): `Prefix`, `Answered`, `Routed`
  (with what is `Sent` to each model), `Compressed` (prompts), `Shortened` (answers), `Retried`, `Batched`, `TakenIn`,
  `Rented`, and `Stays` where nothing pays.
- The bill: `chain(lines) -> tuple[Link, ...]` from `Line`s, and `last(lines) -> Month`. Savings add up.
- From measured questions: `at_the_desk(usage) -> Usage` (with the instructions before it), `sent(part, average) -> Sent`.
- The assistant's GPUs: `fleet(portal, between, kv) -> Fleet`.
"""

from labkit.portal.bill import Line, Link, chain, last
from labkit.portal.changes import (
    Answered,
    Batched,
    Change,
    Compressed,
    Prefix,
    Rented,
    Retried,
    Routed,
    Sent,
    Shortened,
    Stays,
    TakenIn,
)
from labkit.portal.gpus import Fleet, fleet
from labkit.portal.measured import at_the_desk, sent
from labkit.portal.month import Calls, Fee, Machines, Month, today
from labkit.portal.traffic import DAYS, PORTAL, Assistant, Desk, Portal, Summaries

__all__ = [
    "DAYS",
    "PORTAL",
    "Answered",
    "Assistant",
    "Batched",
    "Calls",
    "Change",
    "Compressed",
    "Desk",
    "Fee",
    "Fleet",
    "Line",
    "Link",
    "Machines",
    "Month",
    "Portal",
    "Prefix",
    "Rented",
    "Retried",
    "Routed",
    "Sent",
    "Shortened",
    "Stays",
    "Summaries",
    "TakenIn",
    "at_the_desk",
    "chain",
    "fleet",
    "last",
    "sent",
    "today",
]
