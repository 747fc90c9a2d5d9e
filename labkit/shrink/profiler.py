"""The window in which a compressor saves time: prompt length × what it leaves, its own time included, on any machine.

A prompt of n tokens with an answer of m tokens takes

    E2E(n, m) = TTFT(n) + Σ step of one token after n + i, for i = 1 … m − 1

by the latency model of chapter 02 (`labkit.latency`), alone on the machine. Compressed to r·n tokens it takes
C(n) + E2E(r·n, m), with C(n) the compressor's own time. The gain is the share of E2E(n, m) that is saved. It has a ceiling:
with a compressor that takes no time and leaves nothing, the answer's steps are still waited for. The best gain that was
measured independently is 18 % end to end ("Prompt Compression in the Wild", arXiv 2604.02985, 2026).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labkit.extras import extra
from labkit.latency import LatencyModel, StepWork, ttft_seconds
from labkit.request import Handler, InvalidValue, Request, clock, complete
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk

Seconds = Callable[[int], float]
"""What a compressor takes, in s, for a prompt of so many tokens."""


@dataclass(frozen=True, slots=True)
class Took:
    """A compressor's time that grows with the prompt: `fixed_s` + `token_s` × tokens, in s."""

    fixed_s: float
    token_s: float

    def __call__(self, tokens: int) -> float:
        """Seconds for a prompt of `tokens` tokens."""
        return self.fixed_s + self.token_s * tokens


@dataclass(frozen=True, slots=True)
class Gain:
    """What compression does to one length: seconds end to end without and with it, the compressor's own among them."""

    prompt_tokens: int
    left: float
    before_s: float
    after_s: float
    own_s: float

    @property
    def share(self) -> float:
        """The share of the time that is saved; below 0 where compression takes longer."""
        return 1 - self.after_s / self.before_s


@dataclass(frozen=True, slots=True)
class Checked:
    """A length as it was measured, beside what was predicted (None without a model): medians of `rounds` rounds.

    `gain` holds what was measured; `left` is the share of the prompt's tokens that was sent.
    """

    prompt_tokens: int
    left: float
    gain: Gain
    predicted: Gain | None
    rounds: int


def e2e_seconds(model: LatencyModel, prompt_tokens: int, output_tokens: int, step_tokens: int = 8192) -> float:
    """Seconds from the send to the last token of an answer that is alone on the engine.

    `step_tokens`: the most new tokens that a step takes (vLLM's max_num_batched_tokens); longer prompts come in chunks.
    """
    chunks = [
        StepWork.of([(min(step_tokens, prompt_tokens - done), done)], int(done == 0))
        for done in range(0, prompt_tokens, step_tokens)
    ]
    decode = (StepWork.of([(1, prompt_tokens + i)]) for i in range(output_tokens - 1))
    return ttft_seconds(model, prompt_tokens, chunks) + sum(map(model.step_seconds, decode))


def predicted_gain(
    model: LatencyModel, took: Seconds, prompt_tokens: int, left: float, output_tokens: int, step_tokens: int = 8192
) -> Gain:
    """What a compressor that leaves the share `left` of a prompt does to its time end to end on the machine of `model`.

    Raises `InvalidValue` for no tokens, and for a share that is not above 0 and up to 1.
    """
    if prompt_tokens < 1 or output_tokens < 1 or not 0 < left <= 1:
        raise InvalidValue(
            f"{prompt_tokens} prompt and {output_tokens} output tokens, of which the share {left} is left; take 1 token or "
            "more of each, and a share above 0 and up to 1"
        )
    own = took(prompt_tokens)
    short = e2e_seconds(model, max(1, round(left * prompt_tokens)), output_tokens, step_tokens)
    return Gain(prompt_tokens, left, e2e_seconds(model, prompt_tokens, output_tokens, step_tokens), own + short, own)


def gains(
    model: LatencyModel,
    took: Seconds,
    prompt_tokens: Iterable[int],
    left: Iterable[float],
    output_tokens: int,
    step_tokens: int = 8192,
) -> list[Gain]:
    """`predicted_gain` for every length and every share that is left: the window is where `share` is above 0."""
    shares = tuple(left)
    return [predicted_gain(model, took, n, r, output_tokens, step_tokens) for n in prompt_tokens for r in shares]


def scorer_seconds(scorer: LatencyModel, step_tokens: int = 8192) -> Seconds:
    """The time of a compressor that reads the prompt once with a model of its own, on the machine of `scorer`."""
    return lambda tokens: e2e_seconds(scorer, tokens, 1, step_tokens)


def fit_time(points: Sequence[tuple[int, float]]) -> Took:
    """A compressor's time from measured (tokens, seconds): the line with the least relative error, no constant below 0.

    Raises `InvalidValue` for points of one length, and for times that are not above 0.
    """
    if len({tokens for tokens, _ in points}) < 2 or min(seconds for _, seconds in points) <= 0:
        raise InvalidValue(f"{points!r:.120} give no line; measure two lengths or more, with times above 0")
    with extra("analysis"):
        from scipy.optimize import nnls  # not above: scipy takes half a second to import

    tokens, seconds = (np.array(values, float) for values in zip(*points, strict=True))
    (fixed, each), _ = nnls(np.column_stack([1 / seconds, tokens / seconds]), np.ones(len(seconds)))
    return Took(float(fixed), float(each))


async def measured_seconds(
    shrinker: Shrinker, requests: Sequence[Request], count: Callable[[str], int], rounds: int = 5
) -> list[tuple[int, float]]:
    """(tokens of the prompt, median s that `shrinker` took) for each of `requests`; the requests take turns.

    `count` counts the tokens of a text. A first round warms up and does not count.
    """
    times: list[list[float]] = [[] for _ in requests]
    for number in range(rounds + 1):
        for place, request in enumerate(requests):
            begun = clock.now()
            await shrinker.shrink(request)
            if number:
                times[place].append(clock.now() - begun)
    sizes = (sum(count(m.content) for m in request.messages) for request in requests)
    return [(size, statistics.median(taken)) for size, taken in zip(sizes, times, strict=True)]


async def check_gain(
    handler: Handler,
    shrinker: Shrinker,
    requests: Sequence[Request],
    *,
    rounds: int = 5,
    model: LatencyModel | None = None,
    took: Seconds | None = None,
) -> list[Checked]:
    """Measure end to end, whole and compressed in turns, and set what `model` and `took` predict beside it.

    Each request must write the same number of tokens either way (`ignore_eos`), or its answer is compared, too. The engine
    must be idle and read no cache: the requests get a `cache_salt` of their own. The tokens are the engine's own count.
    """
    found = []
    for number, request in enumerate(requests):
        whole, short, own = [], [], []
        read: list[tuple[int, int]] = []
        output = 1
        for turn in range(rounds + 1):
            salted = [
                replace(request, extra={**request.extra, "cache_salt": f"{clock.unix_now():.6f} {number} {turn} {way}"})
                for way in ("whole", "short")
            ]
            begun = clock.now()
            first = (await complete(handler, salted[0])).done
            middle = clock.now()
            shrunk: Shrunk = await shrinker.shrink(request)
            ready = clock.now()
            second = (await complete(handler, replace(salted[1], messages=shrunk.after))).done
            ended = clock.now()
            if not turn:  # an engine's first steps of a size are slower than later ones
                continue
            whole.append(middle - begun)
            own.append(ready - middle)
            short.append(ended - middle)
            read.append((first.usage.input_tokens, second.usage.input_tokens))
            output = first.usage.output_tokens
        before, after = read[-1]
        gain = Gain(before, after / before, *(statistics.median(times) for times in (whole, short, own)))
        said = (
            None if model is None or took is None else predicted_gain(model, took, before, min(1.0, after / before), output)
        )
        found.append(Checked(before, after / before, gain, said, rounds))
    return found
