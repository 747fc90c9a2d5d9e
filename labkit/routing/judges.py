"""Judges: from the small model's answer, how likely is it right? A cascade asks a judge before it delivers the answer.

A judge never breaks a request. Where it cannot judge, or fails, the score is 0 with the reason, and the request goes to a
larger model, which costs more and is safe. Like the signals, the judges that the lab offers are values.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from labkit.request import Completion, Handler, InvalidValue, Request, clock, complete, is_whole, metered
from labkit.routing.calibration import Calibration
from labkit.routing.checks import check_function, is_number, several
from labkit.routing.engine_errors import cancellations
from labkit.routing.signals import Judge, Score, check_calibration, most_doubtful, name_of, scored


@dataclass(frozen=True)
class SequenceLogprob:
    """How sure the model was of its words: exp of the mean log-probability of its tokens, or of their total.

    "total" is the probability of the whole answer, which falls with its length. "mean" is the geometric mean of the token
    probabilities, which does not. Neither is the probability of being right; fit a `Calibration` for that. The request needs
    `logprobs` of 0 or more; an answer without log-probabilities scores 0.
    """

    over: Literal["mean", "total"] = "mean"

    def __post_init__(self) -> None:
        if self.over not in ("mean", "total"):
            raise InvalidValue(f'SequenceLogprob cannot take the {self.over!r}; use "mean" or "total"')

    def __call__(self, _: Request, completion: Completion) -> Score:
        """The score of one answer."""
        said = [token.logprob for token in completion.logprobs]
        name = f"logprob-{self.over}"
        if not said:
            return Score(0.0, name, reason="the answer has no log-probabilities; ask for them with logprobs=0")
        total = math.fsum(said)
        return Score(min(1.0, math.exp(total / len(said) if self.over == "mean" else total)), name)


@dataclass(frozen=True)
class Margin:
    """How far the likeliest token was ahead of the second likeliest: a difference of probabilities, 0 to 1.

    "min" takes the answer's least certain token, "mean" the average over all tokens. The request needs `logprobs` of 2 or
    more; an answer in which a token lacks a second alternative scores 0.
    """

    over: Literal["min", "mean"] = "min"

    def __post_init__(self) -> None:
        if self.over not in ("min", "mean"):
            raise InvalidValue(f'Margin cannot take the {self.over!r}; use "min" or "mean"')

    def __call__(self, _: Request, completion: Completion) -> Score:
        """The score of one answer."""
        tops = [sorted((p for _, p in token.top), reverse=True) for token in completion.logprobs]
        name = f"margin-{self.over}"
        if not tops or any(len(top) < 2 for top in tops):
            return Score(0.0, name, reason="tokens lack a second alternative; ask for them with logprobs=2")
        gaps = [math.exp(top[0]) - math.exp(top[1]) for top in tops]
        return Score(min(1.0, max(0.0, min(gaps) if self.over == "min" else math.fsum(gaps) / len(gaps))), name)


@dataclass(frozen=True)
class SelfConsistency:
    """The share of `n` more samples from the small model that agree with its answer.

    After Wang et al. 2023. `sampler` is asked for all samples at the same time, with seeds 1 to `n`. Two texts agree when
    `same` returns the same for both, so `same` should reduce an answer to the part that matters. The samples cost `n` more
    answers: these are in the books of the stack that the judge is part of, and their sum is the score's `cost`. A sample
    that fails agrees with nothing.
    """

    sampler: Handler
    n: int = 4
    temperature: float = 0.7
    same: Callable[[str], str] = str.strip

    def __post_init__(self) -> None:
        metered(self.sampler)  # raises InvalidValue unless it is a handler
        check_function(self.same, "same needs a function from a text to what must be equal in it")
        if not is_whole(self.n, 1):
            raise InvalidValue(f"SelfConsistency asks for {self.n!r} samples; ask for a whole number, at least 1")
        if not is_number(self.temperature) or not 0 < self.temperature <= 2:
            raise InvalidValue(
                f"samples at temperature {self.temperature} would all be one answer or none; use one above 0 up to 2"
            )

    async def __call__(self, request: Request, completion: Completion) -> Score:
        """The score of one answer."""
        started = clock.now()
        sampler = metered(self.sampler)
        requests = [
            replace(request, temperature=self.temperature, seed=seed, logprobs=None, idempotency_key="")
            for seed in range(1, self.n + 1)
        ]
        found = await asyncio.gather(*(complete(sampler, each) for each in requests), return_exceptions=True)
        samples = [sample for sample in found if isinstance(sample, Completion)]
        agree = Counter(self.same(sample.text) for sample in samples)[self.same(completion.text)]
        cost = sum((sample.done.cost or Decimal(0) for sample in samples), Decimal(0))
        failed = self.n - len(samples)
        reason = f"{agree} of {self.n} agree" + (f", {failed} failed" if failed else "")
        return Score(agree / self.n, "self-consistency", cost, clock.now() - started, reason)


@dataclass(frozen=True)
class AllOf:
    """The lowest score of several `judges`, with the cost and seconds of all that were asked.

    They are asked in the order given, and the first 0 ends the asking, so put cheap judges first.
    """

    judges: tuple[Judge, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "judges", several(self.judges, None, "AllOf"))

    async def __call__(self, request: Request, completion: Completion) -> Score:
        """The score of one answer."""
        scores: list[Score] = []
        for each in self.judges:
            scores.append(await verdict(each, request, completion))
            if scores[-1].value == 0:
                break
        return most_doubtful(scores)


@dataclass(frozen=True)
class CalibratedJudge:
    """`judge` with its raw score turned into a probability; a 0 stays 0, because it may mean that there was no verdict."""

    judge: Judge
    calibration: Calibration

    def __post_init__(self) -> None:
        check_function(self.judge, "CalibratedJudge needs a judge")
        check_calibration(self.calibration)

    async def __call__(self, request: Request, completion: Completion) -> Score:
        """The score of one answer."""
        raw = await verdict(self.judge, request, completion)
        if raw.value == 0:
            return raw
        return replace(raw, value=self.calibration(raw.value), reason=f"raw score {raw.value:.3f}")


async def verdict(judge: Judge, request: Request, completion: Completion) -> Score:
    """The score that `judge` gives, whether it is an async function or not.

    Where the judge raises, or returns something other than a `Score`, the value is 0 and `Score.error` holds the error.
    """
    started, name = time.perf_counter(), name_of(judge)
    try:
        found = judge(request, completion)
        return scored(await found if inspect.isawaitable(found) else found, name)
    except asyncio.CancelledError:
        if cancellations(asyncio.current_task()):
            raise
        failed: Exception = InvalidValue(f"{name} was cancelled, and not by us")
    except Exception as error:  # noqa: BLE001 - a judge that fails must not fail the request
        failed = error
    reason = f"the judge raised {failed!r:.300}"
    return Score(0.0, name, seconds=time.perf_counter() - started, reason=reason, error=failed)
