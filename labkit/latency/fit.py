"""Fit the latency model's constants to a short live run.

What is fitted are steps (what they had to do, how long they took) and first tokens (what the prompt's own steps had to do,
how long the client waited). Errors count relative to the measured time, so that a short step matters as much as a long one,
and a few disturbed measurements pull little (a soft L1 loss).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import least_squares

from labkit.latency.model import LatencyModel, StepWork
from labkit.request.errors import LabError


class CalibrationError(LabError, ValueError):
    """The measurements do not determine a latency model."""


@dataclass(frozen=True, slots=True)
class StepPoint:
    """A measured step: its composition and its duration in seconds (a median, where it was repeated)."""

    work: StepWork
    seconds: float


@dataclass(frozen=True, slots=True)
class FirstTokenPoint:
    """A measured TTFT in seconds of a request that met an idle engine, and the steps its prompt took."""

    prompt_tokens: int
    steps: tuple[StepWork, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted model beside the points it was fitted to."""

    model: LatencyModel
    steps: tuple[StepPoint, ...]
    first_tokens: tuple[FirstTokenPoint, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """Relative error of each point, predicted / measured − 1: steps, then first tokens."""
        pairs = [(self.model.step_seconds(p.work), p.seconds) for p in self.steps]
        pairs += [(ttft_seconds(self.model, p.prompt_tokens, p.steps), p.seconds) for p in self.first_tokens]
        return tuple(predicted / measured - 1 for predicted, measured in pairs)

    @property
    def median_error(self) -> float:
        """Median absolute relative error on the points it was fitted to; on other points it will be larger."""
        return statistics.median(abs(error) for error in self.errors)


def ttft_seconds(model: LatencyModel, prompt_tokens: int, steps: Iterable[StepWork]) -> float:
    """TTFT of a request that waits for nobody: its way to the engine and back, and the steps its prompt takes."""
    return model.request_s + model.prompt_token_s * prompt_tokens + sum(model.step_seconds(work) for work in steps)


_NAMES = tuple(field.name for field in fields(LatencyModel))
# Each constant needs points that move what it multiplies; where nothing moves, any value would fit.
_NEEDS: dict[str, Callable[[StepWork], int]] = {
    "new tokens": lambda work: work.tokens,
    "sequences": lambda work: work.sequences,
    "pairs": lambda work: work.pairs,
}


def fit(steps: Sequence[StepPoint], first_tokens: Sequence[FirstTokenPoint]) -> Calibration:
    """The model with the smallest relative error on the points.

    Raises `CalibrationError` for fewer points than constants, for durations that are no durations, and for points that
    leave a constant undetermined (all steps of one size, one number of sequences, or prompts of one length).
    """
    steps, first_tokens = tuple(steps), tuple(first_tokens)
    _check(steps, first_tokens)
    measured = np.log([*(p.seconds for p in steps), *(p.seconds for p in first_tokens)])

    def residuals(logs: np.ndarray) -> np.ndarray:
        model = LatencyModel(*np.exp(logs))
        predicted = [model.step_seconds(p.work) for p in steps]
        predicted += [ttft_seconds(model, p.prompt_tokens, p.steps) for p in first_tokens]
        return np.asarray(np.log(predicted) - measured)

    # In logarithms, so that no constant becomes negative; from two starts, since either roof may be the one that counts.
    shortest = min(p.seconds for p in steps)
    most = max(p.work.tokens for p in steps)
    found = []
    for reading in (0.5, 0.01):
        start = {
            "step_s": shortest / 2,
            "sequence_s": shortest / 20,
            "linear_s": max(p.seconds for p in steps) / most / 2,
            "weights_s": shortest * reading,
            "pair_s": shortest / max(p.work.pairs for p in steps),
            "kv_s": shortest * reading / max(p.work.kv_tokens for p in steps),
            "request_s": shortest / 2,
            "prompt_token_s": shortest / most / 10,
        }
        logs = np.log([start[name] for name in _NAMES])
        found.append(least_squares(residuals, logs, loss="soft_l1", f_scale=0.03, bounds=(logs - 20, logs + 6)))
    best = min(found, key=lambda result: float(result.cost))
    return Calibration(LatencyModel(*(float(value) for value in np.exp(best.x))), steps, first_tokens)


def _check(steps: Sequence[StepPoint], first_tokens: Sequence[FirstTokenPoint]) -> None:
    if len(steps) + len(first_tokens) < len(_NAMES) or len(first_tokens) < 2:
        raise CalibrationError(
            f"{len(steps)} steps and {len(first_tokens)} first tokens do not determine {len(_NAMES)} constants; "
            f"measure at least {len(_NAMES)} points, 2 of them first tokens"
        )
    for seconds in [*(p.seconds for p in steps), *(p.seconds for p in first_tokens)]:
        if not (seconds > 0 and np.isfinite(seconds)):
            raise CalibrationError(f"a measured time of {seconds} s is not a duration; drop the point or repeat it")
    for what, value in _NEEDS.items():
        if len({value(p.work) for p in steps}) < 2:
            raise CalibrationError(f"all steps have the same number of {what}; vary it, or its cost cannot be told")
    if len({p.prompt_tokens for p in first_tokens}) < 2:
        raise CalibrationError("all first tokens are of prompts of one length; measure two lengths or more")
