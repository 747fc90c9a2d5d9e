"""The cost of tokens on self-hosted machines: C_infra."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from math import ceil, isfinite
from pathlib import Path

from labkit import data
from labkit.cost.prices import MTOK, UnknownPrice
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with its price in USD per hour, and where (`source`) and when (`as_of`) that price was read."""

    key: str
    name: str
    accelerators: int
    usd_per_hour: Decimal
    source: str
    as_of: str

    def __post_init__(self) -> None:
        if not self.usd_per_hour.is_finite() or self.usd_per_hour < 0:
            raise InvalidValue(f"usd_per_hour of host {self.key!r} is {self.usd_per_hour}; give a finite number from 0")


def hosts(path: Path | None = None) -> dict[str, Host]:
    """The catalogue of machines, by key: the package's own, or a copy of it at `path` with your own prices.

    Raises `InvalidValue` naming the file that is not of this form, or the entry in it that cannot be read.
    """
    path = data.path("prices", "hosts.json") if path is None else path
    try:
        rows = json.loads(path.read_text())["hosts"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidValue(f'{path.name} must be JSON of the form {{"hosts": […]}} ({error}); correct it') from None
    found: dict[str, Host] = {}
    for row in rows:
        try:
            one = Host(**{**row, "usd_per_hour": Decimal(row["usd_per_hour"])})
        except (KeyError, TypeError, InvalidOperation) as error:
            raise InvalidValue(
                f"{path.name} has an entry that is no machine ({error}): {row!r:.150}; give key, name, accelerators, "
                'usd_per_hour (as text, like "4.92"), source and as_of'
            ) from None
        found[one.key] = one
    return found


def host(key: str) -> Host:
    """The machine with that key; raises `UnknownPrice`, with the closest names, for an unknown one."""
    known = hosts()
    if key not in known:
        near = get_close_matches(key, known) or list(known)
        raise UnknownPrice(f"no host {key!r} in the catalogue; there are {', '.join(near)}; write a Host(…) for yours")
    return known[key]


def cost_per_mtok(usd_per_hour: Decimal, tokens_per_second: float, utilisation: float = 1.0) -> Decimal:
    """USD per million tokens: 10⁶ · usd_per_hour / (3,600 · tokens/s · utilisation).

    `utilisation` is the share of the hour in which the machine works at `tokens_per_second`; the rest is paid for, too.
    Raises `InvalidValue` for numbers out of range, and for money that is not a `Decimal`.
    """
    if not isinstance(usd_per_hour, Decimal) or not usd_per_hour.is_finite() or usd_per_hour < 0:
        raise InvalidValue(f"usd_per_hour is {usd_per_hour!r}; write it as Decimal('…'), from 0")
    _check_rate(tokens_per_second)
    if not 0 < utilisation <= 1:
        raise InvalidValue(f"utilisation is {utilisation}; it is a share above 0 and up to 1")
    return MTOK * usd_per_hour / (3600 * Decimal(str(tokens_per_second)) * Decimal(str(utilisation)))


def machines_for(
    peak_tokens_per_second: float | Decimal, tokens_per_second: float | Decimal, headroom: float | Decimal = 0
) -> int:
    """The number of machines needed at the peak: ⌈peak · (1 + headroom) / rate⌉, at least one.

    Both rates are in tokens/s; `headroom` is a share of the peak. Raises `InvalidValue` for numbers out of range.
    """
    _check_rate(tokens_per_second)
    if not all(isfinite(value) and value >= 0 for value in (peak_tokens_per_second, headroom)):
        raise InvalidValue(
            f"peak {peak_tokens_per_second} tokens/s and headroom {headroom}: both must be finite and not negative"
        )
    # Decimals, because the rounding of floats could add a machine where the peak fits exactly.
    peak, spare, rate = (Decimal(str(value)) for value in (peak_tokens_per_second, headroom, tokens_per_second))
    return max(1, ceil(peak * (1 + spare) / rate))


def _check_rate(tokens_per_second: float | Decimal) -> None:
    if not (isfinite(tokens_per_second) and tokens_per_second > 0):
        raise InvalidValue(f"tokens_per_second is {tokens_per_second}; measure a finite rate above 0")
