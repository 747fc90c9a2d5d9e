"""The summary family as a conversation: an order that changes turn by turn, small talk, and a question at the end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from labkit.lab.tasks import DESK, Deck, Example, Split
from labkit.request import InvalidValue, Message

MIN_TURNS, MAX_TURNS = 2, 15
_SYSTEM = f"{DESK} Keep track of the order, and summarise how it stands when asked."
QUESTION = "How does the order stand?"
_DONE = ("Done.", "Noted.", "Sure.")
# Small talk changes nothing. All splits have these sentences, each with cities of its own.
_CHATTER = (
    ("Do you also sell maps?", "Yes, we have several."),
    ("How is the weather in {city}?", "Sunny, I hear."),
    ("A friend of mine in {city} loves your shop.", "That is good to hear."),
    ("When do you close today?", "At 18."),
    ("My old tent is {n} years old.", "That is a good age."),
    ("I saw your advert on page {n}.", "Thank you for reading it."),
    ("Sorry, the phone rang.", "No problem."),
    ("I read {n} reviews before I wrote to you.", "I hope they were kind."),
    ("My dog ate the last catalogue.", "We can send a new one."),
    ("You are quick today.", "Thank you."),
)


@dataclass(frozen=True, slots=True)
class _State:
    quantity: int
    product: str
    city: str
    paid: bool = False

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product} to {self.city}, {'paid' if self.paid else 'unpaid'}"


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation about one order.

    `example` asks how the order stands, after all of its turns. A turn is a customer's message and the desk's reply.
    `states[i]` says how the order stands after turn i + 1. `matters[i]` is whether that turn was about the order, and not
    small talk.
    """

    example: Example
    states: tuple[str, ...]
    matters: tuple[bool, ...]
    _steps: tuple[str, ...]

    def since(self, turn: int, place: Literal["system", "user"] = "system") -> Example:
        """The same question with the first `turn` turns replaced by a line that says how the order stood after them.

        The line is `So far: 3 x Grarpa backpack to Cronville, unpaid.`, at the end of the system prompt or as a customer's
        message of its own. With turn 0 nothing is replaced. Raises `InvalidValue` for a turn that the thread does not have.
        """
        if not 0 <= turn <= len(self.states):
            raise InvalidValue(f"turn is {turn}; this thread has turns 1 to {len(self.states)}, and 0 leaves it whole")
        if place not in ("system", "user"):
            raise InvalidValue(f"place {place!r} is unknown; use system or user")
        if turn == 0:
            return self.example
        system, *messages = self.example.messages
        line = f"So far: {self.states[turn - 1]}."
        if place == "system":
            head = [Message("system", f"{system.content} {line}")]
        else:
            head = [system, Message("user", line), Message("assistant", "Noted.")]
        quantity = self.states[turn - 1].partition(" ")[0]
        return Example(
            f"{self.example.id}-since{turn}-{place}",
            "summary",
            "hard",
            (*head, *messages[2 * turn :]),
            self.example.answer,
            "; ".join([quantity, *(step for step in self._steps[turn:] if step)]),
            self.example.max_tokens,
        )


def thread(split: Split, i: int, *, turns: int = 6, chatter: float = 0.0, seed: int = 0) -> Thread:
    """The `i`-th conversation of `split` with `turns` turns before the question, the same for the same arguments.

    A share `chatter` of the turns after the first, on average, is small talk. Raises `InvalidValue` for turns that are not
    `MIN_TURNS` to `MAX_TURNS` (with the question, one message more than twice as many), and for a share out of range.
    """
    if not MIN_TURNS <= turns <= MAX_TURNS:
        raise InvalidValue(f"turns is {turns}; a thread has {MIN_TURNS} to {MAX_TURNS}")
    if not 0 <= chatter < 1:
        raise InvalidValue(f"chatter is {chatter}; give a share of the turns from 0 to below 1")
    deck = Deck(split, random.Random(f"thread/{split}/{seed}/{i}/{turns}/{chatter}"))
    rng = deck.rng
    state = _State(rng.randrange(2, 10), deck.product(), deck.city())
    first = rng.choice(("I order {q} x {p} to {c}.", "Please send {q} x {p} to {c}."))
    said = [(first.format(q=state.quantity, p=state.product, c=state.city), rng.choice(_DONE))]
    states, steps = [state], [str(state.quantity)]
    for _ in range(turns - 1):
        if rng.random() < chatter:
            talk, reply = rng.choice(_CHATTER)
            said.append((talk.format(city=deck.city(), n=rng.randrange(2, 60)), reply))
            steps.append("")  # nothing to note
        else:
            told, step, state = _change(deck, state)
            said.append((told, rng.choice(_DONE)))
            steps.append(step)
        states.append(state)
    turned = [m for told, reply in said for m in (Message("user", told), Message("assistant", reply))]
    example = Example(
        f"thread-{split}-{seed}-{turns}-{chatter}-{i}",
        "summary",
        "hard",
        (Message("system", _SYSTEM), *turned, Message("user", QUESTION)),
        str(state),
        "; ".join(step for step in steps if step),
        160,
    )
    return Thread(example, tuple(map(str, states)), tuple(map(bool, steps)), tuple(steps))


def _change(deck: Deck, state: _State) -> tuple[str, str, _State]:
    """A change to the order: what the customer says, the step to note, and the order after it."""
    rng = deck.rng
    quantity, product, city, paid = state.quantity, state.product, state.city, state.paid
    kind = rng.choice(("more", "fewer", "city", "set", "pay"))
    if kind == "pay" and not paid:
        return (
            rng.choice(("I have paid.", "The money is on its way, I have paid.")),
            "paid",
            _State(quantity, product, city, True),
        )
    if (kind == "more" and quantity < 16) or (kind == "fewer" and quantity < 3):
        n = rng.randrange(1, 5)
        told = rng.choice((f"Add {n} more.", f"I need {n} extra."))
        return told, f"{quantity}+{n}={quantity + n}", _State(quantity + n, product, city, paid)
    if kind == "fewer":
        n = rng.randrange(1, min(quantity, 6))
        told = rng.choice((f"Take {n} off.", f"Make it {n} fewer."))
        return told, f"{quantity}-{n}={quantity - n}", _State(quantity - n, product, city, paid)
    if kind == "city":
        city = deck.city()
        return (
            rng.choice((f"Send it to {city} instead.", f"My new address is in {city}.")),
            city,
            _State(quantity, product, city, paid),
        )
    quantity = rng.randrange(2, 10)
    told = rng.choice((f"No, make it {quantity} in all.", f"Change that to {quantity} in all."))
    return told, f"={quantity}", _State(quantity, product, city, paid)
