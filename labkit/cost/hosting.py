"""What a token costs on a machine of one's own: C_infra."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from math import ceil
from pathlib import Path

from labkit.cost.prices import MTOK, UnknownPrice
from labkit.request import InvalidRequest

_CATALOGUE = Path(__file__).resolve().parents[2] / "data" / "prices" / "hosts.json"
HOURS_PER_MONTH = Decimal(730)  # 365 × 24 / 12


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with its price in USD an hour, and where and when that price was read."""

    key: str
    name: str
    accelerators: int
    usd_per_hour: Decimal
    source: str
    as_of: str


def hosts(path: Path = _CATALOGUE) -> dict[str, Host]:
    """The catalogue of machines, by key; edit the file to use your own prices."""
    return {
        row["key"]: Host(**{**row, "usd_per_hour": Decimal(row["usd_per_hour"])})
        for row in json.loads(path.read_text())["hosts"]
    }


def host(key: str) -> Host:
    """The machine `key`; raises `UnknownPrice` with the closest names."""
    known = hosts()
    if key not in known:
        near = get_close_matches(key, known) or list(known)
        raise UnknownPrice(
            f"no host {key!r} in the catalogue; there are {', '.join(near)}; add yours to data/prices/hosts.json"
        )
    return known[key]


def cost_per_mtok(usd_per_hour: Decimal, tokens_per_second: float, utilisation: float = 1.0) -> Decimal:
    """USD per million tokens: 10⁶ · usd_per_hour / (3,600 · tokens/s · utilisation).

    `utilisation` is the share of the hour that the machine really works at `tokens_per_second`; the rest is paid for too.
    """
    if not tokens_per_second > 0:
        raise InvalidRequest(f"tokens_per_second is {tokens_per_second}; measure a rate above 0")
    if not 0 < utilisation <= 1:
        raise InvalidRequest(f"utilisation is {utilisation}; it is a share above 0 and up to 1")
    return MTOK * usd_per_hour / (3600 * Decimal(str(tokens_per_second)) * Decimal(str(utilisation)))


def machines_for(peak_tokens_per_second: float, tokens_per_second: float, headroom: float = 0.0) -> int:
    """Machines needed at the peak: ⌈peak · (1 + headroom) / rate⌉, at least one."""
    if not tokens_per_second > 0:
        raise InvalidRequest(f"tokens_per_second is {tokens_per_second}; measure a rate above 0")
    return max(1, ceil(peak_tokens_per_second * (1 + headroom) / tokens_per_second))
