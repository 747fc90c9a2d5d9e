"""When an engine is down: stop asking it for a while (circuit breaker). `fallback` asks the next one meanwhile.

The breaker has one circuit per model. *Closed*: requests pass; `failures` engine errors in a row open it. *Open*: no request
passes for `cool_down_s`, or for as long as the engine itself asked to be left alone (`Retry-After`) if that is longer.
*Half-open*, after that: one request passes as a probe; its success closes the circuit, its failure opens it again. So a dead
engine costs one probe per cool-down, not a timeout per request.

Only the engine's own failures count: it does not answer, breaks off, is overloaded, refuses the key, or raises an unexpected
error. A request that the engine (HTTP 400, 413, 422) or the lab (`InvalidRequest`) calls malformed does not count as a
failure, nor does one that a spent budget refuses (402), for it never came to the engine. A caller that leaves, or whose
deadline passes, counts neither as a failure nor as a success.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from labkit.request import EngineError, InvalidValue, clock, is_whole
from labkit.routing.checks import is_number
from labkit.routing.engine_errors import as_engine_error, is_callers_own, retry_after_s

State = Literal["closed", "open", "half-open"]
_NOT_ITS_FAULT = frozenset({400, 402, 413, 422})


class CircuitOpen(EngineError):
    """The model is not asked because it failed lately; it may be asked again in `retry_after_s` seconds.

    `retry_after_s` is 0 while the circuit waits for the result of its probe.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, status=503)
        self.retry_after_s = retry_after_s


class AllDown(EngineError):
    """No model gave an answer; `errors` holds the last error of each.

    `retry_after_s` is the shortest time, in seconds, for which any of the models asks to be left alone; 0 where one of them
    asks for none.
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
    """When it opened, in seconds of `clock.now()`; None while it is closed."""
    until: float = 0.0
    """When a probe may pass, in seconds of `clock.now()`; only meaningful while `opened` is set."""
    left_alone_until: float = 0.0
    """The latest end of the pauses that the engine asked for since its last success, in seconds of `clock.now()`."""
    turn: int = 0
    """How often it opened; the result of an attempt that began before the latest opening is ignored."""
    probing: bool = False
    last_error: str = ""


@dataclass(frozen=True)
class Breaker:
    """Circuits by model name, on `clock.now()`; share one breaker among all levers that ask the same engines.

    `failures` is the number of engine errors in a row that opens a circuit; `cool_down_s` is the shortest time, in seconds,
    that it stays open. Breakers with the same settings are equal, whatever they have seen. Raises `InvalidValue` for
    settings with which a circuit would never open or never stay open.
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
        """The state of `model`'s circuit now; "closed" for a model that was never asked."""
        circuit = self._circuits.get(model, _Circuit())
        if circuit.opened is None:
            return "closed"
        return "open" if _wait(circuit) > 0 else "half-open"

    @contextmanager
    def attempt(self, model: str) -> Generator[None, None, None]:
        """A context manager around one attempt at `model`; the circuit counts how the block ends.

        Raises `CircuitOpen`, without running the block, while the circuit is open or its probe is under way.
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
    """Raise `InvalidValue` unless `given` is a `Breaker` or None."""
    if given is not None and not isinstance(given, Breaker):
        raise InvalidValue(f"breaker is {given!r:.80}; give a Breaker, or None for a new one")


def _wait(circuit: _Circuit) -> float:
    """Seconds until a probe may pass; 0 while the circuit is closed."""
    return 0.0 if circuit.opened is None else max(0.0, circuit.until - clock.now())
