"""Every check refuses every mutant of its exercise's reference, but for those that the exercise names as equivalent.

`python -m tests.workbook.test_mutants [03 04.2 …]` prints the table, with what survives. All mutants are tried, each on the
hidden inputs of one seed; LABKIT_ALL_MUTANTS=1 tries 50 seeds, as the learner may have any: a mutant must fail on each of
them, and one that is named as equivalent must pass on each. A long build has hundreds of mutants: without the variable,
`SAMPLE` of them are tried, the same each time. The table tries all. A mutant that raises, or that is still running when the
check's time is up, is refused as any answer is.
"""

from __future__ import annotations  # also the flag that mutants are compiled with

import inspect
import os
import random
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from labkit.workbook.chapters import chapters
from labkit.workbook.exercise import Exercise, run_check
from tests.workbook.mutants import mutants

EXERCISES = [exercise for chapter in chapters() for exercise in chapter.exercises]
ALL = os.environ.get("LABKIT_ALL_MUTANTS") == "1"
SEEDS = range(50 if ALL else 1)
SAMPLE = 25
LEAST_LIMIT_S = 1.0
ENDLESS = 3  # a mutant that never ended on so many seeds is not tried on more


@dataclass(frozen=True)
class Tried:
    """What became of the mutants of one exercise: those `found`, those `tried`, and of these the ones still `alive`."""

    exercise: Exercise
    found: tuple[str, ...]
    tried: tuple[str, ...]
    alive: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        n, survived = len(self.tried), len(self.alive)
        equivalent = sum(one in self.exercise.equivalent for one in self.alive)
        rate = (n - survived) / max(1, n - equivalent)
        return f"{self.exercise.id:8} {n:7} {n - survived:6} {equivalent:10} {rate:9.0%} {self.seconds:7.1f}"


HEAD = f"{'exercise':8} {'mutants':>7} {'killed':>6} {'equivalent':>10} {'kill rate':>9} {'seconds':>7}"


def tried(exercise: Exercise, sample: int | None = None) -> Tried:
    """Runs the check on every mutant of the reference, or on a `sample` of them that is the same each time.

    A mutant gets ten times as long as the reference took, and at least a second; one that is named as equivalent gets the
    exercise's own time, so that a slow machine does not refuse it.
    """
    begin = time.perf_counter()
    verdict = run_check(exercise, exercise.reference)
    assert verdict.ok, str(verdict)
    limit = min(exercise.limit_s, max(LEAST_LIMIT_S, 10 * (time.perf_counter() - begin)))
    found = dict(mutants(textwrap.dedent(inspect.getsource(exercise.reference))))
    chosen = list(found)
    if sample is not None and sample < len(found):
        chosen = random.Random(exercise.id).sample(chosen, sample)
    alive = []
    for description in chosen:
        source = found[description]
        patience, on = (exercise.limit_s, all) if description in exercise.equivalent else (limit, any)
        if _passes(replace(exercise, limit_s=patience), source, on):
            alive.append(description)
    return Tried(exercise, tuple(found), tuple(chosen), tuple(alive), time.perf_counter() - begin)


def _passes(exercise: Exercise, source: str, on: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether the check passes on any seed or on all of them; `on` is `any` or `all`."""
    try:
        answer = _answer(exercise, source)
    except Exception:  # noqa: BLE001 - a cell that raises gives no answer
        return False
    return on(_verdicts(exercise, answer))


def _verdicts(exercise: Exercise, answer: Any) -> Iterator[bool]:
    """Whether the check passes, seed by seed."""
    endless = 0
    for seed in SEEDS:
        begin = time.perf_counter()
        yield run_check(exercise, answer, seed).ok
        endless += time.perf_counter() - begin >= exercise.limit_s
        if endless == ENDLESS:
            return


def _answer(exercise: Exercise, source: str) -> Any:
    """What `source` defines, with the names of the chapter's module."""
    names = dict(vars(sys.modules[exercise.reference.__module__]))
    code = compile(source, f"<mutant of {exercise.id}>", "exec", flags=annotations.compiler_flag)
    exec(code, names)
    return names[exercise.reference.__name__]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[Tried]]:
    """The rows of the table, which is printed when all tests here are done."""
    rows: list[Tried] = []
    yield rows
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", HEAD, *rows, sep="\n")


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_the_check_refuses_every_mutant_that_is_not_named_as_equivalent(exercise, table):
    seen = tried(exercise, SAMPLE if exercise.stages and not ALL else None)
    table.append(seen)
    assert seen.found
    assert not [one for one in exercise.equivalent if one not in seen.found], "no such mutant (any more)"
    refused = set(seen.tried) - set(seen.alive)
    assert not refused & set(exercise.equivalent), "named as equivalent, yet refused"
    assert not [one for one in seen.alive if one not in exercise.equivalent], "wrong answers that pass"


def test_each_reason_is_given_and_the_table_is_frozen():
    assert all(reason.strip() for exercise in EXERCISES for reason in exercise.equivalent.values())
    for exercise in EXERCISES:
        with pytest.raises(TypeError):
            exercise.equivalent["line 1: a -> b"] = "an afterthought"


def test_mutants_are_small_different_and_named_once():
    source = "def f(a: int, b: int) -> int:\n    '''Doc.'''\n    return a - b if a < 2 else 0\n"
    found = dict(mutants(source))
    assert len(found) == len(list(mutants(source))) == len(set(found.values()))
    assert source not in found.values()
    for one in (
        "line 3: a < 2 -> a <= 2",
        "line 3: a < 2 -> a < 3",
        "line 3: a - b -> a + b",
        "line 3: a - b -> b - a",
        "line 3: a - b if a < 2 else 0 -> 0",
        "line 1: f(…) with a = b",
        "line 1: f(…) with a = 1",
    ):
        assert one in found
    assert not any("Doc" in one for one in found)


@pytest.mark.parametrize(
    ("source", "mutant"),
    [
        ("if x and not y:\n    z = 1\nelse:\n    z = 2", "if x and (not y):\n    z = 1"),
        ("if x and not y:\n    z = 1", "if x or not y:\n    z = 1"),
        ("while x:\n    break", "while x:\n    continue"),
        ("while x:\n    break", "while not x:\n    break"),
        ("x = sorted(y, key=f)", "x = sorted(y)"),
        ("x = sorted(y)", "x = sorted(y)[::-1]"),
        ("x = min(a, b)", "x = max(a, b)"),
        ("for i in range(n):\n    pass", "for i in range(n - 1):\n    pass"),
        ("x = y[:n]", "x = y[:n + 1]"),
        ("x += 1", "x -= 1"),
        ("x = 3.0", "x = 6.0"),
        ("x = a, b", "x = (b,)"),
        ("x = [i for i in y if i]", "x = [i for i in y]"),
    ],
)
def test_each_kind_of_mistake_is_made(source, mutant):
    assert mutant in dict(mutants(source)).values()


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("x = zip(a, b, strict=True)", "strict=True"),
        ("x = f'{a} of 3'", "f'{a} of 3'"),
        ("x: Literal[3] = a", "Literal[3]"),
        ("@cache(3)\ndef f(a):\n    return a", "@cache(3)"),
    ],
)
def test_what_is_not_changed(source, kept):
    assert all(kept in made for made in dict(mutants(source)).values())


if __name__ == "__main__":
    print(HEAD)
    for each in EXERCISES:
        if not sys.argv[1:] or any(each.id.startswith(name) for name in sys.argv[1:]):
            row = tried(each)
            print(row, *(f"    {one}" for one in row.alive if one not in each.equivalent), sep="\n", flush=True)
