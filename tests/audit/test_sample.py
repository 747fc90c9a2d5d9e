"""What a stream leaves behind: a fair sample, and what came last."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from labkit.audit.sample import Recent, Reservoir


def test_every_thing_of_a_stream_is_as_likely_to_be_kept() -> None:
    kept: Counter[int] = Counter()
    for seed in range(4000):
        drawn: Reservoir[int] = Reservoir(3, seed)
        for thing in range(12):
            if (place := drawn.place()) is not None:
                drawn.put(place, thing)
        assert len(drawn.items) == len(set(drawn.items)) == 3
        kept.update(drawn.items)
    assert all(abs(n - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5 for n in kept.values()), kept
    assert len(kept) == 12


@given(st.lists(st.integers(0, 30), max_size=200))
def test_the_last_half_is_always_there_and_no_more_than_all(keys: list[int]) -> None:
    recent: Recent[int, int] = Recent(10)
    for step, key in enumerate(keys):
        recent.put(key, step)
    newest = {key: step for step, key in enumerate(keys)}
    there = {key for key in newest if key in recent}
    assert len(there) <= 10
    last = sorted(newest, key=newest.__getitem__)[-5:]
    assert {key: recent.get(key) for key in last} == {key: newest[key] for key in last}
    assert all(recent.get(key) == newest[key] for key in there)
    assert recent.forgotten >= len(newest) - len(there)
