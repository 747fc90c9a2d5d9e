"""Predictions: a guess that the learner commits to before the result, and its score after it.

The learner may change a committed guess until the result is first revealed; then it is locked. Nobody guesses on the
learner's behalf: without a commitment there is a result and no score.

A number is scored by its *ratio error* max(guess/actual, actual/guess) ≥ 1, the natural measure for quantities that span
orders of magnitude. Where a zero or a negative number makes a ratio meaningless, the score is the distance as a share of the
asked range. A choice is scored by the Brier score Σ(pᵢ − oᵢ)² over the options (Brier 1950): 0 is certain and right, 2
certain and wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from labkit.workbook.exercise import ExerciseError
from labkit.workbook.store import Journal

_CLOSE, _ORDER = 1.5, 3.0
_RANGE_CLOSE, _RANGE_ORDER = 0.1, 0.3


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

    def show(self, value: float) -> str:
        """The value with its unit, to three significant figures."""
        return f"{number_text(value)} {self.unit}".strip()

    def validate(self, actual: object, unit: str) -> float:
        """The actual value as a number. Raises `ExerciseError` when it is no finite number or is in another unit."""
        if unit != self.unit:
            raise ExerciseError(
                f"prediction {self.id} was asked in {self.unit!r} but revealed in {unit!r}; convert one of them"
            )
        try:
            value = float(actual)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ExerciseError(f"prediction {self.id}: the actual value {actual!r} is not a number") from None
        if not math.isfinite(value):
            raise ExerciseError(f"prediction {self.id}: the actual value is {value}; it was not measured")
        return value


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
    """How good a guess was: `value` by `metric` ('ratio', 'range' or 'brier'), in words, and whether it counts as close."""

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
    """The last commitment before the first reveal, and whether there was a reveal."""
    guess = None
    for entry in journal.entries(item=id):
        if entry["kind"] == "reveal":
            return Standing(guess, True)
        if entry["kind"] == "commit":
            guess = entry
    return Standing(guess, False)


def score_number(question: NumberQuestion, guess: float, actual: float) -> Score:
    """The score of a guessed number: by its ratio error when both numbers are above 0, else by its distance."""
    if guess > 0 and actual > 0:
        ratio = max(guess / actual, actual / guess)
        side = "" if ratio < 1.05 else " too high" if guess > actual else " too low"
        words = "spot on" if not side else f"×{ratio:.1f}{side}" if ratio < 10 else f"×{ratio:,.0f}{side}"
        verdict = (
            "close" if ratio <= _CLOSE else "right order of magnitude" if ratio <= _ORDER else "a surprise worth explaining"
        )
        return Score("ratio", ratio, words if not side else f"{words}: {verdict}", ratio <= _CLOSE)
    distance = abs(guess - actual) / (question.high - question.low)
    side = "too high" if guess > actual else "too low"
    verdict = "close" if distance <= _RANGE_CLOSE else "near" if distance <= _RANGE_ORDER else "a surprise worth explaining"
    words = "spot on" if distance < 0.01 else f"{distance:.0%} of the range {side}: {verdict}"
    return Score("range", distance, words, distance <= _RANGE_CLOSE)


def score_choice(question: ChoiceQuestion, guess: str, confidence: float, actual: str) -> Score:
    """The Brier score of a choice among n options, made with a `confidence` from 1/n to 1.

    What is left of the probability is spread evenly over the other options.
    """
    rest = (1 - confidence) / (len(question.options) - 1)
    brier = sum(((confidence if o == guess else rest) - (o == actual)) ** 2 for o in question.options)
    hit = guess == actual
    even = 1 - 1 / len(question.options)
    tail = f"Brier {brier:.2f} (0 is best, a coin toss would score {even:.2f})"
    return Score("brier", brier, f"{'right' if hit else 'wrong'} at {confidence:.0%} confidence, {tail}", hit)


def number_text(value: float) -> str:
    """Three significant figures, thousands separated, no exponent: 0.00123, 12.3, 1,230."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    text = f"{rounded:,.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
