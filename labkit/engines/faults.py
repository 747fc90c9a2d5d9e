"""Reads an endpoint's errors: their words and status, when to ask again, whether the prompt is too long."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from labkit.request import clock

# How each endpoint says it; of its numbers, W is the context window and A the prompt's length, both in tokens.
_TOO_LONG = tuple(
    re.compile(text.replace("(W)", r"\(?(?P<window>\d[\d,]*)").replace("(A)", r"\(?(?P<asked>\d[\d,]*)"), re.IGNORECASE)
    for text in (
        r"greater than max_model_len=(W)",  # vLLM
        r"prompt is too long: (A) tokens? > (W)",  # Anthropic
        r"exceed context limit: (A) \+ [\d,]+ > (W)",
        r"input token count \(?(A)\)? exceeds the maximum number of tokens allowed \(?(W)",  # Gemini
        r"input tokens exceed the configured limit of (W)",  # OpenAI's GPT-5
        r"(?:contains|has) (A) tokens.{0,80}?too large for model with (W) maximum context length",  # Mistral
        r"(A) tokens\) is longer than the model'?s context length \(?(W)",  # SGLang
        r"(A) tokens\) exceeds the available context size \(?(W)",  # llama.cpp
        r"exceeds the available context size \(?(W)",
        r"tokens \((A)\) exceed context window of (W)",  # llama-cpp-python
        r"context length of only (W)",  # LM Studio
        r"maximum prompt length is (W)(?: but the request contains (A))?",  # xAI
        r"exceeded model token limit: (W)(?: \(requested: (A))?",  # Moonshot
        r"number of input tokens \(?(A)\)? has exceeded max_prompt_tokens \(?(W)",  # SiliconFlow
        r"range of input length should be \[\d+, ?(W)",  # Bailian
        r"prompt token count of (A) exceeds the limit of (W)",  # GitHub Copilot
        r"tokens in the prompt cannot exceed (W)",  # Cohere
        r"`?inputs`? tokens \+ `?max_new_tokens`? must be <= (W)\. Given: (A)",  # Text Generation Inference, Together
        # OpenAI, vLLM, DeepSeek, OpenRouter
        r"maximum context length (?:is|of) (W)",
    )
)
_CONTEXT = r"(?:the |this )?(?:model'?s? )?(?:maximum )?context"
_TOO_LONG_UNNUMBERED = re.compile(
    rf"exceeds? {_CONTEXT}[ _](?:window|length|size|limit)|longer than {_CONTEXT}|input is too long for requested model"
    r"|context window exceeds limit|context_length_exceeded|exceed_context_size|prompt exceeds max(?:imum)? length"
    r"|prompt (?:is )?too long|reduce the length of the (?:messages|input|prompt)|too many (?:input |prompt )?tokens: ",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:contains|resulted in|requested|has)\D{0,40}?(\d[\d,]*) (?:input |prompt )?tokens", re.IGNORECASE)
_RATE = re.compile(r"per[ -](?:minute|second|hour|day)|rate[ _-]?limit|quota|\bTPM\b|throttl", re.IGNORECASE)
# For a prompt that fills the window to its last token, vLLM cuts our max_tokens to the 0 that are left, and refuses that.
_NO_ROOM = "max_tokens must be at least 1, got 0"
_WORDS = (
    "message", "detail", "msg", "error_msg", "error_message", "status_msg", "errorMessage", "Message", "error_description",
    "reason", "title", "details", "error", "errors",
)  # fmt: skip
_TELLING = ("message", "detail", "msg", "error_msg", "error_message", "errorMessage", "Message", "errors")
_ANSWERS = ("choices", "usage", "usageMetadata", "usage_metadata")


def words(fault: Any, depth: int = 0) -> str:
    """The words of an error of any shape, in at most 500 characters; "" for None."""
    if isinstance(fault, str):
        return fault[:500]
    if isinstance(fault, Mapping) and depth < 5:
        for name in _WORDS:
            if fault.get(name) and (said := words(fault[name], depth + 1)):
                return said
    if isinstance(fault, list) and depth < 5:
        for part in fault[:8]:
            if said := words(part, depth + 1):
                return said
    if depth or fault is None:
        return ""
    try:
        return repr(fault)[:500]
    except (ValueError, RecursionError):  # a number of 5000 digits, or nested too deep to write
        return f"a {type(fault).__name__}"


def fault_in(event: Any, named_error: bool = False) -> Any:
    """The error in `event`, None if there is none. `named_error` says that it came as a server-sent event named "error"."""
    if isinstance(event, list):
        found = next((fault for part in event[:8] if (fault := fault_in(part)) is not None), None)
        return event if found is None and named_error else found
    if not isinstance(event, Mapping):
        return (event or "an error without words") if named_error else None
    error = event.get("error")
    answers = any(event.get(name) for name in _ANSWERS)
    if _says_something(error) or (error in ({}, "", []) and not answers and not event.get("object")):
        return {**event, **error} if isinstance(error, Mapping) else event
    choices = event.get("choices")
    if (
        isinstance(choices, list)
        and choices
        and isinstance(choices[0], Mapping)
        and _says_something(choices[0].get("error"))
    ):
        return choices[0]["error"]
    base = event.get("base_resp")  # MiniMax
    if isinstance(base, Mapping) and base.get("status_code") not in (0, None, "0"):
        return base
    if named_error or event.get("object") == "error" or event.get("type") == "error":
        return event
    if not answers and not str(event.get("object", "")).startswith("chat.completion"):
        said = [event.get(name) for name in _TELLING]
        if any(isinstance(text, str | list) and text for text in said):
            return event
    return None


def _says_something(error: Any) -> bool:
    """Whether an error field holds anything: some endpoints send an empty one with every event."""
    if isinstance(error, Mapping):
        return any(_says_something(value) for value in error.values())
    if isinstance(error, list):
        return any(_says_something(value) for value in error[:8])
    return bool(error)


def named(fault: Any) -> str:
    """The code and the type that an error names beside its words, as one text."""
    if not isinstance(fault, Mapping):
        return ""
    names = [fault.get(name) for name in ("code", "type")]
    inner = fault.get("error")
    return " ".join(name[:80] for name in names if isinstance(name, str)) + (f" {named(inner)}" if inner else "")


def status_of(fault: Any) -> int | None:
    """The HTTP status that an error within a stream names, else None."""
    if isinstance(fault, Mapping):
        for name in ("code", "status", "status_code", "http_code"):
            value = fault.get(name)
            if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
                value = int(value)
            if type(value) is int and 100 <= value <= 599:
                return value
        inner = fault.get("error")
        return status_of(inner) if isinstance(inner, Mapping) else None
    return None


def too_long(text: str, status: int | None, known_window: int | None) -> tuple[int | None, int | None] | None:
    """(context window, prompt's length) in tokens, each None where unknown; None if `text` is about something else.

    `text` is an error's words, `status` its HTTP status, `known_window` the window to report where `text` has no number.
    """
    if status not in (None, 400, 413, 422) or _RATE.search(text):
        return None
    text = text[:2000]
    for pattern in _TOO_LONG:
        found = pattern.search(text)
        if found:
            named = found.groupdict()
            asked = _number(named.get("asked"))
            if asked is None:
                others = [int(n.replace(",", "")) for n in _ASKED.findall(text)]
                asked = others[-1] if others else None
            return _number(named["window"]), asked
    if _NO_ROOM in text or _TOO_LONG_UNNUMBERED.search(text):
        return known_window, None
    return None


def _number(text: str | None) -> int | None:
    return int(text.replace(",", "")[:15]) if text else None


def retry_after_s(headers: Mapping[str, str], fault: Any = None) -> float | None:
    """After how many seconds the endpoint wants to be asked again; None where it does not say.

    It is in a header (`retry-after-ms`, or `retry-after` in seconds or as a date), else in the error `fault`.
    """
    millis, given = headers.get("retry-after-ms"), headers.get("retry-after")
    seconds = _seconds(millis)
    if seconds is not None:
        return seconds / 1000
    if given is not None:
        seconds = _seconds(given)
        if seconds is not None:
            return seconds
        try:
            at = parsedate_to_datetime(given).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError, OSError):
            return None
        return max(0.0, at - clock.unix_now())
    return _said_within(fault)


def _said_within(fault: Any, depth: int = 0) -> float | None:
    if depth > 4:
        return None
    if isinstance(fault, Mapping):
        for name in ("retry_after", "retry_after_seconds", "retryDelay", "retry-after"):
            value = fault.get(name)
            seconds = _seconds(value.removesuffix("s") if isinstance(value, str) else value)
            if seconds is not None:
                return seconds
        inner: list[Any] = [v for v in list(fault.values())[:16] if isinstance(v, Mapping | list)]
    else:
        inner = fault[:16] if isinstance(fault, list) else []
    return next((seconds for part in inner if (seconds := _said_within(part, depth + 1)) is not None), None)


def _seconds(value: Any) -> float | None:
    """`value` as a number of seconds, None where it is not a finite number from 0."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
