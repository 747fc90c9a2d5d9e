"""Splitting the traffic between two arms of an experiment; `sequential` tells whether B is better."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar, Literal

from labkit.request import Chooser, Done, Event, Handler, InvalidValue, Request, hops
from labkit.routing.checks import is_share


@dataclass(frozen=True)
class Split(Chooser):
    """Send each user to the same one of two arms every time: a share `share_b` of users (0 to 1) to "B", the others to "A".

    It is placed over {"A": …, "B": …}. The arms are not names of models, so `Request.model` is kept. The route gets
    "split:experiment=A". Raises `InvalidValue` for an empty name, for another share, and for other arms.
    """

    experiment: str
    share_b: float = 0.5
    renames: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.experiment, str) or not self.experiment:
            raise InvalidValue(f"the experiment is {self.experiment!r:.80}; give it a name, which deals the users")
        _check_share(self.share_b)

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that sends each request to its user's arm."""
        if set(models) != {"A", "B"}:
            raise InvalidValue(f'a split has the arms "A" and "B"; it was placed over {tuple(models)}')

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            chosen = arm(request, self.experiment, self.share_b)
            async with aclosing(models[chosen](request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        event = event.via(hops.hop(hops.SPLIT, f"{self.experiment}={chosen}"))
                    yield event

        return handle


def arm(request: Request, experiment: str, share_b: float = 0.5) -> Literal["A", "B"]:
    """The arm of a request's user, by a hash of tenant, user (else workflow) and `experiment`; the same every time.

    A request that names neither user nor workflow gets its arm by a hash of its messages. Another `experiment` assigns all
    users anew.
    """
    _check_share(share_b)
    who = request.user or request.workflow or repr(request.messages)
    return "B" if dealt(experiment, request.tenant, who) < share_b else "A"


def dealt(experiment: str, tenant: str, who: str) -> float:
    """The place of a tenant's user (or whatever `who` names) from 0 to below 1: spread evenly, the same every time."""
    digest = hashlib.sha256(repr((experiment, tenant, who)).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check_share(share_b: object) -> None:
    if not is_share(share_b):
        raise InvalidValue(f"share_b is {share_b!r:.80}; use a share from 0 to 1")
