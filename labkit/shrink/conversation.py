"""A conversation as turns, each a question with what followed it, and the parts of a turn that are never split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labkit.request import Message
from labkit.shrink.cut import Cut
from labkit.shrink.protect import Protect


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's message and all that follows it up to the next one: `parts`, each the numbers of its messages (from 0).

    A part is one message, or a call of tools together with its results, which must go or stay as one. What an assistant
    says before any question is a turn as well.
    """

    parts: tuple[tuple[int, ...], ...]

    @property
    def messages(self) -> tuple[int, ...]:
        """The numbers of all its messages, in order."""
        return tuple(number for part in self.parts for number in part)


def turns(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """The turns of a conversation in order. System messages belong to none.

    A result belongs to the latest call with its `tool_call_id`; one that names no known call belongs to the part before it.
    Where a result comes so late that other messages stand between, these are one part with it, even across questions.
    """
    found: list[list[list[int]]] = []
    calls: dict[str, tuple[int, int]] = {}  # where each call stands: the number of its turn, and of its part there
    for number, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "user" or not found:
            found.append([[number]])
        elif message.role == "assistant":
            found[-1].append([number])
        else:
            turn, part = calls.get(message.tool_call_id, (len(found) - 1, len(found[-1]) - 1))
            between = [each for later in found[turn + 1 :] for own in later for each in own]
            found[turn][part:] = [[each for own in found[turn][part:] for each in own] + between + [number]]
            del found[turn + 1 :]
            calls = {name: min(where, (turn, part)) for name, where in calls.items()}
        calls |= {call.id: (len(found) - 1, len(found[-1]) - 1) for call in message.tool_calls if call.id}
    return tuple(Turn(tuple(tuple(part) for part in turn)) for turn in found)


def holds(protect: Protect, messages: Sequence[Message], part: Iterable[int]) -> bool:
    """Whether one of the messages `part` holds protected text, in its content or in the arguments of its calls."""
    texts = (text for number in part for text in said(messages[number]))
    return any(protect.spans(text) for text in texts)


def said(message: Message) -> tuple[str, ...]:
    """The texts of a message that a model reads: its content, and the names and arguments of its calls."""
    return (message.content, *(text for call in message.tool_calls for text in (call.name, call.arguments)))


def without(messages: Sequence[Message], numbers: Iterable[int], by: str, why: str) -> list[Cut]:
    """The cuts that take the messages `numbers` away."""
    return [Cut(number, 0, len(messages[number].content), by=by, why=why, whole=True) for number in numbers]
