"""Labels by example: the prompt shows messages with invented labels, and the model labels one more as they do.

Customers' messages carry intents, and each task gives every one of its intents a label word of its own. The model has to
find the shots that mean the same as the question and copy their label, so it matters which shots the prompt has. The lab's
own models are too small to learn it: an adapter for `large`, with these tasks as 60 % of 3,000 steps, was right for 30 % of
the questions with three labels, which is chance.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from labkit.lab.tasks import DESK, INTENTS, Deck, Example, Split, examples
from labkit.request import InvalidValue, Message

MAX_SHOTS = 24
SYSTEM = f"{DESK} Answer with the label that the examples give to such messages."


@dataclass(frozen=True, slots=True)
class Labelled:
    """A customer's message and its label. `intent` is what the label stands for, which the prompt does not say."""

    message: str
    label: str
    intent: str


@dataclass(frozen=True, slots=True)
class LabelTask:
    """One question, its right label, and a pool of labelled messages to choose shots from."""

    id: str
    question: str
    answer: str
    intent: str
    pool: tuple[Labelled, ...]


def label_task(split: Split, i: int, *, intents: int = 4, per_intent: int = 6, seed: int = 0) -> LabelTask:
    """The `i`-th task of `split`, the same for the same arguments: `intents` labels, and `per_intent` messages of each.

    The question and the label words belong to `split`. The pool's messages are training ones, as a pool of known cases would
    be: the question is worded like none of them. Raises `InvalidValue` for numbers out of range.
    """
    if not 2 <= intents <= len(INTENTS):
        raise InvalidValue(f"intents is {intents}; use 2 to {len(INTENTS)}")
    if per_intent < 1:
        raise InvalidValue(f"per_intent is {per_intent}; the pool needs a message of each intent or more")
    rng = random.Random(f"shots/{split}/{seed}/{i}/{intents}/{per_intent}")
    deck = Deck(split, rng)
    labels: dict[str, str] = {}
    for intent in rng.sample(sorted(INTENTS), intents):
        labels[intent] = _word(deck, labels.values())
    asked = rng.choice(sorted(labels))
    question = next(e for e in _messages(split, rng) if e.answer == asked).messages[-1].content
    pool: list[Labelled] = []
    missing = dict.fromkeys(labels, per_intent)
    known = _messages("train", rng)
    while any(missing.values()):
        example = next(known)
        if missing.get(example.answer):
            missing[example.answer] -= 1
            pool.append(Labelled(example.messages[-1].content, labels[example.answer], example.answer))
    name = f"shots-{split}-{seed}-{intents}-{per_intent}-{i}"
    return LabelTask(name, question, labels[asked], asked, tuple(pool))


def with_shots(task: LabelTask, shots: Sequence[Labelled]) -> Example:
    """The task as a prompt with these shots, in this order: each is a customer's message and the desk's label for it.

    Shots need not come from the task's pool. Raises `InvalidValue` for more than `MAX_SHOTS`.
    """
    if len(shots) > MAX_SHOTS:
        raise InvalidValue(f"{len(shots)} shots; the lab's prompts have room for {MAX_SHOTS}, so choose among them")
    turns = [m for shot in shots for m in (Message("user", shot.message), Message("assistant", shot.label))]
    messages = (Message("system", SYSTEM), *turns, Message("user", task.question))
    return Example(f"{task.id}-{len(shots)}", "labels", "easy", messages, task.answer, "", 8)


def _messages(split: Split, rng: random.Random) -> Iterator[Example]:
    """Messages with intents, without end."""
    while True:
        yield from examples(split, "intent", 100, seed=rng.randrange(10**9))


def _word(deck: Deck, taken: Container[str]) -> str:
    while (word := deck.brand()) in taken:
        pass
    return word
