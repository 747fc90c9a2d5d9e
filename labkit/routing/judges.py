"""Judges: from the small model's answer, how likely is it right? A cascade asks one before it lets an answer out.

A judge never breaks a request. What it cannot judge, and what it fails on, it gives 0 with the reason, and the request goes
to a larger model: the dear way out, and the safe one.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Literal

from labkit.request import Completion, Handler, InvalidRequest, Request, clock, complete
from labkit.routing.calibration import Calibration
from labkit.routing.signals import Judge, Score, most_doubtful


def sequence_logprob(over: Literal["mean", "total"] = "mean") -> Judge:
    """How sure the model was of its words: exp of the mean log-probability of its tokens, or of their total.

    "total" is the probability of the whole answer and falls with its length; "mean" is the geometric mean per token and does
    not. Neither is the probability of being right: fit a `Calibration`. Needs requests with `logprobs` of 0 or more.
    """
    if over not in ("mean", "total"):
        raise InvalidRequest(f'sequence_logprob cannot take the {over!r}; use "mean" or "total"')

    def judge(_: Request, completion: Completion) -> Score:
        said = [token.logprob for token in completion.logprobs]
        name = f"logprob-{over}"
        if not said:
            return Score(0.0, name, reason="the answer has no log-probabilities; ask for them with logprobs=0")
        total = math.fsum(said)
        return Score(min(1.0, math.exp(total / len(said) if over == "mean" else total)), name)

    return judge


def margin(over: Literal["min", "mean"] = "min") -> Judge:
    """How far the likeliest token was ahead of the second likeliest: a difference of probabilities, 0 to 1.

    "min" takes the answer's least certain token, "mean" all of them. Needs requests with `logprobs` of 2 or more.
    """
    if over not in ("min", "mean"):
        raise InvalidRequest(f'margin cannot take the {over!r}; use "min" or "mean"')

    def judge(_: Request, completion: Completion) -> Score:
        tops = [sorted((p for _, p in token.top), reverse=True) for token in completion.logprobs]
        name = f"margin-{over}"
        if not tops or any(len(top) < 2 for top in tops):
            return Score(0.0, name, reason="tokens lack a second alternative; ask for them with logprobs=2")
        gaps = [math.exp(top[0]) - math.exp(top[1]) for top in tops]
        return Score(min(1.0, max(0.0, min(gaps) if over == "min" else math.fsum(gaps) / len(gaps))), name)

    return judge


def self_consistency(
    sampler: Handler, n: int = 4, *, temperature: float = 0.7, same: Callable[[str], str] = str.strip
) -> Judge:
    """The share of `n` more samples from the small model that agree with its answer (after Wang et al. 2023).

    Samples are asked for at the same time with seeds 1 to `n`; texts agree when `same` makes them equal (strip an answer
    down to what matters). They cost `n` more answers: the score's `cost` is what `sampler` priced them at, and they are
    in the books if `sampler` is. A sample that fails agrees with nothing.
    """
    if n < 1:
        raise InvalidRequest(f"self_consistency asks for {n} samples; ask for at least 1")
    if not 0 < temperature <= 2:
        raise InvalidRequest(
            f"samples at temperature {temperature} would all be one answer or none; use one above 0 up to 2"
        )

    async def judge(request: Request, completion: Completion) -> Score:
        started = clock.now()
        requests = [
            replace(request, temperature=temperature, seed=seed, logprobs=None, idempotency_key="")
            for seed in range(1, n + 1)
        ]
        found = await asyncio.gather(*(complete(sampler, each) for each in requests), return_exceptions=True)
        samples = [sample for sample in found if isinstance(sample, Completion)]
        votes = Counter(same(sample.text) for sample in samples)
        cost = sum((sample.done.cost or Decimal(0) for sample in samples), Decimal(0))
        reason = f"{votes[same(completion.text)]} of {n} agree" + (
            f", {n - len(samples)} failed" if len(samples) < n else ""
        )
        return Score(votes[same(completion.text)] / n, "self-consistency", cost, clock.now() - started, reason)

    return judge


def all_of(*judges: Judge) -> Judge:
    """The most doubtful of several judges, asked in the order given; the first 0 is final, so put the cheap ones first."""
    if not judges:
        raise InvalidRequest("all_of needs at least one judge")

    async def judge(request: Request, completion: Completion) -> Score:
        scores: list[Score] = []
        for each in judges:
            scores.append(await verdict(each, request, completion))
            if scores[-1].value == 0:
                break
        return most_doubtful(scores)

    return judge


def calibrated_judge(judge: Judge, calibration: Calibration) -> Judge:
    """`judge` with its raw score turned into a probability; a 0 stays 0, for it may mean that nothing could be judged."""

    async def better(request: Request, completion: Completion) -> Score:
        raw = await verdict(judge, request, completion)
        return raw if raw.value == 0 else replace(raw, value=calibration(raw.value), reason=f"raw score {raw.value:.3f}")

    return better


async def verdict(judge: Judge, request: Request, completion: Completion) -> Score:
    """The score of `judge`, whether it has to be awaited or not; 0, with the error as the reason, where it raises."""
    started = time.perf_counter()
    try:
        found = judge(request, completion)
        return await found if inspect.isawaitable(found) else found
    except Exception as error:  # noqa: BLE001 - whatever a judge raises, the request goes on, to a larger model
        name = getattr(judge, "__qualname__", type(judge).__name__).split(".")[0]
        return Score(0.0, name, seconds=time.perf_counter() - started, reason=f"the judge raised {error!r}")
