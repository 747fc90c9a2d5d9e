"""Chapter 06's question: what is written for readers who have left, and how much of the wait the first token ends."""

from __future__ import annotations

from labkit.logs.call import Log
from labkit.logs.numbers import (
    DURATION,
    FIRST_TOKEN,
    STATUS,
    USAGE,
    OwnNumber,
    cannot,
    in_percent,
    of,
    percent,
    quantile,
    ratio,
    timed,
)

_WHAT = "the share of output tokens in answers that their readers left"


def leaving(log: Log) -> OwnNumber:
    """The share of output tokens that were paid in cancelled answers, and when a stream's first token comes.

    A cancelled answer's tokens were paid; how many of them were read before the reader left, no log tells.
    """
    rows = []
    whole = quantile((call.duration for call in log.calls), 50)
    early = quantile((call.ttft / call.duration for call in log.calls if call.ttft is not None and call.duration), 50)
    cut = sum(call.finish in ("length", "max_tokens", "max_output_tokens", "repetition") for call in log.calls)
    if log.has["finish"]:
        rows.append(("cut off at their token limit, or for a loop", f"{cut:,} of {log.has['finish']:,} answers"))
    if whole is not None:
        rows.append(("median wait for the whole answer", timed(whole)))
    if early is not None:
        rows.append(("of it, until the first token", percent(early)))
    known = [call for call in log.calls if call.status and call.usage is not None]
    needs = [need for need, name in ((STATUS, "status"), (USAGE, "usage")) if not log.has[name]]
    found = ratio(
        (call.usage.output_tokens * (call.status == "cancelled"), call.usage.output_tokens)
        for call in known
        if call.usage is not None
    )
    if needs or found is None:
        return cannot("06", _WHAT, "%", log, *(needs or [USAGE]), rows=tuple(rows))
    left = sum(call.status == "cancelled" for call in known)
    rows.insert(0, ("cancelled", f"{left:,} of {len(known):,} calls"))
    number, interval = in_percent(found)
    sentence = f"{of(log)}: {percent(found)} of the output tokens were paid in the {left:,} answers that were cancelled"
    if early is not None:
        sentence += f"; the median reader sees the first token after {percent(early)} of the wait"
    times = [need for need, name in ((FIRST_TOKEN, "ttft"), (DURATION, "duration")) if not log.has[name]]
    return OwnNumber("06", _WHAT, number, "%", sentence + ".", interval, tuple(times), tuple(rows))
