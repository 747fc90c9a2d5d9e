"""Exercises that check themselves by property, on hidden inputs.

An exercise's `check` is a generator: it draws inputs from a seeded `random.Random`, calls the learner's answer and yields an
`Outcome` per property. `run_check` stops at the first property that fails. A wrong answer may raise, loop for ever, return
the wrong type or be left blank: `run_check` turns all of that into a `Verdict`, so that a wrong answer never breaks the
notebook's later cells.

A long build is an exercise with `stages` in the place of its `check`: each `Stage` has a name and a check, and they are run
in order up to the first that fails. So the learner may check after each part of the code.

The check runs in a thread of its own, for two reasons. An answer may be `async` although the notebook's own loop is running.
And an answer that never ends can be interrupted on every platform: at the time limit, `TimeLimit` is raised in the thread.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import ctypes
import inspect
import math
import random
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass, replace
from decimal import Decimal
from numbers import Number, Real
from types import EllipsisType, MappingProxyType
from typing import Any

_ID_PARTS = 2
_SHOWN = 400
_BUILD_MINUTES = (30, 60)


class CheckFailed(AssertionError):
    """A check did not pass in a solved notebook, where it must."""


class ExerciseError(ValueError):
    """An exercise, prediction or question is declared or used wrongly; the message names it and the fix."""


class TimeLimit(BaseException):
    """Raised inside a check that ran past its limit. Not an `Exception`, so that `except Exception` does not catch it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One property of one answer: whether it held, and what to show when it did not."""

    ok: bool
    given: str
    expected: str
    actual: str
    why: str = ""


Check = Callable[[Any, random.Random], Iterable[Outcome]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a long build: what works after it, in a few words (`name`), its check, and hints for it alone."""

    name: str
    check: Check
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A task with its check, its staged hints and its proof.

    A short exercise has a `check`, a long build has `stages`; a stage without hints of its own falls back on the exercise's.

    `answer` is the name that the learner's cell defines. `reference` is the object that solves the exercise; later cells use
    it, never the learner's. `wrong` holds near-miss answers, and a test proves that the check rejects each. `minutes` is an
    honest estimate for a reader. `difficulty` is 1 (read and say), 2 (work out) or 3 (change a real piece of labkit).
    `limit_s` is the time limit of the check in seconds. `equivalent` maps each mutant of the reference that the check cannot
    refuse, as `tests/workbook/mutants.py` describes it, to the reason why it is no wrong answer; the check refuses all
    others. Raises `ExerciseError` for a field that makes no sense.
    """

    id: str
    title: str
    minutes: int
    difficulty: int
    answer: str
    reference: Any
    check: Check | None = None
    stages: tuple[Stage, ...] = ()
    hints: tuple[str, ...] = ()
    wrong: tuple[Any, ...] = ()
    limit_s: float = 10.0
    equivalent: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        chapter, _, number = self.id.partition(".")
        if not (chapter.isdigit() and len(chapter) == _ID_PARTS and number.isdigit()):
            raise ExerciseError(f"exercise id {self.id!r} must look like '03.1': the chapter's two digits, a dot, a number")
        if self.difficulty not in (1, 2, 3):
            raise ExerciseError(f"exercise {self.id}: difficulty {self.difficulty} must be 1, 2 or 3")
        if self.minutes < 1:
            raise ExerciseError(f"exercise {self.id}: minutes {self.minutes} must be at least 1")
        if not self.answer.isidentifier():
            raise ExerciseError(
                f"exercise {self.id}: answer {self.answer!r} must be the name that the learner's cell defines"
            )
        if (self.check is None) == (not self.stages):
            raise ExerciseError(f"exercise {self.id} must have either a check or stages")
        names = [stage.name for stage in self.stages]
        if not all(names) or len(set(names)) < len(names):
            raise ExerciseError(f"exercise {self.id}: its stages must have names, each its own: {names}")
        if self.stages and not _BUILD_MINUTES[0] <= self.minutes <= _BUILD_MINUTES[1]:
            raise ExerciseError(
                f"exercise {self.id} has stages, so it is a long build: minutes {self.minutes} must be from "
                f"{_BUILD_MINUTES[0]} to {_BUILD_MINUTES[1]}"
            )
        if not self.hints and not (self.stages and all(stage.hints for stage in self.stages)):
            raise ExerciseError(f"exercise {self.id} needs at least one hint, and a long build one for each stage")
        object.__setattr__(self, "equivalent", MappingProxyType(dict(self.equivalent)))

    @property
    def heading(self) -> str:
        """The markdown that the build puts above the exercise."""
        dots = "●" * self.difficulty + "○" * (3 - self.difficulty)
        about = f'Difficulty {dots} · about {self.minutes} min · stuck? Run `book.hint("{self.id}")`'
        if not self.stages:
            return f"### Exercise {self.id} · {self.title}\n\n*{about}*\n"
        listed = "\n".join(f"{number}. {stage.name}" for number, stage in enumerate(self.stages, 1))
        how = f"It grows in {len(self.stages)} stages. Run its check after each: it goes as far as your code does."
        return f"### Long build {self.id} · {self.title}\n\n*{about}*\n\n{how}\n\n{listed}\n"

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The stages; of a short exercise, its check as one stage without a name."""
        return self.stages if self.check is None else (Stage("", self.check),)

    def hints_for(self, stage: int) -> tuple[str, ...]:
        """The hints for a stage, by its place from 0: its own, or else the exercise's."""
        return self.parts[min(stage, len(self.parts) - 1)].hints or self.hints


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. `passed` counts the properties that held; `failure` and `note` say why the check did not pass.

    `stages` are the names of a long build's stages, and `held` counts for each that was passed the properties that held in
    it: so the check stopped in the stage `len(held)`.
    """

    exercise: str
    ok: bool
    passed: int
    failure: Outcome | None = None
    note: str = ""
    blank: bool = False
    stages: tuple[str, ...] = ()
    held: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """The verdict in a few words, without a full stop."""
        if self.ok:
            return f"Exercise {self.exercise}: passed"
        so_far = f": {len(self.held)} of {len(self.stages)} stages passed" if self.stages else ""
        return f"Exercise {self.exercise}: not yet{so_far}"

    @property
    def standing(self) -> tuple[str, ...]:
        """A line for each stage of a long build."""
        said = [f"passed, {count} properties held" for count in self.held]
        said += ["not yet", *["not tried"] * len(self.stages)]
        said = said[: len(self.stages)]
        return tuple(
            f"Stage {number}, {name}: {what}" for number, (name, what) in enumerate(zip(self.stages, said, strict=True), 1)
        )

    def __str__(self) -> str:
        if self.ok:
            return "\n".join((f"{self.title}, {self.passed} properties held on hidden inputs.", *self.standing))
        lines = [f"{self.title}.", *self.standing]
        if self.note:
            lines.append(self.note)
        if self.failure is not None:
            lines += [
                f"  given:    {self.failure.given}",
                f"  expected: {self.failure.expected}",
                f"  actual:   {self.failure.actual}",
            ]
            if self.failure.why:
                lines.append(f"  {self.failure.why}")
        return "\n".join(lines)


class _Blank(Exception):
    """The answer returned `...`: the stub was not filled in."""


class _Raised(Exception):
    """The answer raised `error`; `given` says on which input."""

    def __init__(self, given: str, error: BaseException) -> None:
        super().__init__(given)
        self.given = given
        self.error = error


def call(answer: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the answer with deep copies of the arguments and return its result; a coroutine is run to its end.

    Checks that need more than `agree` call the answer through this function, so that an error is reported as the learner's
    and a result of `...` as a blank answer.
    """
    given = _call_text(answer, args, kwargs)
    try:
        result = answer(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except TimeLimit:
        raise
    except BaseException as error:
        raise _Raised(given, error) from error
    if isinstance(result, EllipsisType):
        raise _Blank
    return result


def agree(
    answer: Any,
    *args: Any,
    expected: Any,
    rel: float = 1e-9,
    abs: float = 0.0,
    why: str = "",
    **kwargs: Any,
) -> Outcome:
    """Whether `answer(*args, **kwargs)` equals `expected`; numbers may differ by `rel` (a share) or `abs` (see `same`)."""
    actual = call(answer, *args, **kwargs)
    if actual is None and expected is not None:
        why = "None is what a function returns while it is blank, or when its `return` is missing."
    given = _call_text(answer, args, kwargs)
    return Outcome(same(expected, actual, rel=rel, abs_=abs), given, shown(expected), shown(actual), why)


def equals(name: str, actual: Any, expected: Any, *, rel: float = 1e-9, abs: float = 0.0, why: str = "") -> Outcome:
    """Whether a plain value, such as a number the learner typed in, equals `expected`."""
    if isinstance(actual, EllipsisType):
        raise _Blank
    return Outcome(same(expected, actual, rel=rel, abs_=abs), name, shown(expected), shown(actual), why)


def holds(name: str, ok: bool, *, given: Any = "", expected: Any = "", actual: Any = "", why: str = "") -> Outcome:
    """The outcome of an invariant called `name`; `ok` says whether it held."""
    return Outcome(bool(ok), f"{name}{': ' if given != '' else ''}{shown(given)}", shown(expected), shown(actual), why)


def same(expected: Any, actual: Any, *, rel: float = 1e-9, abs_: float = 0.0) -> bool:
    """Equality as a grader means it: numbers within a tolerance, containers item by item, never true for NaN.

    Here a bool is not a number and a string is not a sequence, so `True` does not pass for 1. Where a `Decimal` is expected,
    as for money, an `int`, `float` or `Decimal` within the tolerance is accepted.
    """
    if isinstance(expected, bool) or isinstance(actual, bool) or expected is None or actual is None:
        return type(expected) is type(actual) and expected == actual
    if isinstance(expected, Number) and isinstance(actual, Real | Decimal):
        return math.isclose(float(expected), float(actual), rel_tol=rel, abs_tol=abs_)  # type: ignore[arg-type]
    if isinstance(expected, str | bytes):
        return isinstance(actual, type(expected)) and expected == actual
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and set(expected) == set(actual)
            and all(same(value, actual[key], rel=rel, abs_=abs_) for key, value in expected.items())
        )
    if isinstance(expected, Set):
        return isinstance(actual, Set) and set(expected) == set(actual)
    if is_dataclass(expected) and not isinstance(expected, type):
        return type(expected) is type(actual) and all(
            same(getattr(expected, f.name), getattr(actual, f.name), rel=rel, abs_=abs_) for f in fields(expected)
        )
    if isinstance(expected, Sequence):
        if isinstance(actual, str | bytes) or not isinstance(actual, Sequence) or len(expected) != len(actual):
            return False
        return all(same(e, a, rel=rel, abs_=abs_) for e, a in zip(expected, actual, strict=True))
    return type(expected) is type(actual) and bool(expected == actual)


def run_check(exercise: Exercise, answer: Any, seed: int = 0) -> Verdict:
    """Check `answer` on inputs drawn from `seed`, for at most the exercise's `limit_s` seconds.

    Whatever the answer raises, and an endless loop of it, becomes part of the verdict and is not raised. Raises
    `ExerciseError` for a check that yields no outcome. A Ctrl-C in the caller's thread interrupts the wait as usual.
    """
    names, blanks = tuple(stage.name for stage in exercise.stages), _blanks(answer)
    if isinstance(answer, EllipsisType) or (blanks and not exercise.stages):
        return _judged(exercise, _blank(exercise), blanks)
    found: list[Verdict | ExerciseError] = []
    held: list[int] = []

    def work() -> None:
        try:
            found.append(_judge(exercise, answer, seed, held))
        except ExerciseError as error:
            found.append(error)
        except TimeLimit:
            pass  # raised after the verdict was made; the caller no longer waits for this thread

    worker = threading.Thread(target=work, name=f"check {exercise.id}", daemon=True)
    worker.start()
    worker.join(exercise.limit_s)
    if worker.is_alive():
        passed = tuple(held)
        _interrupt(worker)
        note = f"It was still running after {exercise.limit_s:g} s: is there a loop that never ends?"
        return Verdict(exercise.id, False, sum(passed), note=note, stages=names, held=passed if names else ())
    verdict = found[0]
    if isinstance(verdict, ExerciseError):
        raise verdict
    return _judged(exercise, replace(verdict, held=tuple(held)), blanks)


def _judged(exercise: Exercise, verdict: Verdict, blanks: tuple[str, ...]) -> Verdict:
    """The verdict with the stages of a long build, and what of the answer is still blank where a stage did not pass."""
    if not exercise.stages:
        return replace(verdict, held=())
    verdict = replace(verdict, stages=tuple(stage.name for stage in exercise.stages))
    if verdict.ok or not blanks:
        return replace(verdict, blank=verdict.blank and not verdict.held)
    still = f"Still blank: {', '.join(f'`{name}`' for name in blanks)}."
    note = still if verdict.blank or not verdict.note else f"{verdict.note}\n{still}"
    return replace(verdict, note=note, blank=not verdict.held)


def _judge(exercise: Exercise, answer: Any, seed: int, held: list[int]) -> Verdict:
    """The verdict of all stages; `held` gets the count of properties of each stage that passes."""
    for stage in exercise.parts:
        drawn = f"{exercise.id}/{seed}/{stage.name}" if stage.name else f"{exercise.id}/{seed}"
        verdict = _judge_part(exercise, stage, answer, random.Random(drawn))
        if not verdict.ok:
            return replace(verdict, passed=sum(held) + verdict.passed)
        held.append(verdict.passed)
    return Verdict(exercise.id, True, sum(held))


def _judge_part(exercise: Exercise, stage: Stage, answer: Any, rng: random.Random) -> Verdict:
    passed = 0
    try:
        for outcome in stage.check(answer, rng):
            if not outcome.ok:
                return Verdict(exercise.id, False, passed, failure=outcome)
            passed += 1
    except (_Blank, NotImplementedError):
        return _blank(exercise)
    except _Raised as raised:
        if isinstance(raised.error, NotImplementedError):
            return _blank(exercise)
        problem = f"Your code raised {_named(raised.error)}"
        return Verdict(exercise.id, False, passed, note=f"{problem}\n  given:    {raised.given}")
    except TimeLimit:
        return Verdict(exercise.id, False, passed, note="It ran past the time limit.")
    except BaseException as error:  # noqa: BLE001 - whatever a wrong answer breaks must not break the notebook
        return Verdict(exercise.id, False, passed, note=f"Your answer made the check raise {_named(error)}")
    if not passed:
        where = f" in stage {stage.name!r}" if stage.name else ""
        raise ExerciseError(f"the check of exercise {exercise.id} tests nothing{where}: it must yield at least one Outcome")
    return Verdict(exercise.id, True, passed)


def _named(error: BaseException) -> str:
    """The error's type and, where it has one, its message."""
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001 - the learner's own error may not even be able to say what it is
        message = ""
    return f"{type(error).__name__}{': ' if message else ''}{message}"


def _blank(exercise: Exercise) -> Verdict:
    return Verdict(
        exercise.id,
        False,
        0,
        note=f"`{exercise.answer}` is still blank: fill in the `...` and run its cell again.",
        blank=True,
    )


def _blanks(answer: Any) -> tuple[str, ...]:
    """Names of the functions and methods of an answer whose code still holds a `...` that stands for missing code.

    Of a function without readable source, only one that does nothing at all counts. A class is read method by method,
    because the source of a class that was defined in a notebook cannot be had.
    """
    if inspect.isclass(answer):
        parts = [getattr(part, "fget", None) or getattr(part, "__func__", part) for part in vars(answer).values()]
        return tuple(name for part in parts for name in _blanks(part))
    if not inspect.isfunction(answer):
        return ()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer)))
    except (OSError, TypeError, SyntaxError, ValueError):
        blank = answer.__code__.co_code == _does_nothing.__code__.co_code
    else:
        blank = any(
            isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and part.value.value is Ellipsis
            for part in ast.walk(tree)
        )
    return (answer.__name__,) if blank else ()


def _does_nothing() -> None: ...


def _interrupt(worker: threading.Thread) -> None:
    """Raise `TimeLimit` in the thread, up to 20 times while the thread lives on. A blocking C call is not cut short."""
    for _ in range(20):
        if not worker.is_alive() or worker.ident is None:
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(TimeLimit))
        worker.join(0.05)
        time.sleep(0)


def shown(value: Any) -> str:
    """A short text for a value in a verdict, cut after 400 characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def _call_text(answer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The arguments as they would be typed; of a method of an object, as `name(arguments)`."""
    given = ", ".join([repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()])
    return shown(f"{answer.__name__}({given})" if inspect.ismethod(answer) else given)
