"""Whole units of money, shared out so that the shares add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

from labkit.request import InvalidValue

_WIDE = Context(prec=100, rounding=ROUND_HALF_UP)
_FINE = 10**40
"""Amounts are added in 10⁻⁴⁰ of a unit: exact sums of many fractions would have endless denominators."""


def rounded(amount: Decimal, places: int) -> Decimal:
    """`amount`, from 0, with `places` decimals, halves up.

    Halves to even would print 0.005 and 0.015 as 0.00 and 0.02, a whole cent further apart than they are.
    """
    return amount.quantize(Decimal(1).scaleb(-places), context=_WIDE)


def added(amounts: Sequence[Fraction], places: int) -> Fraction:
    """The sum of `amounts`, to 10⁻⁴⁰ of a unit of `places` decimals each."""
    return Fraction(sum(_fine(amount, places) for amount in amounts), _FINE * 10**places)


def apportion(total: Decimal, exact: Sequence[Fraction], places: int = 2) -> tuple[Decimal, ...]:
    """`exact` amounts in units of `places` decimals, so that they add up to `total`: the largest remainders are rounded up.

    The method is Hamilton's: each amount is rounded down, and the units that are left go to those that lost most by it, the
    earlier first among equals. No amount changes by a whole unit, and an amount of whole units, such as 0, is left as it is.
    Raises `InvalidValue` where `total` is not in whole units, or a unit or more away from the sum of `exact`.
    """
    whole = Fraction(total) * 10**places
    fine = [_fine(amount, places) for amount in exact]
    if whole.denominator != 1 or abs(int(whole) * _FINE - sum(fine)) >= _FINE:
        raise InvalidValue(
            f"{total} cannot be shared out as amounts that add up to {float(added(exact, places))} in units of "
            f"{Decimal(1).scaleb(-places)}; round the sum first"
        )
    down, lost = [amount // _FINE for amount in fine], [amount % _FINE for amount in fine]
    left = int(whole) - sum(down)
    for index in sorted(range(len(fine)), key=lambda index: -lost[index])[:left]:
        down[index] += 1
    return tuple(Decimal(units).scaleb(-places, context=_WIDE) for units in down)


def _fine(amount: Fraction, places: int) -> int:
    """`amount` in 10⁻⁴⁰ of a unit, to the nearest."""
    unit: int = 10**places
    return (2 * amount.numerator * unit * _FINE + amount.denominator) // (2 * amount.denominator)
