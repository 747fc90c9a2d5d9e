"""Whether an entry that was found may be handed out: the rules, in the order in which a miss is explained."""

from __future__ import annotations

from labkit.caches.entry import Miss
from labkit.caches.rules import CacheControl
from labkit.caches.table import Found


def refusal(found: Found, epoch: int, era: int, now: float, control: CacheControl) -> Miss | None:
    """Why the entry is not for a look at `now` in the file's `era` and its tenant's `epoch`; None where it is.

    That it is whole and its facts hold is for the store to say.
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
