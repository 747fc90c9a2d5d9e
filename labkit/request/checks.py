"""Checks of settings that every room needs."""

from __future__ import annotations

from typing import Any


def is_whole(value: Any, least: int) -> bool:
    """Whether `value` is a whole number from `least`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
