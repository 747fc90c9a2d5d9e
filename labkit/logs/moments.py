"""Times as logs write them: ISO 8601 in any zone, or numbers since 1970 in seconds, milli-, micro- or nanoseconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_RELATIVE = 1e8  # seconds: below three years it counts from the log's own zero, above (1973 and later) from 1970
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # from this size on, so many to a second
_ZONE_NAME = re.compile(r"\s*(?:UTC|GMT)$")
_LATEST = 4e9  # the year 2096


def moment(given: object) -> tuple[float, bool] | None:
    """Seconds, and whether a date had no time zone and was taken as UTC; None for an empty value.

    Numbers from 10¹¹ on are taken as milliseconds, from 10¹⁴ as microseconds, from 10¹⁷ as nanoseconds since 1970, so that a
    log may mix them. Raises ValueError, without the value in its text, for what is no time.
    """
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError(f"a time is a {type(given).__name__}; use a date or seconds since 1970")
    if isinstance(given, str):
        text = given.strip()
        if text[4:5] == "-" and text[:4].isdigit():
            return _date(text)
        try:
            number = float(text)
        except ValueError:
            return _date(text)
    else:
        number = float(given) if abs(given) < 10**30 else math.inf
    if not (math.isfinite(number) and number >= 0):
        raise ValueError("a time is no finite number from 0")
    number /= next((per_s for least, per_s in _UNITS if number >= least), 1.0)
    if number > _LATEST:
        raise ValueError("a time lies beyond the year 2096 in every unit")
    return number, False


def counts_from_zero(seconds: float) -> bool:
    """Whether a time counts from the log's own beginning and not from 1970."""
    return seconds < _RELATIVE


def _date(text: str) -> tuple[float, bool]:
    try:
        text = text.replace(",", ".")
        at = datetime.fromisoformat(_ZONE_NAME.sub("+00:00", text) if text.endswith(("UTC", "GMT")) else text)
    except ValueError:
        raise ValueError("a time is no date such as 2026-11-29T09:30:00Z, and no number") from None
    bare = at.tzinfo is None
    return (at.replace(tzinfo=UTC) if bare else at).timestamp(), bare
