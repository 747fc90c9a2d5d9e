"""Chapter 12's question: what is paid for attempts that served nobody, and whether a minute looked like a retry storm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from labkit.logs.call import Call, Log
from labkit.logs.numbers import STATUS, USAGE, Need, OwnNumber, cannot, in_percent, of, percent, ratio

ATTEMPT = Need("attempt numbers", "the number of each attempt, and one idempotency key for all attempts of a request")
FAILURES = Need("failed attempts", "each attempt that failed, time-outs among them, with the tokens that had come by then")
_WHAT = "the share of tokens in attempts that served nobody"
_MINUTE_S = 60.0
_BUSY = 20
"""Attempts that a minute must have to be looked at: with fewer, one failure would make a storm."""


def wasted(log: Log) -> OwnNumber:
    """The share of tokens in failed attempts, and in answers that a later attempt of the same request replaced.

    Cancelled answers are chapter 06's: their readers left. A failed attempt without a usage is counted, and its tokens are
    unknown. A log without one failed attempt may be one that does not write them; then the number comes with that need.
    """
    if not (log.has["status"] or log.has["attempt"]):
        return cannot("12", _WHAT, "%", log, STATUS, ATTEMPT)
    replaced = _replaced(log.calls)
    nobody = [call.status == "failed" or i in replaced for i, call in enumerate(log.calls)]
    found = ratio((tokens * lost, tokens) for call, lost in zip(log.calls, nobody, strict=True) if (tokens := _tokens(call)))
    if found is None:
        return cannot("12", _WHAT, "%", log, USAGE)
    failed = [call for call in log.calls if call.status == "failed"]
    again = sum((call.attempt or 1) > 1 for call in log.calls)
    unknown = sum(call.usage is None for call in failed)
    rows = [
        ("failed attempts", f"{len(failed):,} of {len(log):,}"),
        ("of them without token counts", f"{unknown:,}"),
        ("answers that a later attempt replaced", f"{len(replaced):,}"),
        ("attempts behind the first", f"{again:,}"),
    ]
    lost = sum((call.cost for call, each in zip(log.calls, nobody, strict=True) if each and call.cost), Decimal(0))
    if log.has["cost"]:
        rows.append(("paid for them, by the log", f"{float(lost):.4g}"))
    worst = worst_minute(log.calls)
    if worst is not None:
        rows.append(("worst minute: attempts for each request", f"{worst:.2f}"))
    needs = [need for need, lacks in ((STATUS, not log.has["status"]), (ATTEMPT, not log.has["attempt"])) if lacks]
    if not failed and not needs:
        needs = [FAILURES]
    elif unknown:
        needs.append(USAGE)
    number, interval = in_percent(found)
    told = percent(found) if any(nobody) else "none"
    sentence = (
        f"{of(log)}: {told} of the tokens were paid in attempts that served nobody, {len(failed):,} failed and "
        f"{len(replaced):,} replaced by a later one."
    )
    known = interval if any(nobody) else None  # without one such attempt, the estimator's interval has no width
    return OwnNumber("12", _WHAT, number, "%", sentence, known, tuple(needs), tuple(rows))


def worst_minute(calls: Iterable[Call]) -> float | None:
    """Attempts over first attempts, in the minute where that is most; None where no minute has enough of them.

    It is 1 on a quiet day. In a retry storm it comes near the number of attempts that a request is allowed.
    """
    attempts, first = Counter[int](), Counter[int]()
    for call in calls:
        if call.at is not None and call.attempt is not None:
            minute = int(call.at // _MINUTE_S)
            attempts[minute] += 1
            first[minute] += call.attempt == 1
    return max((n / max(1, first[minute]) for minute, n in attempts.items() if n >= _BUSY), default=None)


def _replaced(calls: Iterable[Call]) -> set[int]:
    """The places of completed attempts whose request was completed again by a later attempt."""
    last: dict[tuple[str, str], tuple[int, int]] = {}
    found: set[int] = set()
    for place, call in enumerate(calls):
        if call.status != "completed" or not call.request or call.attempt is None or call.shadow:
            continue
        key, this = (call.tenant, call.request), (call.attempt, place)
        before = last.get(key)
        if before is not None and before[0] != call.attempt:
            found.add(min(before, this)[1])
        last[key] = this if before is None else max(before, this)
    return found


def _tokens(call: Call) -> int:
    return 0 if call.usage is None else call.usage.input_tokens + call.usage.output_tokens
