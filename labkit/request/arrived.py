"""What has arrived of a stream so far: its tokens, its usage, when it began. No other module adds these up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

from labkit.request import clock
from labkit.request.values import Chunk, Timing, Usage

UsageSource = Literal["reported", "running", "counted", "unknown"]
"""Where token counts come from. "reported": the engine's final count. "running": its running count before the stream was
cut. "counted": the chunks that had arrived (output only). "unknown": nowhere."""


@dataclass(slots=True)
class Arrived:
    """A stream as far as it has come. `sent` is in seconds of `clock.now()`, `started_unix` in seconds since 1970.

    Where chunks carry the engine's running count, `usage` is the last count plus the tokens of the chunks after it. Where no
    chunk carries one, `usage` is the sum of the chunks' own tokens, with 0 input tokens because nobody knows them. The
    tokens of a chunk that holds reasoning and no text are reasoning tokens.
    """

    sent: float
    started_unix: float
    chunks: int = 0
    first_token: float | None = None
    last_token: float | None = None
    running: Usage | None = None
    since: Usage = field(default_factory=Usage)

    @classmethod
    def now(cls) -> Self:
        """The empty record of a stream that is asked for now."""
        return cls(clock.now(), clock.unix_now())

    def note(self, chunk: Chunk) -> None:
        """Take in the next chunk."""
        self.chunks += 1
        if chunk.has_content:
            self.last_token = chunk.at
            if self.first_token is None:
                self.first_token = chunk.at
        if chunk.usage is None:
            self.since = self.since + chunk.counted
        else:
            self.running, self.since = chunk.usage, Usage()

    @property
    def usage(self) -> Usage:
        """The tokens so far."""
        return self.since if self.running is None else self.running + self.since

    @property
    def source(self) -> UsageSource:
        """Where `usage` comes from."""
        if self.running is not None:
            return "running"
        return "counted" if self.since.output_tokens else "unknown"

    def timing(self) -> Timing:
        """The timestamps of a stream that ends now."""
        return Timing(self.sent, self.first_token, self.last_token, clock.now(), self.started_unix)
