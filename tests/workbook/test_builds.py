"""The long builds: their stages are quick, and what their chapters draw with them is right."""

import random
import time

import pytest

from labkit.workbook.chapters import chapters
from labkit.workbook.chapters.builds.b08 import LabMemory, PagedMemory, served

BUILDS = [exercise for chapter in chapters() for exercise in chapter.exercises if exercise.stages]
STAGE_S = 0.3


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.id)
def test_a_stage_is_checked_while_the_learner_waits(build):
    for stage in build.stages:
        took = []
        for seed in range(3):
            begin = time.process_time()
            assert all(outcome.ok for outcome in stage.check(build.reference, random.Random(seed)))
            took.append(time.process_time() - begin)
        assert min(took) < STAGE_S, stage.name


@pytest.mark.parametrize("seed", range(5))
def test_a_load_is_served_alike_by_the_reference_and_the_labs_allocator(seed):
    rng = random.Random(seed)
    load = [(rng.randrange(1, 40), rng.randrange(1, 40)) for _ in range(20)]
    own, lab = (served(each, 25, 4, load, 6) for each in (PagedMemory, LabMemory))
    assert own == lab
    assert own[-1]["preempted"] > 0
    assert max(row["held"] for row in own) <= 25


def test_one_request_alone_holds_the_blocks_of_its_tokens():
    rows = served(PagedMemory, 100, 4, [(7, 10), (3, 2)], clients=1)
    tokens = [*range(8, 18), 4, 5]
    assert [row["held"] for row in rows] == [-(-n // 4) for n in tokens]
    assert [row["slots"] for row in rows] == [-n % 4 for n in tokens]
    assert {row["running"] for row in rows} == {1}
