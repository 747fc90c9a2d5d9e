import multiprocessing
import os

import pytest

from labkit.workbook.noise import ALONE, STEADY, Noise, gauge


@pytest.mark.parametrize(
    ("noise", "quiet"),
    [
        (Noise(1.0, 0.0), True),
        (Noise(STEADY, ALONE), True),
        (Noise(STEADY + 0.01, 0.0), False),
        (Noise(1.0, ALONE + 0.01), False),
    ],
)
def test_a_machine_is_quiet_while_both_are_below_their_limits(noise, quiet):
    assert noise.quiet is quiet


def spin(until):
    while not until.is_set():
        pass


def test_the_gauge_sees_others_at_work():
    """As many busy processes as there are cores are seen in some gauging, however the rest of the machine behaves."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    busy = [context.Process(target=spin, args=(stop,), daemon=True) for _ in range(len(os.sched_getaffinity(0)))]
    for process in busy:
        process.start()
    try:
        seen = [gauge(tries=1) for _ in range(40)]
    finally:
        stop.set()
        for process in busy:
            process.join()
    assert max(noise.others for noise in seen) > ALONE
    assert all(noise.spread >= 1 and 0 <= noise.others <= 1 for noise in seen)
