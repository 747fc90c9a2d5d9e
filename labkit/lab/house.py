"""One returns policy of the house, the same in every case: to give in each prompt, or to teach once to an adapter.

Cases are dealt to splits by product and age, so the test asks for decisions that training never showed.
"""

from __future__ import annotations

import random
from typing import Final

from labkit.lab.tasks import DESK, NOUNS, Deck, Example, Split, case_message, decide, draw_case, draw_policy, split_of
from labkit.request import InvalidValue, Message

HOUSE: Final = draw_policy(Deck("train", random.Random("the policy of the house")), len(NOUNS), 40)


def house_example(split: Split, i: int, policy_in_prompt: bool = True, seed: int = 0) -> Example:
    """The `i`-th case of `split` under the house's policy, which the prompt holds, or only names.

    The case is the same both ways. Raises `InvalidValue` for an `i` below 0.
    """
    if i < 0:
        raise InvalidValue(f"i is {i}; cases count from 0")
    deck = Deck(split, random.Random(f"house/{split}/{seed}/{i}"))
    while True:
        case = draw_case(deck.rng, HOUSE)
        if split_of(f"{case.noun} after {case.age} days") == split:
            break
    answer, steps = decide(HOUSE, case)
    system = (
        f"Decide the return by this policy. {HOUSE.text}" if policy_in_prompt else "Decide the return by our house policy."
    )
    messages = (Message("system", f"{DESK} {system}"), Message("user", case_message(deck, case)))
    name = f"house-{split}-{seed}-{'long' if policy_in_prompt else 'short'}-{i}"
    return Example(name, "policy", "hard", messages, answer, steps, 96)
