"""Checks of the settings that this room's values are made with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from labkit.request import InvalidValue


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number."""
    return isinstance(value, Real) and math.isfinite(value)


def is_share(value: Any) -> bool:
    """Whether `value` is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def check_seconds(name: str, seconds: Any) -> None:
    """Raise `InvalidValue` for a waiting time that is not a finite number of seconds above 0."""
    if not is_number(seconds) or seconds <= 0:
        raise InvalidValue(f"{name} is {seconds!r:.80}; allow more than 0 s, and not for ever")


def check_models(who: str, needed: tuple[str, ...], models: Mapping[str, object]) -> None:
    """Raise `InvalidValue` where one of the `needed` models is not in `models`; `who` stands in the error message."""
    missing = [model for model in needed if model not in models]
    if missing:
        raise InvalidValue(
            f"{who} names {', '.join(missing)}, which have no handler among {', '.join(models) or 'none'}; add them to the "
            "mapping that it is placed over, or name others"
        )


def texts(given: Any, what: str) -> tuple[str, ...]:
    """`given` as a tuple of strings; a lone string becomes one element, never its letters. Else raises `InvalidValue`."""
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(each, str) for each in found):
        raise InvalidValue(f"{what} are {given!r:.80}; give strings")
    return tuple(found)


def numbers(given: Any, what: str) -> tuple[float, ...]:
    """`given` as a tuple of floats, in any range; a lone number becomes one element. Else raises `InvalidValue`."""
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not all(isinstance(each, Real) for each in found):
        raise InvalidValue(f"{what} are {given!r:.80}; give numbers")
    return tuple(map(float, found))


def several(given: Any, kind: type | None, who: str) -> tuple[Any, ...]:
    """`given` as a tuple of values of `kind`; a lone value becomes one element.

    Where `kind` is None, the elements must be functions, at least one. Raises `InvalidValue` otherwise.
    """
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    for each in found:
        if kind is None:
            check_function(each, f"{who} takes functions, such as a value of this room")
        elif not isinstance(each, kind):
            raise InvalidValue(f"{who} takes values of {kind.__name__}; {each!r:.80} is none")
    if kind is None and not found:
        raise InvalidValue(f"{who} needs at least one; it got none")
    return found


def check_function(given: object, needs: str) -> None:
    """Raise `InvalidValue` where `given` cannot be called, or is a class instead of a value of that class."""
    if isinstance(given, type) or not callable(given):
        told = " (a class: make a value of it first, with its settings)" if isinstance(given, type) else ""
        raise InvalidValue(f"{needs}; {given!r:.80} is none{told}")
