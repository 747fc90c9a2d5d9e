"""The stretches of time that a limit is for: a day or a month of the calendar (UTC), or the last so many seconds.

Spending is added up in buckets. A bucket is known by its start, in whole seconds since 1970, and it counts until it `ends`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from labkit.request import InvalidValue, is_whole

_DAY_S = 24 * 3600
_STEPS = 60


class Span(Protocol):
    """A stretch of time. Times are in seconds since 1970."""

    @property
    def name(self) -> str:
        """The span in a word, which `span_of` reads: "day", "month", "3600 s"."""
        ...

    def bucket(self, now: float) -> int:
        """The bucket to which what is spent at `now` is added."""
        ...

    def since(self, now: float) -> int:
        """The earliest bucket that counts at `now`."""
        ...

    def ends(self, bucket: int) -> int:
        """The moment from which `bucket` no longer counts."""
        ...


@dataclass(frozen=True, slots=True)
class Daily:
    """The present day, from midnight to midnight in UTC."""

    @property
    def name(self) -> str:
        """The span in a word."""
        return "day"

    def bucket(self, now: float) -> int:
        """The present day's beginning."""
        return int(now // _DAY_S) * _DAY_S

    def since(self, now: float) -> int:
        """The present day's beginning."""
        return self.bucket(now)

    def ends(self, bucket: int) -> int:
        """The end of the day that begins at `bucket`."""
        return bucket + _DAY_S


@dataclass(frozen=True, slots=True)
class Monthly:
    """The present month of the calendar, in UTC."""

    @property
    def name(self) -> str:
        """The span in a word."""
        return "month"

    def bucket(self, now: float) -> int:
        """The present month's beginning."""
        day = datetime.fromtimestamp(now, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())

    def since(self, now: float) -> int:
        """The present month's beginning."""
        return self.bucket(now)

    def ends(self, bucket: int) -> int:
        """The end of the month that begins at `bucket`."""
        day = datetime.fromtimestamp(bucket, UTC)
        year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
        return int(datetime(year, month, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `seconds`, in steps of a 60th (at least 1 s): what is spent counts for `seconds`, and for up to a step more.

    Raises `InvalidValue` for anything but a whole number of seconds from 1.
    """

    seconds: int

    def __post_init__(self) -> None:
        if not is_whole(self.seconds, 1):
            raise InvalidValue(f"a rolling limit is over {self.seconds!r} s; use a whole number of seconds from 1")

    @property
    def name(self) -> str:
        """The span in a word."""
        return f"{self.seconds} s"

    @property
    def step(self) -> int:
        """Seconds of one bucket."""
        return max(1, self.seconds // _STEPS)

    def bucket(self, now: float) -> int:
        """The present step's beginning."""
        return int(now // self.step) * self.step

    def since(self, now: float) -> int:
        """The earliest step of which any part counts."""
        return int((now - self.seconds - self.step) // 1) + 1

    def ends(self, bucket: int) -> int:
        """When the last of what was spent in the step is `seconds` old."""
        return bucket + self.step + self.seconds


_CALENDAR: Mapping[str, Span] = {"day": Daily(), "month": Monthly()}


def span_of(name: str) -> Span:
    """The span of this `name`; raises `InvalidValue` for a name that no span has."""
    rolling = re.fullmatch(r"(\d{1,12}) s", name)
    if rolling:
        return Rolling(int(rolling[1]))
    if name not in _CALENDAR:
        raise InvalidValue(f'no span of time is called {name!r:.40}; use "day", "month" or a number of seconds, "3600 s"')
    return _CALENDAR[name]
