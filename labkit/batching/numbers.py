"""Checks of numeric settings, of any type, because settings may be read from a file."""

from __future__ import annotations

import math


def whole(value: object, least: int) -> bool:
    """Whether `value` is a whole number from `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def seconds(value: object) -> bool:
    """Whether `value` is a finite number of seconds, 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value)
