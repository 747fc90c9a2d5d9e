"""When an engine is down: stop asking it for a while (circuit breaker), and ask the next one (fallback).

The breaker has one circuit per model. *Closed*: requests pass; `failures` engine errors in a row open it. *Open*: nobody
passes for `cool_down_s`. *Half-open*, after that: one request passes as a probe; its success closes the circuit, its failure
opens it again. So a dead engine costs one probe per cool-down, not a timeout per request.

What counts as a failure is an engine's: it does not answer, breaks off, is overloaded or refuses the key. A request that the
engine calls malformed (HTTP 400, 413, 422) says nothing about its health, and a caller who leaves, or whose deadline passes,
says nothing either way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Literal

from labkit.request import Done, EngineError, Event, Handler, InvalidRequest, Request, clock
from labkit.routing.streams import named, opened, since

State = Literal["closed", "open", "half-open"]
_NOT_ITS_FAULT = frozenset({400, 413, 422})


class CircuitOpen(EngineError):
    """The model is not asked because it failed lately; it may be asked again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, status=503)
        self.retry_after_s = retry_after_s


class AllDown(EngineError):
    """No model gave an answer; `errors` holds the last error of each. `retry_after_s` is 0 unless all circuits are open."""

    def __init__(self, errors: Mapping[str, EngineError]) -> None:
        told = "; ".join(f"{model}: {error!s:.200}" for model, error in errors.items())
        super().__init__(f"no model answered ({told})", status=503)
        self.errors = dict(errors)
        waits = [error.retry_after_s if isinstance(error, CircuitOpen) else 0.0 for error in errors.values()]
        self.retry_after_s = min(waits, default=0.0)


@dataclass(slots=True, eq=False)
class _Circuit:
    in_a_row: int = 0
    opened: float | None = None
    """When it opened, in seconds of `clock.now()`; None while closed."""
    turn: int = 0
    """Counts how often it opened: what began before an opening has no say after it."""
    probing: bool = False
    last_error: str = ""


class Breaker:
    """Circuits by model name, on `clock.now()`; one breaker is shared by everything that asks the same engines.

    `failures`: engine errors in a row that open a circuit. `cool_down_s`: seconds for which it stays open.
    """

    def __init__(self, failures: int = 3, cool_down_s: float = 10.0) -> None:
        if failures < 1 or not cool_down_s > 0:
            raise InvalidRequest(
                f"a breaker with {failures} failures and a cool-down of {cool_down_s} s never opens or never holds; "
                "use at least 1 failure and a cool-down above 0"
            )
        self.failures = failures
        self.cool_down_s = cool_down_s
        self._circuits: dict[str, _Circuit] = {}

    def state(self, model: str) -> State:
        """The state of `model`'s circuit now; a model never asked has a closed one."""
        circuit = self._circuits.get(model, _Circuit())
        if circuit.opened is None:
            return "closed"
        return "open" if self._wait(circuit) > 0 else "half-open"

    @contextmanager
    def attempt(self, model: str) -> Generator[None, None, None]:
        """Around one attempt at `model`; it learns from how the block ends.

        Raises `CircuitOpen` at once where the model is not to be asked now.
        """
        circuit = self._circuits.setdefault(model, _Circuit())
        probe = circuit.opened is not None
        if probe:
            wait = self._wait(circuit)
            if wait > 0 or circuit.probing:
                why = f"for {wait:.3g} s more" if wait > 0 else "until the probe that is under way has ended"
                raise CircuitOpen(f"{model} is left alone {why}; its last error: {circuit.last_error}", wait)
            circuit.probing = True
        turn = circuit.turn
        try:
            yield
        except EngineError as error:
            if error.status not in _NOT_ITS_FAULT and turn == circuit.turn:
                self._failed(circuit, error, probe)
            raise
        else:
            if turn == circuit.turn:
                circuit.in_a_row, circuit.opened = 0, None
        finally:
            if probe:
                circuit.probing = False

    def _wait(self, circuit: _Circuit) -> float:
        """Seconds until a probe may pass."""
        return 0.0 if circuit.opened is None else max(0.0, circuit.opened + self.cool_down_s - clock.now())

    def _failed(self, circuit: _Circuit, error: EngineError, probe: bool) -> None:
        circuit.in_a_row += 1
        circuit.last_error = f"{error!s:.200}" or type(error).__name__
        if probe or circuit.in_a_row >= self.failures:
            circuit.opened, circuit.in_a_row = clock.now(), 0
            circuit.turn += 1


def with_fallback(
    models: Mapping[str, Handler], order: Sequence[str], breaker: Breaker, *, first_token_s: float = 60.0
) -> Handler:
    """Ask the models in `order`; on an engine error before the first token, go on to the next.

    After the first token an error is raised: what the caller has seen cannot be taken back. A model that sends no token for
    `first_token_s` seconds counts as stalled, so the last error comes after at most `len(order)` times that. Raises
    `AllDown` when nobody answers, or the one error where only one could be asked. Requests are passed on with `model` set to
    the name. An answer from another than the first gets "fallback", "first>second" on its route, and its latency counts from
    the first attempt.
    """
    order = tuple(order)
    missing = [model for model in order if model not in models]
    if not order or missing or len(set(order)) < len(order):
        raise InvalidRequest(f"the order is {order}, the models are {tuple(models)}; name models from these, each once")
    if not first_token_s > 0:
        raise InvalidRequest(f"first_token_s is {first_token_s}; allow more than 0 s")

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        errors: dict[str, EngineError] = {}
        sent, unix = clock.now(), clock.unix_now()
        for at, model in enumerate(order):
            begun = False
            try:
                with breaker.attempt(model):
                    async with aclosing(opened(models[model], named(request, model), first_token_s)) as events:
                        async for event in events:
                            begun = True
                            if at and isinstance(event, Done):
                                event = since(event, sent, unix).via(">".join(order[: at + 1])).via("fallback")
                            yield event
                return
            except EngineError as error:
                if begun:
                    raise
                errors[model] = error
        raise AllDown(errors) if len(order) > 1 else errors[order[0]]

    return handle
