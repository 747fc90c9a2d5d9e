"""Two clocks, one code: handlers read time from the running event loop, and there are two kinds of loop.

On asyncio's own loop a second is a second. On a `VirtualLoop` time jumps to the next timer whenever nothing is left to do,
so an hour of simulated traffic takes as long as its computations. Handlers, levers and engines that use `now()`,
`asyncio.sleep`, `asyncio.timeout_at` and asyncio's queues run on both without knowing which.

Virtual time is for modelled engines: a coroutine that waits on a socket or a thread gives the loop nothing to jump to.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from labkit.request.errors import LabError

T = TypeVar("T")


class VirtualClockStuck(LabError, RuntimeError):
    """Every task on the virtual clock waits for something that no timer will bring."""


def now() -> float:
    """Seconds on the running loop's clock: monotonic, with an arbitrary zero (virtual clocks start at 0)."""
    return asyncio.get_running_loop().time()


def unix_now() -> float:
    """Seconds since 1970 on the running loop: real on the wall clock, start time + virtual time on a virtual one."""
    loop = asyncio.get_running_loop()
    return loop.epoch + loop.time() if isinstance(loop, VirtualLoop) else time.time()


async def sleep_until(when: float) -> None:
    """Wake exactly at `when`, in seconds of `now()`, in the same step of the loop as all tasks that wait for that moment.

    asyncio.sleep would not do: it adds a delay to its own reading of the clock, and the rounded sums differ between tasks.
    """
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    timer = loop.call_at(when, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


async def off_loop(work: Callable[[], T]) -> T:
    """Run `work` in a thread, so that the loop's other tasks go on, and return its result.

    On a virtual clock `work` runs at once and takes no virtual time: the loop could not jump over a thread's work.
    """
    if isinstance(asyncio.get_running_loop(), VirtualLoop):
        return work()
    return await asyncio.to_thread(work)


class _JumpingSelector(selectors.DefaultSelector):
    """Where a real loop would sleep until its next timer, move the loop's time there instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # Only a thread's call_soon_threadsafe could still wake the loop: give a finishing thread a moment, then raise.
            ready = super().select(self.loop.grace)
            if not ready:
                raise VirtualClockStuck(
                    f"all tasks wait at virtual second {self.loop.time():.6g} and no timer is set: a deadlock, or a wait "
                    "on a socket or thread, which virtual time cannot model; use the wall clock for live engines"
                )
            return ready
        self.loop.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while code runs and jumps to the next timer when none does.

    `epoch` is the wall time, in seconds since 1970, that virtual second 0 stands for.
    `grace` is how long, in real seconds, to wait for a thread before a loop without timers is declared stuck.
    """

    def __init__(self, epoch: float = 0.0, grace: float = 1.0) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.epoch = epoch
        self.grace = grace
        self._virtual_time = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual_time

    def advance(self, seconds: float) -> None:
        """Move virtual time forward by `seconds`."""
        # The loop asks for (deadline − now). Adding that to now can land one rounding step short of the deadline, and the
        # loop would spin; so aim for the timer itself.
        scheduled = getattr(self, "_scheduled", None)
        target = self._virtual_time + seconds
        if scheduled and abs(scheduled[0].when() - target) < 1e-6:
            target = max(target, scheduled[0].when())
        self._virtual_time = target


def run_virtual(main: Coroutine[Any, Any, T], epoch: float = 0.0) -> T:
    """Run `main` on a fresh virtual clock and return its result. Raises what `main` raises, and `VirtualClockStuck`.

    `epoch` is the wall time, in seconds since 1970, at virtual second 0. It works inside a notebook too, where a loop
    already runs in this thread: the simulation gets a thread of its own.
    """

    def run() -> T:
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(epoch)) as runner:
            return runner.run(main)

    try:
        asyncio.get_running_loop()
        inside_a_loop = True
    except RuntimeError:
        inside_a_loop = False
    if not inside_a_loop:  # not in the except block, where "no running event loop" would become the context of every error
        return run()
    result: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            result.append(run())
        except BaseException as error:  # noqa: BLE001 - re-raised in the caller's thread below
            failure.append(error)

    thread = threading.Thread(target=target, name="virtual-clock")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
