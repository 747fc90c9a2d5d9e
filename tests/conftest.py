"""Settings that every test shares."""

from hypothesis import settings

# CI machines are slow and noisy, and no test asserts an absolute time: hypothesis's own deadline would.
settings.register_profile("lab", deadline=None)
settings.load_profile("lab")
