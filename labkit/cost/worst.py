"""The most that a request can cost, known before it is sent: what has to be set aside for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from typing import Any

from labkit.cost.prices import MTOK, Price, Rates
from labkit.request import InvalidRequest, Request, is_whole

_A_MESSAGE = 16
"""Tokens that a chat template puts around one message: more than any template of the lab's engines."""
_A_TEMPLATE = 256
"""Tokens that a template puts around a conversation: a default system prompt, the date, how to call tools."""
_UP = Context(prec=24, rounding=ROUND_CEILING)
"""For rates with more digits than money has, such as a mean over the day: rounding to 28 digits elsewhere stays below."""


def most_input_tokens(request: Request) -> int:
    """A number of input tokens that `request` cannot exceed with a byte-level tokenizer, whose tokens have a byte or more.

    It is about four times the true number for English. Counted are the bytes of all texts, names and tool calls, of
    `response_format` and of `extra`, and 16 tokens a message and 256 in all for the chat template.
    """
    texts = [text for m in request.messages for text in (m.content, m.name, m.tool_call_id)]
    texts += [text for m in request.messages for call in m.tool_calls for text in (call.id, call.name, call.arguments)]
    texts += [_json(part) for part in (request.response_format, _extra(request)) if part]
    read = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return read + _A_MESSAGE * len(request.messages) + _A_TEMPLATE


def most_output_tokens(request: Request, price: Price) -> int:
    """The most tokens that may be written for `request`: its limit, or the largest that `extra` sets in its place.

    Where `extra` takes the limit away, or sets one that is no whole number, it is the model's context window. Raises
    `InvalidRequest` where nobody knows that.
    """
    if not is_whole(request.max_tokens, 1):
        raise InvalidRequest(f"max_tokens is {request.max_tokens!r:.60}; use a whole number of tokens from 1")
    extra = _extra(request)
    given = [extra[name] for name in ("max_tokens", "max_completion_tokens") if extra.get(name) is not None]
    taken_away = "max_tokens" in extra and not given
    if not taken_away and all(is_whole(limit, 1) for limit in given):
        return int(max(given or [request.max_tokens]))
    if price.context_window is None:
        raise InvalidRequest(
            "extra takes the limit of output tokens away, so the request may cost any amount; set max_tokens, or extra's "
            "max_completion_tokens, to a whole number"
        )
    return price.context_window


def _extra(request: Request) -> Mapping[str, Any]:
    if not isinstance(request.extra, Mapping):
        raise InvalidRequest(f"extra is a {type(request.extra).__name__}; give a mapping of fields for the request's body")
    return request.extra


def _json(part: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(part), default=repr)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON ({error!s:.200}); look at extra and response_format") from None


def worst_case(price: Price, input_tokens: int, output_tokens: int) -> Decimal:
    """The most that at most `input_tokens` and `output_tokens` can cost by `price`, whatever their kinds and their tier.

    Input counts at the dearest of fresh, cached and cache-write rates, output at the dearer of visible and reasoning; among
    the tiers that up to `input_tokens` reach, the dearest counts. So `price_request` of any usage within these numbers is at
    most this. For a price that depends on the hour, give `price.at(moment)`.
    """
    reached = [price.rates, *(rates for start, rates in price.tiers if start < input_tokens)]
    return max(_dearest(rates, input_tokens, output_tokens) for rates in reached)


def _dearest(rates: Rates, input_tokens: int, output_tokens: int) -> Decimal:
    read = max(rates.fresh_input, rates.cached_input, rates.cache_write)
    written = max(rates.visible_output, rates.of("reasoning"))
    with localcontext(_UP):
        return (input_tokens * read + output_tokens * written) / MTOK
