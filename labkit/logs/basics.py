"""Chapter 00's question: what one's own calls are like."""

from __future__ import annotations

from collections import Counter

from labkit.logs.call import Log
from labkit.logs.numbers import FIRST_TOKEN, USAGE, Need, OwnNumber, of, quantile, timed


def overview(log: Log) -> OwnNumber:
    """Calls, tokens, and the medians of TTFT and TPOT. The number is the count of calls."""
    needs: list[Need] = []
    usages = log.usages
    rows = [("calls", f"{len(log):,}"), ("lines that could not be read", f"{len(log.bad):,}")]
    told = [f"{of(log)}"]
    if usages:
        into, out = sum(u.input_tokens for u in usages), sum(u.output_tokens for u in usages)
        rows += [
            ("input tokens", f"{into:,}"),
            ("of them from a cache", f"{sum(u.cached_tokens for u in usages):,}"),
            ("output tokens", f"{out:,}"),
            ("of them reasoning", f"{sum(u.reasoning_tokens for u in usages):,}"),
            ("calls without token counts", f"{len(log) - len(usages):,}"),
        ]
        told.append(f"read {into:,} tokens and wrote {out:,}")
    else:
        needs.append(USAGE)
    ttft = quantile((call.ttft for call in log.calls), 50)
    tpot = quantile((call.tpot for call in log.calls), 50)
    if ttft is None:
        needs.append(FIRST_TOKEN)
    else:
        rows.append(("median TTFT", timed(ttft)))
        told.append(f"the median call waited {timed(ttft)} for its first token")
    if tpot is not None:
        rows.append(("median TPOT", timed(tpot)))
        told.append(f"then {timed(tpot)} for each further one")
    models = Counter(call.model for call in log.calls if call.model)
    rows += [(f"calls of {model}", f"{count:,}") for model, count in models.most_common(5)]
    return OwnNumber("00", "the calls", float(len(log)), "calls", ", ".join(told) + ".", None, tuple(needs), tuple(rows))
