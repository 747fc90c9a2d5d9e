"""Four policies that fill an engine's steps; in all of them, the request that came first is served first.

- `static`: wait for a full batch, run it to its end, take the next. A request that ends early leaves an empty seat.
- `dynamic(max_wait_s)`: the same, but a batch starts when its first request has waited `max_wait_s`.
- `continuous`: first one token for each running request, then whole prompts of waiting requests, so that seats are filled
  between steps (iteration-level scheduling; Orca, Yu et al., OSDI 2022).
- `chunked_prefill`: the same, but a prompt may be cut to the rest of the step's budget, so that long prompts neither wait
  for room nor make the step long for all (Sarathi-Serve, Agrawal et al., OSDI 2024; vLLM's default).

Where memory never runs out, the last two take the same steps as vLLM's scheduler: the tests compare them with
`labkit.engines.modelled`, which is itself compared with vLLM's own classes.
"""

from __future__ import annotations

import math

from labkit.batching.schedulers import StepPlan, StepPolicy, View
from labkit.request import InvalidValue


def static(view: View) -> StepPlan:
    """Full batches, each run to its end; the last one may be smaller.

    A batch is full with `max_sequences` requests, or when the next prompt does not fit into its prefill step.
    """
    return _whole_batches(view, math.inf)


def dynamic(max_wait_s: float) -> StepPolicy:
    """Batches that start when full, or when their first request has waited `max_wait_s` seconds, and run to their end."""
    if not max_wait_s >= 0:
        raise InvalidValue(f"max_wait_s is {max_wait_s}; use seconds from 0")
    return lambda view: _whole_batches(view, max_wait_s)


def continuous(view: View) -> StepPlan:
    """Seats are filled between steps, with whole prompts."""
    return _between_steps(view, cut=False)


def chunked_prefill(view: View) -> StepPlan:
    """Seats are filled between steps, with as much of a prompt as fits into the rest of the token budget."""
    return _between_steps(view, cut=True)


def _whole_batches(view: View, max_wait_s: float) -> StepPlan:
    if view.running:
        return StepPlan(dict.fromkeys(view.running, 1))  # their prompts were fed in the batch's first step
    batch: dict[int, int] = {}
    for job in view.waiting[: view.limits.max_sequences]:
        if sum(batch.values()) + view.jobs[job].prompt > view.limits.token_budget:
            break
        batch[job] = view.jobs[job].prompt
    if not batch:
        return StepPlan()
    due = view.jobs[view.waiting[0]].arrival + max_wait_s
    full = len(batch) == view.limits.max_sequences or len(batch) < len(view.waiting)
    if full or view.now >= due or not view.more_to_come:
        return StepPlan(batch)
    return StepPlan(again=due)


def _between_steps(view: View, cut: bool) -> StepPlan:
    budget = view.limits.token_budget
    tokens: dict[int, int] = {}
    for job in view.running:
        new = min(max(1, view.jobs[job].prompt - view.fed[job]), budget)
        if new:
            tokens[job] = new
            budget -= new
    for job in view.waiting[: view.limits.max_sequences - len(view.running)]:
        new = min(view.jobs[job].prompt, budget) if cut else view.jobs[job].prompt
        if not 1 <= new <= budget:
            break  # later requests do not overtake it
        tokens[job] = new
        budget -= new
    return StepPlan(tokens)
