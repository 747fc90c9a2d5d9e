"""Settings that every test shares."""

import os
import random

import pytest
from hypothesis import settings

# CI machines are slow and noisy, and no test asserts an absolute time: hypothesis's own deadline would.
settings.register_profile("lab", deadline=None)
# In CI the same examples every time: a red run there must be the commit's doing. At a desk they are new every time,
# so the search for a counterexample goes on, and what it finds is kept as an @example.
settings.register_profile("ci", settings.get_profile("lab"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "lab")


@pytest.fixture
def dice() -> random.Random:
    """For tests that drive something at random by hand: the same choices in CI, new ones at a desk, printed for a repeat."""
    seed = 0 if os.environ.get("CI") else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)
