"""Chapter 12: what failures cost, when asking again pays, and what makes a short outage a long one."""
# ruff: noqa: ARG001, ARG002 - near misses keep the signature they share

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from labkit.request import Request, clock
from labkit.resilience import Allowance, Weather, storm
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b12 import BUILD
from labkit.workbook.chapters.q12 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds


def cost_multiplier(failing: float, written: float, prompt_usd: float, again_usd: float, answer_usd: float) -> float:
    """Dollars paid, over the dollars of the same answers without any failure."""
    if failing == 1:
        return math.inf
    failures = failing / (1 - failing)
    return 1 + failures * (again_usd + written * answer_usd) / (prompt_usd + answer_usd)


def _check_multiplier(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, 0.0, 0.9, 1.0, 1.0, 1.0, expected=1.0, why="Nothing fails, nothing is paid twice.")
    yield agree(
        answer, 0.5, 0.9, 0.0, 0.0, 2.0, expected=1.9, why="One failure for each answer, with nine tenths of it written."
    )
    yield agree(
        answer, 0.5, 0.0, 1.0, 1.0, 1.0, expected=1.5, why="One failure for each answer; it read, and wrote nothing."
    )
    yield agree(answer, 0.5, 0.0, 1.0, 0.0, 3.0, expected=1.0, why="The second reading was free, and nothing was written.")
    yield agree(answer, 0.75, 0.5, 2.0, 1.0, 2.0, expected=2.5, why="Three failures for each answer, each of 1 + 1 dollars.")
    yield agree(answer, 1.0, 0.5, 1.0, 1.0, 1.0, expected=math.inf, why="Everything fails: no answer, whatever is paid.")
    for _ in range(30):
        prompt = rng.uniform(0.1, 2)
        given = (rng.random(), rng.random(), prompt, prompt * rng.choice((0.1, 0.5, 1.0)), rng.uniform(0.1, 5))
        yield agree(answer, *given, expected=cost_multiplier(*given))


class Budget:
    """Of the requests of the last `seconds`, `percent` of 100 may be made again."""

    def __init__(self, percent: int, seconds: float) -> None:
        self.percent, self.seconds = percent, seconds
        self.requests: deque[float] = deque()
        self.retries: deque[float] = deque()

    def request(self, now: float) -> None:
        """A request is made for the first time, at second `now`."""
        self.requests.append(now)

    def may_retry(self, now: float) -> bool:
        """Whether one more retry may be made at second `now`; if so, it counts from now on."""
        for times in (self.requests, self.retries):
            while times and times[0] <= now - self.seconds:
                times.popleft()
        if 100 * (len(self.retries) + 1) > self.percent * len(self.requests):
            return False
        self.retries.append(now)
        return True


class Plugged:
    """Any budget with `request` and `may_retry`, as a budget of `labkit.resilience.Retry`."""

    refused = 0

    def __init__(self, budget: Any) -> None:
        self.budget = budget

    def of(self, request: Request, *, first: bool) -> Allowance:
        """The dealings of `request`, which are those of all."""
        if first:
            self.budget.request(clock.now())
        return self

    def take(self, error: Exception, /) -> bool:
        """Whether an attempt may be made again now."""
        allowed = bool(self.budget.may_retry(clock.now()))
        self.refused += not allowed
        return allowed

    def put_back(self) -> None:
        """Nothing: a retry that was allowed counts, made or not."""

    def ended(self, attempts: Any) -> None:
        """Nothing: what an attempt did cost is not counted."""

    def answered(self) -> None:
        """Nothing: an answer gives nothing back."""


_SMALL = Weather(load=0.6, slots=4, lasts_s=60, outage_at=10.0, outage_s=10.0)
"""A storm of a minute, for the check."""


def _played(answer: Any, percent: int, seconds: float, events: list[tuple[str, float]]) -> list[bool]:
    """What a budget says to each retry of `events`."""

    def play() -> list[bool]:
        budget = answer(percent, seconds)
        said = []
        for what, now in events:
            if what == "request":
                budget.request(now)
            else:
                said.append(budget.may_retry(now))
        return said

    found: list[bool] = call(play)
    return found


def _by_hand(percent: int, seconds: float, events: list[tuple[str, float]]) -> list[bool]:
    """The rule, written as it is said."""
    requests: list[float] = []
    retries: list[float] = []
    said: list[bool] = []
    for what, now in events:
        if what == "request":
            requests.append(now)
            continue
        there = [sum(now - seconds < at <= now for at in times) for times in (requests, retries)]
        said.append(100 * (there[1] + 1) <= percent * there[0])
        retries += [now] * said[-1]
    return said


def _check_budget(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def told(percent: int, seconds: float, events: list[tuple[str, float]], why: str) -> Outcome:
        expected, actual = _by_hand(percent, seconds, events), _played(answer, percent, seconds, events)
        return holds(
            f"Budget({percent}, {seconds:g})", actual == expected, given=events, expected=expected, actual=actual, why=why
        )

    def asked(*times: float) -> list[tuple[str, float]]:
        return [("request", at) for at in times]

    def again(*times: float) -> list[tuple[str, float]]:
        return [("retry", at) for at in times]

    five = asked(0, 1, 2, 3, 4)
    yield told(20, 10.0, [*five, *again(4)], "Five requests give one retry at 20 %.")
    yield told(20, 10.0, [*five[:4], *again(4)], "Four requests do not.")
    yield told(20, 10.0, [*five, *again(4, 5, 6)], "The second and the third are too many.")
    yield told(100, 10.0, [*asked(0), *again(10)], "A request that is 10 s old does not count any more.")
    yield told(100, 10.0, [*asked(0), *again(9.5)], "One that is 9.5 s old does.")
    yield told(
        100, 10.0, [*asked(0, 8), *again(1, 10.5)], "The retry of second 1 still counts at 10.5; one request is left."
    )
    yield told(100, 10.0, [*asked(0, 8), *again(1, 11)], "At 11 it is 10 s old: the request of second 8 allows one.")
    yield told(100, 4.0, [*asked(0, 0), *again(0, 0, 0)], "All at once: two are allowed.")
    yield told(50, 10.0, [*asked(0, 0), *again(1, 1), *asked(1, 1), *again(2)], "A refused retry costs nothing.")
    yield told(99, 10.0, [*asked(0), *again(0)], "99 % of one request are no retry.")
    yield told(0, 10.0, [*five, *again(4)], "No budget, no retry.")
    yield told(20, 10.0, again(1), "Without requests there is nothing to make again.")
    for _ in range(25):
        now, events = 0.0, []
        for _ in range(rng.randrange(5, 60)):
            now += rng.choice((0.0, 0.5, 0.5, 1.0, 2.5))
            events.append((rng.choice(("request", "request", "retry")), now))
        yield told(rng.choice((5, 10, 20, 50, 100)), rng.choice((2.0, 5.0, 10.0)), events, "")
    run = call(lambda: storm(_SMALL, (Plugged(answer(10, 10.0)),)))
    yield holds(
        "the storm ends",
        run.recovered,
        given="an outage of 10 s at 60 % load, three attempts, your budget of 10 %",
        expected="requests are answered again",
        actual=f"{sum(run.answered[-10:])} answers to {sum(run.offered[-10:])} requests in the last 10 s",
    )


def next_step(status: int | None, begun: bool, wait_s: float, takes_s: float, left_s: float) -> str:
    """What to do after a failure: "again", "resume" or "stop"."""
    passes = status is None or status in (408, 409, 429) or (500 <= status <= 599 and status not in (501, 505))
    if not passes or wait_s + takes_s >= left_s:
        return "stop"
    return "resume" if begun else "again"


def _check_step(answer: Callable[..., str], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, None, False, 0.0, 1.0, 5.0, expected="again", why="The connection broke before the first word.")
    yield agree(answer, None, True, 0.0, 1.0, 5.0, expected="resume", why="The reader has a part: no word may come twice.")
    yield agree(answer, 429, False, 4.0, 1.0, 5.0, expected="stop", why="It would end when the time is over, not before.")
    yield agree(answer, 429, False, 3.5, 1.0, 5.0, expected="again", why="There are 4.5 of 5 s to use.")
    yield agree(answer, 503, False, 1.0, 4.5, 5.0, expected="stop", why="An attempt takes 4.5 s, after a wait of 1 s.")
    yield agree(answer, 402, True, 0.0, 1.0, 5.0, expected="stop", why="No money now, no money later.")
    for status in (*range(400, 432), *range(498, 512), 598, 599, 600):
        begun = rng.random() < 0.5
        yield agree(answer, status, begun, 0.1, 1.0, 5.0, expected=next_step(status, begun, 0.1, 1.0, 5.0))
    for _ in range(20):
        given = (rng.choice((None, 429, 500, 404)), rng.random() < 0.5, rng.randrange(4), rng.randrange(4), rng.randrange(7))
        yield agree(answer, *given, expected=next_step(*given))


def resume_saves(prompt: int, received: int, found: int, fresh_usd: float, cached_usd: float, output_usd: float) -> float:
    """Dollars that going on saves against starting over; below 0 where it costs more."""
    over = min(found, prompt)
    again = over * cached_usd + (prompt - over) * fresh_usd + received * output_usd
    resumed = found * cached_usd + (prompt + received - found) * fresh_usd
    return again - resumed


def _check_resume(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer, 1_000, 100, 0, 1e-6, 1e-7, 1e-5, expected=0.0009, abs=1e-12,
        why="Both read the prompt. 100 tokens are read in place of written: 0.0001 in place of 0.001.",
    )  # fmt: skip
    yield agree(
        answer, 1_000, 100, 1_100, 1e-6, 1e-7, 1e-5, expected=0.00099, abs=1e-12,
        why="All is in the cache, also what the engine wrote. Starting over finds the prompt there, and no more.",
    )  # fmt: skip
    yield agree(
        answer, 1_000, 100, 1_050, 1e-6, 1e-7, 1e-5, expected=0.001 - 50e-6 - 50e-7, abs=1e-12,
        why="Half of what was received is found.",
    )  # fmt: skip
    yield agree(answer, 500, 0, 0, 1e-6, 1e-7, 1e-5, expected=0.0, abs=1e-12, why="Nothing had come: it is the same.")
    yield agree(
        answer, 500, 100, 0, 1e-5, 1e-5, 1e-6, expected=-0.0009, abs=1e-12,
        why="Where reading is dearer than writing, going on costs more.",
    )  # fmt: skip
    for _ in range(30):
        prompt, received = rng.randrange(10, 4_000), rng.randrange(0, 800)
        found = rng.choice((0, prompt // 2, prompt, prompt + received // 2, prompt + received))
        given = (prompt, received, found, 1.25e-6, rng.choice((1.25e-7, 6e-7)), 1e-5)
        yield agree(answer, *given, expected=resume_saves(*given), abs=1e-12)


# --- near misses ------------------------------------------------------------------------------------------------------


def _attempts_times_price(failing: float, written: float, prompt_usd: float, again_usd: float, answer_usd: float) -> float:
    """Near miss: every attempt is a whole one, as availability's arithmetic has it."""
    return math.inf if failing == 1 else 1 / (1 - failing)


def _one_retry(failing: float, written: float, prompt_usd: float, again_usd: float, answer_usd: float) -> float:
    """Near miss: forgets that the second attempt fails as often as the first."""
    if failing == 1:
        return math.inf
    return 1 + failing * (again_usd + written * answer_usd) / (prompt_usd + answer_usd)


def _reading_is_free(failing: float, written: float, prompt_usd: float, again_usd: float, answer_usd: float) -> float:
    """Near miss: counts what was written only."""
    return cost_multiplier(failing, written, prompt_usd, 0.0, answer_usd)


class _Bucket(Budget):
    """Near miss: saves credit from quiet times, and spends it all in the outage."""

    def may_retry(self, now: float) -> bool:
        if 100 * (len(self.retries) + 1) > self.percent * len(self.requests):
            return False
        self.retries.append(now)
        return True


class _ForOne(Budget):
    """Near miss: a limit in place of a budget: any retry is fine as long as there are requests."""

    def may_retry(self, now: float) -> bool:
        return bool(self.requests) and self.percent > 0


class _RefusedCount(Budget):
    """Near miss: refused retries use the budget up."""

    def may_retry(self, now: float) -> bool:
        allowed = super().may_retry(now)
        if not allowed:
            self.retries.append(now)
        return allowed


def _all_errors(status: int | None, begun: bool, wait_s: float, takes_s: float, left_s: float) -> str:
    """Near miss: asks again whatever happened."""
    return next_step(None, begun, wait_s, takes_s, left_s)


def _always_again(status: int | None, begun: bool, wait_s: float, takes_s: float, left_s: float) -> str:
    """Near miss: sends the request again though the reader has a part."""
    return next_step(status, False, wait_s, takes_s, left_s)


def _no_time_needed(status: int | None, begun: bool, wait_s: float, takes_s: float, left_s: float) -> str:
    """Near miss: begins an attempt that cannot end in time."""
    return next_step(status, begun, wait_s, 0.0, left_s)


def _cache_finds_answers(
    prompt: int, received: int, found: int, fresh_usd: float, cached_usd: float, output_usd: float
) -> float:
    """Near miss: believes that starting over finds the written part in the prefix cache, too."""
    again = found * cached_usd + (prompt - found) * fresh_usd + received * output_usd
    return again - found * cached_usd - (prompt + received - found) * fresh_usd


def _prompt_forgotten(
    prompt: int, received: int, found: int, fresh_usd: float, cached_usd: float, output_usd: float
) -> float:
    """Near miss: whoever goes on has no prompt to read."""
    return resume_saves(prompt, received, found, fresh_usd, cached_usd, output_usd) + prompt * fresh_usd


CHAPTER = Chapter(
    number="12",
    name="retries_and_failures",
    title="Failures: paid for nothing",
    predictions=("12.again", "12.timeout", "12.storm"),
    claims=("12.double", "12.budget"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("vllm",),
    exercises=(
        Exercise(
            id="12.1",
            title="The cost multiplier",
            minutes=4,
            difficulty=1,
            answer="cost_multiplier",
            check=_check_multiplier,
            reference=cost_multiplier,
            hints=(
                "How many attempts fail before one succeeds? With a share q failing it is q / (1 − q) on average.",
                "A failed attempt costs `again_usd + written * answer_usd`: whichever succeeds, one reads the prompt for "
                "the first time.",
                "Divide all that is paid by `prompt_usd + answer_usd`; and think of a share of 1.",
            ),
            wrong=(_attempts_times_price, _one_retry, _reading_is_free),
            equivalent={"line 3: failing == 1 -> failing >= 1": "a share is at most 1"},
        ),
        Exercise(
            id="12.2",
            title="Stop the storm",
            minutes=10,
            difficulty=3,
            answer="Budget",
            check=_check_budget,
            reference=Budget,
            hints=(
                "Keep the times of the requests, and those of the retries that were allowed.",
                "First throw away what is `seconds` old or older, of both.",
                "One more is allowed where `100 * (retries + 1) <= percent * requests`. Whole numbers are exact.",
            ),
            wrong=(_Bucket, _ForOne, _RefusedCount),
        ),
        Exercise(
            id="12.3",
            title="Again, on, or stop",
            minutes=5,
            difficulty=2,
            answer="next_step",
            check=_check_step,
            reference=next_step,
            hints=(
                "Three questions, in this order: may it pass, is there time, has the reader a part?",
                "The time: the wait and the attempt must end *before* `left_s` seconds are over.",
                "Of the statuses from 500 to 599, two say that the server cannot do this at all: 501 and 505.",
            ),
            wrong=(_all_errors, _always_again, _no_time_needed),
        ),
        Exercise(
            id="12.4",
            title="What going on saves",
            minutes=6,
            difficulty=2,
            answer="resume_saves",
            check=_check_resume,
            reference=resume_saves,
            hints=(
                "Write both bills: starting over reads the prompt and writes `received` tokens; going on reads both.",
                "`found` tokens of what going on reads come from the cache. Starting over has a prompt only.",
                "Of the prompt, starting over finds `min(found, prompt)`.",
            ),
            wrong=(_cache_finds_answers, _prompt_forgotten),
        ),
        BUILD,
    ),
)
