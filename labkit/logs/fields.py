"""One record of a log as a `Call`, whoever wrote it: which field of which dialect says what.

Known are request and response bodies of OpenAI's APIs (Chat Completions, Responses, batch output) and what speaks like them,
LiteLLM's spend log (`LiteLLM_SpendLogs` and its callbacks' payload), Langfuse's observations, Helicone's export,
OpenTelemetry's GenAI attributes (also in spans of OTLP as JSON), BurstGPT's table, and plain tables with the usual
names (`labkit.logs.names`). The names are compared in snake case. Token counts are read by `labkit.logs.counts`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from labkit.logs.call import Call, Status, Turn
from labkit.logs.counts import usage_in, whole
from labkit.logs.lines import SECRET, without_secrets
from labkit.logs.moments import moment
from labkit.logs.names import GROUPS, UNITS, WANTED
from labkit.logs.places import Places, opened
from labkit.request import InvalidValue

_ENDS: Mapping[str, Status] = {
    **dict.fromkeys(("success", "succeeded", "completed", "complete", "ok", "done", "incomplete", "default"), "completed"),
    **dict.fromkeys(("failure", "failed", "fail", "error", "errored", "timeout", "timed_out", "expired"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "abandoned", "disconnected", "499"), "cancelled"),
}  # fmt: skip
_NAMES = ("model", "request", "tenant", "user", "session", "feature", "prompt_key", "prompt_version", "currency", "id")


@dataclass(frozen=True, slots=True)
class Read:
    """A call, with what only the whole log can settle.

    `id` names the record. `no_zone`: its date has none. `bare`: its duration and TTFT come without a unit, as numbers.
    """

    call: Call
    id: str
    no_zone: bool
    bare_duration: float | None
    bare_ttft: float | None


def read(line: int, record: Mapping[str, Any]) -> Read:
    """The call that a record tells of. Raises ValueError or `InvalidValue`, without its content, where it tells of none."""
    places = Places(record)
    times = [moment(places.first(what)) for what in ("at", "end", "first")]
    at, end, first = (None if found is None else found[0] for found in times)
    usage, broken = usage_in(places)
    turns = _turns(places)
    if usage is None and not turns and not broken and (at is None or places.first("about") is None):
        raise ValueError(f"no field of a call; looked for {WANTED}")
    duration, bare_duration = _span(places, "duration")
    ttft, bare_ttft = _span(places, "ttft")
    if at is not None and end is not None:
        duration, bare_duration = _later(at, end, "ends"), None
    if at is not None and first is not None and first != end:  # a proxy writes the end where the answer came whole
        ttft, bare_ttft = _later(at, first, "has its first token"), None
    finish = _finish(places)
    status = _status(places, finish)
    if broken and status != "failed":
        raise InvalidValue(without_secrets(broken))
    model, request, tenant, user, session, feature, prompt_key, version, currency, named = (
        name_of(places.first(what)) for what in _NAMES
    )
    call = Call(
        line, at, model, usage, ttft, duration, status, finish, whole(places.first("attempt")), request,
        _true(places.first("shadow")), _money(places.first("cost")), tenant, user, session, feature, turns,
        _answer(places), (), prompt_key, version, currency.upper(),
    )  # fmt: skip
    return Read(call, named, any(f is not None and f[1] for f in times), bare_duration, bare_ttft)


def _span(places: Places, what: str) -> tuple[float | None, float | None]:
    """A span in seconds where the field's name tells the unit; else None, and the bare number."""
    for place, name in places.spots[what]:
        if (number := _number(places.at[place][name])) is not None:
            factor = 1.0 if name.startswith("labkit_") else _unit(name)
            return (number * factor, None) if factor else (None, number)
    return None, None


@lru_cache(256)
def _unit(name: str) -> float:
    """Seconds in the unit of a field, told by its name; 0 where it tells none."""
    return next(factor for unit, factor in UNITS.items() if name.endswith(unit))


def _number(value: Any) -> float | None:
    """A number from 0; None for none, raises ValueError for one that is no length of time."""
    if value is None or value == "" or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError("a duration is no finite number from 0")
    return number


def _later(at: float, other: float, what: str) -> float:
    if other < at:
        raise ValueError(f"the call {what} {at - other:.3g} s before it begins")
    return other - at


def _money(value: Any) -> Decimal | None:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def _true(value: Any) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.strip().lower() in ("true", "1"))


def name_of(value: Any) -> str:
    """A name as text. What looks like a key stands as a hash of it, so that it still tells callers apart."""
    if value is None or isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return _clean(str(value))


@lru_cache(8192)
def _clean(name: str) -> str:
    text = name.strip()
    if SECRET.search(text):
        return f"key {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return text[:200]


def _finish(places: Places) -> str:
    found = places.first("finish")
    if found is None:
        for place in places.with_any("choices"):
            choices = place["choices"]
            if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
                found = choices[0].get("finish_reason")
    if isinstance(found, list | tuple) and found:
        found = found[0]
    return name_of(found)


def _status(places: Places, finish: str) -> Status:
    for place, name in places.spots["status"]:
        value = places.at[place][name]
        if name == "error":
            if value and value not in ("null", "None"):
                return "failed"
            continue
        value = str(value).strip().lower()
        if value in _ENDS:
            return _ENDS[value]
        if value.isdigit() and len(value) == 3:
            return "failed" if int(value) >= 400 else "completed"
    finish = finish.lower()
    if finish:
        return (
            "cancelled" if finish in ("abort", "cancelled", "canceled") else "failed" if finish == "error" else "completed"
        )
    return ""


def _turns(places: Places) -> tuple[Turn, ...]:
    """The prompt's messages, from wherever a record keeps them; () where it keeps none."""
    for place in places.with_any("prompts"):
        found: list[Turn] = []
        instructions = place.get("instructions")
        if isinstance(instructions, str) and instructions:
            found.append(("system", instructions))
        given = next((opened(place[name]) for name in GROUPS["prompt"] if place.get(name)), None)
        if isinstance(given, Mapping):
            given = given.get("messages") or given.get("prompt") or given.get("content")
        if isinstance(given, str) and given.strip():
            return (*found, ("user", given))
        if isinstance(given, list):
            system = place.get("system")
            if system:
                found.append(("system", text_of(system)))
            found += [turn for part in given if (turn := _turn(part)) is not None]
            if found:
                return tuple(found)
    return ()


def _turn(part: Any) -> Turn | None:
    if isinstance(part, str):
        return ("user", part)
    if not isinstance(part, Mapping):
        return None
    text = text_of(part.get("content") if part.get("content") is not None else part.get("parts"))
    calls = part.get("tool_calls")
    return (str(part.get("role", "user"))[:20], text + (json.dumps(calls, sort_keys=True) if calls else ""))


def text_of(content: Any) -> str:
    """The text of a content: a string, or parts, whose texts are joined; pictures and files stand as a hash of them."""
    if isinstance(content, str):
        return content
    return "".join(_texts(content))


def _texts(content: Any) -> Iterator[str]:
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            text = part.get("text")
            if isinstance(text, str):
                yield text
            elif part.get("content") is not None:
                yield text_of(part["content"])
            else:
                yield hashlib.sha256(json.dumps(part, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _answer(places: Places) -> str:
    for place in places.with_any("answers"):
        choices = place.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            message = choices[0].get("message")
            return (
                text_of(message.get("content") or "") if isinstance(message, Mapping) else str(choices[0].get("text") or "")
            )
        given = next((opened(place[name]) for name in GROUPS["answer"] if place.get(name)), None)
        if isinstance(given, Mapping):
            given = given.get("content") or given.get("text")
        if isinstance(given, str | list) and given:
            return text_of(given)
    return ""
