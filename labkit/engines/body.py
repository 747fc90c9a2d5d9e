"""A request as the JSON body of a chat completion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labkit.request import InvalidRequest, Message, Request


def body_of(request: Request, model: str, vllm: bool) -> dict[str, Any]:
    """The JSON body for `request`. `model` is used where the request names none; `vllm`: the endpoint takes vLLM's fields.

    `request.extra` goes in last and as it is. A None there leaves the field of that name out (`{"temperature": None}` for a
    model that refuses it), and `max_completion_tokens` takes the place of `max_tokens`. `top_p` is sent only where it is not
    1, because some models accept `top_p` or `temperature` but not both. vLLM always gets it, because vLLM's own default
    comes from the model.

    Raises `InvalidRequest` where `extra` is no mapping, and where it asks for `n` answers (this lab carries one).
    """
    if not isinstance(request.extra, Mapping):
        raise InvalidRequest(f"extra is a {type(request.extra).__name__}; give a mapping of fields for the request's body")
    body: dict[str, Any] = {
        "model": request.model or model,
        "messages": [message_of(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if vllm:
        body["stream_options"]["continuous_usage_stats"] = True
    if vllm or request.top_p != 1:
        body["top_p"] = request.top_p
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = request.logprobs
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    if request.priority:
        body["priority"] = request.priority
    if request.extra.get("max_completion_tokens") is not None:
        del body["max_tokens"]
    body.update(request.extra)
    if body.get("n") not in (None, 1):
        raise InvalidRequest(f"extra asks for n={body['n']!r:.20} answers; a request carries one, so ask once for each")
    return {name: value for name, value in body.items() if value is not None}


def message_of(message: Message) -> dict[str, Any]:
    """`message` as a JSON object of Chat Completions; empty text beside tool calls becomes null."""
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        out["name"] = message.name
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        out["content"] = message.content or None
    return out


def limit_of(request: Request) -> int:
    """The most output tokens that `request` asks for, in `max_tokens` or in `extra`."""
    asked = [request.max_tokens]
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.extra.get(name)
        if type(value) is int and value > 0:
            asked.append(value)
    return max(asked)


def encoded(body: Mapping[str, Any]) -> bytes:
    """`body` as JSON in UTF-8. Raises `InvalidRequest` where that is impossible: the caller has to change the request."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(error.object[error.start]):04X}"
        raise InvalidRequest(
            f"the request holds half of a letter ({half}, a lone surrogate), which has no UTF-8; mend or drop it"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON ({str(error)[:200]}); look at extra and response_format") from None


_OURS = ("temperature", "top_p", "max_tokens", "stream_options", "seed", "stop", "logprobs", "top_logprobs", "priority",
         "response_format")  # fmt: skip


def advice(text: str, body: Mapping[str, Any]) -> str:
    """A hint to add to an endpoint's refusal `text`, "" where there is none.

    It says what to set where the text names a field of `body` that the lab sent by itself, or asks for Azure's api-version.
    """
    if "max_completion_tokens" in text and "max_tokens" in body:
        return f" (set extra={{'max_completion_tokens': {body['max_tokens']}}}, which takes the place of max_tokens)"
    for name in _OURS:
        if name in body and any(f"{quote}{name}{quote}" in text for quote in ("'", '"', "`")):
            return f" (set extra={{{name!r}: None}} to leave {name} out)"
    if "api" in text.lower() and "version" in text.lower():
        return " (Azure wants its version in the address: …?api-version=2024-10-21)"
    return ""
