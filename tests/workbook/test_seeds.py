"""Whichever hidden inputs a check draws, the reference of its exercise passes, and every near miss fails.

A learner may have any seed, so a check is tried on 50 of them: a right answer that fails on one, or a wrong one that passes
on one, shows a check that needs a margin or a case of its own. `FEWER` names the exercises whose checks take long. They are
tried on as many seeds as some two seconds allow, and on all 50 with LABKIT_ALL_MUTANTS=1, which takes minutes.
"""

from __future__ import annotations

import os

import pytest

from labkit.workbook.chapters import chapters
from labkit.workbook.exercise import Exercise, run_check

EXERCISES = [exercise for chapter in chapters() for exercise in chapter.exercises]
ALL = 50
OF_A_BUILD = 4  # the stages of a long build take a second together
FEWER = {
    "04.3": 4,  # a binomial tail for each of some 600 scores, in 12 samples
    "04.4": 10,  # 1,200 pairs of questions are made
    "05.2": 2,  # thresholds in 60 worlds of 6,300 requests
    "07.1": 15,  # whole schedules, step by step
    "07.3": 20,  # batches of 80 items in 25 shops
    "07.4": 8,  # schedules of 8 loads and of a flood
    "08.4": 2,  # prefix caches under eight days of traffic
}


def seeds(exercise: Exercise) -> range:
    """The seeds on which an exercise's check is tried."""
    usual = OF_A_BUILD if exercise.stages else ALL
    return range(ALL if os.environ.get("LABKIT_ALL_MUTANTS") == "1" else FEWER.get(exercise.id, usual))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_the_reference_passes_on_every_seed(exercise):
    verdicts = {seed: run_check(exercise, exercise.reference, seed) for seed in seeds(exercise)}
    assert not {seed: str(verdict) for seed, verdict in verdicts.items() if not verdict.ok}


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_near_misses_fail_on_every_seed(exercise):
    assert exercise.wrong, "list the near misses that a learner would write, so that this test proves they are caught"
    for number, wrong in enumerate(exercise.wrong):
        passed = [seed for seed in seeds(exercise) if run_check(exercise, wrong, seed).ok]
        assert not passed, f"wrong answer {number} passes on seeds {passed}"


def test_each_exercise_that_is_tried_on_fewer_seeds_is_one():
    assert set(FEWER) <= {exercise.id for exercise in EXERCISES}
