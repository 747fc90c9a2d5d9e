"""Splitting the traffic between two arms of an experiment; whether B is better is told by `sequential`."""

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
    """Send each user to one of two arms for good: `share_b` of them (0 to 1) to "B", the others to "A".

    It is placed over {"A": …, "B": …}; the arms name no model, so requests keep theirs. The route gets
    "split:experiment=A".
    """

    experiment: str
    share_b: float = 0.5
    renames: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.experiment, str) or not self.experiment:
            raise InvalidValue(f"the experiment is {self.experiment!r:.80}; give it a name, which deals the users")
        _check_share(self.share_b)

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that asks the arm of each request's user."""
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
    """The arm that a user belongs to, by a hash of tenant, user (else workflow) and `experiment`: the same every time.

    Requests that name neither user nor workflow are dealt by their words. Another `experiment` deals anew.
    """
    _check_share(share_b)
    who = request.user or request.workflow or repr(request.messages)
    digest = hashlib.sha256(repr((experiment, request.tenant, who)).encode(errors="surrogatepass")).digest()
    return "B" if int.from_bytes(digest[:8], "big") / 2**64 < share_b else "A"


def _check_share(share_b: object) -> None:
    if not is_share(share_b):
        raise InvalidValue(f"share_b is {share_b!r:.80}; use a share from 0 to 1")
