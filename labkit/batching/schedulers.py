"""A step loop for policies that put requests into an engine's steps.

A step feeds tokens of some requests through the model: prompt tokens (prefill), and one token for each request that is
already writing (decode). The step that feeds the last prompt token yields the first output token, so a request takes
`prompt + output − 1` tokens of work. What a step holds is a policy's decision (`labkit.batching.policies`); the loop holds
it to the limits and keeps the time.

There is no memory to run out of: `labkit.engines.modelled` has vLLM's own rules with KV blocks, prefix cache and preemption.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from labkit.request import InvalidValue

StepSeconds = Callable[[int, int], float]
"""Seconds of a step from (prompt tokens in it, requests that decode in it)."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request: when it comes, in seconds, and how many tokens its prompt and its answer have."""

    arrival: float
    prompt: int
    output: int

    def __post_init__(self) -> None:
        if not (self.arrival >= 0 and math.isfinite(self.arrival)):
            raise InvalidValue(f"arrival is {self.arrival}; use seconds from 0")
        if self.prompt < 1 or self.output < 1:
            raise InvalidValue(f"a job of {self.prompt} prompt and {self.output} output tokens; both start at 1")

    @property
    def work(self) -> int:
        """Tokens to feed through the model: the last output token is not fed back."""
        return self.prompt + self.output - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one step may hold: `max_sequences` requests, `token_budget` tokens of them together (vLLM's
    `max_num_seqs` and `max_num_batched_tokens`).
    """

    max_sequences: int
    token_budget: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequences <= self.token_budget:
            raise InvalidValue(
                f"max_sequences is {self.max_sequences} and token_budget {self.token_budget}; use 1 or more sequences, "
                "and a budget that gives each of them its token"
            )


@dataclass(frozen=True, slots=True)
class LoopStep:
    """One step: it begins at `at` and takes `seconds`; `tokens` tells how many of each job's tokens it feeds.

    Jobs are named by their place in the list that was given. A bar from `at` to `end` for each of them is a Gantt chart.
    """

    at: float
    seconds: float
    tokens: Mapping[int, int]

    @property
    def end(self) -> float:
        """When its output tokens are there, in seconds."""
        return self.at + self.seconds


@dataclass(frozen=True, slots=True)
class Served:
    """When a job's first and last token were written, in seconds from 0."""

    first_token: float
    finish: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a policy made of the jobs: `served` in their order."""

    steps: tuple[LoopStep, ...]
    served: tuple[Served, ...]

    @property
    def finish(self) -> float:
        """When the last job was done, in seconds from 0."""
        return max((served.finish for served in self.served), default=0.0)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees between two steps, at second `now`.

    `running` (they hold a seat) and `waiting` are in the order of arrival; `fed` says how many tokens each job has had.
    """

    now: float
    jobs: Sequence[Job]
    limits: Limits
    running: Sequence[int]
    waiting: Sequence[int]
    fed: Sequence[int]
    more_to_come: bool


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the next step feeds, {job: tokens}; if nothing, the policy is asked again at the next arrival or `again`.

    A job that waited has a seat from its first tokens to its last.
    """

    tokens: Mapping[int, int] = field(default_factory=dict)
    again: float = math.inf


StepPolicy = Callable[[View], StepPlan]
"""What the next step holds."""


def run_schedule(jobs: Sequence[Job], policy: StepPolicy, limits: Limits, step_seconds: StepSeconds) -> Schedule:
    """Take `jobs` through step after step until all are done.

    Raises `InvalidValue` for a step that takes no time, and for a policy that breaks the limits or leaves jobs behind,
    as every policy but `chunked_prefill` must with a prompt above the token budget.
    """
    order = sorted(range(len(jobs)), key=lambda i: jobs[i].arrival)
    fed = [0] * len(jobs)
    first: dict[int, float] = {}
    finish: dict[int, float] = {}
    steps: list[LoopStep] = []
    running: list[int] = []
    waiting: list[int] = []
    come = 0
    now = 0.0
    while len(finish) < len(jobs):
        while come < len(order) and jobs[order[come]].arrival <= now:
            waiting.append(order[come])
            come += 1
        plan = policy(View(now, jobs, limits, running, waiting, fed, come < len(order)))
        if not plan.tokens:
            later = min(plan.again, jobs[order[come]].arrival if come < len(order) else math.inf)
            if not now < later < math.inf:
                raise InvalidValue(
                    f"the policy leaves jobs {sorted({*running, *waiting})} behind at {now:.6g} s; does the token budget of "
                    f"{limits.token_budget} hold the longest prompt?"
                )
            now = later
            continue
        if plan.tokens.keys() - set(running):  # not in every step: under overload the queue is long
            running += [job for job in waiting if job in plan.tokens]
            waiting = [job for job in waiting if job not in plan.tokens]
        step = _step(now, plan.tokens, jobs, fed, running, limits, step_seconds)
        steps.append(step)
        now = step.end
        for job, tokens in plan.tokens.items():
            fed[job] += tokens
            if fed[job] >= jobs[job].prompt:
                first.setdefault(job, now)
            if fed[job] == jobs[job].work:
                finish[job] = now
        running = [job for job in running if job not in finish]
    return Schedule(tuple(steps), tuple(Served(first[i], finish[i]) for i in range(len(jobs))))


def _step(
    now: float,
    tokens: Mapping[int, int],
    jobs: Sequence[Job],
    fed: Sequence[int],
    running: Sequence[int],
    limits: Limits,
    step_seconds: StepSeconds,
) -> LoopStep:
    prefill = decode = 0
    for job, new in tokens.items():
        left = jobs[job].prompt - fed[job]
        if job not in running or not 1 <= new <= (left if left > 0 else 1):
            raise InvalidValue(
                f"the policy feeds {new} tokens of job {job}, which has {max(left, 1)} to take, if it is there"
            )
        prefill, decode = (prefill + new, decode) if left > 0 else (prefill, decode + new)
    if len(running) > limits.max_sequences or prefill + decode > limits.token_budget:
        raise InvalidValue(f"the policy runs {len(running)} jobs and feeds {prefill + decode} tokens; {limits} allows less")
    seconds = step_seconds(prefill, decode)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InvalidValue(f"a step of {prefill} prefill tokens and {decode} decodes takes {seconds} s; give more than 0")
    return LoopStep(now, seconds, dict(tokens))
