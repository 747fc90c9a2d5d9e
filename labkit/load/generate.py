"""Put load on a handler, and keep what happened to every request.

*Open loop*: requests are sent when they are due, whatever became of the others, as users do. *Closed loop*: a fixed number
of requests is under way, and the next is sent when one ends, as batch jobs do. A closed loop cannot see a queue: while the
engine stalls it sends nothing, so the stall costs a few samples and not the hundreds that users would have felt (coordinated
omission; Tene, "How not to measure latency", 2013).

Both keep each sample as it ends. When the engine dies in the middle, the run comes back with what there is, and says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labkit.latency import Sample
from labkit.request import Chunk, Done, EngineError, Handler, InvalidValue, LabError, Request, Timing, Usage, clock

# An engine that has refused or failed so many in a row is gone; what is left of the load would only be more of the same.
_GONE = 5


@dataclass(frozen=True, slots=True)
class Run:
    """What a load brought: samples in the order they were due, and from when to when it was on, in seconds of the clock.

    `complete` is False when the load was broken off; `reason` then says why.
    """

    samples: tuple[Sample, ...]
    begin: float
    end: float
    kind: str
    complete: bool = True
    reason: str = ""

    @property
    def seconds(self) -> float:
        """How long it was on."""
        return self.end - self.begin

    def steady(self, warm_up_s: float, cool_down_s: float = 0.0) -> Run:
        """Only what was due after the first `warm_up_s` and before the last `cool_down_s` seconds."""
        begin, end = self.begin + warm_up_s, self.end - cool_down_s
        if not begin < end:
            raise InvalidValue(f"a run of {self.seconds:.3g} s has nothing left without {warm_up_s} + {cool_down_s} s")
        return replace(self, samples=tuple(s for s in self.samples if begin <= s.due < end), begin=begin, end=end)

    def write(self, path: Path) -> None:
        """Write as JSON lines: what the run was, then a sample a line."""
        head = {"kind": self.kind, "begin": self.begin, "end": self.end, "complete": self.complete, "reason": self.reason}
        lines = [json.dumps(head), *(json.dumps(asdict(sample)) for sample in self.samples)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read what `write` wrote. Raises `InvalidValue` for anything else."""
        try:
            head, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
            return cls(samples=tuple(_sample(row) for row in rows), **head)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidValue(f"{path} is no run of a load generator: {error}") from error


async def open_loop(handler: Handler, load: Iterable[tuple[float, Request]], timeout_s: float = 300.0) -> Run:
    """Send each request at its time, in seconds from now, and wait until all have ended.

    Times must ascend. A request without an end after `timeout_s` is cancelled and kept as an error.
    """
    begin = clock.now()
    tasks: list[asyncio.Task[Sample]] = []
    gone = _Gone()
    before = 0.0
    try:
        for at, request in load:
            if at < before:
                raise InvalidValue(f"a request is due at {at} s, after one at {before} s; sort the load by time")
            before = at
            await clock.sleep_until(begin + at)
            if gone.reason:
                break
            tasks.append(asyncio.create_task(_sample_of(handler, request, begin + at, timeout_s, gone)))
        samples = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return Run(tuple(samples), begin, clock.now(), "open loop", not gone.reason, gone.reason)


async def closed_loop(handler: Handler, requests: Iterable[Request], concurrency: int, timeout_s: float = 300.0) -> Run:
    """Keep `concurrency` requests under way until all of `requests` have ended."""
    if concurrency < 1:
        raise InvalidValue(f"concurrency is {concurrency}; keep at least 1 request under way")
    begin, gone = clock.now(), _Gone()
    left: Iterator[Request] = iter(requests)
    samples: list[Sample] = []

    async def worker() -> None:
        for request in left:
            if gone.reason:
                return
            samples.append(await _sample_of(handler, request, clock.now(), timeout_s, gone))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    ordered = sorted(samples, key=lambda sample: sample.due)
    return Run(tuple(ordered), begin, clock.now(), f"closed loop of {concurrency}", not gone.reason, gone.reason)


class _Gone:
    """Counts failures in a row; `reason` is set when there are so many that the engine must be gone."""

    def __init__(self) -> None:
        self.reason = ""
        self._in_a_row = 0

    def count(self, error: str) -> None:
        self._in_a_row = self._in_a_row + 1 if error else 0
        if self._in_a_row >= _GONE and not self.reason:
            self.reason = f"{_GONE} requests in a row failed, the last with: {error}"


async def _sample_of(handler: Handler, request: Request, due: float, timeout_s: float, gone: _Gone) -> Sample:
    chunks: list[tuple[float, int]] = []
    sent, usage = clock.now(), None
    try:
        async with asyncio.timeout(timeout_s), aclosing(handler(request)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    chunks.append((event.at, event.tokens))
                    usage = event.usage or usage
                elif isinstance(event, Done):
                    gone.count("")
                    return Sample(due, event.timing, event.usage, tuple(chunks))
        error = "the stream ended without its end"
    except TimeoutError:
        error = f"no end after {timeout_s:g} s"
    except (LabError, EngineError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    gone.count(error)
    first = chunks[0][0] if chunks else None
    return Sample(due, Timing(sent, first, chunks[-1][0] if chunks else None), usage, tuple(chunks), error)


def _sample(row: dict[str, Any]) -> Sample:
    timing, usage = row.pop("timing"), row.pop("usage")
    row["chunks"] = tuple((at, tokens) for at, tokens in row["chunks"])
    return Sample(**row, timing=timing and Timing(**timing), usage=usage and Usage(**usage))
