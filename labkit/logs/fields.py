"""One record of a log as a `Call`, whoever wrote it: which field of which dialect says what.

Known are request and response bodies of OpenAI's APIs (Chat Completions, Responses, batch output) and what speaks like them,
LiteLLM's spend log (`LiteLLM_SpendLogs` and its callbacks' payload), Langfuse's observations, OpenTelemetry's GenAI
attributes, BurstGPT's table, and plain tables with the usual names. The names are compared in snake case. Token counts in
any provider's words are read by `labkit.engines.usage_of`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from labkit.engines import usage_elsewhere, usage_of
from labkit.logs.call import Call, Status, Turn
from labkit.logs.lines import SECRET, without_secrets
from labkit.logs.moments import moment
from labkit.request import InvalidValue, Usage

AT = (
    "timestamp", "start_time", "started_at", "created_at", "request_time", "started_unix", "labkit_started_unix", "time",
    "ts", "date", "datetime", "created",
)  # fmt: skip
END = ("end_time", "completed_at", "ended_at", "finished_at", "end_timestamp")
FIRST = ("completion_start_time", "first_token_at", "first_token_time", "first_token_timestamp")
DURATION = (
    "duration", "request_duration", "latency", "elapsed_time", "elapsed", "response_time", "total_time", "e2e", "labkit_e2e",
    "total_latency",
)  # fmt: skip
TTFT = ("ttft", "time_to_first_token", "first_token_latency", "labkit_ttft")
MODEL = ("model", "response_model", "gen_ai_response_model", "gen_ai_request_model", "model_id", "model_name", "deployment")
ATTEMPT = ("attempt", "attempt_number", "labkit_attempt")
REQUEST = ("idempotency_key", "labkit_idempotency_key", "custom_id", "request_group", "trace_id")
ID = ("request_id", "id", "response_id", "labkit_attempt_id", "call_id", "observation_id")
COST = ("cost", "spend", "total_cost", "calculated_total_cost", "response_cost", "cost_usd", "labkit_cost")
TENANT = (
    "tenant", "tenant_id", "labkit_tenant", "team_id", "organization", "organization_id", "org_id", "project_id",
    "api_key_id",
)  # fmt: skip
USER = ("end_user", "user", "user_id", "labkit_user", "enduser_id", "customer_id")
SESSION = ("session_id", "session", "conversation_id", "gen_ai_conversation_id", "thread_id", "chat_id", "labkit_workflow")
FEATURE = ("feature", "labkit_feature", "prompt_name", "call_type", "operation", "log_type", "name", "task")
FINISH = ("finish_reason", "stop_reason", "finish_reasons", "gen_ai_response_finish_reasons")
PROMPT_KEY = ("prompt_hash", "prompt_key", "cache_key", "messages_hash")
SHADOW = ("shadow", "labkit_shadow")
USAGE = ("usage", "usage_details", "usage_object", "token_usage", "usage_metadata")
_IN = ("prompt_tokens", "input_tokens", "request_tokens", "context_tokens", "gen_ai_usage_input_tokens", "num_prompt_tokens")
_OUT = (
    "completion_tokens", "output_tokens", "response_tokens", "generated_tokens", "gen_ai_usage_output_tokens",
    "num_completion_tokens",
)  # fmt: skip
_MORE = {
    "total_tokens": "total_tokens",
    "cached_tokens": "prompt_tokens_details.cached_tokens",
    "cached_input_tokens": "prompt_tokens_details.cached_tokens",
    "gen_ai_usage_cache_read_input_tokens": "prompt_tokens_details.cached_tokens",
    "cache_write_tokens": "prompt_tokens_details.cache_write_tokens",
    "gen_ai_usage_cache_creation_input_tokens": "prompt_tokens_details.cache_write_tokens",
    "reasoning_tokens": "completion_tokens_details.reasoning_tokens",
    "gen_ai_usage_reasoning_output_tokens": "completion_tokens_details.reasoning_tokens",
    "cache_read_input_tokens": "cache_read_input_tokens",
    "cache_creation_input_tokens": "cache_creation_input_tokens",
}
WANTED = (
    f"token counts (usage, {', '.join(_IN[:3])}, …), messages (messages, input, prompt), or a time "
    f"({', '.join(AT[:4])}, …) with a model, an id or a status"
)
"""The fields without which a record is no call, for an error's text."""

_REQUEST_BODIES = ("request", "request_body", "body", "proxy_server_request", "kwargs")
_RESPONSE_BODIES = ("response", "response_body", "result", "completion")
_BESIDE = ("metadata", "attributes", "span_attributes", "properties")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OTHER = re.compile(r"[^a-z0-9]+")
_ENDS: Mapping[str, Status] = {
    **dict.fromkeys(("success", "succeeded", "completed", "complete", "ok", "done", "incomplete", "default"), "completed"),
    **dict.fromkeys(("failure", "failed", "fail", "error", "errored", "timeout", "timed_out", "expired"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "abandoned", "disconnected", "499"), "cancelled"),
}  # fmt: skip


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
    places = _places(record)
    times = [moment(_first(places, names)) for names in (AT, END, FIRST)]
    at, end, first = (None if found is None else found[0] for found in times)
    usage, broken = _usage(places)
    turns = _turns(places)
    about = _first(places, (*MODEL, *ID, *PROMPT_KEY, *FINISH, "status", "status_code"))
    if usage is None and not turns and not broken and (at is None or about is None):
        raise ValueError(f"no field of a call; looked for {WANTED}")
    duration, bare_duration = _span(places, DURATION)
    ttft, bare_ttft = _span(places, TTFT)
    if at is not None and end is not None:
        duration, bare_duration = _later(at, end, "ends"), None
    if at is not None and first is not None and first != end:  # a proxy writes the end where the answer came whole
        ttft, bare_ttft = _later(at, first, "has its first token"), None
    attempt = _whole(_first(places, ATTEMPT))
    status = _status(places)
    if broken and status != "failed":
        raise InvalidValue(without_secrets(broken))
    answer = _answer(places)
    call = Call(
        line, at, _name(_first(places, MODEL)), usage, ttft, duration, status, _finish(places), attempt,
        _name(_first(places, REQUEST)), _true(_first(places, SHADOW)), _money(_first(places, COST)),
        _name(_first(places, TENANT)), _name(_first(places, USER)), _name(_first(places, SESSION)),
        _name(_first(places, FEATURE)), turns, answer, (), _name(_first(places, PROMPT_KEY)),
    )  # fmt: skip
    return Read(call, _name(_first(places, ID)), any(f is not None and f[1] for f in times), bare_duration, bare_ttft)


@lru_cache(4096)
def snake(key: str) -> str:
    """A field's name in snake case: `startTime`, `Start Time` and `start.time` are all `start_time`."""
    return _OTHER.sub("_", _CAMEL.sub("_", key).lower()).strip("_")


def _places(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where a record's fields are looked for, in this order: itself, its response, its request, what stands beside."""
    own = _snaked(record)
    found = [own]
    for names in (_RESPONSE_BODIES, _REQUEST_BODIES, _BESIDE):
        for name in names:
            body = _opened(own.get(name))
            if isinstance(body, Mapping):
                inner = _opened(body.get("body"))
                found.append(_snaked({**body, **inner} if isinstance(inner, Mapping) else body))
    return found


def _snaked(record: Mapping[str, Any]) -> dict[str, Any]:
    return {snake(str(key)[:80]): value for key, value in record.items()}


def _opened(value: Any) -> Any:
    """A body that a log keeps as JSON in a text, opened; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _first(places: Iterable[Mapping[str, Any]], names: Iterable[str]) -> Any:
    for place in places:
        for name in names:
            value = place.get(name)
            if value is not None and value != "":
                return value
    return None


def _usage(places: list[dict[str, Any]]) -> tuple[Usage | None, str]:
    """The usage, None where the record has none; and what contradicts itself in it."""
    report: Any = None
    for place in places:
        report = next((given for name in USAGE if (given := _opened(place.get(name)))), None) or usage_elsewhere(place)
        if report:
            break
    if isinstance(report, Mapping) and ("input" in report or "output" in report):
        report = _langfuse(report)
    report = report or next(filter(None, map(_flat, places)), None)
    if not report:
        return None, ""
    usage, note = usage_of(_numbers(report))
    if "contradicts itself" in note:
        return None, note[note.index("the endpoint's usage contradicts itself") :].replace("the endpoint's", "the")
    return (None, "") if "no input tokens" in note else (usage, "")


def _numbers(report: Any) -> Any:
    """The report with whole floats and number texts as ints; a table writes 374 as 374.0, and a bad one as NaN."""
    if isinstance(report, Mapping):
        return {key: _numbers(value) for key, value in report.items()}
    if isinstance(report, str):
        try:
            number = float(report)
        except ValueError:
            return without_secrets(report)[:20]
        return int(number) if math.isfinite(number) and number.is_integer() else number
    return report


def _flat(place: Mapping[str, Any]) -> dict[str, Any] | None:
    """Token counts that stand in the record itself, in the words of Chat Completions."""
    into, out = _first([place], _IN), _first([place], _OUT)
    if into is None and out is None:
        return None
    excludes = "cache_read_input_tokens" in place and "prompt_tokens" not in place  # as Anthropic counts
    flat: dict[str, Any] = {"input_tokens" if excludes else "prompt_tokens": into, "completion_tokens": out}
    for name, there in _MORE.items():
        value = place.get(name)
        if value is not None and value != "":
            folder, _, leaf = there.rpartition(".")
            (flat.setdefault(folder, {}) if folder else flat)[leaf] = value
    return {name: value for name, value in flat.items() if value is not None}


def _langfuse(report: Mapping[str, Any]) -> dict[str, Any]:
    """Langfuse's `usageDetails`: disjoint kinds whose names begin with input or output, and add up to the total."""
    counts = {snake(str(name)): number for name, value in report.items() if (number := _whole(value)) is not None}
    cached = sum(n for name, n in counts.items() if "cache" in name and "creat" not in name and "write" not in name)
    written = sum(n for name, n in counts.items() if "cache" in name and ("creat" in name or "write" in name))
    reasoning = sum(n for name, n in counts.items() if name.startswith("output_") and ("reason" in name or "think" in name))
    into = counts.get("input", 0) + cached + written
    return {
        "prompt_tokens": into + sum(n for name, n in counts.items() if name.startswith("input_") and "cache" not in name),
        "completion_tokens": sum(n for name, n in counts.items() if name.split("_")[0] == "output"),
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _span(places: list[dict[str, Any]], names: Iterable[str]) -> tuple[float | None, float | None]:
    """A span in seconds where the field's name tells the unit; else None, and the bare number."""
    for place in places:
        for name in names:
            for suffix, factor in (("_ms", 1e-3), ("_millis", 1e-3), ("_s", 1.0), ("_seconds", 1.0), ("_sec", 1.0)):
                if (number := _number(place.get(name + suffix))) is not None:
                    return number * factor, None
            if (number := _number(place.get(name))) is not None:
                return (number, None) if name.startswith("labkit_") else (None, number)
    return None, None


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


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number.is_integer() and number >= 0 else None


def _money(value: Any) -> Decimal | None:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def _true(value: Any) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.strip().lower() in ("true", "1"))


def _name(value: Any) -> str:
    """A name as text. What looks like a key stands as a hash of it, so that it still tells callers apart."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = str(value).strip()
    if SECRET.search(text):
        return f"key {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return text[:200]


def _finish(places: list[dict[str, Any]]) -> str:
    found = _first(places, FINISH)
    if found is None:
        for place in places:
            choices = place.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
                found = choices[0].get("finish_reason")
    if isinstance(found, list | tuple) and found:
        found = found[0]
    return _name(found)


def _status(places: list[dict[str, Any]]) -> Status:
    for place in places:
        for name in ("outcome", "labkit_outcome", "status", "status_code", "http_status", "level"):
            value = str(place.get(name, "")).strip().lower()
            if value in _ENDS:
                return _ENDS[value]
            if value.isdigit() and len(value) == 3:
                return "failed" if int(value) >= 400 else "completed"
        error = place.get("error")
        if error and error not in ("null", "None"):
            return "failed"
    finish = _finish(places).lower()
    if finish:
        return (
            "cancelled" if finish in ("abort", "cancelled", "canceled") else "failed" if finish == "error" else "completed"
        )
    return ""


def _turns(places: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """The prompt's messages, from wherever a record keeps them; () where it keeps none."""
    for place in places:
        found: list[Turn] = []
        instructions = place.get("instructions")
        if isinstance(instructions, str) and instructions:
            found.append(("system", instructions))
        given = next(
            (_opened(place[name]) for name in ("messages", "input", "prompt", "system_prompt") if place.get(name)), None
        )
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


def _answer(places: list[dict[str, Any]]) -> str:
    for place in places:
        choices = place.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            message = choices[0].get("message")
            return (
                text_of(message.get("content") or "") if isinstance(message, Mapping) else str(choices[0].get("text") or "")
            )
        given = next(
            (_opened(place[name]) for name in ("answer", "output", "output_text", "completion") if place.get(name)), None
        )
        if isinstance(given, Mapping):
            given = given.get("content") or given.get("text")
        if isinstance(given, str | list) and given:
            return text_of(given)
    return ""
