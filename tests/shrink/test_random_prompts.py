"""A few seconds of `python -m tests.shrink.random_prompts`, which goes on as long as it is asked to."""

from __future__ import annotations

import pytest

from labkit.request import Message, run_virtual
from labkit.shrink import NUMBERS, Cut, ShrinkStep
from tests.shrink import random_prompts


def test_every_removed_character_is_explained() -> None:
    seen = run_virtual(random_prompts.run(100_000, seed=0, seconds=3))
    assert seen.prompts > 50
    assert {"anywhere", "white-space", "compact"} <= set(seen.cuts)


def test_the_checks_see_what_they_are_for() -> None:
    told = (Message("user", "5 and 6"),)
    with pytest.raises(AssertionError, match="is lost"):
        random_prompts.check_protected(ShrinkStep(told, (Cut(0, 0, 1),)), NUMBERS)
    with pytest.raises(AssertionError):
        random_prompts.check_protected(ShrinkStep(told, (Cut(0, 2, 5, "7"),)), NUMBERS)
    with pytest.raises(AssertionError, match="without its call"):
        random_prompts.pairs((Message("tool", "x", tool_call_id="1"),))
    assert random_prompts.remade(ShrinkStep(told, (Cut(0, 1, 5, "-"),)))[0].content == "5- 6"
