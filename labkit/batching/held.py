"""What a lever that holds requests back owes to the caller: a wait that counts."""

from __future__ import annotations

from dataclasses import replace

from labkit.request import Done, Event


def counted(event: Event, sent: float, started_unix: float, hop: str) -> Event:
    """`event`; a `Done` with `hop` on its route and its timing from `sent`, when the caller came."""
    if isinstance(event, Done):
        return replace(event, timing=replace(event.timing, sent=sent, started_unix=started_unix)).via(hop)
    return event
