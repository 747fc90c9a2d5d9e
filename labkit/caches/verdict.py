"""The rules that decide whether an entry that was found may be given out, in the order in which a miss is explained."""

from __future__ import annotations

from labkit.caches.entry import Miss
from labkit.caches.rules import CacheControl
from labkit.caches.table import Found


def refusal(found: Found, epoch: int, era: int, now: float, control: CacheControl) -> Miss | None:
    """Why the entry may not be given out; None if it may.

    `now` is the time of the look-up in seconds since 1970, `era` the file's era and `epoch` the tenant's epoch. The store
    itself checks that the entry is undamaged and that its facts hold.
    """
    age = now - found.created
    if found.era != era or age < 0:
        return "clock"
    if found.epoch != epoch:
        return "epoch"
    if found.lifetime is not None and age >= found.lifetime:
        return "expired"
    if control.max_age_s is not None and age >= control.max_age_s:
        return "max-age"
    return None
