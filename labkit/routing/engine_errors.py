"""Sorts the errors of a model: levers see either an `EngineError`, or an error that is the caller's own."""

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
    """Whether the request itself is at fault, or its deadline has passed, so that no other model could do better.

    The lab's ValueErrors (`InvalidRequest`, `InvalidRow`) mean that the request could never be served as written. The one
    exception is `InvalidValue`: it blames the lab's own set-up, here that of the model, and another model may do better.
    """
    if isinstance(error, InvalidValue):
        return False
    return isinstance(error, DeadlineExceeded) or (isinstance(error, LabError) and isinstance(error, ValueError))


def as_engine_error(error: BaseException) -> EngineError:
    """`error` itself if it is an `EngineError`, else a new `EngineError` that names it and keeps its HTTP status, if any."""
    if isinstance(error, EngineError):
        return error
    try:
        told = f"{type(error).__name__}: {error!s:.300}"
    except Exception:  # noqa: BLE001 - an error that cannot even be printed is still the engine's
        told = type(error).__name__
    return EngineError(f"the engine failed with {told}", status=_status(error))


def retry_after_s(error: BaseException) -> float:
    """The seconds after which the engine asked to be tried again; 0 where it gave none, or no finite number above 0."""
    told: Any = getattr(error, "retry_after_s", None)
    return float(told) if is_number(told) and told > 0 else 0.0


async def engine_stream(model: Handler, request: Request) -> AsyncGenerator[Event, None]:
    """The stream of `model`, which raises only `EngineError`s and the caller's own errors.

    Any other error is raised as an `EngineError` made from it. An error that an engine raises while it is being cancelled
    does not stop the cancellation. A cancellation that nobody asked for (the engine's own task group gave up, say) is an
    engine error.
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
    """Whether the deadline that passed was the model's own: the caller's has not passed, so another model may answer."""
    if not isinstance(error, DeadlineExceeded):
        return False
    return request.deadline is None or clock.now() + _TICK_S < request.deadline


def _check(event: object) -> None:
    """Raise `StreamIncomplete` for an event that is neither a sound `Chunk` nor a sound `Done`."""
    if isinstance(event, Chunk):
        sound = isinstance(event.text, str) and isinstance(event.reasoning, str)
    else:
        sound = isinstance(event, Done) and isinstance(event.timing, Timing) and isinstance(event.usage, Usage)
    if not sound:
        raise StreamIncomplete(f"the engine sent {event!r:.200}; a stream is made of Chunk values and one Done")


def cancellations(task: asyncio.Task[object] | None) -> int:
    """How many cancellations of `task` are pending: requested, and not taken back by `uncancel`."""
    return 0 if task is None else task.cancelling()


def _status(error: BaseException) -> int | None:
    for name in ("status", "status_code"):
        status = getattr(error, name, None)
        if isinstance(status, int) and 100 <= status <= 599:
            return status
    return None
