"""When an engine is down: stop asking it for a while (circuit breaker). `fallback` asks the next one meanwhile.

The breaker has one circuit per model. *Closed*: requests pass; `failures` engine errors in a row open it. *Open*: nobody
passes for `cool_down_s`, or for as long as the engine itself asked to be left alone (`Retry-After`) if that is longer.
*Half-open*, after that: one request passes as a probe; its success closes the circuit, its failure opens it again. So a dead
engine costs one probe per cool-down, not a timeout per request.

What counts as a failure is an engine's: it does not answer, breaks off, is overloaded, refuses the key, or raises what
nobody expected. A request that the engine calls malformed (HTTP 400, 413, 422), or that the lab does (`InvalidRequest`),
says nothing about its health, and a caller who leaves, or whose deadline passes, says nothing either way.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from labkit.request import EngineError, InvalidValue, clock
from labkit.routing.checks import is_number, is_whole
from labkit.routing.engine_errors import as_engine_error, is_callers_own, retry_after_s

State = Literal["closed", "open", "half-open"]
_NOT_ITS_FAULT = frozenset({400, 413, 422})


class CircuitOpen(EngineError):
    """The model is not asked because it failed lately; it may be asked again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, status=503)
        self.retry_after_s = retry_after_s


class AllDown(EngineError):
    """No model gave an answer; `errors` holds the last error of each.

    `retry_after_s` is the shortest time that any of them asks to be left alone for: 0 where one of them asks for none.
    """

    def __init__(self, errors: Mapping[str, EngineError]) -> None:
        told = "; ".join(f"{model}: {error!s:.200}" for model, error in errors.items())
        super().__init__(f"no model answered ({told})", status=503)
        self.errors = dict(errors)
        self.retry_after_s = min(map(retry_after_s, errors.values()), default=0.0)


@dataclass(slots=True, eq=False)
class _Circuit:
    in_a_row: int = 0
    opened: float | None = None
    """When it opened, in seconds of `clock.now()`; None while closed."""
    until: float = 0.0
    """When a probe may pass, in seconds of `clock.now()`; means something while it is open."""
    left_alone_until: float = 0.0
    """The latest time that the engine asked to be left alone until, in this row of failures."""
    turn: int = 0
    """Counts how often it opened: what began before an opening has no say after it."""
    probing: bool = False
    last_error: str = ""


@dataclass(frozen=True)
class Breaker:
    """Circuits by model name, on `clock.now()`; one breaker is shared by everything that asks the same engines.

    `failures`: engine errors in a row that open a circuit. `cool_down_s`: seconds for which it stays open at least. Breakers
    with the same settings are equal, whatever they have seen.
    """

    failures: int = 3
    cool_down_s: float = 10.0
    _circuits: dict[str, _Circuit] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not is_whole(self.failures, 1) or not is_number(self.cool_down_s) or self.cool_down_s <= 0:
            raise InvalidValue(
                f"a breaker with {self.failures} failures and a cool-down of {self.cool_down_s} s never opens or never "
                "holds; use a whole number of failures from 1 and a cool-down above 0"
            )

    def state(self, model: str) -> State:
        """The state of `model`'s circuit now; a model never asked has a closed one."""
        circuit = self._circuits.get(model, _Circuit())
        if circuit.opened is None:
            return "closed"
        return "open" if _wait(circuit) > 0 else "half-open"

    @contextmanager
    def attempt(self, model: str) -> Generator[None, None, None]:
        """Around one attempt at `model`; it learns from how the block ends.

        Raises `CircuitOpen` at once where the model is not to be asked now.
        """
        circuit = self._circuits.setdefault(model, _Circuit())
        probe = circuit.opened is not None
        if probe:
            wait = _wait(circuit)
            if wait > 0 or circuit.probing:
                why = f"for {wait:.3g} s more" if wait > 0 else "until the probe that is under way has ended"
                raise CircuitOpen(f"{model} is left alone {why}; its last error: {circuit.last_error}", wait)
            circuit.probing = True
        turn = circuit.turn
        try:
            yield
        except Exception as error:
            if not is_callers_own(error) and turn == circuit.turn:
                failure = as_engine_error(error)
                if failure.status not in _NOT_ITS_FAULT:
                    self._failed(circuit, failure, probe)
            raise
        else:
            if turn == circuit.turn:
                circuit.in_a_row, circuit.opened, circuit.left_alone_until = 0, None, 0.0
        finally:
            if probe:
                circuit.probing = False

    def _failed(self, circuit: _Circuit, error: EngineError, probe: bool) -> None:
        now = clock.now()
        circuit.in_a_row += 1
        circuit.left_alone_until = max(circuit.left_alone_until, now + retry_after_s(error))
        circuit.last_error = f"{error!s:.200}" or type(error).__name__
        if probe or circuit.in_a_row >= self.failures:
            circuit.opened, circuit.in_a_row = now, 0
            circuit.until = max(now + self.cool_down_s, circuit.left_alone_until)
            circuit.turn += 1


def check_breaker(given: object) -> None:
    """Raise `InvalidValue` for what is neither a `Breaker` nor None."""
    if given is not None and not isinstance(given, Breaker):
        raise InvalidValue(f"breaker is {given!r:.80}; give a Breaker, or None for a new one")


def _wait(circuit: _Circuit) -> float:
    """Seconds until a probe may pass."""
    return 0.0 if circuit.opened is None else max(0.0, circuit.until - clock.now())
