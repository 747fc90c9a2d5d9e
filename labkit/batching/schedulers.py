"""A step loop for policies that put requests into an engine's steps.

A step feeds tokens of some requests through the model: prompt tokens (prefill), and one token for each request that is
already writing (decode). The step that feeds the last prompt token yields the first output token, so a request takes
`prompt + output − 1` tokens of work. A policy decides what a step holds (`labkit.batching.policies`); the loop checks the
limits and keeps the time.

This loop has no memory that could run out. For vLLM's own rules with KV blocks, prefix cache and preemption, see
`labkit.engines.modelled`.
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
    """A request with its `arrival` in seconds from 0 and the numbers of tokens of its `prompt` and `output`."""

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
    """The most that one step may hold.

    `max_sequences` requests, and `token_budget` tokens of all of them together (vLLM's `max_num_seqs` and
    `max_num_batched_tokens`). Raises `InvalidValue` for a budget that does not give each request its token.
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
    """One step of the loop, from second `at`, `seconds` long; `tokens` maps each job to the number of tokens it feeds.

    A job is named by its index in the list given to `run_schedule`. Bars from `at` to `end` for each job make a Gantt chart.
    """

    at: float
    seconds: float
    tokens: Mapping[int, int]

    @property
    def end(self) -> float:
        """When the step ends and its output tokens exist, in seconds from 0."""
        return self.at + self.seconds


@dataclass(frozen=True, slots=True)
class Served:
    """When a job's first and last token were written, in seconds from 0."""

    first_token: float
    finish: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a policy served the jobs: all steps, and in `served` one entry per job, in the order of the jobs."""

    steps: tuple[LoopStep, ...]
    served: tuple[Served, ...]

    @property
    def finish(self) -> float:
        """When the last job was done, in seconds from 0."""
        return max((served.finish for served in self.served), default=0.0)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees between two steps, at second `now`.

    `running` (jobs that hold a seat) and `waiting` are in order of arrival. `fed` is the number of tokens that each job has
    been fed so far. `more_to_come` is true while some jobs have not arrived yet.
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
    """The number of `tokens` that the next step feeds of each job.

    If it feeds nothing, the policy is asked again at the next arrival or at second `again`, whichever is first. A job holds
    a seat from its first fed token to its last.
    """

    tokens: Mapping[int, int] = field(default_factory=dict)
    again: float = math.inf


StepPolicy = Callable[[View], StepPlan]
"""Decides what the next step holds."""


def run_schedule(jobs: Sequence[Job], policy: StepPolicy, limits: Limits, step_seconds: StepSeconds) -> Schedule:
    """Run `jobs` step by step under `policy` until all are done.

    Raises `InvalidValue` where `step_seconds` gives no finite time above 0, and for a policy that breaks the limits or never
    serves some of the jobs. Every policy but `chunked_prefill` fails in this way for a prompt above the token budget.
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
