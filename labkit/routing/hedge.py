"""Hedging: when the first model is slow to begin, ask the next as well, and deliver the answer that begins first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from labkit.request import (
    Chooser,
    Done,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    Request,
    StreamIncomplete,
    clock,
    hops,
)
from labkit.routing.checks import is_number
from labkit.routing.engine_errors import as_engine_error, engine_stream
from labkit.routing.fallback import listed
from labkit.routing.health import AllDown


@dataclass(frozen=True)
class Hedge(Chooser):
    """Ask models in order, and one more whenever no token has come for `after_s` seconds or all asked so far have failed.

    The order is that of the mapping that the hedge is placed over. The first model to give a token wins. The others are
    cancelled, and so are their engines; the tokens that these used until then are paid for and are in the books. After its
    first token, the winner's errors are raised. Before that, once all models asked have failed, the next is asked at once;
    `AllDown` holds the errors when no model is left. Errors that the request itself causes (`InvalidRequest`), and a
    deadline that has passed, are raised at once. With `after_s` of 0 all models start together.

    Latency counts from the caller's request. The route gets "hedge:first|second>second": the models asked, and the winner.
    """

    after_s: float

    def __post_init__(self) -> None:
        if not is_number(self.after_s) or self.after_s < 0:
            raise InvalidValue(f"after_s is {self.after_s!r:.80}; wait 0 s or more, and not for ever")

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that hedges over `models`, in their order; raises `InvalidValue` for fewer than two."""
        if len(models) < 2:
            raise InvalidValue(f"a hedge needs two models or more; it got {tuple(models)}")

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, unix = clock.now(), clock.unix_now()
            runs: list[_Run] = []
            news = asyncio.Event()
            try:
                winner = await _first_to_speak(models, request, self.after_s, runs, news)
                for run in runs:
                    if run is not winner:
                        run.task.cancel()
                asked = listed((run.name for run in runs), "|")
                hop = hops.hop(hops.HEDGE, asked if len(runs) == 1 else f"{asked}>{listed([winner.name], '')}")
                while True:
                    event = await winner.events.get()
                    if event is None:
                        if winner.error is not None:
                            raise winner.error
                        return
                    yield event.since(sent, unix).via(hop) if isinstance(event, Done) else event
            finally:
                for run in runs:
                    run.task.cancel()
                await asyncio.gather(*(run.task for run in runs), return_exceptions=True)

        return handle


@dataclass(slots=True, eq=False)
class _Run:
    """One model being asked, in its own task, because one task must both read and close a generator."""

    name: str
    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    """The events received and not yet delivered; None marks the end."""
    spoke: float | None = None
    over: bool = False
    error: Exception | None = None
    task: asyncio.Task[None] = field(init=False)


async def _first_to_speak(
    models: Mapping[str, Handler], request: Request, after_s: float, runs: list[_Run], news: asyncio.Event
) -> _Run:
    waiting = list(models)
    next_at = clock.now()
    while True:
        spoken = [run for run in runs if run.spoke is not None]
        if spoken:
            return min(spoken, key=lambda run: run.spoke or 0.0)  # in a tie, the model asked first wins
        for run in runs:
            if run.error is not None and not isinstance(run.error, EngineError):
                raise run.error
        all_failed = all(run.over for run in runs)
        if waiting and (all_failed or clock.now() >= next_at):
            run = _Run(waiting.pop(0))
            run.task = asyncio.create_task(_pump(run, models[run.name], replace(request, model=run.name), news))
            runs.append(run)
            next_at = clock.now() + after_s
            continue
        if all_failed:
            raise AllDown({run.name: as_engine_error(run.error) for run in runs if run.error is not None})
        news.clear()
        try:
            async with asyncio.timeout_at(next_at if waiting else None):
                await news.wait()
        except TimeoutError:
            pass


async def _pump(run: _Run, model: Handler, request: Request, news: asyncio.Event) -> None:
    done = False
    try:
        async with aclosing(engine_stream(model, request)) as events:
            async for event in events:
                done = done or isinstance(event, Done)
                if run.spoke is None and (isinstance(event, Done) or event.has_content):
                    run.spoke = clock.now()
                    news.set()
                run.events.put_nowait(event)
        if not done:
            raise StreamIncomplete("the stream ended without a Done; the answer is not whole")
    except Exception as error:  # noqa: BLE001 - kept, and raised or reported where the caller waits
        run.error = error
    finally:
        run.over = True
        run.events.put_nowait(None)
        news.set()
