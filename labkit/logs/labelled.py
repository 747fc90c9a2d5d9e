"""Files of labels beside a log: pairs for a semantic cache (chapter 04), and two models' outcomes for a router (05)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.caches import calibrated_threshold
from labkit.logs.call import Log
from labkit.logs.lines import read_text, records
from labkit.logs.numbers import Need, OwnNumber, cannot
from labkit.logs.places import snake
from labkit.request import InvalidValue
from labkit.routing import Outcomes, at_threshold

_SCORE = ("score", "confidence", "similarity", "cosine", "probability")
_SAME = ("same", "right", "correct", "label", "equal", "is_duplicate")
_SMALL = ("small_right", "right_small", "small_correct", "correct_small")
_LARGE = ("large_right", "right_large", "large_correct", "correct_large")
_COST_SMALL = ("cost_small", "small_cost")
_COST_LARGE = ("cost_large", "large_cost")
_FAULTS = 0.02
_FIRST = 10  # the search for a threshold begins with one in so many labels, so that one wrong among the best does not end it
_BOUND = 0.05


@dataclass(frozen=True, slots=True)
class Pairs:
    """Labelled pairs of questions: the score of each, and whether one answer is right for both."""

    name: str
    scores: tuple[float, ...]
    same: tuple[bool, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Graded:
    """Requests that both models answered, graded. `priced` says whether the file told the costs; else both are 0."""

    name: str
    outcomes: Outcomes
    priced: bool


def read_labels(path: str | os.PathLike[str]) -> Pairs | Graded | None:
    """The labels of a CSV, JSON lines or a JSON list; None where the file has other columns, as a log does.

    Pairs have a score and a label (`score`, `same`); graded requests a confidence and two labels (`confidence`,
    `small_right`, `large_right`), and perhaps `cost_small` and `cost_large`. Raises `InvalidValue` for a value that is no
    number or label, with its line.
    """
    file = Path(path).expanduser()
    with_text = file.is_file() and not file.read_bytes()[:16].startswith(b"SQLite format 3")
    if not with_text:
        return None
    found = [(line, {snake(str(k)[:80]): v for k, v in row.items()}) for line, row in records(read_text(file)[0])[1]]
    if not found:
        return None
    score, small, large, same = (_column(found[0][1], names) for names in (_SCORE, _SMALL, _LARGE, _SAME))
    if score and small and large:
        costs = [_column(found[0][1], names) for names in (_COST_SMALL, _COST_LARGE)]
        priced = all(costs)
        columns = [_numbers(found, score), _labels(found, small), _labels(found, large)]
        columns += [_numbers(found, name) for name in costs if name] if priced else [[0.0] * len(found)] * 2
        return Graded(file.name, Outcomes(*columns), priced)  # type: ignore[arg-type]
    if score and same:
        return Pairs(file.name, tuple(_numbers(found, score)), tuple(value == 1 for value in _labels(found, same)))
    return None


def threshold(pairs: Pairs, bound: float = _FAULTS) -> OwnNumber:
    """The lowest similarity at which, with 95 %, at most `bound` of the hits would be wrong, and the hits it leaves."""
    found = calibrated_threshold(pairs.scores, pairs.same, bound=bound, first=len(pairs.scores) // _FIRST)
    what = "the threshold of a semantic cache"
    head = f"{pairs.name} ({len(pairs.scores):,} labelled pairs)"
    if not math.isfinite(found.threshold):
        least = math.ceil(math.log(0.05) / math.log(1 - bound))
        need = Need(
            "proof for any threshold", f"more pairs of high score: {least} right ones in a row are the fewest that prove it"
        )
        return OwnNumber(
            "04", what, None, "cosine", f"{head} prove no threshold for {100 * bound:g} % wrong hits.", None, (need,)
        )
    sentence = (
        f"{head}: from a similarity of {found.threshold:.3f} on, at most {100 * bound:g} % of the hits are wrong with "
        f"95 % confidence ({found.wrong} of {found.hits} were); {100 * found.hits / len(pairs.scores):.0f} % "
        "of the pairs reach it."
    )
    return OwnNumber(
        "04", what, found.threshold, "cosine", sentence, None, (), (("pairs at or above it", f"{found.hits:,}"),)
    )


def routing(graded: Graded, bound: float = _BOUND) -> OwnNumber:
    """The lowest confidence from which the small model may answer, so that with 95 % at most `bound` of those are wrong.

    The saving compares a cascade at that threshold (both are paid where a request goes up) with the large model for all.
    """
    outcomes = graded.outcomes
    found = calibrated_threshold(outcomes.score, outcomes.right_small == 1, bound=bound, first=len(outcomes) // _FIRST)
    what, head = "the confidence from which the small model may answer", f"{graded.name} ({len(outcomes):,} graded requests)"
    rows = [
        ("small model right", f"{100 * outcomes.right_small.mean():.1f} %"),
        ("large model right", f"{100 * outcomes.right_large.mean():.1f} %"),
    ]
    if not math.isfinite(found.threshold):
        need = Need("proof for any threshold", "more graded requests, or a confidence that tells right from wrong better")
        sentence = (
            f"{head} prove no threshold for {100 * bound:g} % wrong answers of the small model: send all to the large one."
        )
        return OwnNumber("05", what, None, "confidence", sentence, None, (need,), tuple(rows))
    kept = found.hits / len(outcomes)
    quality = at_threshold(found.threshold, "quality", "cascade")(outcomes)
    rows += [("answered by the small model", f"{100 * kept:.1f} %"), ("right after routing", f"{100 * quality:.1f} %")]
    sentence = (
        f"{head}: from a confidence of {found.threshold:.3f} on, at most {100 * bound:g} % of the small model's answers are "
        f"wrong with 95 % confidence ({found.wrong} of {found.hits} were), and it keeps {100 * kept:.0f} % of the requests"
    )
    needs: tuple[Need, ...] = ()
    large = float(outcomes.cost_large.mean())
    if graded.priced and large > 0:
        saved = 1 - at_threshold(found.threshold, "cost", "cascade")(outcomes) / large
        rows.append(("saved against the large model for all", f"{100 * saved:.1f} %"))
        sentence += f", which {'saves' if saved >= 0 else 'costs'} {100 * abs(saved):.0f} %{'' if saved >= 0 else ' more'}"
    else:
        needs = (Need("costs", "what each model's answer cost, as cost_small and cost_large"),)
    return OwnNumber("05", what, found.threshold, "confidence", sentence + ".", None, needs, tuple(rows))


def ungraded(log: Log) -> OwnNumber:
    """Chapter 05's answer to a plain log: which models answer now, and what is missing for a threshold."""
    output = sorted(usage.output_tokens for usage in log.usages)
    rows = [("models", f"{len({call.model for call in log.calls if call.model}):,}")]
    if output:
        rows.append(("answers of up to 20 tokens", f"{100 * sum(n <= 20 for n in output) / len(output):.1f} %"))
    needs = (
        Need(
            "grade of any answer",
            "for a sample of requests: the small model's confidence, and whether each model's answer was right, as a CSV "
            "with the columns confidence, small_right, large_right, cost_small, cost_large",
        ),
    )
    return cannot("05", "the confidence from which a small model may answer", "confidence", log, *needs, rows=tuple(rows))


def _column(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), "")


def _numbers(found: Sequence[tuple[int, Mapping[str, Any]]], name: str) -> list[float]:
    numbers = []
    for line, row in found:
        try:
            number = float(row.get(name, ""))
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InvalidValue(f"line {line}: {name} is no finite number; correct the line or leave it out")
        numbers.append(number)
    return numbers


_TRUE, _FALSE = ("1", "1.0", "true", "yes", "y", "right", "same"), ("0", "0.0", "false", "no", "n", "wrong", "different")


def _labels(found: Sequence[tuple[int, Mapping[str, Any]]], name: str) -> list[float]:
    labels = []
    for line, row in found:
        text = str(row.get(name, "")).strip().lower()
        if text not in _TRUE and text not in _FALSE:
            raise InvalidValue(f"line {line}: {name} is no label; use 1 or 0")
        labels.append(float(text in _TRUE))
    return labels
