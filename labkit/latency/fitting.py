"""Fit the latency model's constants to a short live run.

The model is fitted to steps (their work and duration), first tokens (the work of the prompt's own steps, and how long the
client waited), and volleys (when the last of several requests that were sent at once, and queued in the front end, got its
first token). Errors are relative to the measured time, so that a short step counts as much as a long one. A soft L1 loss
limits the effect of a few disturbed measurements.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from labkit.extras import extra
from labkit.latency.model import LatencyModel, StepWork
from labkit.request import LabError


class CalibrationError(LabError, ValueError):
    """The measurements do not determine a latency model."""


@dataclass(frozen=True, slots=True)
class StepPoint:
    """A measured step: its composition and its duration in seconds (a median, where it was repeated)."""

    work: StepWork
    seconds: float


@dataclass(frozen=True, slots=True)
class FirstTokenPoint:
    """A measured TTFT in seconds, and the steps that its prompt took.

    `crowd` is the number of answers under way when it was sent. If there were any, `running` is the step that was under way
    then; on average the request waits for half of it.
    """

    prompt_tokens: int
    steps: tuple[StepWork, ...]
    seconds: float
    crowd: int = 0
    running: StepWork | None = None


@dataclass(frozen=True, slots=True)
class VolleyPoint:
    """A measured volley: `requests` prompts sent at once to an idle engine; `seconds` run from send to last first token."""

    requests: int
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LatencyCalibration:
    """A fitted model, with the points that it was fitted to."""

    model: LatencyModel
    steps: tuple[StepPoint, ...]
    first_tokens: tuple[FirstTokenPoint, ...]
    volleys: tuple[VolleyPoint, ...] = ()

    @property
    def errors(self) -> tuple[float, ...]:
        """Relative error of each point, predicted / measured − 1: steps, first tokens, volleys."""
        pairs = [(self.model.step_seconds(p.work), p.seconds) for p in self.steps]
        pairs += [(_first_token(self.model, p), p.seconds) for p in self.first_tokens]
        pairs += [(volley_seconds(self.model, p.requests, p.prompt_tokens), p.seconds) for p in self.volleys]
        return tuple(predicted / measured - 1 for predicted, measured in pairs)

    @property
    def median_error(self) -> float:
        """Median absolute relative error on the points it was fitted to; on other points it will be larger."""
        return statistics.median(abs(error) for error in self.errors)


def ttft_seconds(model: LatencyModel, prompt_tokens: int, steps: Iterable[StepWork]) -> float:
    """TTFT (s) of a request that waits for no other: the way to the engine and back, and the steps of its prompt."""
    outside = model.frontend_s + model.request_s + model.prompt_token_s * prompt_tokens
    return outside + sum(model.step_seconds(work) for work in steps)


def volley_seconds(model: LatencyModel, requests: int, prompt_tokens: int) -> float:
    """Seconds until the last of `requests` prompts, sent at once to an idle engine, has its first (and only) token.

    The front end passes them to the engine one by one, the later ones with more answers under way; a step takes all that
    wait when it starts. Fractions of a prompt are passed too: with whole prompts the time would jump where the constants
    change a little, and the fit could not converge.
    """
    first = model.frontend_s + model.request_s + model.prompt_token_s * prompt_tokens
    apart = model.frontend_s + model.crowd_s
    done, now = 0.0, first
    while done < requests:
        now = max(now, first + apart * max(0.0, done - 1))
        arrived = min(float(requests), max(done + 1, 1 + (now - first) / apart)) if apart else float(requests)
        now = max(now, first + apart * (arrived - 1))
        now += _of_prompts(model, arrived - done, prompt_tokens)
        done = arrived
    return now


def _of_prompts(model: LatencyModel, number: float, prompt_tokens: int) -> float:
    """Seconds of a step with `number` new prompts, interpolated between whole numbers."""
    low = max(1, int(number))
    below, above = (model.step_seconds(StepWork.of([(prompt_tokens, 0)] * n, n)) for n in (low, low + 1))
    return below + (above - below) * max(0.0, number - low)


def _first_token(model: LatencyModel, point: FirstTokenPoint) -> float:
    waited = model.step_seconds(point.running) / 2 if point.running else 0.0
    return waited + model.crowd_s * point.crowd + ttft_seconds(model, point.prompt_tokens, point.steps)


# A run cannot tell experts from other weights, so their constants are not fitted.
_NAMES = tuple(field.name for field in fields(LatencyModel) if not field.name.startswith("expert"))
_STARTS = 30
_FEWEST = len(_NAMES) - 3  # the last three (frontend_s, admit_s, crowd_s) are only fitted where points show them
# Each constant needs points in which the number that it multiplies differs; otherwise any value would fit.
_NEEDS: dict[str, Callable[[StepWork], int]] = {
    "new tokens": lambda work: work.tokens,
    "sequences": lambda work: work.sequences,
    "pairs": lambda work: work.pairs,
}


def fit(
    steps: Sequence[StepPoint], first_tokens: Sequence[FirstTokenPoint], volleys: Sequence[VolleyPoint] = ()
) -> LatencyCalibration:
    """The model with the smallest relative error on the points.

    Three constants are 0 where no point shows them: `frontend_s` without volleys, `admit_s` where all steps have the same
    number of entering sequences, and `crowd_s` without first tokens in a crowd.

    Raises `CalibrationError` for too few points, for durations that are not finite and above 0, and for points that leave a
    constant undetermined (all steps with the same number of new tokens, sequences or pairs, or all prompts of one length).
    """
    with extra("analysis"):
        from scipy.optimize import least_squares  # not above: it takes a second to import

    steps, first_tokens, volleys = tuple(steps), tuple(first_tokens), tuple(volleys)
    _check(steps, first_tokens, volleys)
    # A constant that no point shows is not fitted and stays 0.
    shown = {
        "frontend_s": bool(volleys),
        "admit_s": len({p.work.entering for p in steps}) > 1,
        "crowd_s": any(p.crowd for p in first_tokens),
    }
    names = tuple(name for name in _NAMES if shown.get(name, True))
    measured = np.log([*(p.seconds for p in steps), *(p.seconds for p in first_tokens), *(p.seconds for p in volleys)])

    def residuals(logs: np.ndarray) -> np.ndarray:
        model = LatencyModel(**dict(zip(names, np.exp(logs), strict=True)))
        predicted = [model.step_seconds(p.work) for p in steps]
        predicted += [_first_token(model, p) for p in first_tokens]
        predicted += [volley_seconds(model, p.requests, p.prompt_tokens) for p in volleys]
        return np.asarray(np.log(predicted) - measured)

    # The fit is in logarithms, so that no constant becomes negative. It has many starts, because the gradient does not show
    # constants whose roof is the lower one at the start.
    shortest = min(p.seconds for p in steps)
    most = max(p.work.tokens for p in steps)
    start = {
        "step_s": shortest / 2,
        "sequence_s": shortest / 20,
        "linear_s": max(p.seconds for p in steps) / most / 2,
        "weights_s": shortest * 0.1,
        "pair_s": shortest / max(p.work.pairs for p in steps),
        "kv_s": shortest * 0.1 / max(p.work.kv_tokens for p in steps),
        "request_s": shortest / 2,
        "prompt_token_s": shortest / most / 10,
        "admit_s": shortest / 5,
        "crowd_s": shortest / 5,
        "frontend_s": max((p.seconds / p.requests for p in volleys), default=0.0) / 2,
    }
    middle = np.log([start[name] for name in names])
    rng = np.random.default_rng(0)
    found = [
        least_squares(
            residuals,
            middle + (rng.normal(scale=0.8, size=len(names)) if attempt else 0.0),
            loss="soft_l1",
            f_scale=0.03,
            x_scale="jac",
            bounds=(middle - 20, middle + 6),
        )
        for attempt in range(_STARTS)
    ]
    best = min(found, key=lambda result: float(result.cost))
    fitted = dict(zip(names, (float(value) for value in np.exp(best.x)), strict=True))
    return LatencyCalibration(LatencyModel(**fitted), steps, first_tokens, volleys)


def _check(steps: Sequence[StepPoint], first_tokens: Sequence[FirstTokenPoint], volleys: Sequence[VolleyPoint]) -> None:
    if len(steps) + len(first_tokens) < _FEWEST or len(first_tokens) < 2:
        raise CalibrationError(
            f"{len(steps)} steps and {len(first_tokens)} first tokens do not determine {_FEWEST} constants; "
            f"measure at least {_FEWEST} points, 2 of them first tokens"
        )
    for seconds in [*(p.seconds for p in steps), *(p.seconds for p in first_tokens), *(p.seconds for p in volleys)]:
        if not (seconds > 0 and np.isfinite(seconds)):
            raise CalibrationError(f"a measured time of {seconds} s is not a duration; drop the point or repeat it")
    for what, value in _NEEDS.items():
        if len({value(p.work) for p in steps}) < 2:
            raise CalibrationError(f"all steps have the same number of {what}; vary it, or its cost cannot be told")
    if len({p.prompt_tokens for p in first_tokens}) < 2:
        raise CalibrationError("all first tokens are of prompts of one length; measure two lengths or more")
