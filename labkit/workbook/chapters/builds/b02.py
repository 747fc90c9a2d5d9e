"""The long build of chapter 02: a forecaster of first tokens and of pace, fitted to a few measured points."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from scipy.optimize import nnls

from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, equals, holds

Reading = Sequence[tuple[float, float, float]]
Writing = Sequence[tuple[float, float, float]]
Constants = tuple[float, float, float]
Forecasters = Callable[[Reading, Writing], Any]


class Forecaster:
    """Says when first tokens come and how fast the others follow, also under load that nobody has measured."""

    def __init__(self, reading: Sequence[tuple[float, float, float]], writing: Sequence[tuple[float, float, float]]) -> None:
        """Fit the constants to measured points, by least squares of the *relative* errors; none may be below zero.

        `reading`: (prompt tokens, other answers under way, TTFT in s). `writing`: (people, context of each, TPOT in s).
        """
        self._reading = self._fitted([(1, prompt, others) for prompt, others, _ in reading], [s for *_, s in reading])
        self._writing = self._fitted([(1, n, n * context) for n, context, _ in writing], [s for *_, s in writing])

    @staticmethod
    def _fitted(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> np.ndarray:
        """Constants from 0 that make `rows @ constants / seconds` as near to 1 as can be."""
        relative = np.array(rows) / np.array(seconds)[:, None]
        return np.asarray(nnls(relative, np.ones(len(rows)))[0])

    def first(self, prompt: float, others: float) -> float:
        """TTFT (s) of a prompt of so many tokens that finds `others` answers under way."""
        return float(self._reading @ (1, prompt, others))

    def each(self, people: float, context: float) -> float:
        """TPOT (s) of `people` answers side by side, each with a context of so many tokens."""
        return float(self._writing @ (1, people, people * context))

    def crowd(self, rate: float, prompt: float, output: float) -> float:
        """Answers under way on average, at `rate` requests a second; infinite where the engine cannot keep up."""
        context = prompt + output / 2
        writes = 1 - rate * prompt * self._reading[1]
        if writes <= 0:
            return math.inf
        steps = rate * (output - 1) / writes
        step, person = self.each(0, context), self.each(1, context) - self.each(0, context)
        left = 1 - rate * self._reading[2] - steps * person
        return (rate * self.first(prompt, 0) + steps * (step + person)) / left if left > 0 else math.inf

    def under(self, rate: float, prompt: float, output: float) -> tuple[float, float]:
        """TTFT and TPOT (s) at `rate` requests a second, each of so many prompt and output tokens."""
        others = self.crowd(rate, prompt, output)
        if math.isinf(others):
            return math.inf, math.inf
        writes = 1 - rate * prompt * self._reading[1]
        return self.first(prompt, others), self.each(others + 1, prompt + output / 2) / writes

    @staticmethod
    def tail(values: Sequence[float], q: float, level: float) -> tuple[float, float | None, float | None]:
        """The percentile `q` (0 to 1) of a sample, and two of its values that enclose the true one with confidence `level`.

        A bound that the sample is too small to give is None.
        """
        ordered, n = sorted(values), len(values)
        chances = [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n)]
        fewer = list(accumulate(chances))
        low = [value for value, chance in zip(ordered, fewer, strict=True) if chance <= (1 - level) / 2]
        high = [value for value, chance in zip(ordered, fewer, strict=True) if chance >= (1 + level) / 2]
        return ordered[math.ceil(q * n) - 1], low[-1] if low else None, high[0] if high else None


_WRITING: Writing = [(1, 100, 0.002), (2, 400, 0.003), (8, 100, 0.005), (16, 900, 0.02)]
_READING: Reading = [(100, 0, 0.01), (900, 0, 0.02), (100, 9, 0.03), (400, 3, 0.02)]


def _reading(way: float, token: float, other: float, at: Sequence[tuple[int, int]]) -> Reading:
    return [(prompt, others, way + token * prompt + other * others) for prompt, others in at]


def _writing(step: float, person: float, context: float, at: Sequence[tuple[int, int]]) -> Writing:
    return [(n, tokens, step + person * n + context * n * tokens) for n, tokens in at]


_PROMPTS = ((50, 0), (300, 0), (1200, 0), (64, 7), (64, 31), (500, 15))
_PEOPLE = ((1, 80), (4, 80), (32, 80), (1, 900), (8, 600), (16, 1200))


def _exact(answer: Forecasters, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(5):
        way, token, other = rng.uniform(1e-3, 2e-2), rng.uniform(2e-6, 4e-5), rng.uniform(2e-4, 3e-3)
        made = call(answer, _reading(way, token, other, _PROMPTS), _WRITING)
        for prompt, others in ((700, 0), (64, 20), (2000, 3)):
            why = "TTFT = way + prompt tokens · (seconds a token) + others · (seconds for each): three constants."
            yield agree(made.first, prompt, others, expected=way + token * prompt + other * others, rel=1e-6, why=why)


def _relative(answer: Forecasters, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(5):
        prompts = [50, 100, 200, 400, 800, 1600, 3200]
        seconds = [(0.004 + 2e-5 * n) * rng.uniform(0.9, 1.1) for n in prompts]
        made = call(answer, [(n, 0, s) for n, s in zip(prompts, seconds, strict=True)], _WRITING)
        slope, way = np.polyfit(prompts, seconds, 1, w=1 / np.array(seconds))
        why = (
            "Divide each row and its time by that time, and fit to ones: then a short prompt counts as much as a long one. "
            "Fitted in seconds, the longest prompts decide and the short ones may be off by half."
        )
        yield agree(made.first, 120, 0, expected=float(way + 120 * slope), rel=1e-6, why=why)
        yield agree(made.first, 5000, 0, expected=float(way + 5000 * slope), rel=1e-6, why=why)
    points = [(100, 0, 0.0005), (300, 0, 0.0034), (900, 0, 0.0085)]
    through = sum(n / s for n, _, s in points) / sum((n / s) ** 2 for n, _, s in points)
    why = (
        "The best straight line would start below zero. No request arrives before it is sent: `nnls` keeps constants from 0."
    )
    yield agree(call(answer, points, _WRITING).first, 10, 0, expected=10 * through, rel=1e-6, why=why)


def _pace(answer: Forecasters, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(5):
        step, person, context = rng.uniform(5e-4, 5e-3), rng.uniform(1e-5, 2e-4), rng.uniform(2e-8, 5e-7)
        made = call(answer, _READING, _writing(step, person, context, _PEOPLE))
        for n, tokens in ((2, 80), (12, 500), (64, 1000)):
            why = "TPOT = step + people · (seconds each) + people · context · (seconds a token of context)."
            yield agree(made.each, n, tokens, expected=step + person * n + context * n * tokens, rel=1e-6, why=why)
    people = [1, 2, 4, 8, 16, 32]
    seconds = [(0.001 + 3e-5 * n) * rng.uniform(0.9, 1.1) for n in people]
    made = call(answer, _READING, [(n, 0, s) for n, s in zip(people, seconds, strict=True)])
    person, step = np.polyfit(people, seconds, 1, w=1 / np.array(seconds))
    yield agree(made.each, 12, 0, expected=float(step + 12 * person), rel=1e-6, why="Relative errors here, too.")


def _settled(rate: float, prompt: int, output: int, reading: Sequence[float], writing: Sequence[float]) -> float:
    """Answers under way, by letting the two laws chase one another until they agree."""
    others = 0.0
    for _ in range(20_000):
        tpot = writing[0] + (others + 1) * (writing[1] + writing[2] * (prompt + output / 2))
        tpot /= 1 - rate * reading[1] * prompt
        found = rate * (reading[0] + reading[1] * prompt + reading[2] * others + (output - 1) * tpot)
        if abs(found - others) <= 1e-12 * found:
            break
        others = found
    return others


def _drawn(rng: random.Random) -> tuple[Constants, Constants, int, int]:
    """Constants of reading and writing, prompt tokens, output tokens."""
    reading = (rng.uniform(2e-3, 1e-2), rng.uniform(5e-6, 2e-5), rng.uniform(2e-4, 2e-3))
    writing = (rng.uniform(5e-4, 3e-3), rng.uniform(1e-5, 1e-4), rng.uniform(2e-8, 2e-7))
    return reading, writing, rng.randrange(100, 900), rng.randrange(10, 120)


def _limit(reading: Sequence[float], writing: Sequence[float], prompt: int, output: int) -> float:
    """The rate at which the crowd grows without end: where 1 = rate·w + (rate·(o − 1)/(1 − rate·r))·d, by bisection."""
    person, low, high = writing[1] + writing[2] * (prompt + output / 2), 0.0, 1 / (reading[1] * prompt)
    for _ in range(80):
        rate = (low + high) / 2
        fits = rate * reading[2] + rate * (output - 1) * person / (1 - rate * reading[1] * prompt) < 1
        low, high = (rate, high) if fits else (low, rate)
    return low


def _crowds(answer: Forecasters, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(6):
        reading, writing, prompt, output = _drawn(rng)
        made = call(answer, _reading(*reading, _PROMPTS), _writing(*writing, _PEOPLE))
        most = _limit(reading, writing, prompt, output)
        for share in (0.02, 0.3, 0.8):
            rate = share * most
            why = (
                "Little's law: answers under way = rate × the seconds that each is under way, and these seconds grow with "
                "the answers under way. Both are straight lines, so solve for the crowd."
            )
            right = _settled(rate, prompt, output, reading, writing)
            yield agree(made.crowd, rate, prompt, output, expected=right, rel=1e-5, why=why)
        for rate, what in ((1.001 * most, "just above"), (1.5 / (reading[1] * prompt), "far above")):
            found = call(made.crowd, rate, prompt, output)
            yield holds(
                f"a rate {what} what the engine can take has no settled crowd",
                found == math.inf,
                given=f"crowd({rate:.1f}, {prompt}, {output})",
                expected="inf",
                actual=found,
                why="A negative crowd, or a division by zero, is the formula's way to say that the queue never ends.",
            )
    made = call(answer, _reading(0.0, 0.01, 0.0, ((100, 0), (200, 0))), _WRITING)
    yield agree(made.crowd, 1.01, 100, 1, expected=math.inf, why="All of each second goes into reading: no time to write.")


def _loaded(answer: Forecasters, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(6):
        reading, writing, prompt, output = _drawn(rng)
        made = call(answer, _reading(*reading, _PROMPTS), _writing(*writing, _PEOPLE))
        most = _limit(reading, writing, prompt, output)
        for share in (0.0, 0.2, 0.7):
            rate = share * most
            others = _settled(rate, prompt, output, reading, writing) if rate else 0.0
            ttft = reading[0] + reading[1] * prompt + reading[2] * others
            tpot = writing[0] + (others + 1) * (writing[1] + writing[2] * (prompt + output / 2))
            tpot /= 1 - rate * reading[1] * prompt
            why = (
                "A newcomer meets the crowd, and writes in its company: one more. While others' prompts are read, nobody "
                "writes: divide TPOT by the share of the time that is left."
            )
            yield agree(made.under, rate, prompt, output, expected=(ttft, tpot), rel=1e-5, why=why)
        yield agree(made.under, 1.01 * most, prompt, output, expected=(math.inf, math.inf), why="Beyond its limit: no end.")
    still = call(answer, _reading(0.01, 0.0, 0.0, _PROMPTS), _writing(0.0, 0.01, 0.0, _PEOPLE))
    yield agree(
        still.under, 12.0, 100, 11, expected=(math.inf, math.inf), why="Where others cost a first token nothing, too."
    )


def _bounds(values: Sequence[float], q: float, level: float) -> tuple[float | None, float | None]:
    """By counting: how often k of n values lie below the true percentile, for all k, summed from the far ends."""
    n, ordered = len(values), sorted(values)
    chance = [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)]
    low = [i for i in range(1, n + 1) if math.fsum(chance[:i]) <= (1 - level) / 2]
    high = [i for i in range(1, n + 1) if math.fsum(chance[i:]) <= (1 - level) / 2]
    return ordered[max(low) - 1] if low else None, ordered[min(high) - 1] if high else None


def _tails(answer: Forecasters, rng: random.Random) -> Iterator[Outcome]:
    tail = call(answer, _READING, _WRITING).tail
    for n in (2, 7, 20, 60, 150):
        values = [rng.expovariate(10) for _ in range(n)]
        for q, level in ((0.5, 0.95), (0.9, 0.8), (0.95, 0.9)):
            ordered = sorted(values)
            at = min(v for i, v in enumerate(ordered) if (i + 1) / n >= q)
            why = (
                "Each value lies below the true percentile with probability q. The k-th smallest is a lower bound as long "
                "as it is unlikely, at most (1 − level)/2, that fewer than k do; an upper bound likewise, from the other "
                "side."
            )
            yield agree(tail, values, q, level, expected=(at, *_bounds(values, q, level)), why=why)
    for n, bounded in ((58, False), (59, True)):
        high = call(tail, [float(i) for i in range(n)], 0.95, 0.9)[2]
        yield equals(
            f"an upper bound for p95 at level 0.9, from {n} values",
            high,
            n - 1.0 if bounded else None,
            why="0.95⁵⁸ > 0.05 > 0.95⁵⁹: below 59 requests, not even the slowest one bounds the p95.",
        )


class _Absolute(Forecaster):
    """Near miss: least squares of the seconds."""

    @staticmethod
    def _fitted(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> np.ndarray:
        return np.asarray(nnls(np.array(rows, dtype=float), np.array(seconds, dtype=float))[0])


class _Below(Forecaster):
    """Near miss: constants may be negative."""

    @staticmethod
    def _fitted(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> np.ndarray:
        relative = np.array(rows) / np.array(seconds)[:, None]
        return np.asarray(np.linalg.lstsq(relative, np.ones(len(rows)), rcond=None)[0])


class _Alone(Forecaster):
    """Near miss: Little's law with the seconds that an answer takes alone."""

    def crowd(self, rate: float, prompt: float, output: float) -> float:
        return rate * (self.first(prompt, 0) + (output - 1) * self.each(1, prompt + output / 2))


class _Nobody(Forecaster):
    """Near miss: the newcomer is not counted among those who write."""

    def under(self, rate: float, prompt: float, output: float) -> tuple[float, float]:
        ttft, _ = super().under(rate, prompt, output)
        return ttft, self.each(self.crowd(rate, prompt, output), prompt + output / 2)


class _Sure(Forecaster):
    """Near miss: the slowest value stands for a bound that the sample cannot give."""

    @staticmethod
    def tail(values: Sequence[float], q: float, level: float) -> tuple[float, float | None, float | None]:
        at, low, high = Forecaster.tail(values, q, level)
        return at, min(values) if low is None else low, max(values) if high is None else high


_BOUNDARY = "no measured number lies on this boundary to the last bit; there, rounding decides"

BUILD = Exercise(
    id="02.5",
    title="Build: a forecaster, judged on what it has not seen",
    minutes=45,
    difficulty=3,
    answer="Forecaster",
    stages=(
        Stage("first tokens: three constants", _exact),
        Stage("noise: relative errors, none below zero", _relative),
        Stage("pace: people and their context", _pace),
        Stage("how many are under way", _crowds),
        Stage("first token and pace under load", _loaded),
        Stage("a percentile, and how sure it is", _tails),
    ),
    reference=Forecaster,
    hints=(
        "Both laws are sums of products: a row is (1, prompt, others), or (1, people, people · context). Least squares "
        "finds the constants: `nnls(rows, times)[0]` finds those from 0.",
        "A relative error is (row · constants) / time − 1. So divide every row by its time, and fit to ones.",
        "With N under way: N = rate · (first(prompt, N) + (output − 1) · each(N + 1, context) / w), where "
        "w = 1 − rate · prompt · (seconds a prompt token) is what reading leaves of each second, and the context is on "
        "average prompt + output / 2. Collect the terms with N on one side. No N from 0 solves it? Then it is infinite.",
        "For the tail, sort. The chance that exactly k of n values lie below the true percentile is "
        "comb(n, k) · q^k · (1 − q)^(n − k); `accumulate` sums it up to each k.",
    ),
    wrong=(_Absolute, _Below, _Alone, _Nobody, _Sure),
    equivalent={
        "line 30: writes <= 0 -> writes < 0": _BOUNDARY,
        "line 35: left > 0 -> left >= 0": _BOUNDARY,
        "line 54: chance <= (1 - level) / 2 -> chance < (1 - level) / 2": _BOUNDARY,
        "line 55: chance >= (1 + level) / 2 -> chance > (1 + level) / 2": _BOUNDARY,
    },
)
