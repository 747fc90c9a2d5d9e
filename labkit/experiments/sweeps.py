"""The measurements: each function measures one point on an engine and returns one row of plain numbers (SI units).

Rows are made of raw timings of single requests, by the definitions of `labkit.latency`. Prompts are new each time, so that
the prefix cache saves no work, except in `prefix_cache`. `make` is a function of prompt and output tokens that makes a
request of exactly these lengths.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from labkit.engines import Engine
from labkit.load import MakeRequest
from labkit.request import Completion, InvalidValue, complete

Row = dict[str, float]

# A model may begin with a token that has no text (a mark for its reasoning). Such a first token cannot be timed.
_TRIES = 8
_SILENT = "no answer to a prompt of {} tokens began with text; this model's first token cannot be timed, ask for longer ones"


async def prefill(engine: Engine, make: MakeRequest, *, prompt_tokens: int) -> Row:
    """TTFT of one prompt of `prompt_tokens` tokens, alone on the engine.

    Raises `InvalidValue` when no answer of eight begins with a token that has text.
    """
    for _ in range(_TRIES):
        ttft = (await complete(engine, make(prompt_tokens, 1))).done.timing.ttft
        if ttft is not None:
            return {"prompt_tokens": prompt_tokens, "ttft_s": ttft}
    raise InvalidValue(_SILENT.format(prompt_tokens))


async def concurrency(
    engine: Engine, make: MakeRequest, *, people: int, prompt_tokens: int = 64, output_tokens: int = 48
) -> Row:
    """`people` ask at the same moment: medians of their TTFT and TPOT, and output tokens per second of all together.

    Raises `InvalidValue` for fewer than one person or two output tokens, and for an answer that cannot be timed.
    """
    answers = await _together(engine, make, people, prompt_tokens, output_tokens)
    return {
        "people": people,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "ttft_s": statistics.median(_ttft(a) for a in answers),
        "tpot_s": statistics.median(_tpot(a) for a in answers),
        "output_tokens_per_s": people * output_tokens / _span(answers),
    }


async def prefix_cache(engine: Engine, make: MakeRequest, *, prompt_tokens: int) -> Row:
    """TTFT of a new prompt ("cold") and of the same prompt again ("warm"), and the tokens that the cache served then.

    Raises `InvalidValue` when no pair of eight begins with a token that has text.
    """
    for _ in range(_TRIES):
        request = make(prompt_tokens, 1)
        cold, warm = (await complete(engine, request)).done, (await complete(engine, request)).done
        if cold.timing.ttft is not None and warm.timing.ttft is not None:
            return {
                "prompt_tokens": prompt_tokens,
                "cold_ttft_s": cold.timing.ttft,
                "warm_ttft_s": warm.timing.ttft,
                "cached_tokens": warm.usage.cached_tokens,
            }
    raise InvalidValue(_SILENT.format(prompt_tokens))


async def preemption(engine: Engine, make: MakeRequest, *, people: int, prompt_tokens: int, output_tokens: int) -> Row:
    """`concurrency` on an engine whose KV cache may be too small for all requests, and the preemptions meanwhile."""
    before = await engine.metrics()
    row = await concurrency(engine, make, people=people, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    return {**row, "preemptions": (await engine.metrics() - before).preemptions or 0.0}


async def speculation(engine: Engine, make: MakeRequest, *, people: int, prompt_tokens: int, output_tokens: int) -> Row:
    """`concurrency` with the engine's own counts of draft tokens, proposed and accepted (0 when it does not speculate).

    How many drafts are accepted depends on the text. These answers run on past the end that a model would choose, and a
    model with random weights writes noise. So read the speed of drafts from such rows, but do not expect their acceptance
    rate.
    """
    before = await engine.metrics()
    row = await concurrency(engine, make, people=people, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    after = await engine.metrics() - before
    return {**row, "draft_tokens": after.draft_tokens or 0.0, "accepted_tokens": after.accepted_tokens or 0.0}


async def _together(engine: Engine, make: MakeRequest, people: int, prompt: int, output: int) -> Sequence[Completion]:
    if people < 1 or output < 2:
        raise InvalidValue(f"{people} people with {output} output tokens: TPOT needs one person and two tokens at least")
    requests = [make(prompt, output) for _ in range(people)]  # made first, so that the time it takes does not count
    return await asyncio.gather(*(complete(engine, request) for request in requests))


def _ttft(answer: Completion) -> float:
    ttft = answer.done.timing.ttft
    if ttft is None:
        raise InvalidValue(f"an answer of {answer.done.usage.output_tokens} tokens has no text, and so no first token")
    return ttft


def _tpot(answer: Completion) -> float:
    tpot = answer.done.timing.tpot(answer.done.usage.output_tokens)
    if tpot is None:
        raise InvalidValue(f"an answer of {answer.done.usage.output_tokens} tokens has no TPOT; ask for two or more")
    return tpot


def _span(answers: Sequence[Completion]) -> float:
    ends = [a.done.timing.done for a in answers if a.done.timing.done is not None]
    return max(ends) - min(a.done.timing.sent for a in answers)
