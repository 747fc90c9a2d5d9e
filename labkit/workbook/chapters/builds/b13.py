"""The long build of chapter 13: an alert on the cost of a request, with a stated rate of false alarms."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, holds

DAY_S = 24 * 3600.0
BLOCK = 8  # parts of a day that are drawn together
CLIP = 4.0
LEAST = 1e-6

Day = Sequence[tuple[float, float]]
"""A day's requests: (second of the day, dollars), in the order of time."""


class CostAlert:
    """Watches the mean cost of a request in equal parts of the day; rings falsely on a stated share of quiet days."""

    def __init__(self, parts: int, reference: float, false_alarms: float) -> None:
        self.parts, self.reference, self.false_alarms = parts, reference, false_alarms
        self.usual: list[float] = []
        self.spread = 1.0
        self.threshold = math.inf

    def means(self, day: Day) -> list[float | None]:
        """Stage 1: the mean cost of a request in each part of the day; None where there was none."""
        found: list[list[float]] = [[] for _ in range(self.parts)]
        for second, usd in day:
            found[int(second / DAY_S * self.parts)].append(usd)
        return [sum(costs) / len(costs) if costs else None for costs in found]

    def learn(self, null: Sequence[Day]) -> None:
        """Stage 2: `usual`, the mean logarithm for each part of the day, and `spread`, one number for all parts."""
        days = [self.means(day) for day in null]
        columns = [[math.log(mean) for mean in column if mean] for column in zip(*days, strict=True)]
        known = [sum(logs) / len(logs) for logs in columns if logs]
        overall = sum(known) / len(known)
        self.usual = [sum(logs) / len(logs) if logs else overall for logs in columns]
        squares = sum((log - usual) ** 2 for logs, usual in zip(columns, self.usual, strict=True) for log in logs)
        free = sum(len(logs) - 1 for logs in columns if logs)
        self.spread = max(LEAST, math.sqrt(squares / max(1, free)))

    def scores(self, day: Day) -> list[float]:
        """Stage 3: by how many spreads each part is dearer than usual, from -CLIP to CLIP; 0 where nothing is known."""
        return [
            max(-CLIP, min(CLIP, (math.log(mean) - usual) / self.spread)) if mean else 0.0
            for mean, usual in zip(self.means(day), self.usual, strict=True)
        ]

    def levels(self, scores: Sequence[float]) -> list[float]:
        """Stage 3: the sum of what exceeds the reference, which never falls below 0, after each part."""
        level, found = 0.0, []
        for score in scores:
            level = max(0.0, level + score - self.reference)
            found.append(level)
        return found

    def draw(self, days: Sequence[Sequence[float]], rng: random.Random) -> list[float]:
        """Stage 4: the scores of a day on which nothing changed: each BLOCK of parts from a day that is drawn for it."""
        found: list[float] = []
        for first in range(0, self.parts, BLOCK):
            found += rng.choice(days)[first : first + BLOCK]
        return found

    def calibrate(self, null: Sequence[Day], draws: int, rng: random.Random) -> None:
        """Stage 4: learn from the null days, and set the threshold that so few of `draws` drawn days exceed."""
        apart = []
        for n in range(len(null)):
            self.learn([*null[:n], *null[n + 1 :]])
            apart.append(self.scores(null[n]))
        self.learn(null)
        highest = sorted(max(self.levels(self.draw(apart, rng))) for _ in range(draws))
        self.threshold = highest[-1 - int(self.false_alarms * draws)]

    def fires(self, day: Day) -> float | None:
        """Stage 5: the second at which it rings, the end of a part; None on a day on which it does not."""
        levels = enumerate(self.levels(self.scores(day)), 1)
        return next((part * DAY_S / self.parts for part, level in levels if level > self.threshold), None)


# --- checks -----------------------------------------------------------------------------------------------------------


def _made(answer: Any, parts: int = 24, reference: float = 0.5, false_alarms: float = 0.1) -> Any:
    return call(answer, parts, reference, false_alarms)


def a_day(rng: random.Random, *, parts: int = 24, times: float = 1.0, since: float = DAY_S, gaps: float = 0.0) -> Day:
    """A day of requests whose costs follow the hour, `times` as dear from the second `since` on."""
    found = []
    for part in range(parts):
        if rng.random() < gaps:
            continue
        for _ in range(rng.randrange(1, 4)):
            second = (part + rng.random()) * DAY_S / parts
            usual = 0.002 * (1 + 0.5 * math.sin(part)) * rng.lognormvariate(0, 0.2)
            found.append((second, usual * (times if second >= since else 1.0)))
    return sorted(found)


def _means(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    made = _made(answer, 4)
    quarter = DAY_S / 4
    yield agree(made.means, [], expected=[None] * 4, why="No requests: nothing is known of any part. It is not 0.")
    yield agree(
        made.means, [(0.0, 1.0), (quarter - 1, 3.0), (3 * quarter, 5.0)],
        expected=[2.0, None, None, 5.0], why="A part begins with its first second, and its end belongs to the next.",
    )  # fmt: skip
    yield agree(made.means, [(quarter, 0.0)], expected=[None, 0.0, None, None], why="A free request costs 0; that is known.")
    for _ in range(5):
        parts = rng.choice((2, 24, 96))
        day, one = a_day(rng, gaps=0.3), _made(answer, parts)
        yield agree(one.means, day, expected=CostAlert(parts, 0.5, 0.1).means(day))


def _learns(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def learned(null: Sequence[Day], parts: int = 2) -> tuple[Any, float]:
        made = _made(answer, parts)
        call(made.learn, null)
        return made.usual, made.spread

    noon = DAY_S / 2
    e = math.e
    yield agree(
        learned, [[(0.0, 1.0), (noon, e)], [(0.0, e * e), (noon, e)]],
        expected=([1.0, 1.0], 1.0),
        why="Logarithms 0 and 2 in the morning, 1 and 1 at night. Squares: 1 + 1 + 0 + 0; free: one a part, 2 in all.",
    )  # fmt: skip
    yield agree(
        learned, [[(0.0, e), (noon, e**3)], [(0.0, e)]],
        expected=([1.0, 3.0], LEAST), why="A part that one day lacks is known from the others. A spread is never 0.",
    )  # fmt: skip
    yield agree(
        learned, [[(0.0, e)], [(0.0, e**3), (noon, 0.0)]],
        expected=([2.0, 2.0], math.sqrt(2.0)),
        why="Of the second part no day has a cost above 0: take the mean of the parts that are known.",
    )  # fmt: skip
    yield agree(
        learned, [[(0.0, e)]], expected=([1.0, 1.0], LEAST), why="One day says what is usual, and nothing of the spread."
    )
    for _ in range(5):
        null = [a_day(rng, gaps=0.2) for _ in range(rng.randrange(2, 7))]
        lab = CostAlert(24, 0.5, 0.1)
        lab.learn(null)
        yield agree(learned, null, 24, expected=(lab.usual, lab.spread))


def _scored(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    made = _made(answer, 4, 0.5)
    made.usual, made.spread = [0.0, 1.0, 0.0, 0.0], 0.5
    quarter = DAY_S / 4
    yield agree(
        made.scores, [(0.0, math.e), (quarter, 1.0), (2 * quarter, math.e**9)],
        expected=[2.0, -2.0, CLIP, 0.0],
        why="(log − usual) / spread: 1 / 0.5, −1 / 0.5; 18 is cut to 4; and where nothing came, 0.",
    )  # fmt: skip
    yield agree(
        made.scores, [(0.0, math.e**-9), (quarter, 0.0)],
        expected=[-CLIP, 0.0, 0.0, 0.0], why="Below, too, a score is cut. A free part has no logarithm: 0.",
    )  # fmt: skip
    yield agree(
        made.levels, [1.0, 0.25, -9.0, 4.0],
        expected=[0.5, 0.25, 0.0, 3.5], why="Each score less the reference, 0.5, is added; the sum never falls below 0.",
    )  # fmt: skip
    yield agree(made.levels, [], expected=[], why="No scores, no levels.")
    for _ in range(5):
        null = [a_day(rng) for _ in range(4)]
        lab, yours = CostAlert(24, 0.25, 0.1), _made(answer, 24, 0.25)
        lab.learn(null)
        yours.usual, yours.spread = lab.usual, lab.spread
        day = a_day(rng, times=1.6, since=rng.uniform(0, DAY_S), gaps=0.2)
        yield agree(yours.scores, day, expected=lab.scores(day))
        yield agree(yours.levels, lab.scores(day), expected=lab.levels(lab.scores(day)))


def _drawn(made: Any, days: Sequence[Sequence[float]], seed: int) -> Outcome:
    """Whether a drawn day is made of whole blocks, each from one day, at its own time of day."""
    got = call(made.draw, days, random.Random(seed))
    parts = len(days[0])
    blocks = [list(got[first : first + BLOCK]) for first in range(0, parts, BLOCK)]
    there = [[list(day[first : first + BLOCK]) for day in days] for first in range(0, parts, BLOCK)]
    return holds(
        "a drawn day is made of blocks of the days, each at its time of day",
        len(got) == parts and all(block in known for block, known in zip(blocks, there, strict=True)),
        given=f"{len(days)} days of {parts} parts, blocks of {BLOCK}",
        expected=f"{parts} scores: each {BLOCK} together from one day, where they stood in it",
        actual=got,
    )


def _told(given: list[Any], waiting: Iterator[list[float]], scores: Any, rng: Any) -> list[float]:
    """A `draw` that notes what it is given, and hands out the days that wait."""
    given.append((scores, rng))
    return next(waiting)


def _calibrated(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    for many, parts in ((3, 24), (2, 20), (2, 17), (1, 8)):
        made = _made(answer, parts)
        apart = [[float(100 * day + part) for part in range(parts)] for day in range(many)]
        for _ in range(3):
            yield _drawn(made, apart, rng.randrange(10**6))
    made = _made(answer)
    apart = [[float(day)] * 24 for day in range(3)]
    seen = {tuple(call(made.draw, apart, random.Random(seed))[::BLOCK]) for seed in range(60)}
    yield holds(
        "each block is drawn by itself, from all of the days",
        len(seen) > 9,
        given="60 draws from three days of three blocks",
        expected="most of the 27 ways to put a day together",
        actual=f"{len(seen)} ways",
    )
    for draws, false_alarms in ((50, 0.1), (20, 0.05), (30, 0.0), (7, 0.5)):
        null = [a_day(rng, gaps=0.1) for _ in range(5)]
        made, lab = _made(answer, 24, 0.5, false_alarms), CostAlert(24, 0.5, false_alarms)
        given: list[Any] = []
        days = [[rng.gauss(0, 1.5) for _ in range(24)] for _ in range(draws)]
        for one in (made, lab):
            waiting = iter(days)
            one.draw = partial(_told, given, waiting)  # type: ignore[method-assign]
            call(one.calibrate, null, draws, random.Random(0)) if one is made else one.calibrate(null, draws, rng)
        exceed = sum(max(lab.levels(day)) > made.threshold for day in days)
        yield holds(
            "the threshold is the lowest that so few drawn days exceed",
            math.isclose(made.threshold, lab.threshold, rel_tol=1e-9),
            given=f"{draws} drawn days, of which a share of {false_alarms} may ring",
            expected=f"{lab.threshold:.6f}, which {int(false_alarms * draws)} of them exceed",
            actual=f"{made.threshold!r:.20}, which {exceed} of them exceed",
            why="Sort the highest levels of the drawn days: so many may lie above the threshold, which is one of them.",
        )
        yield holds(
            "every day is drawn with the generator that was given",
            all(isinstance(used, random.Random) for _, used in given),
            given="a random.Random",
            expected="it is what `draw` gets",
            actual="something else is",
        )
        (yours, _), (its, _) = given[0], given[-1]
        yield agree(
            lambda scores=yours: [list(day) for day in scores],
            expected=[list(day) for day in its],
            why="The scores of a null day are taken with what is usual on the other null days, as the days to come will be.",
        )
        yield agree(
            lambda one=made: (one.usual, one.spread),
            expected=(lab.usual, lab.spread),
            why="In the end, the alert has learned from all of the null days.",
        )


def _rings(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def made(threshold: float) -> Any:
        one = _made(answer, 4, 0.5)
        one.usual, one.spread, one.threshold = [0.0] * 4, 1.0, threshold
        return one

    quarter = DAY_S / 4
    day = [(0.0, math.exp(1.0)), (quarter, math.exp(1.0)), (2 * quarter, math.exp(1.0)), (3 * quarter, 1.0)]
    for threshold, expected, why in (
        (0.25, quarter, "After the first part the sum is 0.5: it rings at the end of this part, not at its beginning."),
        (0.75, 2 * quarter, "The sum is 1.0 after the second part."),
        (1.25, 3 * quarter, ""),
        (1.5, None, "At the threshold is not above it."),
        (9.0, None, "Nothing rings."),
    ):
        yield agree(made(threshold).fires, day, expected=expected, why=why)
    whole = [(0.0, 1.0), (3 * quarter, math.exp(3.0))]
    yield agree(made(2.0).fires, whole, expected=DAY_S, why="The last part's alarm comes at the day's end.")
    yield agree(made(2.0).fires, [], expected=None, why="No requests, no alarm.")
    new = _made(answer, 4, 0.5)
    call(new.learn, [day])
    yield agree(new.fires, whole, expected=None, why="Without a threshold that was calibrated, it must not ring.")
    for _ in range(3):
        null = [a_day(rng) for _ in range(6)]
        yours, lab = _made(answer), CostAlert(24, 0.5, 0.1)
        lab.calibrate(null, 100, random.Random(1))
        yours.usual, yours.spread, yours.threshold = lab.usual, lab.spread, lab.threshold
        dear = a_day(rng, times=rng.choice((1.0, 2.0, 4.0)), since=rng.uniform(0, DAY_S))
        at = lab.fires(dear)
        yield agree(yours.fires, dear, expected=at)
        if at is not None:
            so_far = [(second, usd) for second, usd in dear if second < at]
            yield agree(yours.fires, so_far, expected=at, why="It may not look ahead: what comes later is not known yet.")


# --- near misses ------------------------------------------------------------------------------------------------------


class _EmptyIsFree(CostAlert):
    """Takes a part without requests for one that cost nothing."""

    def means(self, day: Day) -> list[float | None]:
        return [mean or 0.0 for mean in super().means(day)]


class _NotAside(CostAlert):
    """Scores null days with what was learned from them, too: they look more usual than a new day will."""

    def calibrate(self, null: Sequence[Day], draws: int, rng: random.Random) -> None:
        self.learn(null)
        apart = [self.scores(day) for day in null]
        highest = sorted(max(self.levels(self.draw(apart, rng))) for _ in range(draws))
        self.threshold = highest[-1 - int(self.false_alarms * draws)]


class _PartByPart(CostAlert):
    """Draws each part by itself: what belongs together for an hour is torn apart."""

    def draw(self, days: Sequence[Sequence[float]], rng: random.Random) -> list[float]:
        return [rng.choice(days)[part] for part in range(self.parts)]


class _WholeDays(CostAlert):
    """Draws whole days only: as many different ones as there are null days."""

    def draw(self, days: Sequence[Sequence[float]], rng: random.Random) -> list[float]:
        return list(rng.choice(days))


class _NeverForgets(CostAlert):
    """A sum that falls below 0 has to be made up for first, so a cheap night hides a dear morning."""

    def levels(self, scores: Sequence[float]) -> list[float]:
        level, found = 0.0, []
        for score in scores:
            level += score - self.reference
            found.append(level)
        return found


class _AtTheBeginning(CostAlert):
    """Rings at the beginning of the part, before its requests came."""

    def fires(self, day: Day) -> float | None:
        at = super().fires(day)
        return None if at is None else at - DAY_S / self.parts


class _LooksAhead(CostAlert):
    """Rings where the day's highest level is: known only when the day is over."""

    def fires(self, day: Day) -> float | None:
        levels = self.levels(self.scores(day))
        if max(levels, default=0.0) <= self.threshold:
            return None
        return (levels.index(max(levels)) + 1) * DAY_S / self.parts


_STAGES: tuple[tuple[str, Callable[..., Iterator[Outcome]], tuple[str, ...]], ...] = (
    (
        "the mean cost of a request in each part of the day",
        _means,
        (
            "Keep a list of costs for each part; a second belongs to part `int(second / DAY_S * self.parts)`.",
            "A part without requests has None: nothing is known of it.",
        ),
    ),
    (
        "what is usual",
        _learns,
        (
            "Take logarithms: costs are heavy-tailed, and a rise of so many percent is the same step in each part.",
            "`zip(*days, strict=True)` turns days of parts into parts of days. None and 0 have no logarithm.",
            "The spread: the squares of (log − usual) of all parts together, by the sum of (number − 1) of each; the root.",
        ),
    ),
    (
        "a sum of excesses",
        _scored,
        (
            "A score is (log(mean) − usual) / spread, cut at ±CLIP, and 0 where the mean is None or 0.",
            "The level is `max(0.0, level + score - self.reference)`, part after part.",
        ),
    ),
    (
        "a threshold with a stated rate",
        _calibrated,
        (
            "`draw`: for each first part 0, BLOCK, 2·BLOCK, … take that slice of a day from `rng.choice(days)`.",
            "For each null day: learn from the others, and score this one. In the end learn from all.",
            "Sort the highest levels of the drawn days. `int(self.false_alarms * draws)` of them may lie above the "
            "threshold, which is the next one down.",
        ),
    ),
    (
        "it rings in time, and only on what it knows",
        _rings,
        ("The first part whose level is above the threshold; its end is at (its number from 1) · DAY_S / parts.",),
    ),
)

_LEARNED = "`learn` sets it before anything reads it"

BUILD = Exercise(
    id="13.5",
    title="An alert that says how often it is wrong",
    minutes=50,
    difficulty=3,
    answer="CostAlert",
    stages=tuple(Stage(*stage) for stage in _STAGES),
    reference=CostAlert,
    wrong=(_EmptyIsFree, _NotAside, _PartByPart, _WholeDays, _NeverForgets, _AtTheBeginning, _LooksAhead),
    limit_s=20.0,
    equivalent={
        "line 6: self.usual: list[float] = [] -> pass": _LEARNED,
        "line 7: self.spread = 1.0 -> pass": _LEARNED,
        "line 7: self.spread = 1.0 -> self.spread = 2.0": _LEARNED,
        "line 7: self.spread = 1.0 -> self.spread = 0.0": _LEARNED,
        "line 24: log - usual -> usual - log": "a square is the same whichever side it is looked at from",
        "line 46: range(0, self.parts, BLOCK) -> range(0, self.parts + 1, BLOCK)": "the slice behind the last part is empty",
    },
)
