"""Engines that fail on a schedule, for the tests of this room."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from labkit.engines import ScriptedEngine
from labkit.request import Event, Request, clock


@dataclass(eq=False)
class Scheduled:
    """Its n-th attempt ends with the n-th of `ends`: None for an answer, an error, or (error, tokens before it).

    After the schedule it answers. `at` are the times of the attempts, in seconds of `clock.now()`.
    """

    ends: tuple[Exception | tuple[Exception, int] | None, ...] = ()
    gap_s: float = 1.0
    running_usage: bool = True
    model: str = "scheduled"
    at: list[float] = field(default_factory=list)
    made: list[ScriptedEngine] = field(default_factory=list)

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        end = self.ends[len(self.at)] if len(self.at) < len(self.ends) else None
        error, after = end if isinstance(end, tuple) else (end, 0)
        self.at.append(clock.now())
        shared = {"gap_s": self.gap_s, "running_usage": self.running_usage, "model": self.model}
        engine = ScriptedEngine(**shared) if error is None else ScriptedEngine(**shared, fail_at=after, error=error)
        self.made.append(engine)
        return engine(request)

    @property
    def asked(self) -> list[Request]:
        """The requests that it got."""
        return [request for engine in self.made for request in engine.asked]
