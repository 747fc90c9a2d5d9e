"""The step loop of the modelled engine, compiled: blocks.py's and scheduler.py's rules (first come first served) in arrays.

It repeats them line for line in meaning, requests and blocks being numbers here; a property test holds the two together,
time for time. All of it is in one file because numba's cache on disk notices changes in the file of the function it
compiled, and in no other.

Block 0, vLLM's placeholder, is never handed out; here it closes the free queue into a ring and stands for "none".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=Callable[..., Any])
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
compiled: Callable[[F], F] = numba.njit(cache=True)
NONE = -1


class Requests(NamedTuple):
    """Per request: seconds at which it reaches the scheduler, prompt and output tokens, where its blocks start in the
    flat tables; flat: the number of each of its blocks' contents. `order` is the order of arrival."""

    ready: Floats
    prompt: Ints
    output: Ints
    start: Ints
    content: Ints
    order: Ints


class Limits(NamedTuple):
    """Scheduler settings; `cap` 0 for no cap on long prefills."""

    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    caching: bool
    chunked: bool
    cap: int


class Seconds(NamedTuple):
    """The latency model's constants for a step, in seconds."""

    step: float
    sequence: float
    linear: float
    weights: float
    pair: float
    kv: float


class State(NamedTuple):
    """Per request: tokens computed and written, blocks held and remembered, cached tokens at its first admission (−1
    before), preemptions, seconds of first schedule, first token and end; flat: the blocks held."""

    computed: Ints
    written: Ints
    held: Ints
    hashed: Ints
    cached: Ints
    preemptions: Ints
    scheduled: Floats
    first_token: Floats
    done: Floats
    table: Ints


class Pool(NamedTuple):
    """Per block: its neighbours in the free queue, how many sequences hold it, the content it is found by, and its
    neighbours among the blocks of equal content. Per content: its oldest and youngest block. `free` is one number."""

    after: Ints
    before: Ints
    users: Ints
    content: Ints
    younger: Ints
    older: Ints
    oldest: Ints
    youngest: Ints
    free: Ints


def make_state(requests: int, blocks: int) -> State:
    """Nothing done yet; `blocks` is the length of the flat tables."""
    zeros = np.zeros((5, requests), dtype=np.int64)
    scheduled, first_token, done = np.full((3, requests), np.nan)
    computed, written, held, hashed, preemptions = zeros
    cached = np.full(requests, NONE, dtype=np.int64)
    table = np.zeros(blocks, dtype=np.int64)
    return State(computed, written, held, hashed, cached, preemptions, scheduled, first_token, done, table)


def make_pool(num_blocks: int, contents: int) -> Pool:
    """All blocks free, none of known content; contents are numbered from 0 to `contents` − 1."""
    ring = np.arange(num_blocks, dtype=np.int64)
    nobody = np.zeros(num_blocks, dtype=np.int64)
    return Pool(
        np.roll(ring, -1),
        np.roll(ring, 1),
        nobody,
        np.full(num_blocks, NONE, dtype=np.int64),
        nobody.copy(),
        nobody.copy(),
        np.zeros(contents, dtype=np.int64),
        np.zeros(contents, dtype=np.int64),
        np.array([num_blocks - 1], dtype=np.int64),
    )


@compiled
def put(pool: Pool, block: int, behind: int) -> None:
    """Queue `block` behind another: behind 0 it is the next to go, behind the last one it is the last."""
    ahead = pool.after[behind]
    pool.after[behind], pool.before[block] = block, behind
    pool.after[block], pool.before[ahead] = ahead, block
    pool.free[0] += 1


@compiled
def pull(pool: Pool, block: int) -> None:
    """Take `block` out of the free queue, and count its new user."""
    pool.after[pool.before[block]] = pool.after[block]
    pool.before[pool.after[block]] = pool.before[block]
    pool.free[0] -= 1


@compiled
def take(pool: Pool) -> int:
    """The next free block, its content forgotten."""
    block = pool.after[0]
    pull(pool, block)
    content = pool.content[block]
    if content != NONE:
        older, younger = pool.older[block], pool.younger[block]
        if older:
            pool.younger[older] = younger
        else:
            pool.oldest[content] = younger
        if younger:
            pool.older[younger] = older
        else:
            pool.youngest[content] = older
        pool.content[block] = NONE
    pool.users[block] = 1
    return int(block)


@compiled
def share(pool: Pool, block: int) -> None:
    """Count one more user of a block that was found by its content."""
    if pool.users[block] == 0:
        pull(pool, block)
    pool.users[block] += 1


@compiled
def remember(pool: Pool, block: int, content: int) -> None:
    """From now on `block` is found by `content`."""
    youngest = pool.youngest[content]
    pool.content[block] = content
    pool.older[block], pool.younger[block] = youngest, 0
    if youngest:
        pool.younger[youngest] = block
    else:
        pool.oldest[content] = block
    pool.youngest[content] = block


@compiled
def release(pool: Pool, blocks: Ints) -> None:
    """Take a sequence's blocks back, tail first: those of known content to the queue's end, the others to its front."""
    unknown = 0
    for i in range(len(blocks) - 1, -1, -1):
        block = blocks[i]
        pool.users[block] -= 1
        if pool.users[block] == 0:
            if pool.content[block] == NONE:
                put(pool, block, unknown)
                unknown = block
            else:
                put(pool, block, pool.before[0])


@compiled
def missing(state: State, limits: Limits, r: int, tokens: int) -> int:
    """Blocks that request `r` lacks for its first `tokens` tokens."""
    lacking: int = -(-tokens // limits.block_size) - state.held[r]
    return max(lacking, 0)


@compiled
def grow(pool: Pool, requests: Requests, state: State, limits: Limits, r: int, tokens: int) -> None:
    """Give `r` blocks for its first `tokens` tokens; the full ones can be found from now."""
    start = requests.start[r]
    for _ in range(missing(state, limits, r, tokens)):
        state.table[start + state.held[r]] = take(pool)
        state.held[r] += 1
    if limits.caching:
        for i in range(state.hashed[r], tokens // limits.block_size):
            remember(pool, state.table[start + i], requests.content[start + i])
            state.hashed[r] = i + 1


@compiled
def give_back(pool: Pool, requests: Requests, state: State, r: int) -> None:
    """Take all blocks of `r` back."""
    start = requests.start[r]
    release(pool, state.table[start : start + state.held[r]])
    state.held[r] = 0
    state.hashed[r] = 0


@compiled
def cached_blocks(pool: Pool, requests: Requests, limits: Limits, r: int, tokens: int) -> int:
    """Length of the longest run of full blocks from the start of `r` that are still there; never all its tokens."""
    if not limits.caching:
        return 0
    most = (tokens - 1) // limits.block_size
    for i in range(most):
        if pool.oldest[requests.content[requests.start[r] + i]] == 0:
            return i
    return most


@compiled
def simulate(
    requests: Requests, limits: Limits, seconds: Seconds, pool: Pool, state: State
) -> tuple[int, float]:  # pragma: no cover - compiled code is not traced
    """Run all requests to their end; fills `state`, and returns the number of steps and the seconds spent in them."""
    total = len(requests.ready)
    running = np.empty(limits.max_num_seqs, dtype=np.int64)
    shares = np.empty(limits.max_num_seqs, dtype=np.int64)
    preempted = np.empty(total, dtype=np.int64)  # a stack: who was preempted last waits first
    num_running = num_preempted = arrived = admitted = finished = steps = 0
    now, busy = -np.inf, 0.0
    while finished < total:
        while arrived < total and requests.ready[requests.order[arrived]] <= now:
            arrived += 1
        crowded = num_running + num_preempted + arrived - admitted > 1
        cap = limits.cap if crowded and limits.cap > 0 else limits.max_num_batched_tokens
        budget = limits.max_num_batched_tokens
        new_preemptions = 0
        index = 0
        while index < num_running and budget > 0:
            r = running[index]
            new = min(requests.prompt[r] + state.written[r] - state.computed[r], cap, budget)
            while missing(state, limits, r, state.computed[r] + new) > pool.free[0]:
                num_running -= 1
                victim = running[num_running]
                give_back(pool, requests, state, victim)
                state.computed[victim] = 0
                state.preemptions[victim] += 1
                preempted[num_preempted] = victim
                num_preempted += 1
                new_preemptions += 1
                if victim == r:
                    break
            if index >= num_running:  # it preempted itself
                break
            grow(pool, requests, state, limits, r, state.computed[r] + new)
            shares[index] = new
            budget -= new
            index += 1
        scheduled = index  # sequences further back got nothing; without a budget left no newcomer joins behind them
        if new_preemptions == 0:
            while budget > 0 and num_running < limits.max_num_seqs and (num_preempted > 0 or admitted < arrived):
                r = preempted[num_preempted - 1] if num_preempted > 0 else requests.order[admitted]
                tokens = requests.prompt[r] + state.written[r]
                hits = cached_blocks(pool, requests, limits, r, tokens)
                new = min(tokens - hits * limits.block_size, cap)
                if new > budget and not limits.chunked:
                    break
                new = min(new, budget)
                start = requests.start[r]
                leaving = 0
                for i in range(hits):
                    leaving += pool.users[pool.oldest[requests.content[start + i]]] == 0
                if missing(state, limits, r, tokens) - hits + leaving > pool.free[0]:
                    break
                for i in range(hits):
                    block = pool.oldest[requests.content[start + i]]
                    share(pool, block)
                    state.table[start + i] = block
                state.held[r] = hits
                state.hashed[r] = hits
                state.computed[r] = hits * limits.block_size
                grow(pool, requests, state, limits, r, state.computed[r] + new)
                if state.preemptions[r] == 0:
                    state.cached[r] = state.computed[r]
                    state.scheduled[r] = now
                if num_preempted > 0:
                    num_preempted -= 1
                else:
                    admitted += 1
                running[num_running] = r
                num_running += 1
                shares[scheduled] = new
                scheduled += 1
                budget -= new
        if scheduled == 0:
            if new_preemptions == 0:
                now = max(now, requests.ready[requests.order[arrived]])
            else:
                steps += 1
            continue
        tokens = pairs = kv_tokens = 0
        for i in range(scheduled):
            new, context = shares[i], state.computed[running[i]]
            tokens += new
            pairs += new * context + new * (new + 1) // 2
            kv_tokens += context + new
        linear = max(seconds.linear * tokens, seconds.weights)
        attention = max(seconds.pair * pairs, seconds.kv * kv_tokens)
        duration = seconds.step + seconds.sequence * scheduled + linear + attention
        now += duration
        busy += duration
        steps += 1
        kept = 0
        for i in range(num_running):
            r = running[i]
            if i < scheduled:
                state.computed[r] += shares[i]
                if state.computed[r] == requests.prompt[r] + state.written[r]:
                    state.written[r] += 1
                    if state.written[r] == 1:
                        state.first_token[r] = now
                    if state.written[r] == requests.output[r]:
                        state.done[r] = now
                        finished += 1
                        give_back(pool, requests, state, r)
                        continue
            running[kept] = r
            kept += 1
        num_running = kept
    return steps, busy
