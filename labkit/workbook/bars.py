"""Bars for what takes more than a moment: what runs, how far it is, how long still. tqdm draws them, also in a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from labkit.extras import extra

T = TypeVar("T")
_TICK_S = 0.25


def track(items: Iterable[T], what: str, *, quiet: bool) -> Iterator[T]:
    """The items, with a bar that `what` names, which moves on with each; no bar when `quiet`."""
    yield from _tqdm()(items, desc=what, leave=False, disable=quiet)


async def timed(work: Awaitable[T], what: str, *, about_s: float | None, quiet: bool) -> T:
    """Await `work` under a bar of its seconds, of about `about_s` in all where that is known; no bar when `quiet`."""
    if quiet:
        return await work
    shape = "{desc}: {elapsed}" if about_s is None else "{desc}: {percentage:3.0f}% |{bar}| {elapsed} of about {total:.0f} s"
    with _tqdm()(total=about_s, desc=what, leave=False, bar_format=shape) as bar:
        ticks = asyncio.ensure_future(_ticks(bar, about_s))
        try:
            return await work
        finally:
            ticks.cancel()


@contextmanager
def steps(what: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line that says which step of something runs and for how long; the body calls it with each step's name."""
    with _tqdm()(desc=what, leave=False, disable=quiet, bar_format="{desc}: {elapsed}") as bar:

        def step(name: str) -> None:
            bar.set_description_str(f"{what}: {name}", refresh=True)

        yield step


def _tqdm() -> Any:
    with extra("workbook"):
        from tqdm.auto import tqdm
    return tqdm


async def _ticks(bar: Any, about_s: float | None) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        bar.update(min(_TICK_S, max(0.0, about_s - bar.n)) if about_s is not None else _TICK_S)
        bar.refresh()
