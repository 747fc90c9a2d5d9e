"""Chapter 02's question: how long users wait, and how many get what was promised."""

from __future__ import annotations

from labkit.latency import SLO, Sample
from labkit.logs.call import Call, Log, counted
from labkit.logs.numbers import (
    DURATION,
    FIRST_TOKEN,
    STATUS,
    OwnNumber,
    cannot,
    in_percent,
    of,
    percent,
    quantile,
    share,
    timed,
)
from labkit.request import Timing

PROMISE = SLO(ttft=1.0, tpot=0.05)
_WHAT = "the share of calls that got what was promised"


def waiting(log: Log, promise: SLO = PROMISE) -> OwnNumber:
    """The 50th and 95th percentiles of TTFT, TPOT and E2E, and the share of calls that meet every limit of `promise`.

    Failed and cancelled calls meet no promise. Calls without the times that a limit needs are left out. The rate of those
    that met it, per second, is the goodput.
    """
    rows = []
    for name, values in (
        ("TTFT", [call.ttft for call in log.calls]),
        ("TPOT", [call.tpot for call in log.calls]),
        ("E2E", [call.duration for call in log.calls]),
    ):
        for q in (50, 95):
            found = quantile(values, q)
            if found is not None:
                rows.append((f"{name} p{q}", f"{timed(found)}, {counted(found.n, 'call')}"))
    judged = [call for call in log.calls if call.status in ("failed", "cancelled") or _judgeable(call, promise)]
    met = sum(call.status not in ("failed", "cancelled") and promise.met(_sample(call)) for call in judged)
    found = share(met, len(judged))
    needs = [need for need, there in ((FIRST_TOKEN, "ttft"), (DURATION, "duration")) if not log.has[there]]
    if found is None or needs:
        return cannot("02", _WHAT, "%", log, *(needs or [FIRST_TOKEN, DURATION]), rows=tuple(rows))
    number, interval = in_percent(found)
    if log.seconds:
        rows.append(("goodput", f"{met / log.seconds:.4g} calls a second"))
    limits = " and ".join(
        f"{name} within {limit:g} s"
        for name, limit in (("TTFT", promise.ttft), ("TPOT", promise.tpot), ("E2E", promise.e2e))
        if limit is not None
    )
    slow = quantile([call.ttft for call in log.calls], 95)
    sentence = f"{of(log)}: {percent(found)} of {counted(found.n, 'call')} kept {limits}"
    sentence += "." if slow is None else f"; the 95th percentile of the wait for the first token is {timed(slow)}."
    return OwnNumber("02", _WHAT, number, "%", sentence, interval, () if log.has["status"] else (STATUS,), tuple(rows))


def _judgeable(call: Call, promise: SLO) -> bool:
    # Without a TTFT or an end nobody can say that a call kept its promise. Too few tokens for a TPOT keep any.
    known = call.ttft is not None and call.duration is not None
    return known and (promise.tpot is None or call.usage is not None)


def _sample(call: Call) -> Sample:
    return Sample(0.0, Timing(0.0, call.ttft, call.duration, call.duration), call.usage)
