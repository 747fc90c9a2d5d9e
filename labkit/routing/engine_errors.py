"""Whatever goes wrong in a model is the lab's error to the levers: one of the engine's, or one of the caller's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    LabError,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
)
from labkit.routing.checks import is_number

_TICK_S = 0.02  # a wall-clock timer may fire a tick early: 16 ms where ticks are longest


def is_callers_own(error: BaseException) -> bool:
    """Whether the request itself is at fault, or its deadline has passed: no other model could do better.

    The lab's ValueErrors (`InvalidRequest`, `InvalidRow`) say that what was given could never be served as written; all but
    `InvalidValue`, which says that of the lab's own set-up, and so of this model.
    """
    if isinstance(error, InvalidValue):
        return False
    return isinstance(error, DeadlineExceeded) or (isinstance(error, LabError) and isinstance(error, ValueError))


def as_engine_error(error: BaseException) -> EngineError:
    """`error` where it is an `EngineError`, else an `EngineError` that names it; its HTTP status is kept if it has one."""
    if isinstance(error, EngineError):
        return error
    try:
        told = f"{type(error).__name__}: {error!s:.300}"
    except Exception:  # noqa: BLE001 - an error that cannot even be printed is still the engine's
        told = type(error).__name__
    return EngineError(f"the engine failed with {told}", status=_status(error))


def retry_after_s(error: BaseException) -> float:
    """In how many seconds the engine asked to be tried again; 0 where it did not say, or said nonsense."""
    told: Any = getattr(error, "retry_after_s", None)
    return float(told) if is_number(told) and told > 0 else 0.0


async def engine_stream(model: Handler, request: Request) -> AsyncGenerator[Event, None]:
    """The stream of `model`. Whatever it raises is an `EngineError`, made from the original, or the caller's own fault.

    An error that an engine raises while it is being cancelled does not keep the cancellation from going on. A cancellation
    that nobody asked for (the engine's own task group gave up, say) is an engine's error.
    """
    task = asyncio.current_task()
    before = cancellations(task)
    try:
        async with aclosing(model(request)) as events:
            async for event in events:
                _check(event)
                yield event
    except asyncio.CancelledError as error:
        if task is None or cancellations(task):
            raise
        raise as_engine_error(error) from error
    except Exception as error:
        if cancellations(task) > before:
            raise asyncio.CancelledError from error
        if isinstance(error, EngineError) or (is_callers_own(error) and not _models_own_deadline(error, request)):
            raise
        raise as_engine_error(error) from error


def _models_own_deadline(error: Exception, request: Request) -> bool:
    """Whether a deadline passed that the model set by itself: the caller still has time, and another model may answer."""
    if not isinstance(error, DeadlineExceeded):
        return False
    return request.deadline is None or clock.now() + _TICK_S < request.deadline


def _check(event: object) -> None:
    """Raise `StreamIncomplete` for what no lever could hand on or fold."""
    if isinstance(event, Chunk):
        sound = isinstance(event.text, str) and isinstance(event.reasoning, str)
    else:
        sound = isinstance(event, Done) and isinstance(event.timing, Timing) and isinstance(event.usage, Usage)
    if not sound:
        raise StreamIncomplete(f"the engine sent {event!r:.200}; a stream is made of Chunk values and one Done")


def cancellations(task: asyncio.Task[object] | None) -> int:
    """How many times `task` was asked to end and has not said that it goes on."""
    return 0 if task is None else task.cancelling()


def _status(error: BaseException) -> int | None:
    for name in ("status", "status_code"):
        status = getattr(error, name, None)
        if isinstance(status, int) and 100 <= status <= 599:
            return status
    return None
