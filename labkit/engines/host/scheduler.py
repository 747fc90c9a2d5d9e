"""vLLM's own V1 scheduler with observers, which are told of each step as it is made up.

Pass `scheduler_cls=SCHEDULER` as an engine argument, and name the observers in `additional_config`: a step log
(`labkit.engines.host.step_log`), block frames (`labkit.engines.host.block_frames`), or both. Nothing else about the engine
changes: the steps are those of the installed vLLM.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

from labkit.engines.host import block_frames, step_log
from labkit.request import InvalidValue

SCHEDULER = "labkit.engines.host.scheduler.scheduler"


class Observer(Protocol):
    """Is called for every step as it is made up, and once at the engine's end."""

    def observe(self, scheduler: Any, output: Any) -> None:
        """Take note of a step: `output` is the result that `scheduler.schedule()` is about to return."""

    def close(self) -> None:
        """Finish: the engine ends."""


def scheduler(vllm_config: Any, **arguments: Any) -> Any:
    """Make the scheduler with its observers; vLLM calls this by its name, as it would call a scheduler class.

    Raises `InvalidValue` where no observer is configured.
    """
    observers = [made for make in (step_log.observer, block_frames.observer) if (made := make(vllm_config)) is not None]
    if not observers:
        raise InvalidValue(
            f"this scheduler has nobody to tell of its steps; pass additional_config={{{step_log.CONFIG_KEY!r}: path}} "
            f"or set {step_log.VARIABLE} for a log of them, or {{{block_frames.CONFIG_KEY!r}: {{}}}} to show its blocks"
        )
    # vLLM runs its asynchronous scheduler unless told otherwise (never on a CPU), and its step loop must match.
    made = _scheduler_class(bool(vllm_config.scheduler_config.async_scheduling))
    return made(observers, vllm_config=vllm_config, **arguments)


@lru_cache(maxsize=2)
def _scheduler_class(asynchronous: bool) -> Any:
    # Imported here, because only an engine's process needs vLLM: reading a log does not.
    if asynchronous:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler as Base
    else:
        from vllm.v1.core.sched.scheduler import Scheduler as Base

    class WatchedScheduler(Base):  # type: ignore[misc]
        """The installed scheduler, which tells its observers of each step."""

        def __init__(self, observers: list[Observer], **arguments: Any) -> None:
            super().__init__(**arguments)
            self._observers = observers

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            output = super().schedule(*args, **kwargs)
            for observer in self._observers:
                observer.observe(self, output)
            return output

        def shutdown(self) -> None:
            for observer in self._observers:
                observer.close()
            super().shutdown()

    return WatchedScheduler
