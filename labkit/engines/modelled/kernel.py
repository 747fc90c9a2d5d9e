"""The step loop of the modelled engine, compiled: blocks.py's and scheduler.py's rules (first come first served) in arrays.

It follows those two files line for line, with requests and blocks as rows of arrays; a property test checks that both give
the same times. All of it is in one file because numba's cache on disk notices only changes in the file of the function that
it compiled. Tables are few and wide because numba counts references to each array that a function gets.

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
compiled: Callable[[F], F] = numba.njit(cache=True, error_model="numpy")
NONE = -1

# A block's row: its neighbours in the free queue, how many sequences hold it, the number of the content by which it is
# found, and its neighbours among the blocks of equal content. Row 0 has the number of free blocks in place of users.
AFTER, BEFORE, USERS, CONTENT, YOUNGER, OLDER = range(6)
BLOCK_COLUMNS = 6
FREE = USERS
# A content's row: the oldest and the youngest block that holds it.
OLDEST, YOUNGEST = range(2)
# A request's row: its prompt and output tokens, where its blocks begin in the flat tables; tokens computed and written,
# blocks held and remembered (findable by content); cached tokens at its first admission, preemptions.
PROMPT, OUTPUT, START, COMPUTED, WRITTEN, HELD, REMEMBERED, CACHED, PREEMPTIONS = range(9)
REQUEST_COLUMNS = 9
# Its times in seconds: when it is sent, when the front end has finished with it, how long the rest of its way takes at least
# (a duration), when it reaches the scheduler; its first schedule, first token and end.
SENT, FRONT, WAY, READY, SCHEDULED, FIRST_TOKEN, DONE = range(7)
TIME_COLUMNS = 7


class Limits(NamedTuple):
    """Scheduler settings; `cap` is in tokens, 0 for no cap on long prefills."""

    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    caching: bool
    chunked: bool
    cap: int


class Seconds(NamedTuple):
    """The latency model's constants for a step, in seconds, and `frontend` for a request."""

    step: float
    sequence: float
    linear: float
    weights: float
    pair: float
    kv: float
    admit: float
    crowd: float
    frontend: float
    experts: float
    share: float


class Tables(NamedTuple):
    """Rows of blocks, contents and requests, the requests' times, and two flat tables with an entry for each block of each
    request: the id of the block (`held`) and the number of its content (`content`)."""

    blocks: Ints
    contents: Ints
    requests: Ints
    times: Floats
    held: Ints
    content: Ints


def free_blocks(num_blocks: int) -> Ints:
    """Rows of blocks: all but block 0 are free, and none has content."""
    blocks = np.zeros((num_blocks, BLOCK_COLUMNS), dtype=np.int64)
    ring = np.arange(num_blocks)
    blocks[:, AFTER], blocks[:, BEFORE] = np.roll(ring, -1), np.roll(ring, 1)
    blocks[:, CONTENT] = NONE
    blocks[0, FREE] = num_blocks - 1
    return blocks


@compiled
def one_after_another(arrival: Floats, seconds: float) -> Floats:
    """When the front end has finished with each request, if it spends `seconds` on each, one after another."""
    ends = np.empty(len(arrival))
    free = -np.inf
    for i in range(len(arrival)):
        free = max(free, arrival[i]) + seconds
        ends[i] = free
    return ends


@compiled
def put(blocks: Ints, block: int, behind: int) -> None:
    """Queue `block` behind another: behind block 0 it is reused next, behind the last block it is reused last."""
    ahead = blocks[behind, AFTER]
    blocks[behind, AFTER], blocks[block, BEFORE] = block, behind
    blocks[block, AFTER], blocks[ahead, BEFORE] = ahead, block
    blocks[0, FREE] += 1


@compiled
def pull(blocks: Ints, block: int) -> None:
    """Take `block` out of the free queue."""
    behind, ahead = blocks[block, BEFORE], blocks[block, AFTER]
    blocks[behind, AFTER], blocks[ahead, BEFORE] = ahead, behind
    blocks[0, FREE] -= 1


@compiled
def take(blocks: Ints, contents: Ints) -> int:
    """Take the next free block out of the queue, forget its content, and return it."""
    block: int = blocks[0, AFTER]
    pull(blocks, block)
    content = blocks[block, CONTENT]
    if content != NONE:
        older, younger = blocks[block, OLDER], blocks[block, YOUNGER]
        if older:
            blocks[older, YOUNGER] = younger
        else:
            contents[content, OLDEST] = younger
        if younger:
            blocks[younger, OLDER] = older
        else:
            contents[content, YOUNGEST] = older
        blocks[block, CONTENT] = NONE
    blocks[block, USERS] = 1
    return block


@compiled
def remember(blocks: Ints, contents: Ints, block: int, content: int) -> None:
    """Make `block` findable by `content`, after the blocks that have that content already."""
    youngest = contents[content, YOUNGEST]
    blocks[block, CONTENT], blocks[block, OLDER], blocks[block, YOUNGER] = content, youngest, 0
    if youngest:
        blocks[youngest, YOUNGER] = block
    else:
        contents[content, OLDEST] = block
    contents[content, YOUNGEST] = block


@compiled
def lacking(requests: Ints, block_size: int, r: int, tokens: int) -> int:
    """Blocks that request `r` lacks for its first `tokens` tokens."""
    more: int = tokens - requests[r, HELD] * block_size
    return 0 if more <= 0 else (more + block_size - 1) // block_size


@compiled
def grow(
    blocks: Ints, contents: Ints, requests: Ints, held: Ints, content: Ints, limits: Limits, r: int, tokens: int
) -> None:
    """Give request `r` blocks for its first `tokens` tokens; the full blocks can be found at once."""
    start = requests[r, START]
    while requests[r, HELD] * limits.block_size < tokens:
        held[start + requests[r, HELD]] = take(blocks, contents)
        requests[r, HELD] += 1
    if limits.caching:
        while (requests[r, REMEMBERED] + 1) * limits.block_size <= tokens:
            at = start + requests[r, REMEMBERED]
            remember(blocks, contents, held[at], content[at])
            requests[r, REMEMBERED] += 1


@compiled
def give_back(blocks: Ints, requests: Ints, held: Ints, r: int) -> None:
    """Take the blocks of `r` back, tail first: blocks with known content go to the queue's end, others to its front."""
    start, unknown = requests[r, START], 0
    for at in range(start + requests[r, HELD] - 1, start - 1, -1):
        block = held[at]
        blocks[block, USERS] -= 1
        if blocks[block, USERS] == 0:
            if blocks[block, CONTENT] == NONE:
                put(blocks, block, unknown)
                unknown = block
            else:
                put(blocks, block, blocks[0, BEFORE])
    requests[r, HELD] = requests[r, REMEMBERED] = 0


@compiled
def cached_blocks(contents: Ints, requests: Ints, content: Ints, limits: Limits, r: int) -> int:
    """Length of the longest run of full blocks from the start of `r` that are still there; never all its tokens."""
    most: int = (requests[r, PROMPT] + requests[r, WRITTEN] - 1) // limits.block_size if limits.caching else 0
    for i in range(most):
        if contents[content[requests[r, START] + i], OLDEST] == 0:
            return i
    return most


@compiled
def send(times: Floats, order: Ints, arrived: int, sent: int, under_way: int, crowd: float) -> None:
    """Compute when the next request gets ready, and sort it into those in `order` that were sent but have not `arrived`."""
    times[sent, READY] = times[sent, FRONT] + (times[sent, WAY] + crowd * under_way)
    place = sent
    while place > arrived and times[order[place - 1], READY] > times[sent, READY]:
        order[place] = order[place - 1]
        place -= 1
    order[place] = sent


@compiled
def simulate(tables: Tables, limits: Limits, seconds: Seconds, closed: bool) -> tuple[int, float]:
    """Run all requests, in the order in which they are sent, to their end.

    In a `closed` loop, requests whose SENT is infinite are sent one by one, each when another's answer ends. Fills the
    requests' rows and times, and returns the number of steps and the seconds spent in them.
    """
    blocks, contents, requests = tables.blocks, tables.contents, tables.requests
    times, held, content = tables.times, tables.held, tables.content
    total = len(requests)
    running = np.empty(limits.max_num_seqs, dtype=np.int64)
    shares = np.empty(limits.max_num_seqs, dtype=np.int64)
    preempted = np.empty(total, dtype=np.int64)  # a stack: the request preempted last waits in front
    order = np.empty(total, dtype=np.int64)  # the first `sent` requests, in the order in which they reach the scheduler
    num_running = num_preempted = sent = arrived = admitted = finished = steps = 0
    now, busy = -np.inf, 0.0
    opened = int(np.isfinite(times[:, SENT]).sum())
    while finished < total:
        while closed and sent < total and times[sent, SENT] <= now:
            send(times, order, arrived, sent, sent - finished, seconds.crowd)
            sent += 1
        while arrived < sent and times[order[arrived], READY] <= now:
            arrived += 1
        crowded = num_running + num_preempted + arrived - admitted > 1
        cap = limits.cap if crowded and limits.cap > 0 else limits.max_num_batched_tokens
        budget = limits.max_num_batched_tokens
        new_preemptions = 0
        entering = 0
        scheduled = 0  # how many of `running`, from the front, are in this step
        while scheduled < num_running and budget > 0:
            r = running[scheduled]
            new = min(requests[r, PROMPT] + requests[r, WRITTEN] - requests[r, COMPUTED], cap, budget)
            while lacking(requests, limits.block_size, r, requests[r, COMPUTED] + new) > blocks[0, FREE]:
                num_running -= 1
                victim = running[num_running]
                give_back(blocks, requests, held, victim)
                requests[victim, COMPUTED] = 0
                requests[victim, PREEMPTIONS] += 1
                preempted[num_preempted] = victim
                num_preempted += 1
                new_preemptions += 1
                if victim == r:
                    break
            if scheduled == num_running:  # it preempted itself
                break
            grow(blocks, contents, requests, held, content, limits, r, requests[r, COMPUTED] + new)
            shares[scheduled] = new
            budget -= new
            scheduled += 1
        while new_preemptions == 0 and budget > 0 and num_running < limits.max_num_seqs:
            if num_preempted == 0 and admitted == arrived:
                break
            r = preempted[num_preempted - 1] if num_preempted > 0 else order[admitted]
            tokens = requests[r, PROMPT] + requests[r, WRITTEN]
            hits = cached_blocks(contents, requests, content, limits, r)
            new = min(tokens - hits * limits.block_size, cap)
            if new > budget and not limits.chunked:
                break
            new = min(new, budget)
            start = requests[r, START]
            leaving_the_free_queue = 0
            for i in range(hits):
                leaving_the_free_queue += blocks[contents[content[start + i], OLDEST], USERS] == 0
            if lacking(requests, limits.block_size, r, tokens) - hits + leaving_the_free_queue > blocks[0, FREE]:
                break
            for i in range(hits):
                block = contents[content[start + i], OLDEST]
                if blocks[block, USERS] == 0:
                    pull(blocks, block)
                blocks[block, USERS] += 1
                held[start + i] = block
            requests[r, HELD] = requests[r, REMEMBERED] = hits
            requests[r, COMPUTED] = hits * limits.block_size
            grow(blocks, contents, requests, held, content, limits, r, requests[r, COMPUTED] + new)
            if requests[r, PREEMPTIONS] == 0:
                requests[r, CACHED] = requests[r, COMPUTED]
                times[r, SCHEDULED] = now
            if num_preempted > 0:
                num_preempted -= 1
            else:
                admitted += 1
            running[num_running] = r
            shares[num_running] = new
            num_running += 1
            scheduled += 1
            entering += 1
            budget -= new
        if scheduled == 0:
            if new_preemptions == 0:
                while sent < total and (arrived == sent or times[sent, SENT] <= times[order[arrived], READY]):
                    send(times, order, arrived, sent, sent - finished, seconds.crowd)
                    sent += 1
                now = max(now, times[order[arrived], READY])
            else:
                steps += 1
            continue
        tokens = pairs = kv_tokens = 0
        for i in range(scheduled):
            new, context = shares[i], requests[running[i], COMPUTED]
            tokens += new
            pairs += new * context + new * (new + 1) // 2
            kv_tokens += context + new
        weights = seconds.weights + seconds.experts * (1 - (1 - seconds.share) ** tokens)
        linear = max(seconds.linear * tokens, weights)
        attention = max(seconds.pair * pairs, seconds.kv * kv_tokens)
        duration = seconds.step + seconds.sequence * scheduled + seconds.admit * entering + linear + attention
        now += duration
        busy += duration
        steps += 1
        while sent < total and times[sent, SENT] <= now:  # before this step's answers end: they still count as under way
            send(times, order, arrived, sent, sent - finished, seconds.crowd)
            sent += 1
        kept = 0
        for i in range(num_running):
            r = running[i]
            if i < scheduled:
                requests[r, COMPUTED] += shares[i]
                if requests[r, COMPUTED] == requests[r, PROMPT] + requests[r, WRITTEN]:
                    requests[r, WRITTEN] += 1
                    if requests[r, WRITTEN] == 1:
                        times[r, FIRST_TOKEN] = now
                    if requests[r, WRITTEN] == requests[r, OUTPUT]:
                        times[r, DONE] = now
                        finished += 1
                        give_back(blocks, requests, held, r)
                        if opened < total:  # only in a closed loop: whoever has an answer asks again
                            times[opened, SENT] = now
                            times[opened, FRONT] = max(now, times[opened - 1, FRONT]) + seconds.frontend
                            opened += 1
                        continue
            running[kept] = r
            kept += 1
        num_running = kept
    return steps, busy
