"""Who spends, and how much they may: limits by tenant, user and feature, in any mix."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from labkit.budgets.spans import Daily, Monthly, Rolling, Span
from labkit.request import InvalidRequest, InvalidValue, Request

EVERY = "*"
"""In a limit: each tenant (user, feature) by itself has this limit, unless another limit names it."""
_FIELDS = ("tenant", "user", "feature")


@dataclass(frozen=True, slots=True)
class Spender:
    """On whose behalf money is spent. Raises `InvalidRequest` for names that are not text that can be written as UTF-8."""

    tenant: str = ""
    user: str = ""
    feature: str = ""

    def __post_init__(self) -> None:
        for name in _FIELDS:
            value = getattr(self, name)
            if not _is_text(value):
                raise InvalidRequest(f"{name} is {value!r:.80}; use text that has a UTF-8, empty for none")

    @classmethod
    def of(cls, request: Request) -> Spender:
        """Who asks `request`."""
        return cls(request.tenant, request.user, request.feature)


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """At most `usd` dollars in each `span`, for all whom it covers.

    `tenant`, `user` and `feature` say whom: None for anybody, a name for that one, and "*" for each one by itself, so that
    each has `usd` of its own. A limit that names its user takes the place of one for "*" in the same mix of fields and the
    same span; of two that name as many, the lower holds. Limits of another mix or span hold as well: a request must fit
    into all of them.

        SpendingLimit(Decimal(500), Monthly())                              # all together
        SpendingLimit(Decimal(50), Monthly(), tenant="*")                   # each tenant
        SpendingLimit(Decimal(90), Monthly(), tenant="acme")                # but this one more
        SpendingLimit(Decimal(1), Daily(), tenant="acme", user="*")         # each user of it

    A limit of 0 lets through only what is free. Raises `InvalidValue` for money that is not a finite `Decimal` from 0, for
    an empty name and for anything but a span.
    """

    usd: Decimal
    span: Span
    tenant: str | None = None
    user: str | None = None
    feature: str | None = None

    def __post_init__(self) -> None:
        checked_usd("a limit", self.usd)
        if not isinstance(self.span, Daily | Monthly | Rolling):
            raise InvalidValue(f"span is {self.span!r:.80}; use Daily(), Monthly() or Rolling(seconds)")
        for name in _FIELDS:
            value = getattr(self, name)
            if value is not None and not (_is_text(value) and value):
                raise InvalidValue(
                    f'{name} of a limit is {value!r:.80}; use None for anybody, a name, or "{EVERY}" for each by itself'
                )

    def __str__(self) -> str:
        whom = [f"{'each ' + name if value == EVERY else f'{name} {value!r}'}" for name, value in self.named()]
        return f"{usd_text(self.usd)} USD a {self.span.name} for {', '.join(whom) or 'all together'}"

    def named(self) -> list[tuple[str, str]]:
        """The fields that are not None, with their values."""
        return [(name, getattr(self, name)) for name in _FIELDS if getattr(self, name) is not None]

    def account(self, spender: Spender) -> str:
        """The name of the account of this limit on which `spender` spends; equal limits of other names share it."""
        return json.dumps({name: getattr(spender, name) for name, _ in self.named()}, sort_keys=True)


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def in_force(limits: Iterable[SpendingLimit]) -> list[SpendingLimit]:
    """Of limits that all cover one spender, those that hold: one for each mix of fields and each span."""
    best: dict[tuple[object, ...], tuple[int, Decimal, SpendingLimit]] = {}
    for limit in limits:
        fields = limit.named()
        place = (limit.span.name, *(name for name, _ in fields))
        rank = (sum(value == EVERY for _, value in fields), limit.usd, limit)
        if place not in best or rank[:2] < best[place][:2]:
            best[place] = rank
    return [limit for _, _, limit in best.values()]


def checked_usd(what: str, usd: Any) -> Decimal:
    """`usd`; raises `InvalidValue` unless it is a finite Decimal from 0."""
    if not isinstance(usd, Decimal) or not usd.is_finite() or usd < 0:
        raise InvalidValue(f"{what} is {usd!r:.60}; write dollars as Decimal('…'), finite and from 0, never as a float")
    return usd


def usd_text(usd: Decimal) -> str:
    """`usd` without an exponent and without trailing zeros."""
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
