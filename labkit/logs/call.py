"""What is known of one call of a log, and of the log as a whole. Unknown is None or empty, never 0."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Literal

from labkit.request import Usage

Status = Literal["completed", "cancelled", "failed", ""]
Turn = tuple[str, str]
"""The role and the text of one message."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as a log tells it.

    `line` is where it stands in the log, from 1. `at`: when it was sent, in seconds since 1970, or since the first call
    where the log counts so. `ttft` and `duration` are in seconds. `status` is "" where the log does not say how the call
    ended, and `finish` the endpoint's own word for the end. `attempt` counts from 1; `request` names what the attempts of
    one request share. `shadow`: nobody saw the answer. `cost` is what the log says was paid, in `currency` ("" where it is
    not said). `turns` are the prompt's messages, and `prompt_version` names the version of their instructions.
    `block_hashes` and `prompt_key` stand for the prompt where a log keeps no texts. Texts are left out of the `repr`.
    """

    line: int
    at: float | None = None
    model: str = ""
    usage: Usage | None = None
    ttft: float | None = None
    duration: float | None = None
    status: Status = ""
    finish: str = ""
    attempt: int | None = None
    request: str = ""
    shadow: bool = False
    cost: Decimal | None = None
    tenant: str = ""
    user: str = ""
    session: str = ""
    feature: str = ""
    turns: tuple[Turn, ...] = field(default=(), repr=False)
    answer: str = field(default="", repr=False)
    block_hashes: tuple[int, ...] = field(default=(), repr=False)
    prompt_key: str = ""
    prompt_version: str = ""
    currency: str = ""

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, s: (duration − TTFT) / (output tokens − 1); None for fewer than two.

        None for answers with reasoning tokens, too: a log does not say whether those came before the first token. And None
        where the first token is said to come after the end.
        """
        if self.duration is None or self.ttft is None or self.usage is None or self.ttft > self.duration:
            return None
        if self.usage.output_tokens < 2 or self.usage.reasoning_tokens:
            return None
        return (self.duration - self.ttft) / (self.usage.output_tokens - 1)

    @property
    def asked(self) -> Hashable | None:
        """What was asked, and of whom: equal for calls that could have had one answer; None without a prompt."""
        prompt: Hashable = self.turns or self.prompt_key or self.block_hashes
        return (self.tenant, self.model, prompt) if prompt else None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be read as a call, and why. `why` never repeats the line's content."""

    line: int
    why: str


FIELDS = (
    "at", "model", "usage", "ttft", "duration", "status", "finish", "attempt", "request", "cost", "tenant", "user",
    "session", "feature", "turns", "answer", "block_hashes", "prompt_key", "prompt_version",
)  # fmt: skip
"""The fields of `Call` that a log may have or lack."""


@dataclass(frozen=True)
class Log:
    """The calls of a log, by time where it tells the time, with all that could not be read.

    `name` is the file's, `kind` says what it was read as. `duplicates` are the lines left out because an equal record with
    the same id stands above them. `notes` say in words what had to be decided to read the log, such as a unit.
    """

    name: str
    kind: str
    calls: tuple[Call, ...] = field(repr=False)
    bad: tuple[BadLine, ...] = ()
    duplicates: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.calls)

    @cached_property
    def has(self) -> Mapping[str, int]:
        """For each of `FIELDS`, how many calls have it."""
        return {name: sum(_there(getattr(call, name)) for call in self.calls) for name in FIELDS}

    @property
    def usages(self) -> list[Usage]:
        """The usage of each call that has one."""
        return [call.usage for call in self.calls if call.usage is not None]

    @property
    def seconds(self) -> float | None:
        """From the first call that has a time to the last one; None without two of them."""
        times = [call.at for call in self.calls if call.at is not None]
        return max(times) - min(times) if len(times) > 1 else None

    @property
    def told(self) -> str:
        """The log in one sentence: what was read, and what was not."""
        parts = [f"{self.name}, read as {self.kind}: {counted(len(self.calls), 'call')}"]
        if self.bad:
            where = _listed(bad.line for bad in self.bad)
            parts.append(f"{counted(len(self.bad), 'line')} could not be read ({where}: {self.bad[0].why})")
        if self.duplicates:
            parts.append(f"{counted(len(self.duplicates), 'copy')} of a record left out (line {_listed(self.duplicates)})")
        return "; ".join([*parts, *self.notes]) + "."


def counted(n: int, what: str) -> str:
    """So many of a thing, in words: "1 line", "1,200 copies"."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{n:,} {what if n == 1 else many}"


def _there(value: object) -> bool:
    return value is not None and value != "" and value != ()


def _listed(lines: Iterable[int], most: int = 5) -> str:
    given = list(lines)
    return ", ".join(map(str, given[:most])) + (", …" if len(given) > most else "")
