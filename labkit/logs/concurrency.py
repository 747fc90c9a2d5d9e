"""Chapter 07's question: how many calls run at once, and what could be packed together or put off."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Sequence

from labkit.logs.call import Call, Log
from labkit.logs.numbers import DURATION, TEXTS, TIME, Need, OwnNumber, cannot, of, percent, seconds, share
from labkit.request import InvalidValue

WINDOW_S = 0.05
_WHAT = "the calls in flight at once, 95 % of the time"


def together(log: Log, window_s: float = WINDOW_S, patient: Collection[str] = ()) -> OwnNumber:
    """The 95th percentile, over time, of the calls in flight; their mean beside Little's law; what could share a batch.

    A coalescing window of `window_s` opens with the first call after the last one closed. Calls of the features named in
    `patient` can wait a day, as a batch API asks for. Raises `InvalidValue` for a window below 0.
    """
    if not window_s >= 0:
        raise InvalidValue(f"window_s is {window_s}; give seconds from 0")
    times = sorted(call.at for call in log.calls if call.at is not None)
    spans = [(call.at, call.at + call.duration) for call in log.calls if call.at is not None and call.duration is not None]
    rows = []
    if len(times) > 1:
        windows = fill(times, window_s)
        rows.append((f"calls in a window of {seconds(window_s)}", f"{len(times) / windows:.2f} on average"))
    needs = [need for need, name in ((TIME, "at"), (DURATION, "duration")) if not log.has[name]]
    levels = in_flight(spans)
    lasted = sum(length for _, length in levels)
    if needs or not lasted:
        return cannot("07", _WHAT, "calls", log, *(needs or [TIME]), rows=tuple(rows))
    mean = sum(level * length for level, length in levels) / lasted
    p50, p95 = (_level(levels, q * lasted) for q in (0.5, 0.95))
    work = sum(end - start for start, end in spans)
    rows = [
        ("in flight, median of the time", f"{p50}"),
        ("in flight at the peak", f"{max(level for level, _ in levels)}"),
        ("in flight on average", f"{mean:.3g}"),
        (
            "calls a second × mean duration (Little)",
            f"{len(spans) / lasted:.3g} × {seconds(work / len(spans))} = {work / lasted:.3g}",
        ),
        *rows,
    ]
    more: list[Need] = []
    same = duplicates([call for call in log.calls if call.asked is not None])
    if same is None:
        more.append(TEXTS)
    else:
        doubled = share(*same)
        rows += [] if doubled is None else [("asked while the same was in flight", percent(doubled))]
    if patient:
        waits = share(sum(call.feature in patient for call in log.calls), len(log))
        rows += [] if waits is None else [("could go to a batch API", percent(waits))]
    else:
        more.append(
            Need("deadlines", "by when each call's answer is needed, or name the features that can wait: patient={…}")
        )
    sentence = f"{of(log)}: {mean:.3g} calls are in flight on average, {p95} or fewer for 95 % of the time"
    sentence += f"; a window of {seconds(window_s)} would hold {len(times) / fill(times, window_s):.2f} calls."
    return OwnNumber("07", _WHAT, float(p95), "calls", sentence, None, tuple(more), tuple(rows))


def in_flight(spans: Sequence[tuple[float, float]]) -> list[tuple[int, float]]:
    """(calls in flight, seconds that it lasted), from the first start to the last end; a call holds its start."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    found: list[tuple[int, float]] = []
    level, before = 0, changes[0][0] if changes else 0.0
    for at, change in changes:
        if at > before:
            found.append((level, at - before))
        level, before = level + change, at
    return found


def _level(levels: Sequence[tuple[int, float]], until: float) -> int:
    """The smallest number that is not exceeded for `until` seconds."""
    passed = 0.0
    for level, length in sorted(levels):
        passed += length
        if passed >= until:
            return level
    return max(level for level, _ in levels)


def fill(times: Sequence[float], window_s: float) -> int:
    """How many windows the sorted `times` open."""
    windows, until = 0, float("-inf")
    for at in times:
        if at >= until or not windows:
            windows, until = windows + 1, at + window_s
    return windows


def duplicates(calls: Sequence[Call]) -> tuple[int, int] | None:
    """(calls that began while an equal one was in flight, calls that this is known of); None where it is known of none."""
    known = sorted((c.at, c.at + c.duration, c.line, c.asked) for c in calls if c.at is not None and c.duration is not None)
    if not known:
        return None
    running: list[tuple[float, int, Hashable]] = []
    open_now: dict[Hashable, int] = {}
    found = 0
    for start, end, line, asked in known:
        while running and running[0][0] <= start:
            open_now[heapq.heappop(running)[2]] -= 1
        found += open_now.get(asked, 0) > 0
        open_now[asked] = open_now.get(asked, 0) + 1
        heapq.heappush(running, (end, line, asked))
    return found, len(known)
