"""What vLLM's scheduler really put into each step, as JSON lines: for drawing it, and for checking a model of it.

Pass `scheduler_cls=SCHEDULER` as an engine argument and say where the lines go, with the engine argument
`additional_config={"labkit_step_log": path}` or, where that is not given, with the environment variable LABKIT_STEP_LOG.
Nothing else about the engine changes: the steps are those of the installed vLLM's own V1 scheduler.

A line is one step that held something::

    {"tokens": [[id, new, context], …], "preempted": [id, …], "free_blocks": n}

in the scheduler's order: `new` tokens of the request are computed after `context` that its KV cache already holds. vLLM adds
a random suffix to a request's id ("chatcmpl-1" becomes "chatcmpl-1-9f3ab2c1"), and VLLM_DISABLE_REQUEST_ID_RANDOMIZATION=1
keeps the id as it was given.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from labkit.request.errors import InvalidRequest

SCHEDULER = "labkit.engines.host.step_log.scheduler"
CONFIG_KEY = "labkit_step_log"
VARIABLE = "LABKIT_STEP_LOG"


@dataclass(frozen=True, slots=True)
class LoggedStep:
    """One step of a live engine: (id, new tokens, tokens in its KV cache) per request, who was preempted for it, and the
    blocks that no request held once it was made up (blocks that the prefix cache may still find are among them).
    """

    tokens: tuple[tuple[str, int, int], ...]
    preempted: tuple[str, ...]
    free_blocks: int


def read_step_log(path: Path | str) -> list[LoggedStep]:
    """The steps of a log so far; a last line that is still being written is left out."""
    whole = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    steps = []
    for number, line in enumerate(whole, 1):
        try:
            entry = json.loads(line)
            tokens = tuple((str(id), int(new), int(context)) for id, new, context in entry["tokens"])
            steps.append(LoggedStep(tokens, tuple(entry["preempted"]), int(entry["free_blocks"])))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{path}, line {number} is no step ({error!r}); give a log that this module wrote"
            ) from error
    return steps


def scheduler(vllm_config: Any, **arguments: Any) -> Any:
    """The scheduler that writes the log; vLLM calls this by its name, as it would call a scheduler class."""
    # vLLM runs its asynchronous scheduler unless told otherwise (never on a CPU), and its step loop must match.
    made = _scheduler_class(bool(vllm_config.scheduler_config.async_scheduling))
    return made(vllm_config=vllm_config, **arguments)


@lru_cache(maxsize=2)
def _scheduler_class(asynchronous: bool) -> Any:
    # Only an engine's process gets here: reading a log needs no vLLM.
    if asynchronous:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler as Base
    else:
        from vllm.v1.core.sched.scheduler import Scheduler as Base

    class StepLogScheduler(Base):  # type: ignore[misc]
        """The installed scheduler, writing down each step as it is made up."""

        def __init__(self, *, vllm_config: Any, **arguments: Any) -> None:
            super().__init__(vllm_config=vllm_config, **arguments)
            self._step_log = _log_path(vllm_config).open("a", encoding="utf-8", buffering=1)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            output = super().schedule(*args, **kwargs)
            preempted = sorted(output.preempted_req_ids or ())
            if output.num_scheduled_tokens or preempted:
                entry = {
                    # schedule() has counted the step's tokens as computed already.
                    "tokens": [
                        [id, new, self.requests[id].num_computed_tokens - new]
                        for id, new in output.num_scheduled_tokens.items()
                    ],
                    "preempted": preempted,
                    "free_blocks": self.kv_cache_manager.block_pool.get_num_free_blocks(),
                }
                self._step_log.write(json.dumps(entry, separators=(",", ":")) + "\n")
            return output

        def shutdown(self) -> None:
            self._step_log.close()
            super().shutdown()

    return StepLogScheduler


def _log_path(vllm_config: Any) -> Path:
    config = vllm_config.additional_config
    chosen = (config.get(CONFIG_KEY) if isinstance(config, dict) else None) or os.environ.get(VARIABLE)
    if not chosen:
        raise InvalidRequest(
            f"the step log has no file to go to; pass additional_config={{{CONFIG_KEY!r}: path}} or set {VARIABLE}"
        )
    return Path(chosen)
