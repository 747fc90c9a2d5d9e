"""The long builds: their stages are quick, and what their chapters draw with them is right."""

import random
import time

import pytest

from labkit.workbook.chapters import chapters
from labkit.workbook.chapters.builds.b08 import LabMemory, PagedMemory, served

STAGES = [(one.id, one, stage) for chapter in chapters() for one in chapter.exercises for stage in one.stages]
YARDSTICKS = 40
"""So many times a fixed piece of work, done beside it, a stage may take: about half a second where this was written."""


def yardstick():
    begin = time.process_time()
    sum(i * i for i in range(400_000))
    return time.process_time() - begin


def test_every_chapter_has_one():
    assert len({id for id, *_ in STAGES}) == len(chapters())


@pytest.mark.parametrize(("id", "build", "stage"), STAGES, ids=lambda value: getattr(value, "name", str(value)[:4]))
def test_a_stage_is_checked_while_the_learner_waits(id, build, stage):
    def took(seed):
        begin = time.process_time()
        outcomes = list(stage.check(build.reference, random.Random(seed)))
        assert outcomes, id
        assert all(outcome.ok for outcome in outcomes)
        return (time.process_time() - begin) / yardstick()

    assert min(took(seed) for seed in range(3)) < YARDSTICKS


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
