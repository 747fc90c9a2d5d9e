"""What a live engine's step log says of its KV cache: blocks held, slots left empty, and tokens computed twice.

The log (`labkit.engines.host.step_log`) has no lengths in it but tokens per request and step, and beside them the number of
blocks that the engine itself calls free. So what is counted here from tokens can be held against the engine's own count, and
`replayed` against the engine's own steps.
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
    """The KV cache in one step, counted from its tokens: requests in it, tokens they hold, blocks for them, empty slots.

    `engine_blocks` is the engine's own count of held blocks: fewer than `blocks` where requests share some, more where one
    that holds blocks got no token in this step.
    """

    running: int
    tokens: int
    blocks: int
    empty_slots: int
    engine_blocks: int
    preempted: int


def step_memory(steps: Sequence[LoggedStep], num_blocks: int, block_size: int) -> list[StepMemory]:
    """The KV cache after each step of a log. `num_blocks` as vLLM reports it, one kept back."""
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
    """Tokens of a log that were computed for a request again, because a preemption had thrown them away."""
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
    """The modelled scheduler's steps for the requests of a log: their prompts' token ids and output tokens, by their id.

    Each request comes in the step in which the log first has it, so admission is checked one way only: the model may let
    nobody in later than the engine did. Everything else (chunks, preemptions, victims, what is found again) is its own.
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
    """The steps that the modelled scheduler takes for `clients` who ask again as soon as they are answered.

    `lengths` are the (prompt, output) tokens of their requests, in order; no two prompts share a beginning. Nobody takes
    time to come back or to be let in, so a live engine, where both take some steps, is a little less crowded.
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
    """A step that was just made up, as a live engine's log would have it."""
    shares = tuple((share.id, share.new, share.context) for share in step.scheduled)
    return LoggedStep(shares, tuple(sorted(step.preempted)), batching.blocks.num_free)
