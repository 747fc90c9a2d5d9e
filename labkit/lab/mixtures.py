"""What each adapter is taught: mixtures of the lab's tasks, drawn from the training split."""

from __future__ import annotations

import random
from collections.abc import Callable

from labkit.lab.house import house_example
from labkit.lab.styles import FORMS_WITH_STEPS, Form, Verbosity, styled
from labkit.lab.tasks import Deck, Example, examples, policy_example
from labkit.lab.telegraph import terse
from labkit.lab.threads import MAX_TURNS, MIN_TURNS, thread
from labkit.lab.train import long_example
from labkit.request import Message

# How often each family is drawn, relative to the others, where nothing is asked of the answer's style.
_FAMILIES = {"intent": 2.0, "faq": 1.0, "extract": 2.0, "normalise": 2.0, "total": 3.0, "policy": 2.0, "summary": 3.0}
_STYLED = {"intent": 1.0, "faq": 1.0, "normalise": 1.0, "total": 0.5, "policy": 1.0, "summary": 1.0}


def _one(rng: random.Random, shares: dict[str, float]) -> Example:
    family = rng.choices(list(shares), list(shares.values()))[0]
    return next(examples("train", family, 1, seed=rng.randrange(10**9)))


def unchanged(rng: random.Random) -> Example:
    """One of the seven families as the base model knows it, one time in fifteen behind a long policy."""
    return long_example(rng) if rng.random() < 1 / 15 else _one(rng, _FAMILIES)


def unchanged_exactly(rng: random.Random) -> Example:
    """As `unchanged`, with twice the share of `normalise`, whose answers are copied letter by letter and suffer first."""
    return _one(rng, {"normalise": 1.0}) if rng.random() < 1 / 7 else unchanged(rng)


def in_style(rng: random.Random) -> Example:
    """A task with an instruction on how to answer: a verbosity, a number of words, or a form."""
    example = _one(rng, _STYLED)
    kind = rng.choice(("verbosity", "verbosity", "words", "form", "form"))
    if kind == "verbosity":
        verbosity: Verbosity = rng.choice(("brief", "detailed"))
        return styled(example, verbosity)
    if kind == "words":
        return styled(example, max_words=rng.choice((*range(1, 13), *range(2, 32))))
    forms: tuple[Form, ...] = ("json", *FORMS_WITH_STEPS) if example.steps else ("json",)
    return styled(example, form=rng.choice(forms))


def in_telegraph_style(rng: random.Random) -> Example:
    """A task with words left out of its prompt, one time in eight a long policy."""
    if rng.random() < 1 / 8:
        deck = Deck("train", random.Random(rng.random()))
        system, told, answer, steps = policy_example(deck, rng.randrange(2, 13), rng.randrange(5, 50))
        example = Example("long", "policy", "hard", (Message("system", system), Message("user", told)), answer, steps)
    elif rng.random() < 0.3:
        example = rng.choice((in_thread, in_style))(rng)
    else:
        example = _one(rng, _FAMILIES)
    return terse(example, rng.uniform(0.1, 1.0), rng)


def in_thread(rng: random.Random) -> Example:
    """A conversation about an order, two times in five from a line that says how it stood."""
    turns = rng.randint(MIN_TURNS, MAX_TURNS)
    if rng.random() < 0.5:
        turns = min(turns, rng.randint(MIN_TURNS, MAX_TURNS))
    found = thread("train", rng.randrange(10**9), turns=turns, chatter=rng.choice((0.0, 0.0, 0.2, 0.5)))
    if rng.random() < 0.6:
        return found.example
    return found.since(rng.randint(1, turns), rng.choice(("system", "user")))


def house_case(rng: random.Random) -> Example:
    """A case under the policy of the house, which the prompt only names."""
    return house_example("train", rng.randrange(10**9), policy_in_prompt=False)


MIXTURES: dict[str, dict[Callable[[random.Random], Example], float]] = {
    "desk": {unchanged: 0.4, in_style: 0.6},
    "context": {unchanged_exactly: 0.45, in_telegraph_style: 0.2, in_thread: 0.35},
    "house": {house_case: 0.6, unchanged: 0.4},
}


# The share of the examples whose thinking is cut off somewhere: the answer is to come all the same.
CUT_SHORT = {"desk": 0.12, "context": 0.0, "house": 0.0}
# The share of the rows with thinking of which the answer alone is taught: see `labkit.lab.train.answer_only`.
ANSWER_ONLY = {"desk": 0.4, "context": 0.0, "house": 0.0}


def drawn(adapter: str, n: int, rng: random.Random) -> list[Example]:
    """`n` training examples of an adapter's mixture."""
    parts = MIXTURES[adapter]
    return [make(rng) for make in rng.choices(list(parts), list(parts.values()), k=n)]
