"""The lever that puts examples into the prompt: the same for all, or those that fit the question."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from labkit.request import Done, Event, Handler, InvalidRequest, InvalidValue, Lever, Message, Request, clock, hops
from labkit.shrink.count import lab_tokens
from labkit.shrink.pick import First, Pick
from labkit.shrink.shots import Shot, Shots, asked, check_picking, leading, pick_shots


@dataclass(frozen=True)
class FewShot(Lever):
    """Put examples from `pool` into the prompt, as questions and answers between the system's messages and the conversation.

    `pick` chooses them for the last question: `First()`, `Nearest(embedder)` or `Diverse(embedder)`. At most `k` of them,
    with at most `tokens` tokens in all, by `count`; give one of the two or both. `order`: "pool" puts them in the order of
    the pool, so the same choice is the same text; "nearest last" puts the best right before the conversation.

    `First` gives all requests the same examples, which a prefix cache then serves at its price. `Nearest` and `Diverse` give
    each question its own: all behind the system's messages is read anew each time. They have to be better, or fewer, to be
    worth that. An example that asks the question itself is never used, unless `same` allows it.

    The examples are added, so this is no `Shrinker`; `ShotsInPrompt` chooses among those that a prompt has. Raises
    `InvalidValue` for settings that cannot work. If picking fails, the request goes on without examples, with the error on
    `Done.faults`.
    """

    pool: tuple[Shot, ...]
    k: int | None = None
    tokens: int | None = None
    pick: Pick = field(default_factory=First)
    order: Literal["pool", "nearest last"] = "pool"
    count: Callable[[str], int] = lab_tokens
    same: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", tuple(self.pool))
        if not self.pool or not all(isinstance(shot, Shot) for shot in self.pool):
            raise InvalidValue(f"pool is {self.pool!r:.80}; give examples, as in (Shot('question', 'answer'), …)")
        check_picking(self.k, self.tokens, self.pick, self.count)
        if self.order not in ("pool", "nearest last"):
            raise InvalidValue(f'order is {self.order!r:.80}; use "pool" or "nearest last"')

    async def picked(self, request: Request) -> Shots:
        """What would be put into the prompt of `request`, and what not, with the reasons. Nothing is sent."""
        question = asked(request.messages)
        return await clock.off_loop(
            lambda: pick_shots(self.pool, question, self.pick, self.k, self.tokens, self.count, self.same)
        )

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked with examples."""
        hop = hops.hop(hops.SHRINK, type(self).__name__)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, fault = request, None
            try:
                sent = replace(request, messages=self._with(request.messages, await self.picked(request)))
            except InvalidRequest:
                raise
            except Exception as error:  # noqa: BLE001 - an answer must not be lost because its examples could not be picked
                fault = error
            async with aclosing(inner(sent)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        event = event.via(hop) if fault is None else event.beside(hops.SHRINK, fault)
                    yield event

        return handle

    def _with(self, messages: tuple[Message, ...], shots: Shots) -> tuple[Message, ...]:
        start = leading(messages)
        numbers = sorted(shots.chosen) if self.order == "pool" else reversed(shots.chosen)
        examples = [message for number in numbers for message in self.pool[number].messages]
        return (*messages[:start], *examples, *messages[start:])
