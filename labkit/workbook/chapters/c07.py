"""Chapter 07: how requests share a machine's steps."""
# ruff: noqa: ARG001, ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

from labkit.batching import Job, Limits, Schedule, StepPlan, View, chunked_prefill, run_schedule, static
from labkit.request import InvalidValue
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b07
from labkit.workbook.chapters.q07 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds


def idle_share(outputs: Sequence[int], seats: int) -> float:
    """Share of seat-steps that fixed batches leave empty, when each batch runs until its longest answer is written."""
    paid = sum(seats * max(outputs[i : i + seats]) for i in range(0, len(outputs), seats))
    return 1 - sum(outputs) / paid


def _simulated_idle(outputs: Sequence[int], seats: int) -> float:
    """The same as `idle_share`, counted in the lab's step loop with one-token prompts, whose prefill writes a token."""
    jobs = [Job(0.0, 1, tokens) for tokens in outputs]
    steps = run_schedule(jobs, static, Limits(seats, max(seats, 64)), lambda prefill, decode: 1.0).steps
    return 1 - sum(len(step.tokens) for step in steps) / (seats * len(steps))


def _check_idle(answer: Callable[[Sequence[int], int], float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, [10, 10, 10, 10], 4, expected=0.0, abs=1e-12, why="Equal answers end together: nothing is idle.")
    yield agree(answer, [10, 2], 2, expected=0.4, why="Two seats for ten steps, and the short answer leaves 8 of 20 empty.")
    yield agree(answer, [10, 10, 10], 2, expected=0.25, why="The last batch has one request, and its other seat is empty.")
    for _ in range(20):
        seats = rng.randrange(1, 9)
        outputs = [1 + int(rng.expovariate(1 / 40)) for _ in range(rng.randrange(1, 40))]
        yield agree(answer, outputs, seats, expected=_simulated_idle(outputs, seats), abs=1e-9)


def bulk_way(
    list_usd: float, discount: float, window_h: float, gpu_hours: float, idle: Sequence[float], gpu_usd: float
) -> tuple[str, float]:
    """The cheapest way in time for bulk work, and the USD a month that worse answers may cost before it is another one.

    One's own GPUs are the cheapest only if they cost less than every other way in time; what they may lose is the distance
    to the next. 0 where another way is chosen.
    """
    ways = {"list price": list_usd}
    if window_h <= len(idle):
        ways["batch API"] = list_usd * (1 - discount)
    other = min(ways, key=lambda name: ways[name])
    further = max(0.0, gpu_hours - sum(idle)) / len(idle)
    own = math.ceil(further) * gpu_usd
    if own < ways[other]:
        return "own GPUs", ways[other] - own
    return other, 0.0


BulkAnswer = Callable[[float, float, float, float, Sequence[float], float], tuple[str, float]]


def _check_way(answer: BulkAnswer, rng: random.Random) -> Iterator[Outcome]:
    night = [2.0, 4.0, 4.0]
    for args, expected, why in (
        ((900.0, 0.5, 24, 8.0, night, 700.0), ("own GPUs", 900.0), "Ten GPU-hours stand idle and are paid for."),
        ((900.0, 0.5, 24, 2.0, [5.0], 700.0), ("own GPUs", 900.0), "Hours left over bring no money back."),
        ((900.0, 0.5, 24, 10.0, night, 700.0), ("own GPUs", 900.0), "It just fits."),
        ((900.0, 0.5, 24, 10.5, night, 700.0), ("own GPUs", 200.0), "Part of a GPU is missing, and a whole one is rented."),
        ((900.0, 0.5, 24, 13.5, night, 700.0), ("list price", 0.0), "3.5 GPU-hours are missing in 3 hours: two GPUs."),
        (
            (900.0, 0.5, 3, 8.0, night, 700.0),
            ("own GPUs", 450.0),
            "Three hours are left, and three are promised: the next is the batch.",
        ),
        ((900.0, 0.5, 3, 13.0, night, 700.0), ("batch API", 0.0), "One more GPU costs more than the batch."),
        ((900.0, 0.0, 3, 13.0, night, 900.0), ("list price", 0.0), "All cost the same: the first of equals."),
        (
            (900.0, 0.2, 3, 13.0, night, 720.0),
            ("batch API", 0.0),
            "The batch API and the GPUs cost the same: the first of equals.",
        ),
        ((900.0, 0.5, 4, 16.0, night, 440.0), ("own GPUs", 20.0), "Two GPUs for what is missing; the batch comes too late."),
    ):
        yield agree(answer, *args, expected=expected, why=why)
    for _ in range(30):
        hours = rng.randrange(2, 15)
        idle = [float(rng.randrange(0, 6)) for _ in range(hours)]
        missing = rng.choice([-1.5, 0.25, 0.75, 1.25, 2.5])  # in GPUs, so that no count of them is a matter of rounding
        need = max(0.0, sum(idle) + missing * hours)
        args = (rng.uniform(500, 9_000), rng.choice([0.25, 0.5]), rng.choice([1, hours, hours + 1, 24]), need, idle, 700.0)
        yield agree(answer, *args, expected=bulk_way(*args), abs=1e-6)


def _late_batch(
    list_usd: float, discount: float, window_h: float, gpu_hours: float, idle: Sequence[float], gpu_usd: float
) -> tuple[str, float]:
    """Near miss: the batch API's window is not held against the deadline."""
    return bulk_way(list_usd, discount, 0, gpu_hours, idle, gpu_usd)


def _parts_of_gpus(
    list_usd: float, discount: float, window_h: float, gpu_hours: float, idle: Sequence[float], gpu_usd: float
) -> tuple[str, float]:
    """Near miss: rents parts of GPUs."""
    missing = max(0.0, gpu_hours - sum(idle)) / len(idle)
    return bulk_way(list_usd, discount, window_h, sum(idle) + (missing > 0), idle, missing * gpu_usd)


def _against_the_list(
    list_usd: float, discount: float, window_h: float, gpu_hours: float, idle: Sequence[float], gpu_usd: float
) -> tuple[str, float]:
    """Near miss: the break-even is counted from the list price, though a batch in time is cheaper."""
    way, worth = bulk_way(list_usd, discount, window_h, gpu_hours, idle, gpu_usd)
    return way, bulk_way(list_usd, 0.0, window_h, gpu_hours, idle, gpu_usd)[1] if worth else 0.0


def _once_for_all_hours(
    list_usd: float, discount: float, window_h: float, gpu_hours: float, idle: Sequence[float], gpu_usd: float
) -> tuple[str, float]:
    """Near miss: a GPU for each missing GPU-hour, as if it ran for one hour a night."""
    missing = max(0.0, gpu_hours - sum(idle))
    return bulk_way(list_usd, discount, window_h, sum(idle) + missing * len(idle), idle, gpu_usd)


RunSeconds = Callable[[int], float]
StartBy = Callable[[float, int, RunSeconds, int, float], float]


def start_by(oldest: float, waiting: int, run_s: RunSeconds, max_size: int, budget_s: float) -> float:
    """The latest start of a batch, in seconds, that answers its oldest item within the budget.

    It leaves room for one more item that joins just before the start. A full batch starts at once.
    """
    if waiting >= max_size:
        return oldest
    return oldest + budget_s - run_s(waiting + 1)


def _batches(
    rule: StartBy, arrivals: Sequence[float], run_s: RunSeconds, max_size: int, budget_s: float
) -> list[tuple[float, list[float]]]:
    """(end, arrivals of its items) of each batch, when batches run one at a time and `rule` names their starts.

    Empty when `rule` names a start that is not finite.
    """
    queue = list(arrivals)
    free, done = 0.0, []
    while queue:
        now = max(free, queue[0])
        n = sum(at <= now for at in queue)
        while True:
            n = min(n, max_size)
            start = max(now, call(rule, queue[0], n, run_s, max_size, budget_s))
            if not math.isfinite(start):
                return []
            if n < max_size and n < len(queue) and queue[n] <= start:
                now = max(now, queue[n])
                n += 1
                continue
            break
        free = start + run_s(n)
        done.append((free, queue[:n]))
        del queue[:n]
    return done


def _check_rule(answer: StartBy, rng: random.Random) -> Iterator[Outcome]:
    full = call(answer, 5.0, 8, lambda n: 0.01 * n, 8, 1.0)
    yield holds("it names a time", isinstance(full, (int, float)), expected="seconds, as a number", actual=repr(full))
    if not isinstance(full, (int, float)):
        return
    yield holds(
        "a full batch does not wait",
        full <= 5.0,
        given="oldest 5.0, 8 waiting, max_size 8",
        expected="5.0 or earlier",
        why="Nobody can join any more: waiting buys nothing.",
    )
    runs = _batches(answer, [0.0, 0.75], lambda n: 0.1 * n, 3, 1.0)
    yield holds(
        "it leaves room for one more item, and for no second one",
        len(runs) == 1,
        given="items at 0 and 0.75 s, a run of n takes 0.1·n s, at most 3 in it, budget 1 s",
        expected="one run, of both",
        actual=f"{len(runs)} runs, done at {[round(end, 3) for end, _ in runs]} s",
        why="With room for one more the first item can wait until 0.8 s, and with room for two only until 0.7 s.",
    )
    for _ in range(25):
        max_size = rng.randrange(3, 24)
        fixed, each = rng.uniform(0.002, 0.03), rng.uniform(0.0005, 0.004)

        def run_s(n: int, fixed: float = fixed, each: float = each) -> float:
            return fixed + each * n

        budget = run_s(max_size) * rng.uniform(2.2, 6)
        # Far below what full batches could serve, so that a late answer is the rule's fault.
        rate = max_size / run_s(max_size) * rng.uniform(0.02, 0.25)
        at, arrivals = 0.0, []
        for _ in range(80):
            at += rng.expovariate(rate)
            arrivals.append(at)
        given = (
            f"{rate:.0f} items/s, a run of n takes {1000 * fixed:.1f} + {1000 * each:.2f}·n ms, at most {max_size} in it, "
            f"budget {1000 * budget:.0f} ms"
        )
        lazy = _batches(start_by, arrivals, run_s, max_size, budget)
        worst = max(end - min(items) for end, items in lazy)
        found = _batches(answer, arrivals, run_s, max_size, budget)
        yield holds("it names a time", bool(found), given=given, expected="a finite number of seconds")
        if not found:
            return
        late = max(end - min(items) for end, items in found)
        yield holds(
            "nobody waits longer than the budget",
            late <= max(budget, worst) + 1e-9,
            given=given,
            expected=f"at most {1000 * max(budget, worst):.1f} ms from arrival to answer",
            actual=f"{1000 * late:.1f} ms",
        )
        yield holds(
            "no more runs than needed",
            len(found) <= len(lazy),
            given=given,
            expected=f"at most {len(lazy)} runs for {len(arrivals)} items",
            actual=f"{len(found)} runs",
            why="Every run pays its fixed part again; as long as nobody is late, wait for company.",
        )


def short_first(view: View, patience_s: float) -> StepPlan:
    """A policy: requests that write go on, then prompts are read, the shortest first.

    Prompts that came `patience_s` seconds ago or earlier go before all other prompts, the oldest first.
    """
    budget = view.limits.token_budget
    tokens: dict[int, int] = {}
    seats = view.limits.max_sequences - len(view.running)
    writing = [job for job in view.running if view.fed[job] >= view.jobs[job].prompt]
    reading = [job for job in view.running if view.fed[job] < view.jobs[job].prompt]
    for job in writing:
        tokens[job] = 1
        budget -= 1

    def turn(job: int) -> tuple[float, float]:
        arrival, left = view.jobs[job].arrival, view.jobs[job].prompt - view.fed[job]
        return (0.0, arrival) if view.now - arrival >= patience_s else (1.0, left)

    for job in sorted([*reading, *view.waiting], key=turn):
        new = min(view.jobs[job].prompt - view.fed[job], budget)
        if new < 1 or (job in view.waiting and not seats):
            continue
        seats -= job in view.waiting
        tokens[job] = new
        budget -= new
    return StepPlan(tokens)


PolicyAnswer = Callable[[View, float], StepPlan]


def _in_order(view: View, _: float) -> StepPlan:
    """Near miss: the lab's `chunked_prefill`, where a long prompt holds up the short ones behind it."""
    return chunked_prefill(view)


def _no_patience(view: View, _: float) -> StepPlan:
    """Near miss: always the shortest first, and the long prompt starves."""
    return short_first(view, math.inf)


def _prompts_before_writers(view: View, _: float) -> StepPlan:
    """Near miss: prompts take the budget first, and requests that write stand still."""
    budget = view.limits.token_budget
    tokens: dict[int, int] = {}
    seats = view.limits.max_sequences - len(view.running)
    new_ones = sorted(view.waiting, key=lambda job: view.jobs[job].prompt)[:seats]
    reading = [job for job in view.running if view.fed[job] < view.jobs[job].prompt]
    writing = [job for job in view.running if view.fed[job] >= view.jobs[job].prompt]
    for job in [*reading, *new_ones, *writing]:
        new = min(max(1, view.jobs[job].prompt - view.fed[job]), budget)
        if new > 0:
            tokens[job] = new
            budget -= new
    return StepPlan(tokens)


def _over_budget(view: View, _: float) -> StepPlan:
    """Near miss: whole prompts, whatever the budget says."""
    seats = view.limits.max_sequences - len(view.running)
    tokens = {job: max(1, view.jobs[job].prompt - view.fed[job]) for job in view.running}
    tokens |= {job: view.jobs[job].prompt for job in sorted(view.waiting, key=lambda j: view.jobs[j].prompt)[:seats]}
    return StepPlan(tokens)


def _step_seconds(prefill: int, decode: int) -> float:
    return 0.004 + 0.0001 * prefill + 0.0002 * decode


def _stalled(schedule: Schedule) -> int | None:
    """A job that had its first token, was not done, and got nothing in some step; None if there is none."""
    for step in schedule.steps:
        for i, served in enumerate(schedule.served):
            if served.first_token <= step.at < served.finish and i not in step.tokens:
                return i
    return None


def _views() -> Iterator[tuple[str, View, dict[int, int]]]:
    """(what it shows, a view at second 1,000, the tokens that the next step feeds when patience is 0.25 s)."""
    writes = Job(990.0, 30, 50)

    def view(
        limits: Limits, jobs: Sequence[Job], running: Sequence[int], waiting: Sequence[int], fed: Sequence[int]
    ) -> View:
        return View(1000.0, jobs, limits, running, waiting, fed, more_to_come=True)

    yield (
        "the writer has its token; then those with the fewest prompt tokens left, until the budget is used up",
        view(
            Limits(6, 60),
            [writes, Job(999.88, 100, 9), Job(999.9, 50, 9), Job(999.95, 1, 9)],
            running=[0, 1],
            waiting=[2, 3],
            fed=[35, 60, 0, 0],
        ),
        {0: 1, 3: 1, 1: 40, 2: 18},
    )
    yield (
        "who came 0.25 s ago goes first, as patience is 0.25 s",
        view(Limits(4, 64), [Job(999.75, 900, 9), Job(999.9, 5, 9)], running=[], waiting=[0, 1], fed=[0, 0]),
        {0: 64},
    )
    yield (
        "of those who waited too long, the oldest goes first",
        view(Limits(4, 64), [Job(999.0, 700, 9), Job(999.5, 300, 9)], running=[1], waiting=[0], fed=[0, 100]),
        {0: 64},
    )
    yield (
        "without a free seat, only those who hold one are fed",
        view(
            Limits(2, 64),
            [writes, Job(999.88, 200, 9), Job(999.9, 5, 9)],
            running=[0, 1],
            waiting=[2],
            fed=[35, 10, 0],
        ),
        {0: 1, 1: 63},
    )


def _check_policy(answer: PolicyAnswer, rng: random.Random) -> Iterator[Outcome]:
    patience = 0.25
    for name, view, tokens in _views():
        plan = call(answer, view, patience)
        fed = {job: n for job, n in plan.tokens.items() if n} if isinstance(plan, StepPlan) else None
        yield holds(name, fed == tokens, given=view, expected=StepPlan(tokens), actual=plan)
    lab_ttft, own_ttft = [], []
    for _ in range(8):
        limits = Limits(rng.randrange(4, 9), rng.randrange(64, 200))
        at, jobs = 0.0, []
        for _ in range(40):
            at += rng.expovariate(25)
            long = rng.random() < 0.15
            jobs.append(Job(at, rng.randrange(600, 1200) if long else rng.randrange(10, 60), 1 + int(rng.expovariate(0.08))))
        given = f"40 requests, a few with long prompts; {limits}"
        schedule, problem = _simulate(answer, jobs, limits, patience)
        yield holds("the step loop accepts every plan", schedule is not None, given=given, actual=problem)
        if schedule is None:
            return
        stalled = _stalled(schedule)
        yield holds(
            "who writes gets a token in every step",
            stalled is None,
            given=given,
            actual=f"request {stalled} stood still in the middle of its answer",
        )
        lab = run_schedule(jobs, chunked_prefill, limits, _step_seconds)
        lab_ttft += [s.first_token - j.arrival for s, j in zip(lab.served, jobs, strict=True) if j.prompt < 100]
        own_ttft += [s.first_token - j.arrival for s, j in zip(schedule.served, jobs, strict=True) if j.prompt < 100]
    lab_mean, own_mean = statistics.fmean(lab_ttft), statistics.fmean(own_ttft)
    yield holds(
        "short prompts get their first token sooner than first come, first served gives it to them",
        own_mean < 0.9 * lab_mean,
        given="mean TTFT of prompts below 100 tokens, over all of these loads",
        expected=f"below {900 * lab_mean:.0f} ms (the lab's chunked_prefill: {1000 * lab_mean:.0f} ms)",
        actual=f"{1000 * own_mean:.0f} ms",
    )
    # Short prompts keep coming while the long one waits. There are only two seats, so somebody always waits.
    limits = Limits(2, 64)
    jobs = [Job(0.0, 20, 10), Job(0.0, 20, 10), Job(0.001, 700, 4)] + [Job(0.002 + 0.01 * i, 15, 12) for i in range(200)]
    schedule, problem = _simulate(answer, jobs, limits, patience)
    yield holds("the step loop accepts every plan", schedule is not None, given="one long prompt in a flood", actual=problem)
    if schedule is None:
        return
    begun = next(step.at for step in schedule.steps if 2 in step.tokens)
    yield holds(
        "nobody starves",
        begun <= patience + 0.1,
        given=f"one long prompt in a flood of short ones, patience {patience} s",
        expected=f"its first tokens are read soon after {patience} s",
        actual=f"they are read {begun:.2f} s after it came",
    )
    yield holds(
        "until then, the short ones go first",
        begun >= patience - 0.05,
        given=f"one long prompt in a flood of short ones, patience {patience} s",
        actual=f"the long prompt is read after {begun:.2f} s",
    )


def _simulate(answer: PolicyAnswer, jobs: Sequence[Job], limits: Limits, patience: float) -> tuple[Schedule | None, str]:
    """The schedule, or None and why the step loop refused a plan. It avoids `call`, which would copy the view each step."""

    def policy(view: View) -> StepPlan:
        plan: object = answer(view, patience)
        if not isinstance(plan, StepPlan):
            if plan is ...:
                raise NotImplementedError
            raise TypeError(f"a policy returns a StepPlan, this one returned {plan!r:.80}")
        return plan

    try:
        return run_schedule(jobs, policy, limits, _step_seconds), ""
    except (InvalidValue, TypeError) as error:
        return None, str(error)


_PASSED = "who writes has no prompt tokens left, and is passed over where nothing is left to feed"
_ORDER = "only the order of the two numbers counts"

CHAPTER = Chapter(
    number="07",
    name="batching_strategies",
    title="Batching strategies: sharing a step, and what the waiting buys",
    predictions=("07.alpha", "07.batcher", "07.window"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("answers", "tokenizer"),
    claims=("07.seats", "07.exponent", "07.window_chat", "07.window_texts", "07.dynamic", "07.same"),
    exercises=(
        Exercise(
            id="07.1",
            title="The seats that fixed batches leave empty",
            minutes=5,
            difficulty=1,
            answer="idle_share",
            check=_check_idle,
            reference=idle_share,
            hints=(
                "A batch holds all its seats for as many steps as its longest answer has tokens.",
                "Take the answers `seats` at a time: `outputs[i : i + seats]`. The last batch may be smaller, but its seats "
                "are paid for all the same.",
            ),
            wrong=(
                lambda outputs, seats: 1 - sum(outputs) / (len(outputs) * max(outputs)),
                lambda outputs, seats: (
                    1
                    - sum(outputs)
                    / sum(len(outputs[i : i + seats]) * max(outputs[i : i + seats]) for i in range(0, len(outputs), seats))
                ),
            ),
        ),
        Exercise(
            id="07.2",
            title="Where does the bulk go?",
            minutes=10,
            difficulty=2,
            answer="bulk_way",
            check=_check_way,
            reference=bulk_way,
            hints=(
                "A way that may come after the deadline is no way: is `window_h` longer than the hours that are left?",
                "What is missing is `gpu_hours - sum(idle)`, if above 0. A further GPU brings `len(idle)` hours a night.",
                "What worse answers may cost is the distance from your own GPUs to the cheapest *other* way in time.",
            ),
            wrong=(_late_batch, _parts_of_gpus, _against_the_list, _once_for_all_hours),
        ),
        Exercise(
            id="07.3",
            title="Wait for company, but never too long",
            minutes=12,
            difficulty=2,
            answer="start_by",
            check=_check_rule,
            reference=start_by,
            hints=(
                "A batch that starts at `t` answers its oldest item at `t + run_s(items in it)`.",
                "A full batch cannot gain anything by waiting: start at once.",
                "Somebody may join in the last moment, and then the run is longer: leave room for `waiting + 1`.",
            ),
            wrong=(
                lambda oldest, waiting, run_s, max_size, budget_s: oldest,
                lambda oldest, waiting, run_s, max_size, budget_s: oldest + 0.01,
                lambda oldest, waiting, run_s, max_size, budget_s: oldest + budget_s - run_s(waiting),
                lambda oldest, waiting, run_s, max_size, budget_s: (
                    oldest if waiting >= max_size else oldest + budget_s - run_s(max_size)
                ),
                lambda oldest, waiting, run_s, max_size, budget_s: (
                    oldest if waiting >= max_size else oldest + budget_s - run_s(waiting)
                ),
            ),
        ),
        Exercise(
            id="07.4",
            title="A scheduler of your own: short prompts first, and nobody starves",
            minutes=25,
            difficulty=3,
            answer="short_first",
            check=_check_policy,
            reference=short_first,
            hints=(
                "Give each of those who write one token first; what is left of `view.limits.token_budget` is for prompts.",
                "Then the prompts: those half read hold a seat; of `view.waiting`, take as many as there are free seats.",
                "Sort them by a pair: (0, arrival) for who came `patience_s` ago or more, (1, prompt tokens left) for the "
                "others. Feed `min(prompt − fed, budget left)`, and nothing where that is 0.",
            ),
            wrong=(_in_order, _no_patience, _prompts_before_writers, _over_budget),
            equivalent={
                "line 10: for job in view.running if view.fed[job] < view.jobs[job].prompt -> "
                "for job in view.running": _PASSED,
                "line 10: view.fed[job] < view.jobs[job].prompt -> view.fed[job] <= view.jobs[job].prompt": _PASSED,
                "line 17: (0.0, arrival) -> (-1.0, arrival)": _ORDER,
                "line 17: (1.0, left) -> (2.0, left)": _ORDER,
                "line 17: (0.0, arrival) if view.now - arrival >= patience_s else (1.0, left) -> "
                "(0.0, arrival) if view.now - arrival >= patience_s else (left,)": "a prompt has a token left, or more: "
                "it stands behind 0 as well",
            },
        ),
        b07.BUILD,
    ),
)
