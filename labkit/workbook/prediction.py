"""Predictions: a guess that the learner commits to before the result, and its score after it.

The learner may change a committed guess until the result is first revealed; then it is locked, until a reset opens it
again. Nobody guesses on the
learner's behalf: without a commitment there is a result and no score.

A share (unit "%") is scored by its distance in percentage points: 2 % guessed for 1 % is close, though it is twice as much.
Any other number is scored by its *ratio error* max(guess/actual, actual/guess) ≥ 1, the natural measure for quantities that
span orders of magnitude; where a zero or a negative number makes a ratio meaningless, by the distance as a share of the
range. A result that was measured in rounds is an interval, and a guess within it cannot be told from the result. A choice is
scored by the Brier score Σ(pᵢ − oᵢ)² over the options (Brier 1950): 0 is certain and right, 2 certain and wrong, and an even
guess among n options scores 1 − 1/n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.workbook.exercise import ExerciseError
from labkit.workbook.rounds import Spread, spread
from labkit.workbook.store import Journal

_CLOSE, _ORDER = 1.5, 3.0
_RANGE_CLOSE, _RANGE_ORDER = 0.1, 0.3
_POINTS_CLOSE, _POINTS_NEAR = 10.0, 25.0
_SURPRISE = "a surprise worth explaining"


@dataclass(frozen=True, slots=True)
class NumberQuestion:
    """A number to guess between `low` and `high`, in `unit`; `log` asks on a logarithmic slider."""

    id: str
    question: str
    low: float
    high: float
    unit: str
    log: bool = False
    help: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ExerciseError(f"prediction {self.id}: low={self.low} must be below high={self.high}, both finite")
        if self.log and self.low <= 0:
            raise ExerciseError(f"prediction {self.id}: low={self.low} must be above 0 on a logarithmic slider")

    @property
    def share(self) -> bool:
        """Whether the number is a share, in percent."""
        return self.unit == "%"

    def show(self, value: float) -> str:
        """The value with its unit, to three significant figures."""
        return f"{number_text(value)} {self.unit}".strip()

    def validate(self, actual: object, unit: str) -> Spread:
        """The result, from one number or a number for each round.

        Raises `ExerciseError` for what is no finite number, and for another unit.
        """
        if unit != self.unit:
            raise ExerciseError(
                f"prediction {self.id} was asked in {self.unit!r} but revealed in {unit!r}; convert one of them"
            )
        rounds: Any = actual if isinstance(actual, Iterable) and not isinstance(actual, str) else [actual]
        try:
            return spread([float(value) for value in rounds])
        except (TypeError, ValueError):
            raise ExerciseError(
                f"prediction {self.id}: the actual value {actual!r} must be a finite number, or one for each round"
            ) from None


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """One of `options` to choose, with a confidence."""

    id: str
    question: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.options)) < 2 or len(set(self.options)) != len(self.options):
            raise ExerciseError(f"prediction {self.id} needs two or more different options, got {self.options!r}")

    def validate(self, actual: object) -> str:
        """The option that happened. Raises `ExerciseError` when it is none of the options."""
        if actual not in self.options:
            raise ExerciseError(f"prediction {self.id}: the actual {actual!r} is none of its options {self.options!r}")
        return str(actual)


Question = NumberQuestion | ChoiceQuestion


@dataclass(frozen=True, slots=True)
class Score:
    """How good a guess was: `value` by `metric`, in words, and whether it counts as close.

    The metric is 'points' (percentage points), 'ratio', 'range' or 'brier'.
    """

    metric: str
    value: float
    words: str
    close: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What the journal knows of one prediction: the guess that counts, and whether its result has been shown."""

    guess: Mapping[str, object] | None
    revealed: bool


def standing(journal: Journal, id: str) -> Standing:
    """The last commitment before the first reveal, and whether there was a reveal; both since the last reset."""
    guess, revealed = None, False
    for entry in journal.entries(item=id):
        if entry["kind"] == "reset":
            guess, revealed = None, False
        elif entry["kind"] == "reveal":
            revealed = True
        elif entry["kind"] == "commit" and not revealed:
            guess = entry
    return Standing(guess, revealed)


def reset(journal: Journal, ids: Iterable[str]) -> None:
    """Open predictions again: what was committed and shown before stays in the journal, and counts no more."""
    for id in ids:
        journal.append("reset", id)


def score_number(question: NumberQuestion, guess: float, actual: Spread) -> Score:
    """The score of a guessed number against the nearest number of the result's interval."""
    nearest = min(max(guess, actual.low), actual.high)
    side = "too high" if guess > nearest else "too low"
    within = f"spot on: this run says {actual.words()}" if actual.low < actual.high else "spot on"
    if question.share:
        points = abs(guess - nearest)
        verdict = "close" if points <= _POINTS_CLOSE else "near" if points <= _POINTS_NEAR else _SURPRISE
        words = within if points < 0.5 else f"{number_text(points)} percentage points {side}: {verdict}"
        return Score("points", points, words, points <= _POINTS_CLOSE)
    if guess > 0 and nearest > 0:
        ratio = max(guess / nearest, nearest / guess)
        verdict = "close" if ratio <= _CLOSE else "right order of magnitude" if ratio <= _ORDER else _SURPRISE
        times = f"×{ratio:.1f}" if ratio < 10 else f"×{ratio:,.0f}"
        return Score("ratio", ratio, within if ratio < 1.05 else f"{times} {side}: {verdict}", ratio <= _CLOSE)
    distance = abs(guess - nearest) / (question.high - question.low)
    verdict = "close" if distance <= _RANGE_CLOSE else "near" if distance <= _RANGE_ORDER else _SURPRISE
    words = within if distance < 0.01 else f"{distance:.0%} of the range {side}: {verdict}"
    return Score("range", distance, words, distance <= _RANGE_CLOSE)


def cannot_tell(question: NumberQuestion, actual: Spread) -> str:
    """Why the rounds lie too far apart to score a guess by them, or an empty text."""
    if question.share:
        wide = actual.high - actual.low > 2 * _POINTS_NEAR
    else:
        wide = actual.high > _ORDER * actual.low if actual.low > 0 else actual.low < actual.high
    if not wide:
        return ""
    return f"{actual.rounds} rounds lie between {question.show(actual.low)} and {question.show(actual.high)}"


def score_choice(question: ChoiceQuestion, guess: str, confidence: float, actual: str) -> Score:
    """The Brier score of a choice among n options, made with a `confidence` from 1/n to 1, beside that of an even guess.

    What is left of the probability is spread evenly over the other options.
    """
    rest = (1 - confidence) / (len(question.options) - 1)
    brier = sum(((confidence if o == guess else rest) - (o == actual)) ** 2 for o in question.options)
    hit, even = guess == actual, 1 - 1 / len(question.options)
    against = "as good as" if abs(brier - even) < 0.005 else "better than" if brier < even else "worse than"
    tail = f"{against} an even guess (Brier {brier:.2f} against {even:.2f}; 0 is best)"
    return Score("brier", brier, f"{'right' if hit else 'wrong'} at {confidence:.0%} confidence, {tail}", hit)


def number_text(value: float) -> str:
    """Three significant figures, thousands separated, no exponent: 0.00123, 12.3, 1,230."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    text = f"{rounded:,.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
