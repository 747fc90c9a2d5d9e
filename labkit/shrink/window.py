"""The sliding window: the last turns of a conversation, and the system's messages."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.request import InvalidValue, Request, is_whole
from labkit.shrink.conversation import holds, turns, without
from labkit.shrink.protect import FACTS, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk


@dataclass(frozen=True)
class Window(Shrinker):
    """Keep the system's messages and the last `turns` turns; with `pin_first`, the first turn as well.

    A turn is a question and all that followed it, so no call of a tool is parted from its results, and roles alternate as
    before. An older turn that holds protected text stays whole: with the default, a window drops only talk in which no fact
    is told. `protect=NOTHING` gives the window of most guides, which forgets whatever is old.

    The window's start moves at every turn, so a prefix cache serves nothing behind the system's messages once old turns go.
    Raises `InvalidValue` for fewer than one turn, and `InvalidRequest` for a prompt that lacks a protected instruction.
    """

    turns: int = 4
    pin_first: bool = False
    protect: Protect = FACTS

    def __post_init__(self) -> None:
        if not is_whole(self.turns, 1):
            raise InvalidValue(f"turns is {self.turns!r:.80}; keep at least 1, the turn with the question")

    async def shrink(self, request: Request) -> Shrunk:
        """The conversation without its older turns."""
        messages = request.messages
        self.protect.check(messages)
        old = turns(messages)[: -self.turns][1 if self.pin_first else 0 :]
        gone = [number for turn in old if not holds(self.protect, messages, turn.messages) for number in turn.messages]
        why = f"older than the last {self.turns} turns, and without protected text"
        return Shrunk.of(messages, without(messages, gone, "window", why), self.protect)
