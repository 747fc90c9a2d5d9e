"""A short live run that measures the latency model's constants: lone prompts, answers side by side, and cut-in prompts.

- *First tokens*: prompts of several lengths, each alone on an idle engine.
- *Decode*: n answers at once. While all of them are being written, every step decodes n sequences of one token, and it lasts
  as long as the gap between two tokens of any of them.
- *Cut-ins*: a stream is running when another prompt arrives. The gap in the stream is the step that read the prompt, without
  the time that the prompt took to reach the engine. This separates the engine's work per token from the front end's.
- *Volleys* and *crowds*: first tokens of several prompts sent at once, and of a prompt sent while answers are under way.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise

from labkit.latency import CalibrationError, FirstTokenPoint, LatencyCalibration, StepPoint, StepWork, VolleyPoint, fit
from labkit.load.prompts import MakeRequest
from labkit.request import Chunk, Completion, Handler, Request, complete

# Chunks after which a stream counts as running.
_RUNNING = 4
_CUT_IN_CONTEXT = 32
_VOLLEY_PROMPT = 64
# A model may begin with a token that has no text (a mark for its reasoning); then the time of its first token is unknown.
_TRIES = 8
# On a slow or busy machine an answer may end before the other request begins; then longer answers are tried.
_LONGER = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What a probe measures; all lengths are in tokens.

    `prompts` and `cut_ins` are lengths of prompts. `decode` holds (answers at once, prompt tokens) pairs. `volleys` are
    numbers of prompts sent at once for their first tokens. `crowds` are numbers of answers under way when another prompt
    comes. `output_tokens` is the length of those answers.

    Lone prompts, volleys, crowds and cut-ins are measured `repeats` times, answers side by side `rounds` times; the medians
    are used.
    """

    prompts: tuple[int, ...] = (32, 128, 384, 768, 1400)
    decode: tuple[tuple[int, int], ...] = (
        (1, 32),
        (2, 32),
        (4, 32),
        (8, 32),
        (16, 32),
        (32, 32),
        (1, 1000),
        (4, 1000),
        (16, 600),
    )
    output_tokens: int = 48
    cut_ins: tuple[int, ...] = (128, 512, 1200)
    volleys: tuple[int, ...] = (4, 8, 16)
    crowds: tuple[int, ...] = (2, 6, 14)
    repeats: int = 5
    rounds: int = 3


async def probe(handler: Handler, make: MakeRequest, plan: ProbePlan | None = None) -> LatencyCalibration:
    """Measure `handler` by `plan` and fit a latency model to it; `make` makes the requests.

    The engine must have no other work, take every prompt of the plan in one step (its token budget above the longest), hold
    all of the plan's answers at once, and reuse no prefix. Raises `CalibrationError` where the run does not give a fit.
    """
    plan = plan or ProbePlan()
    for n in (1, 8, 32):  # warm-up: an engine's first steps of a size are slower than later ones
        await asyncio.gather(*(complete(handler, make(64, 16)) for _ in range(n)))
    # The kinds take turns, so that a busy moment of the machine affects one value of each point, which the median ignores.
    firsts: dict[int, list[float]] = {n: [] for n in plan.prompts}
    rounds: dict[tuple[int, int], list[tuple[float, float]]] = {at: [] for at in plan.decode}
    gaps: dict[int, list[float]] = {n: [] for n in plan.cut_ins}
    lasts: dict[int, list[float]] = {n: [] for n in plan.volleys}
    crowded: dict[int, list[float]] = {n: [] for n in plan.crowds}
    for i in range(max(plan.repeats, plan.rounds)):
        if i < plan.repeats:
            for n in plan.prompts:
                firsts[n].append(await _first_token(handler, make, n))
            for n in plan.volleys:
                lasts[n].append(await _last_token(handler, make, n))
            for n in plan.crowds:
                crowded[n] += await _crowded(handler, make, n, plan.output_tokens, (i + 0.5) / plan.repeats)
            for n in plan.cut_ins:
                gaps[n] += await _cut_in(handler, make, n, plan.output_tokens)
        if i < plan.rounds:
            for n, prompt in plan.decode:
                rounds[n, prompt].append(await _decode_round(handler, make, n, prompt, plan.output_tokens))
    steps = [
        StepPoint(
            StepWork.of([(1, prompt + round(statistics.median(written for _, written in found)))] * n),
            statistics.median(seconds for seconds, _ in found),
        )
        for (n, prompt), found in rounds.items()
    ]
    for n, found in gaps.items():
        if not found:
            raise CalibrationError(
                f"a prompt of {n} tokens never met a running answer of {_LONGER[-1] * plan.output_tokens} tokens; ask for "
                "longer answers, or see what between here and the engine holds the stream back"
            )
        steps.append(StepPoint(StepWork.of([(n, 0), (1, _CUT_IN_CONTEXT + 2 * _RUNNING)], 1), statistics.median(found)))
    first_tokens = [FirstTokenPoint(n, (StepWork.of([(n, 0)], 1),), statistics.median(found)) for n, found in firsts.items()]
    for n, found in crowded.items():
        if not found:
            raise CalibrationError(
                f"{n} answers of {_LONGER[-1] * plan.output_tokens} tokens were never under way when another prompt got its "
                "first token; ask for longer answers"
            )
        others = [(1, _CUT_IN_CONTEXT + 2 * _RUNNING)] * n
        steps_of_it = (StepWork.of([(_VOLLEY_PROMPT, 0), *others], 1),)
        seconds = statistics.median(found)
        first_tokens.append(FirstTokenPoint(_VOLLEY_PROMPT, steps_of_it, seconds, n, StepWork.of(others)))
    volleys = [VolleyPoint(n, _VOLLEY_PROMPT, statistics.median(found)) for n, found in lasts.items()]
    return fit(steps, first_tokens, volleys)


async def _first_token(handler: Handler, make: MakeRequest, prompt: int) -> float:
    for _ in range(_TRIES):
        ttft = (await complete(handler, make(prompt, 1))).done.timing.ttft
        if ttft is not None:
            return ttft
    raise CalibrationError(f"no answer to a prompt of {prompt} tokens began with text, so its first token cannot be timed")


async def _crowded(handler: Handler, make: MakeRequest, n: int, output: int, phase: float) -> list[float]:
    """TTFT (s) of a prompt that comes while `n` answers are being written; empty where they ended too early.

    It is sent `phase` (0 to 1) of a step after a chunk came. Without this delay, all would be sent at the end of a step,
    where chunks come, but users' requests come at any time.
    """
    for longer in _LONGER:
        begun = [asyncio.Event() for _ in range(n)]
        times: list[list[float]] = [[] for _ in range(n)]
        answers = [
            asyncio.create_task(_writing(handler, make(_CUT_IN_CONTEXT, longer * output), event, seen))
            for event, seen in zip(begun, times, strict=True)
        ]
        try:
            for event in begun:
                await event.wait()
            step = statistics.median([b - a for a, b in pairwise(times[0])] or [0.0])
            await asyncio.sleep(phase * step)
            late = await complete(handler, make(_VOLLEY_PROMPT, 1))
        finally:
            await asyncio.gather(*answers)
        ttft = late.done.timing.ttft
        if ttft is not None and all(times) and min(seen[-1] for seen in times) > late.chunks[0].at:
            return [ttft]
    return []


async def _writing(handler: Handler, request: Request, begun: asyncio.Event, times: list[float]) -> None:
    """Read an answer to its end and note when its chunks came; sets `begun` after `_RUNNING` chunks, or at the end."""
    try:
        async with aclosing(handler(request)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    times.append(event.at)
                    if len(times) == _RUNNING:
                        begun.set()
    finally:
        begun.set()


async def _last_token(handler: Handler, make: MakeRequest, n: int) -> float:
    requests = [make(_VOLLEY_PROMPT, 1) for _ in range(n)]
    answers = await asyncio.gather(*(complete(handler, request) for request in requests))
    seen = [answer.chunks[0].at for answer in answers if answer.chunks]
    if not seen:
        raise CalibrationError(f"none of {n} answers sent at once began with text, so no first token can be timed")
    return max(seen) - min(answer.done.timing.sent for answer in answers)


async def _decode_round(handler: Handler, make: MakeRequest, n: int, prompt: int, output: int) -> tuple[float, float]:
    """Mean seconds of a step while all n answers are written, and the mean tokens of each in the middle of that time."""
    for longer in _LONGER:
        answers = await asyncio.gather(*(complete(handler, make(prompt, longer * output)) for _ in range(n)))
        if not all(answer.chunks for answer in answers):
            continue
        begin = max(answer.chunks[0].at for answer in answers)
        end = min(answer.chunks[-1].at for answer in answers)
        found = [step for answer in answers if (step := _mean_step(answer, begin, end)) is not None]
        if found:
            return statistics.median(seconds for seconds, _ in found), statistics.mean(tokens for _, tokens in found)
    raise CalibrationError(
        f"{n} answers of {longer * output} tokens after {prompt} were never all being written at once; the engine's "
        "max_num_seqs may be lower, or some of its answers have no text"
    )


def _mean_step(answer: Completion, begin: float, end: float) -> tuple[float, float] | None:
    """Mean seconds between tokens within [begin, end], and tokens written by its middle; None for fewer than 8 tokens."""
    inside = [chunk for chunk in answer.chunks if begin <= chunk.at <= end]
    tokens = sum(chunk.tokens for chunk in inside[1:])
    if tokens < 8:
        return None
    before = sum(chunk.tokens for chunk in answer.chunks if chunk.at <= inside[0].at)
    return (inside[-1].at - inside[0].at) / tokens, before + tokens / 2


async def _cut_in(handler: Handler, make: MakeRequest, prompt: int, output: int) -> list[float]:
    """The gap (s) that a prompt makes in a running stream; empty where the stream ended too early to tell."""
    for longer in _LONGER:
        if found := await _gap(handler, make, prompt, longer * output):
            return found
    return []


async def _gap(handler: Handler, make: MakeRequest, prompt: int, output: int) -> list[float]:
    running, times = asyncio.Event(), list[float]()
    stream = asyncio.create_task(_writing(handler, make(_CUT_IN_CONTEXT, output), running, times))
    try:
        await running.wait()
        cutting = await complete(handler, make(prompt, 1))
    finally:
        await stream
    if not cutting.chunks:
        return []
    sent, seen = cutting.done.timing.sent, cutting.chunks[0].at
    torn = [b - a for a, b in pairwise(times) if b > sent and a < seen]
    return [max(torn)] if torn and times[-1] > seen else []
