"""Ask models in their order: when one fails before its first token, the next one answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from labkit.request import Chooser, Done, EngineError, Event, Handler, InvalidValue, Request, clock, hops, opened
from labkit.routing.checks import check_models, check_seconds, texts
from labkit.routing.engine_errors import engine_stream
from labkit.routing.health import AllDown, Breaker, check_breaker


@dataclass(frozen=True)
class Fallback(Chooser):
    """Ask the models in `order`; on an engine error before the first token, go on to the next.

    An error after the first token is raised, because the caller has already seen part of the answer. A model that sends no
    token for `first_token_s` seconds counts as stalled, so the last error comes after at most `len(order)` times as long.
    Errors that the request itself causes (`InvalidRequest`), and a deadline that has passed, are raised at once. With
    `breaker` None, each place that the lever is put in has a new breaker.

    Raises `AllDown` when no model answers, or the model's own error where `order` names only one. An answer from any model
    but the first gets "fallback:first>second" on its route, and its latency counts from the first attempt.
    """

    order: tuple[str, ...]
    breaker: Breaker | None = None
    first_token_s: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", texts(self.order, "the models of the order"))
        if not self.order or len(set(self.order)) < len(self.order):
            raise InvalidValue(f"the order is {self.order!r:.200}; name at least one model, each once")
        check_breaker(self.breaker)
        check_seconds("first_token_s", self.first_token_s)

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that asks `models` in this order."""
        check_models("the order", self.order, models)
        breaker = Breaker() if self.breaker is None else self.breaker

        def handle(request: Request) -> AsyncGenerator[Event, None]:
            return in_turn(models, self.order, breaker, self.first_token_s, request)

        return handle


async def in_turn(
    models: Mapping[str, Handler], order: tuple[str, ...], breaker: Breaker, first_token_s: float, request: Request
) -> AsyncGenerator[Event, None]:
    """The answer of the first model of `order` that gives one, as `Fallback` describes it."""
    errors: dict[str, EngineError] = {}
    sent, unix = clock.now(), clock.unix_now()
    for at, model in enumerate(order):
        begun = False
        try:
            with breaker.attempt(model):
                stream = engine_stream(models[model], replace(request, model=model))
                async with aclosing(opened(stream, first_token_s)) as events:
                    async for event in events:
                        begun = True
                        if at and isinstance(event, Done):
                            event = event.since(sent, unix).via(hops.hop(hops.FALLBACK, listed(order[: at + 1], ">")))
                        yield event
            return
        except EngineError as error:
            if begun:
                raise
            errors[model] = error
    raise AllDown(errors) if len(order) > 1 else errors[order[0]]


def listed(models: Iterable[str], between: str) -> str:
    """Names of models for a hop, such as "small>large". A name with ">", "|" or a double quote in it is written as JSON."""
    return between.join(json.dumps(name, ensure_ascii=False) if set(name) & set('>|"') else name for name in models)
