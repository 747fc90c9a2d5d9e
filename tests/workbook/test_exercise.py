import asyncio
import contextlib
import math
import os
import random
import signal
import threading
import time
from decimal import Decimal

import pytest

from labkit.workbook import Exercise, ExerciseError, Stage, agree, call, holds
from labkit.workbook.exercise import run_check, same
from tests.workbook.tiny import EXERCISE, cached_share


def loops(_usage):
    while True:
        pass


def swallows(_usage):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def raises(_usage):
    raise ZeroDivisionError("by hand")


class Mute(Exception):
    def __str__(self):
        raise ValueError("nothing to say")


def raising(error):
    def answer(_usage):
        raise error

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        ...,
        None,
        3,
        "text",
        loops,
        swallows,
        raises,
        lambda: 1,
        lambda u: ...,
        lambda u: None,
        lambda u: True,
        lambda u: math.nan,
    ],
)
def test_a_wrong_answer_is_not_yet_and_never_raises(answer):
    verdict = run_check(EXERCISE, answer)
    assert not verdict.ok
    assert "not yet" in str(verdict)


@pytest.mark.parametrize(
    "error",
    [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Mute],
    ids=lambda e: e.__name__,
)
@pytest.mark.parametrize("by", ["call", "the check itself", "a coroutine"])
def test_whatever_an_answer_raises_is_named_in_the_verdict(error, by):
    async def later(_usage):
        raise error

    def check(answer, rng):
        yield holds("answered", answer(rng.random()) == 1)

    answer = later if by == "a coroutine" else raising(error)
    verdict = run_check(_with(check) if by == "the check itself" else EXERCISE, answer)
    assert not verdict.ok
    assert error.__name__ in str(verdict)


def test_the_learners_own_ctrl_c_still_interrupts():
    timer = threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_check(EXERCISE, lambda _usage: time.sleep(0.5))
    timer.join()


def test_the_reference_passes_and_says_how_many_properties_held():
    assert run_check(EXERCISE, cached_share).passed == 21


def test_a_failed_check_shows_input_expected_and_actual():
    text = str(run_check(EXERCISE, lambda usage: 2.0))
    assert "Usage(" in text
    assert "expected: 0." in text
    assert "actual:   2.0" in text


def test_an_async_answer_is_awaited():
    async def share(usage):
        await asyncio.sleep(0)
        return cached_share(usage)

    assert run_check(EXERCISE, share).ok


def test_an_answer_that_changes_its_argument_cannot_change_the_check():
    def check(answer, rng):
        items = [rng.random()]
        yield agree(answer, items, expected=1)
        yield holds("input unchanged", len(items) == 1, expected=1, actual=len(items))

    def answer(items):
        items.clear()
        return 1

    assert run_check(_with(check), answer).ok


def test_a_check_that_tests_nothing_is_an_error_of_the_exercise():
    with pytest.raises(ExerciseError, match="tests nothing"):
        run_check(_with(lambda answer, rng: iter(())), 1)


def test_hidden_inputs_follow_the_seed():
    seen: list[float] = []

    def check(answer, rng: random.Random):
        seen.append(rng.random())
        yield holds("any", True)

    for seed in (1, 1, 2):
        run_check(_with(check), 0, seed)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (True, 1, False),
        (Decimal("0.3"), 0.1 + 0.2, True),
        (1.0, math.nan, False),
        ("a", b"a", False),
        ("ab", ["a", "b"], False),
        ([1, 2], (1.0, 2.0), True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1, 2}, {2, 1}, True),
        (0.0, 1e-12, False),
    ],
)
def test_equality_is_a_graders(expected, actual, equal):
    assert same(expected, actual) is equal


@pytest.mark.parametrize(
    ("field", "value"), [("id", "x"), ("difficulty", 4), ("minutes", 0), ("answer", "a b"), ("hints", ()), ("check", None)]
)
def test_a_wrong_declaration_is_refused(field, value):
    fields = dict(id="99.1", title="t", minutes=1, difficulty=1, answer="a", check=EXERCISE.check, reference=1, hints=("h",))
    with pytest.raises(ExerciseError):
        Exercise(**{**fields, field: value})


def _with(check):
    return Exercise(id="99.2", title="t", minutes=1, difficulty=1, answer="a", check=check, reference=1, hints=("h",))


class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self.items.pop()


def _check_push(answer, rng):
    stack = call(answer)
    for n in range(1, 4):
        call(stack.push, rng.random())
        yield holds("it holds what was pushed", len(stack.items) == n)


def _check_pop(answer, rng):
    stack, item = call(answer), rng.random()
    call(stack.push, item)
    yield agree(stack.pop, expected=item)


def staged(*stages, **fields):
    chosen = dict(stages=stages or STAGES, minutes=30, hints=("Look again.",))
    return Exercise(**dict(id="99.3", title="t", difficulty=3, answer="Stack", reference=Stack) | chosen | fields)


STAGES = (Stage("push", _check_push, ("A list.",)), Stage("pop", _check_pop))


class Pushes(Stack):
    def pop(self): ...  # your code here


class Untouched:
    def __init__(self): ...

    def push(self, item): ...  # your code here


def test_stages_are_passed_one_after_the_other():
    whole, half, none = (run_check(staged(), answer) for answer in (Stack, Pushes, Untouched))
    assert (whole.ok, whole.held, whole.passed) == (True, (3, 1), 4)
    assert (half.ok, half.held, half.passed, half.blank) == (False, (3,), 3, False)
    assert (none.ok, none.held, none.passed, none.blank) == (False, (), 0, True)
    assert "1 of 2 stages passed" in str(half)
    assert half.standing == ("Stage 1, push: passed, 3 properties held", "Stage 2, pop: not yet")
    assert none.standing[1] == "Stage 2, pop: not tried"
    assert "Still blank: `pop`." in str(half)
    assert "Still blank: `__init__`, `push`." in str(none)
    assert "expected: 0." in str(half)
    assert "pop()" in str(half)


def test_an_answer_that_hangs_in_a_later_stage_keeps_the_earlier_ones():
    class Hangs(Stack):
        def pop(self):
            while True:
                pass

    verdict = run_check(staged(limit_s=0.3), Hangs)
    assert (verdict.ok, verdict.held) == (False, (3,))
    assert "still running" in str(verdict)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"check": _check_pop}, "either a check or stages"),
        ({"minutes": 10}, "from 30 to 60"),
        ({"stages": (*STAGES, STAGES[0])}, "each its own"),
        ({"hints": ()}, "one for each stage"),
    ],
)
def test_a_wrong_build_is_refused(fields, said):
    with pytest.raises(ExerciseError, match=said):
        staged(**fields)


def test_a_stage_that_tests_nothing_is_named():
    with pytest.raises(ExerciseError, match="in stage 'idle'"):
        run_check(staged(Stage("idle", lambda answer, rng: iter(()))), Stack)


def test_a_stage_draws_its_inputs_whatever_stands_before_it():
    seen = []

    def check(answer, rng):
        seen.append(rng.random())
        yield holds("any", True)

    last = Stage("last", check)
    for stages in ((last,), (*STAGES, last)):
        assert run_check(staged(*stages), Stack).ok
    assert seen[0] == seen[1]
