"""A token budget for a conversation: its newest parts, as many as fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.request import InvalidRequest, InvalidValue, Message, Request, is_whole
from labkit.shrink.conversation import holds, said, turns, without
from labkit.shrink.count import lab_tokens
from labkit.shrink.protect import FACTS, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk


@dataclass(frozen=True)
class TokenBudget(Shrinker):
    """Keep the newest of a conversation that fits into `tokens`, and always what it cannot do without.

    That is: the system's messages, the last question, the part that waits for an answer (a message, or calls with their
    results), older turns that hold protected text and, with `pin_first`, the first turn. Then come the parts of the last
    turn and older turns as wholes, from the newest back, up to the first that does not fit, so what is kept has no gaps
    but those around protected turns.

    `count` gives the tokens of a text (default: the lab's tokenizer) and `marks` those that a chat template adds to each
    message (2 in the lab's, up to 5 elsewhere). Like `Window`, it moves the start of the history at every turn once the
    budget is full, and so loses the prefix cache behind the system's messages.

    Raises `InvalidValue` for settings that cannot work. A budget below what must stay is refused with `InvalidRequest`,
    which says how many tokens are needed.
    """

    tokens: int
    count: Callable[[str], int] = lab_tokens
    marks: int = 4
    pin_first: bool = False
    protect: Protect = FACTS

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("marks", 0)):
            value = getattr(self, name)
            if not is_whole(value, least):
                raise InvalidValue(f"{name} is {value!r:.80}; use a whole number from {least}")
        if not callable(self.count):
            raise InvalidValue(f"count is {self.count!r:.80}; give a function from a text to its number of tokens")

    def measure(self, message: Message) -> int:
        """Tokens of `message` in the prompt: its texts, those of its calls, and its marks."""
        return self.marks + sum(self.count(text) for text in said(message) if text)

    async def shrink(self, request: Request) -> Shrunk:
        """The conversation, cut to the budget."""
        messages = request.messages
        self.protect.check(messages)
        sizes = [self.measure(message) for message in messages]
        if sum(sizes) <= self.tokens:
            return Shrunk.of(messages)
        kept, optional = self._parts(messages, sizes)
        left = self.tokens - sum(sizes[number] for number in kept)
        for part in optional:
            left -= sum(sizes[number] for number in part)
            if left < 0:
                break
            kept.update(part)
        gone = [number for number in range(len(messages)) if number not in kept]
        why = f"the newest of the conversation fills the {self.tokens} tokens, and this holds no protected text"
        return Shrunk.of(messages, without(messages, gone, "token-budget", why), self.protect)

    def _parts(self, messages: tuple[Message, ...], sizes: list[int]) -> tuple[set[int], list[tuple[int, ...]]]:
        """The messages that must stay, and the other parts, the newest first."""
        found = turns(messages)
        must = {number for number, message in enumerate(messages) if message.role == "system"}
        optional = [turn.messages for turn in reversed(found[:-1])]
        if found:
            must.update(found[-1].parts[0], found[-1].parts[-1])
            optional = [*found[-1].parts[-2:0:-1], *optional]
        alone = sum(sizes[number] for number in must)
        if self.pin_first and found:
            must.update(found[0].messages)
        must.update(number for part in optional if holds(self.protect, messages, part) for number in part)
        needed = sum(sizes[number] for number in must)
        if needed > self.tokens:
            more = f", and what is pinned or protected {needed - alone} more" if needed > alone else ""
            raise InvalidRequest(
                f"the budget is {self.tokens} tokens; the system's messages and the last question alone take {alone}{more}; "
                f"allow at least {needed}" + (", or protect less" if more else "")
            )
        return must, [part for part in optional if not must.issuperset(part)]
