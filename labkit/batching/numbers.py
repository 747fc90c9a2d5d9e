"""Whether a setting can be what it should; settings may come from a file, where anything can stand."""

from __future__ import annotations

import math


def whole(value: object, least: int) -> bool:
    """Whether `value` is a whole number from `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def seconds(value: object) -> bool:
    """Whether `value` is a time that passes: 0 or more seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value)
