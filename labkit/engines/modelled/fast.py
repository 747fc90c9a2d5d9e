"""Runs a whole trace through the modelled engine in compiled code, some hundred times faster than `ModelledEngine`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labkit.engines.modelled.settings import EngineSettings
from labkit.engines.modelled.trace import Ints, SimulatedAnswers, Trace
from labkit.extras import extra
from labkit.latency import LatencyModel
from labkit.request import InvalidValue


def simulate(trace: Trace, model: LatencyModel, settings: EngineSettings) -> SimulatedAnswers:
    """Run `trace` through the modelled engine, each request to its full output length.

    The result is event for event that of `ModelledEngine` with the same requests. The first call compiles (seconds); the
    compiled code is kept on disk. Raises `ContextWindowExceeded`, with the lengths of the longest request, where the engine
    can never hold it, and `InvalidValue` for priorities and for prefix blocks that engine blocks do not divide.
    """
    return _run(trace, model, settings, len(trace))


def simulate_closed(
    input_tokens: Ints, output_tokens: Ints, people: int, model: LatencyModel, settings: EngineSettings
) -> SimulatedAnswers:
    """Keep `people` requests of these lengths under way, in their order, until all have ended: a closed loop.

    The result's trace says when each request was sent. Raises as `simulate` does, and `InvalidValue` for `people` below 1.
    """
    if people < 1:
        raise InvalidValue(f"people is {people}; keep at least 1 request under way")
    return _run(Trace(np.zeros(len(input_tokens)), input_tokens, output_tokens), model, settings, people)


def _run(trace: Trace, model: LatencyModel, settings: EngineSettings, people: int) -> SimulatedAnswers:
    """Run the first `people` requests at their arrival, and each later one when an answer has ended."""
    with extra("analysis"):
        from labkit.engines.modelled import kernel  # numba takes a second to import: only simulations wait for it

    if settings.policy != "fcfs":
        raise InvalidValue("the compiled path serves first come first served; use ModelledEngine for priorities")
    longest = int(np.argmax(trace.input_tokens + trace.output_tokens))
    settings.check_fits(int(trace.input_tokens[longest]), int(trace.output_tokens[longest]))
    size = settings.block_size
    held_at_most = -(-(trace.input_tokens + trace.output_tokens - 1) // size)
    start = np.concatenate(([0], np.cumsum(held_at_most)))
    content, contents = _contents(trace, size, start)
    requests = np.zeros((len(trace), kernel.REQUEST_COLUMNS), dtype=np.int64)
    requests[:, kernel.PROMPT] = trace.input_tokens
    requests[:, kernel.OUTPUT] = trace.output_tokens
    requests[:, kernel.START] = start[:-1]
    times = np.full((len(trace), kernel.TIME_COLUMNS), np.nan)
    times[:people, kernel.SENT] = trace.arrival[:people]
    times[people:, kernel.SENT] = np.inf
    front = kernel.one_after_another(trace.arrival, float(model.frontend_s))
    times[:, kernel.FRONT] = front
    times[:, kernel.WAY] = model.request_s + model.prompt_token_s * trace.input_tokens
    blocks = kernel.free_blocks(settings.num_blocks)
    tables = kernel.Tables(
        blocks, np.zeros((contents, 2), dtype=np.int64), requests, times, np.zeros(int(start[-1]), dtype=np.int64), content
    )
    limits = kernel.Limits(
        size,
        settings.max_num_seqs,
        settings.max_num_batched_tokens,
        settings.enable_prefix_caching,
        settings.enable_chunked_prefill,
        settings.long_prefill_token_threshold,
    )
    constants = (
        model.step_s,
        model.sequence_s,
        model.linear_s,
        model.weights_s,
        model.pair_s,
        model.kv_s,
        model.admit_s,
        model.crowd_s,
        model.frontend_s,
        model.experts_s,
        model.expert_share,
    )
    seconds = kernel.Seconds(*(float(value) for value in constants))
    steps, busy = kernel.simulate(tables, limits, seconds, people < len(trace))
    scheduled, first_token, done = (times[:, c] for c in (kernel.SCHEDULED, kernel.FIRST_TOKEN, kernel.DONE))
    cached, preemptions = requests[:, kernel.CACHED], requests[:, kernel.PREEMPTIONS]
    sent = trace if people >= len(trace) else replace(trace, arrival=times[:, kernel.SENT])
    return SimulatedAnswers(sent, scheduled, first_token, done, cached, preemptions, int(steps), float(busy))


def _contents(trace: Trace, block_size: int, start: Ints) -> tuple[Ints, int]:
    """A number for the content of each block of each request, equal for equal beginnings, and how many numbers there are."""
    own = int(start[-1])
    content = np.arange(own, dtype=np.int64)  # unless a prefix id says otherwise, no other block has the same content
    if trace.prefix_ids is None:
        return content, own
    if trace.prefix_block % block_size:
        raise InvalidValue(
            f"the trace's prefix blocks of {trace.prefix_block} tokens are no multiple of the engine's block_size "
            f"({block_size}); choose a block_size that divides them"
        )
    parts = trace.prefix_block // block_size
    known: dict[tuple[int, int], int] = {}
    for i, ids in enumerate(trace.prefix_ids):
        beginning = -1
        full = int(trace.input_tokens[i]) // block_size
        for j, id in enumerate(ids):
            beginning = known.setdefault((beginning, id), len(known))
            count = min(parts, full - j * parts)
            if count > 0:
                at, first = int(start[i]) + j * parts, own + beginning * parts
                content[at : at + count] = np.arange(first, first + count)
    return content, own + len(known) * parts
