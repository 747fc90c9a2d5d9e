"""Examples for a prompt (few-shot): which of a pool are picked for a question, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from labkit.request import InvalidValue, Message, is_whole
from labkit.shrink.pick import Pick, greedy


@dataclass(frozen=True, slots=True)
class Shot:
    """An example: a question and its right answer."""

    question: str
    answer: str

    @property
    def messages(self) -> tuple[Message, Message]:
        """The example as it stands in a conversation."""
        return Message("user", self.question), Message("assistant", self.answer)


@dataclass(frozen=True, slots=True)
class Shots:
    """What was picked for a question: numbers of `pool` in the order in which they were chosen, and why others were not."""

    pool: tuple[Shot, ...]
    chosen: tuple[int, ...]
    left_out: Mapping[int, str]

    def explain(self, limit: int = 60) -> str:
        """One line an example: which choice it was (1 is the first), or why it was left out."""
        lines = []
        for number, shot in enumerate(self.pool):
            state = f"choice {self.chosen.index(number) + 1}" if number in self.chosen else f"out: {self.left_out[number]}"
            lines.append(f"example {number} {shot.question[:limit]!r}: {state}")
        return "\n".join(lines)


def pick_shots(
    pool: Sequence[Shot],
    question: str,
    pick: Pick,
    k: int | None,
    tokens: int | None,
    count: Callable[[str], int],
    same: bool = False,
) -> Shots:
    """At most `k` examples of at most `tokens` tokens in all, picked for `question`; None is no limit.

    An example that asks the question itself would give its answer away, and every measured quality with it, so it is left
    out, unless `same` allows it. Questions are the same where they differ in case and white space only.
    """
    out = {
        n: "asks the question itself"
        for n, shot in enumerate(pool)
        if not same and _plain(shot.question) == _plain(question)
    }
    open_ = [n for n in range(len(pool)) if n not in out]
    sizes = [0 if tokens is None else count(pool[n].question) + count(pool[n].answer) for n in open_]
    found = greedy(pick.worths(question, [pool[n].question for n in open_]), sizes, k, tokens) if open_ else []
    chosen = tuple(open_[i] for i in found)
    full = k is not None and len(chosen) == k
    why = f"{k} others are worth more" if full else f"does not fit beside what is worth more in {tokens} tokens"
    return Shots(tuple(pool), chosen, out | {n: why for n in open_ if n not in chosen})


def asked(messages: Iterable[Message]) -> str:
    """The last thing that a user said; "" where there is nothing."""
    return next((message.content for message in reversed(tuple(messages)) if message.role == "user"), "")


def leading(messages: Sequence[Message]) -> int:
    """How many system messages stand before all else."""
    return next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def check_picking(k: int | None, tokens: int | None, pick: object, count: object) -> None:
    """Refuse settings of a choice of examples that cannot work, with `InvalidValue`."""
    for name, value in (("k", k), ("tokens", tokens)):
        if value is not None and not is_whole(value, 0):
            raise InvalidValue(f"{name} is {value!r:.80}; use a whole number from 0, or None for no limit")
    if k is None and tokens is None:
        raise InvalidValue("neither k nor tokens is given; say how many examples, or how many tokens of them, may stay")
    if not callable(getattr(pick, "worths", None)):
        raise InvalidValue(f"pick is {pick!r:.80}; use First(), Nearest(embedder) or Diverse(embedder)")
    if not callable(count):
        raise InvalidValue(f"count is {count!r:.80}; give a function from a text to its number of tokens")
