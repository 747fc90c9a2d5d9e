"""The question in a request as one canonical text: all that changes the answer, except the model; not who asks, or why."""

from __future__ import annotations

import json
from typing import Any

from labkit.request.errors import InvalidRequest
from labkit.request.values import Message, Request


def asked(request: Request) -> dict[str, Any]:
    """The question in `request`, as JSON values: messages, sampling, limits, `response_format` and `extra` (tools too).

    It leaves out the model, who asks (tenant, user, permissions), why (feature, workflow, prompt_version,
    shadow), and how (deadline, priority, attempt, idempotency key).

    Texts are kept code point by code point, without Unicode normalisation or trimming: "é" as one code point and as two are
    different tokens to a model, so they are different questions.
    """
    return {
        "messages": [_message(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": float(request.temperature) + 0.0,  # 0, 0.0 and -0.0 are one temperature
        "top_p": float(request.top_p),
        "seed": request.seed,
        "stop": list(request.stop),
        "logprobs": request.logprobs,
        "response_format": None if request.response_format is None else dict(request.response_format),
        "extra": dict(request.extra),
    }


def canonical(what: dict[str, Any]) -> str:
    """`what`, the result of `asked`, as JSON in ASCII: equal for equal questions, different for different ones.

    The names of the request's own fields and of `extra` are sorted. Key order *inside* `response_format` and inside each
    value of `extra` is kept: a grammar writes properties in the schema's order, and a chat template prints the tools into
    the prompt in the order given.

    Raises `InvalidRequest` where `extra` or `response_format` is not JSON.
    """
    extra = what.get("extra") or {}
    try:
        ordered = {name: what[name] for name in sorted(what)} | {"extra": {name: extra[name] for name in sorted(extra)}}
        return json.dumps(ordered, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"extra and response_format must be JSON to be told apart from others: {error}") from error


def _message(message: Message) -> list[Any]:
    found: list[Any] = [message.role, message.content]
    if message.tool_calls or message.tool_call_id or message.name:
        calls = [[call.id, call.name, call.arguments] for call in message.tool_calls]
        found.append({"tool_calls": calls, "tool_call_id": message.tool_call_id, "name": message.name})
    return found
