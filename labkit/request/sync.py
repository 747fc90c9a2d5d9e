"""The door for code without an event loop: ask a stack and wait, in plain Python, a script or a notebook's cell.

    with Synchronous(handler) as ask:
        print(ask("Why is the sky blue?").text)
        for event in ask.stream("And at night?"):
            ...

The door owns one thread with one event loop for as long as it is open. So engines keep their connections, and levers their
state, from one call to the next; and the door works where another loop runs in the caller's thread, as in a notebook.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from labkit.request.deadline import held, within
from labkit.request.errors import EngineError, InvalidRequest, InvalidValue, LabError
from labkit.request.handler import Completion, Handler, complete
from labkit.request.values import Event, Message, Request


class DoorClosed(LabError):
    """A synchronous door was asked after it was closed, or was closed while it answered."""


class Synchronous:
    """Asks `handler` from any thread, and waits. `handler` may also be an awaitable that brings one, such as `connect()`.

    A handler that an awaitable brought is closed with the door, if it has an `aclose`. Use the door as a context manager, or
    call `close`. Requests from several threads are answered at the same time. The door keeps real time: for a modelled
    engine's virtual clock use `labkit.request.clock.run_virtual`. Raises `InvalidValue` where `handler` is, or brings, no
    handler, and whatever the awaitable raises.
    """

    def __init__(self, handler: Handler | Awaitable[Handler]) -> None:
        if not callable(handler) and not isinstance(handler, Awaitable):
            raise InvalidValue(f"a handler is a function from a request to a stream of events; {handler!r:.80} is none")
        self._handler = handler
        self._brought: Any = None
        self._failure: Exception | None = None
        self._closed = False
        self._stopping = asyncio.Event()
        self._lines: set[_Line] = set()
        # Reentrant: an iterator may be collected, and so closed, at any line of the thread that holds the lock.
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="synchronous-door", daemon=True)
        self._thread.start()
        if not callable(handler):
            try:
                self._wait(self._bring)
            except BaseException:
                self.close()
                raise

    def __call__(self, request: Request | str, *, within_s: float | None = None) -> Completion:
        """The whole answer to `request`, within `within_s` seconds; a text stands for one user message.

        Raises what the stack raises, `DeadlineExceeded` after `within_s`, and `DoorClosed`. Interrupting the wait (Ctrl-C)
        cancels the answer down to the engine.
        """
        asked = _request(request)

        async def answer(line: _Line) -> None:
            line.items.put(await complete(self._ask, _limited(asked, within_s)))

        answered: Completion = self._wait(answer)
        return answered

    def stream(self, request: Request | str, *, within_s: float | None = None) -> Generator[Event, None, None]:
        """The events that answer `request`, as they come; an event is read from the engine only when the caller asks for it.

        Leaving the loop over the events, or closing the iterator, cancels the answer down to the engine. Raises like a call.
        """
        self._check()
        return self._stream(_request(request), within_s)

    def close(self) -> None:
        """Cancel all requests, down to the engine, and end the thread. Callers that wait in other threads get `DoorClosed`.

        Raises the error that closing the handler met, if there was one.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stopping.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure

    def __enter__(self) -> Synchronous:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Synchronous({self._handler!r})"

    def _ask(self, request: Request) -> AsyncGenerator[Event, None]:
        return held(self._handler, request)  # type: ignore[arg-type]  # brought by now

    async def _bring(self, line: _Line) -> None:
        self._brought = self._handler = await self._handler  # type: ignore[misc]
        if not callable(self._handler):
            raise InvalidValue(f"the awaitable should have brought a handler; it brought {self._handler!r:.80}")
        line.items.put(None)

    def _stream(self, request: Request, within_s: float | None) -> Generator[Event, None, None]:
        async def drive(line: _Line) -> None:
            async with aclosing(self._ask(_limited(request, within_s))) as events:
                while True:
                    await line.wanted.wait()
                    line.wanted.clear()
                    try:
                        line.items.put(await anext(events))
                    except StopAsyncIteration:
                        return

        line = self._begin(drive)
        try:
            while True:
                with self._lock:
                    if not self._closed:  # if it is, the line's end is on its way
                        self._loop.call_soon_threadsafe(line.wanted.set)
                item = line.take()
                if isinstance(item, _End):
                    return
                yield item
        finally:
            self._end(line)

    def _wait(self, work: Callable[[_Line], Coroutine[Any, Any, None]]) -> Any:
        """The first item that `work` puts on its line."""
        line = self._begin(work)
        try:
            return line.take()
        finally:
            self._end(line)

    def _check(self) -> None:
        if threading.current_thread() is self._thread:
            raise LabError(
                "a synchronous door was asked by the handler that it asks, and would wait for itself; await there"
            )
        if self._closed:
            raise DoorClosed("this synchronous door is closed; make a new one")

    def _begin(self, work: Callable[[_Line], Coroutine[Any, Any, None]]) -> _Line:
        line = _Line()
        with self._lock:
            self._check()
            self._lines.add(line)
            self._loop.call_soon_threadsafe(self._start, line, work)
        return line

    def _end(self, line: _Line) -> None:
        """Cancel the line's work where it still runs, and wait until it has ended (except in the door's own thread)."""
        if line.over:
            return
        with self._lock:
            if not self._closed:  # closing cancels it by itself
                self._loop.call_soon_threadsafe(line.cancel)
        if threading.current_thread() is not self._thread:  # an iterator may be collected there too, and must not wait
            while not isinstance(line.items.get(), _End):
                pass

    # From here on in the loop's own thread.

    def _start(self, line: _Line, work: Callable[[_Line], Coroutine[Any, Any, None]]) -> None:
        line.task = self._loop.create_task(_caught(work, line))
        line.task.add_done_callback(partial(self._ended, line))

    def _ended(self, line: _Line, task: asyncio.Task[BaseException | None]) -> None:
        self._lines.discard(line)
        if not task.cancelled():
            line.items.put(_End(task.result()))
        elif self._closed:
            line.items.put(_End(DoorClosed("the synchronous door was closed before the answer was whole; ask a new one")))
        else:
            line.items.put(_End(EngineError("the answer was cancelled by somebody who does not read it; ask again")))

    async def _serve(self) -> None:
        await self._stopping.wait()
        tasks = [line.task for line in list(self._lines) if line.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if hasattr(self._brought, "aclose"):
            await self._brought.aclose()

    def _live(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except Exception as error:  # noqa: BLE001 - close() raises it
                self._failure = error
            finally:
                with self._lock:  # before the loop closes: nobody may call it after that
                    self._closed = True
        for line in list(self._lines):  # none, unless the loop was torn down from within
            line.items.put(_End(DoorClosed("the synchronous door's loop was ended from within; make a new one")))


@dataclass(frozen=True, slots=True)
class _End:
    """The last item of a line."""

    error: BaseException | None


@dataclass(slots=True, eq=False)
class _Line:
    """The way of one answer from the loop's thread to the caller's."""

    items: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[BaseException | None] | None = None
    over: bool = False

    def take(self) -> Any:
        """The next item, once it is there; raises what ended the line."""
        item = self.items.get()
        if isinstance(item, _End):
            self.over = True
            if item.error is not None:
                raise item.error
        return item

    def cancel(self) -> None:
        """Cancel the work; call it in the loop's thread."""
        if self.task is not None:
            self.task.cancel()


async def _caught(work: Callable[[_Line], Coroutine[Any, Any, None]], line: _Line) -> BaseException | None:
    """Run `work` and return the error that ended it, None where it ended well.

    The error is returned, not raised: a SystemExit raised here would end the loop, and all other answers with it.
    """
    try:
        await work(line)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
        return error
    return None


def _request(given: Request | str) -> Request:
    if isinstance(given, str):
        return Request((Message("user", given),))
    if not isinstance(given, Request):
        raise InvalidRequest(f"ask with a text or a Request, not {given!r:.80}")
    return given


def _limited(request: Request, within_s: float | None) -> Request:
    return request if within_s is None else within(request, within_s)
