"""Chapter 08's question: how much memory one's sessions hold, and how many machines that takes."""

from __future__ import annotations

from collections import defaultdict

from labkit.kvcache import kv_size, plan
from labkit.latency import GIGA, Config, hardware, percentile
from labkit.logs.call import Call, Log
from labkit.logs.concurrency import in_flight
from labkit.logs.numbers import DURATION, TIME, USAGE, Need, OwnNumber, cannot, of
from labkit.request import InvalidValue

_WHAT = "the KV cache of the sessions that are open at once"
_SESSION = Need("sessions", "one id for all calls of a conversation; each call was taken as a session of its own")


def memory(log: Log, model: Config = "llama-3.1-8b", machine: str = "h100", kv: str = "bf16") -> OwnNumber:
    """The KV bytes that the sessions need which are open at the peak, and the machines for them.

    A session's context is the most tokens, prompt and answer, of any of its calls. It is open from its first call to the end
    of its last one (its sending, where the log has no durations, so that the peak is a lower bound). The bytes are those of
    a 95th-percentile context in the KV cache of `model`, times the sessions open at the peak; `machine` is a key of
    `labkit.latency.catalogue()`. Raises `InvalidValue` for an unknown model or machine.
    """
    size, of_machine = kv_size(model, kv), hardware(machine)
    name = model if isinstance(model, str) else size.name
    sessions: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in log.calls:
        if call.usage is not None:
            sessions[call.tenant, call.session or f"line {call.line}"].append(call)
    contexts = [max(_tokens(call) for call in calls) for calls in sessions.values()]
    context = percentile(contexts, 95)
    if not context:
        return cannot("08", _WHAT, "GB", log, USAGE)
    longest = max(1, round(context))
    each = size.sequence_bytes(longest)
    rows = [
        ("sessions", f"{len(sessions):,}"),
        ("context, median", f"{percentile(contexts, 50):,.0f} tokens"),
        ("context, 95th percentile", f"{longest:,} tokens"),
        ("context, longest", f"{max(contexts):,} tokens"),
        (f"KV cache of {name}", f"{size.token_bytes:,} bytes per token, {each / GIGA:.3g} GB per session"),
    ]
    needs = [] if log.has["session"] else [_SESSION]
    try:
        fits: int | None = plan(model, of_machine, longest, kv=kv).by_memory
        rows.append((f"sessions that fit on one {of_machine.name}", f"{fits:,}"))
    except InvalidValue as error:
        fits = None
        needs.append(Need(f"machine that holds {name} ({error})", "nothing; choose another machine"))
    spans = [span for calls in sessions.values() if (span := _span(calls)) is not None]
    if not spans:
        return cannot("08", _WHAT, "GB", log, TIME, *needs, rows=tuple(rows))
    if not log.has["duration"] and not log.has["session"]:  # nobody can tell how long anything was open
        return cannot("08", _WHAT, "GB", log, DURATION, *needs, rows=tuple(rows))
    if not log.has["duration"]:
        needs.append(DURATION)
    peak = max([1, *(level for level, _ in in_flight(spans))])
    machines = -(-peak // fits) if fits else None
    rows += [("sessions open at the peak", f"{peak:,}")]
    rows += [(f"{of_machine.name} for them", f"{machines:,}")] if machines else []
    number = peak * each / GIGA
    sentence = (
        f"{of(log)}: {peak:,} sessions are open at the peak; with the 95th-percentile context of {longest:,} tokens they "
        f"hold {number:.3g} GB of {name}'s KV cache"
    )
    sentence += f", which takes {machines:,} × {of_machine.name} ({fits:,} sessions each)." if machines else "."
    return OwnNumber("08", _WHAT, number, "GB", sentence, None, tuple(needs), tuple(rows))


def _tokens(call: Call) -> int:
    return 0 if call.usage is None else call.usage.input_tokens + call.usage.output_tokens


def _span(calls: list[Call]) -> tuple[float, float] | None:
    dated = [call for call in calls if call.at is not None]
    if not dated:
        return None
    return min(call.at or 0.0 for call in dated), max((call.at or 0.0) + (call.duration or 0.0) for call in dated)
