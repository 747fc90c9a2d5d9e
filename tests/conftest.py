"""Settings that every test shares."""

import os

from hypothesis import settings

# CI machines are slow and noisy, and no test asserts an absolute time: hypothesis's own deadline would.
settings.register_profile("lab", deadline=None)
# In CI the same examples every time: a red run there must be the commit's doing. At a desk they are new every time,
# so the search for a counterexample goes on, and what it finds is kept as an @example.
settings.register_profile("ci", settings.get_profile("lab"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "lab")
