"""The KV cache as shown by a live engine's step log: blocks held, slots left empty, and tokens computed twice.

The log (`labkit.engines.host.step_log`) holds only tokens per request and step, and the number of blocks that the engine
itself counts as free. So blocks counted here from tokens can be compared with the engine's own count, and the steps of
`replayed` with the engine's own steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labkit.engines.host import LoggedStep
from labkit.engines.modelled import ContinuousBatching, EngineSettings, Step
from labkit.engines.modelled import Sequence as EngineSequence
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The KV cache in one step, counted from the step's tokens.

    `running` requests hold `tokens` tokens in `blocks` blocks, which have room for `empty_slots` more. `engine_blocks` is
    the engine's own count of held blocks. It is lower than `blocks` where requests share some, and higher where a request
    that holds blocks got no token in this step. `preempted` requests lost their blocks.
    """

    running: int
    tokens: int
    blocks: int
    empty_slots: int
    engine_blocks: int
    preempted: int


def step_memory(steps: Sequence[LoggedStep], num_blocks: int, block_size: int) -> list[StepMemory]:
    """The KV cache after each step of a log.

    `num_blocks` and `block_size` (tokens) are as vLLM reports them; one of the blocks is kept back. Raises `InvalidValue`
    for numbers that cannot be.
    """
    if num_blocks < 2 or block_size < 1:
        raise InvalidValue(f"{num_blocks} blocks of {block_size} tokens; give what the engine reports (cache_config)")
    found = []
    for step in steps:
        held = [context + new for _, new, context in step.tokens]
        blocks = sum(-(-tokens // block_size) for tokens in held)
        engine = num_blocks - 1 - step.free_blocks
        found.append(StepMemory(len(held), sum(held), blocks, blocks * block_size - sum(held), engine, len(step.preempted)))
    return found


def computed_twice(steps: Sequence[LoggedStep]) -> int:
    """The number of tokens in a log that were computed again for a request, because a preemption had dropped them."""
    again = 0
    reached: dict[str, int] = {}
    for step in steps:
        for id, new, context in step.tokens:
            again += min(new, max(0, reached.get(id, 0) - context))
            reached[id] = max(reached.get(id, 0), context + new)
    return again


def replayed(
    steps: Sequence[LoggedStep], requests: Mapping[str, tuple[Sequence[int], int]], settings: EngineSettings
) -> list[LoggedStep]:
    """The modelled scheduler's steps for the requests of a log.

    `requests` maps each request's id to its prompt's token ids and its number of output tokens. A request arrives in the
    step in which the log first has it. So admission is checked in one direction only: the model must not admit a request
    later than the engine did. Everything else (chunks, preemptions, victims, prefixes found again) the model decides itself.
    Raises `InvalidValue` where the log has a request that is not in `requests`.
    """
    arrivals: dict[int, list[str]] = {}
    known: set[str] = set()
    for turn, step in enumerate(steps):
        for id, _, _ in step.tokens:
            if id not in known:
                known.add(id)
                arrivals.setdefault(turn, []).append(id)
    if missing := sorted(known - requests.keys()):
        raise InvalidValue(f"the log has requests that were not given: {', '.join(missing[:3])}; cut the log to the load")
    batching = ContinuousBatching(settings)
    found: list[LoggedStep] = []
    turn = 0
    while turn < len(steps) or batching.num_running or batching.num_waiting:
        for id in arrivals.get(turn, ()):
            prompt, output_tokens = requests[id]
            batching.add(EngineSequence(id, prompt, output_tokens, float(turn)))
        turn += 1
        if (made := batching.schedule(float(turn))) is not None:
            found.append(_logged(made, batching))
            batching.complete(made)
    return found


def foretold(lengths: Sequence[tuple[int, int]], clients: int, settings: EngineSettings) -> list[LoggedStep]:
    """The steps that the modelled scheduler takes for `clients` that send a new request as soon as they are answered.

    `lengths` are the (prompt, output) tokens of their requests, in order; no two prompts share a beginning. Sending and
    admission take no time here. In a live engine each takes some steps, so it is a little less crowded. Raises
    `InvalidValue` for `clients` below 1.
    """
    if clients < 1:
        raise InvalidValue(f"clients is {clients}; give at least 1")
    batching = ContinuousBatching(settings)
    coming = enumerate(lengths)
    first = 0

    def ask() -> None:
        nonlocal first
        if (asked := next(coming, None)) is not None:
            number, (prompt, output) = asked
            batching.add(EngineSequence(str(number), range(first, first + prompt), output))
            first += prompt

    for _ in range(clients):
        ask()
    found: list[LoggedStep] = []
    while (made := batching.schedule(float(len(found)))) is not None:
        found.append(_logged(made, batching))
        for sequence in batching.complete(made):
            if sequence.finished:
                ask()
    return found


def _logged(step: Step, batching: ContinuousBatching) -> LoggedStep:
    """A step that was just scheduled, in the form of a live engine's log."""
    shares = tuple((share.id, share.new, share.context) for share in step.scheduled)
    return LoggedStep(shares, tuple(sorted(step.preempted)), batching.blocks.num_free)
