"""The contents of each step of vLLM's scheduler, as JSON lines: to draw them, and to check a model of the scheduler.

Start the engine with `labkit.engines.host.scheduler.SCHEDULER` and say where the lines go, with the engine argument
`additional_config={"labkit_step_log": path}` or, where that is not given, with the environment variable LABKIT_STEP_LOG.

A line is one step that computed tokens or preempted a request::

    {"tokens": [[id, new, context], …], "preempted": [id, …], "free_blocks": n}

in the scheduler's order: `new` tokens of the request are computed after `context` that its KV cache already holds. vLLM adds
a random suffix to a request's id ("chatcmpl-1" becomes "chatcmpl-1-9f3ab2c1"), and VLLM_DISABLE_REQUEST_ID_RANDOMIZATION=1
keeps the id as it was given.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.request import InvalidValue

CONFIG_KEY = "labkit_step_log"
VARIABLE = "LABKIT_STEP_LOG"


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """One step of a live engine, as its scheduler made it up.

    `tokens` is (id, new tokens, tokens in its KV cache) for each request, `preempted` are the ids of the requests preempted
    for the step, `free_blocks` is how many blocks no request held then (the prefix cache may still find some of them).
    """

    tokens: tuple[tuple[str, int, int], ...]
    preempted: tuple[str, ...]
    free_blocks: int


def read_step_log(path: Path | str) -> list[LoggedStep]:
    """The steps of a log so far; a last line that is still being written is left out.

    Raises `InvalidValue` for a line that is no step, and `OSError` where the file cannot be read.
    """
    whole = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    steps = []
    for number, line in enumerate(whole, 1):
        try:
            entry = json.loads(line)
            tokens = tuple((str(id), int(new), int(context)) for id, new, context in entry["tokens"])
            steps.append(LoggedStep(tokens, tuple(entry["preempted"]), int(entry["free_blocks"])))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(f"{path}, line {number} is no step ({error!r}); give a log that this module wrote") from error
    return steps


def observer(vllm_config: Any) -> StepLog | None:
    """The log that the engine was started with; None for an engine without one."""
    config = vllm_config.additional_config
    chosen = (config.get(CONFIG_KEY) if isinstance(config, dict) else None) or os.environ.get(VARIABLE)
    return StepLog(Path(chosen)) if chosen else None


class StepLog:
    """Appends each step to the file `path` as it is made up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def observe(self, scheduler: Any, output: Any) -> None:
        """Append the step, unless it computed and preempted nothing."""
        preempted = sorted(output.preempted_req_ids or ())
        if output.num_scheduled_tokens or preempted:
            entry = {
                # schedule() has counted the step's tokens as computed already.
                "tokens": [
                    [id, new, scheduler.requests[id].num_computed_tokens - new]
                    for id, new in output.num_scheduled_tokens.items()
                ],
                "preempted": preempted,
                "free_blocks": scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
            }
            self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
