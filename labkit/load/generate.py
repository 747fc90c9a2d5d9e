"""Put load on a handler, and keep what happened to every request.

*Open loop*: each request is sent when it is due, whatever happens to the others, as users do. *Closed loop*: a fixed number
of requests is under way, and the next is sent when one ends, as batch jobs do. A closed loop cannot see a queue: while the
engine stalls, it sends nothing, so a stall affects a few samples instead of the hundreds of users that would have waited
(coordinated omission; Tene, "How not to measure latency", 2013).

Both keep each sample as it ends. When the engine dies during the load, the run returns the samples so far and says why.
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
from labkit.request import Arrived, Chunk, Done, EngineError, Handler, InvalidValue, LabError, Request, Timing, Usage, clock

# After this many failures in a row the engine counts as gone: the rest of the load would fail in the same way.
_GONE = 5


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a load: its samples in the order in which they were due, and its `begin` and `end` in clock seconds.

    `kind` names the loop. `complete` is False when requests were left unsent, because too many before them failed in a row;
    `reason` then says why.
    """

    samples: tuple[Sample, ...]
    begin: float
    end: float
    kind: str
    complete: bool = True
    reason: str = ""

    @property
    def seconds(self) -> float:
        """How long the load lasted, in seconds."""
        return self.end - self.begin

    def steady(self, warm_up_s: float, cool_down_s: float = 0.0) -> Run:
        """The run with only the samples due after the first `warm_up_s` and before the last `cool_down_s` seconds.

        Raises `InvalidValue` where nothing of the run's time is left.
        """
        begin, end = self.begin + warm_up_s, self.end - cool_down_s
        if not begin < end:
            raise InvalidValue(f"a run of {self.seconds:.3g} s has nothing left without {warm_up_s} + {cool_down_s} s")
        return replace(self, samples=tuple(s for s in self.samples if begin <= s.due < end), begin=begin, end=end)

    def write(self, path: Path) -> None:
        """Write the run as JSON lines: first its other fields, then one sample per line."""
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

    A request that has not ended after `timeout_s` is cancelled, and its sample has an error. After 5 failures in a row no
    more requests are sent. Raises `InvalidValue` for times that do not ascend.
    """
    begin = clock.now()
    tasks: list[asyncio.Task[Sample]] = []
    gone, reason = _Gone(), ""
    before = 0.0
    try:
        for at, request in load:
            if at < before:
                raise InvalidValue(f"a request is due at {at} s, after one at {before} s; sort the load by time")
            before = at
            await clock.sleep_until(begin + at)
            if reason := gone.why:
                break
            tasks.append(asyncio.create_task(_sample_of(handler, request, begin + at, timeout_s, gone)))
        samples = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return Run(tuple(samples), begin, clock.now(), "open loop", not reason, reason)


async def closed_loop(handler: Handler, requests: Iterable[Request], concurrency: int, timeout_s: float = 300.0) -> Run:
    """Keep `concurrency` requests under way until all of `requests` have ended.

    `timeout_s` and failures are treated as in `open_loop`. Raises `InvalidValue` for a `concurrency` below 1.
    """
    if concurrency < 1:
        raise InvalidValue(f"concurrency is {concurrency}; keep at least 1 request under way")
    begin, gone, reason = clock.now(), _Gone(), ""
    left: Iterator[Request] = iter(requests)
    samples: list[Sample] = []

    async def worker() -> None:
        nonlocal reason
        for request in left:
            if gone.why:
                reason = gone.why
                return
            samples.append(await _sample_of(handler, request, clock.now(), timeout_s, gone))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    ordered = sorted(samples, key=lambda sample: sample.due)
    return Run(tuple(ordered), begin, clock.now(), f"closed loop of {concurrency}", not reason, reason)


class _Gone:
    """Counts failures in a row. Once there are `_GONE` of them `why` says so for good, and no more requests are sent."""

    def __init__(self) -> None:
        self.why = ""
        self._in_a_row = 0

    def count(self, error: str) -> None:
        self._in_a_row = self._in_a_row + 1 if error else 0
        if self._in_a_row >= _GONE and not self.why:
            self.why = f"{_GONE} requests in a row failed, the last with: {error}"


async def _sample_of(handler: Handler, request: Request, due: float, timeout_s: float, gone: _Gone) -> Sample:
    chunks: list[tuple[float, int]] = []
    arrived = Arrived.now()
    try:
        async with asyncio.timeout(timeout_s), aclosing(handler(request)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    chunks.append((event.at, event.tokens))
                    arrived.note(event)
                elif isinstance(event, Done):
                    gone.count("")
                    return Sample(due, event.timing, event.usage, tuple(chunks))
        error = "the stream ended without its end"
    except TimeoutError:
        error = f"no end after {timeout_s:g} s"
    except (LabError, EngineError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    gone.count(error)
    timing = Timing(arrived.sent, arrived.first_token, arrived.last_token)
    return Sample(due, timing, arrived.running, tuple(chunks), error)


def _sample(row: dict[str, Any]) -> Sample:
    timing, usage = row.pop("timing"), row.pop("usage")
    row["chunks"] = tuple((at, tokens) for at, tokens in row["chunks"])
    return Sample(**row, timing=timing and Timing(**timing), usage=usage and Usage(**usage))
