"""Chapter 05: which question needs the large model."""
# ruff: noqa: ARG001, ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from labkit.request import Chunk, Completion, Done, Timing, TokenLogprob, Usage
from labkit.routing import Outcomes, Way, at_threshold, frontier
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b05 import BUILD
from labkit.workbook.chapters.q05 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, call, holds

Numbers = Sequence[float]


def threshold_to_ship(known: Outcomes, way: Way, wrong_usd: float) -> float | None:
    """The threshold at which calls and wrong answers together cost least; None where always large costs no more.

    A question scored below the threshold goes up. `wrong_usd` is what a wrong answer costs.
    """
    table = frontier(known, way)
    total = table.cost + wrong_usd * (1 - table.quality)
    always_large = known.cost_large.mean() + wrong_usd * (1 - known.right_large.mean())
    return None if always_large <= total.min() else float(table["threshold"].iloc[int(np.argmin(total))])


def _in_all(known: Outcomes, way: Way, wrong_usd: float, threshold: float | None) -> float:
    """USD a question at a threshold, added up question by question; None asks the large model alone."""
    paid = 0.0
    rows = zip(known.score, known.right_small, known.right_large, known.cost_small, known.cost_large, strict=True)
    for score, right_small, right_large, small_usd, large_usd in rows:
        up = threshold is None or score < threshold
        asked_small = threshold is not None and (way == "cascade" or not up)
        paid += asked_small * small_usd + up * large_usd + wrong_usd * (1 - (right_large if up else right_small))
    return float(paid / len(known))


def _always_a_router(known: Outcomes, way: Way, wrong_usd: float) -> float:
    """Near miss: ships a router in any case; a cascade that sends all up has paid for the small model."""
    table = frontier(known, way)
    return float(table["threshold"].iloc[int(np.argmin(table.cost + wrong_usd * (1 - table.quality)))])


def _cheapest_calls(known: Outcomes, way: Way, wrong_usd: float) -> float | None:
    """Near miss: counts the calls only."""
    return threshold_to_ship(known, way, 0.0)


def _fewest_wrong(known: Outcomes, way: Way, wrong_usd: float) -> float:
    """Near miss: counts the wrong answers only."""
    table = frontier(known, way)
    return float(table["threshold"].iloc[int(np.argmax(table.quality))])


def _small_is_free(known: Outcomes, way: Way, wrong_usd: float) -> float | None:
    """Near miss: forgets that a cascade pays the small model for what goes up as well."""
    return threshold_to_ship(known, "before", wrong_usd)


def _check_ship(answer: Callable[[Outcomes, Way, float], float | None], rng: random.Random) -> Iterator[Outcome]:
    def ships(known: Outcomes, way: Way, wrong_usd: float, given: str, why: str) -> Outcome:
        got = call(answer, known, way, wrong_usd)
        said = f"{given}; {way!r}, a wrong answer costs {wrong_usd}"
        if got is not None and (isinstance(got, bool) or not isinstance(got, (int, float, np.floating))):
            return holds("a threshold, or None", False, given=said, expected="a number or None", actual=repr(got), why=why)
        thresholds = [None, math.inf, *map(float, known.score)]
        least = min(_in_all(known, way, wrong_usd, one) for one in thresholds)
        cost = _in_all(known, way, wrong_usd, None if got is None else float(got))
        return holds(
            "nothing costs less in all",
            cost <= least + 1e-9,
            given=said,
            expected=f"{least:.4f} a question",
            actual=f"{got!r}, which costs {cost:.4f}",
            why=why,
        )

    def one(right_small: Numbers, right_large: Numbers, small: float = 1.0, large: float = 5.0) -> Outcomes:
        n = len(right_small)
        score = np.linspace(0.1, 0.9, n)
        return Outcomes(score, np.array(right_small), np.array(right_large), np.full(n, small), np.full(n, large))

    split = one([0, 0, 1, 1], [1, 1, 1, 1])
    given = (
        "four questions; the small model (1 a call) is right about the two it is surer of, the large (5 a call) about all"
    )
    yield ships(split, "cascade", 100.0, given, "Two wrong answers cost far more than two large calls.")
    yield ships(split, "cascade", 2.0, given, "A wrong answer costs less than the large call that would avoid it.")
    yield ships(split, "before", 100.0, given, "Who goes up does not pay for the small model.")
    dull = one([0, 0, 0, 0], [1, 1, 1, 1])
    given = "four questions; the small model (1 a call) is always wrong, the large (5 a call) always right"
    yield ships(dull, "cascade", 100.0, given, "To send all up through a cascade pays the small model for nothing: None.")
    close = one([0, 0, 0, 1], [1, 1, 1, 1], small=4.0)
    given = "four questions; the small model (4 a call) is right about one of them, the large (5 a call) about all"
    yield ships(close, "cascade", 100.0, given, "All pay 4, and three of four pay 5 more: always large is 5.")
    for _ in range(20):
        known = _world(rng, rng.randrange(5, 40), rng.uniform(0, 1), rng.uniform(0.6, 1))
        way: Way = rng.choice(("before", "cascade"))
        yield ships(known, way, rng.choice((0.0, 1.0, 5.0, 30.0, 500.0)), f"{len(known)} random questions", "")


def choose_threshold(known: Outcomes, sla: float) -> float:
    """The cheapest threshold of a cascade whose quality is at least `sla` with 95 % confidence; inf (all up) for none."""
    table = frontier(known, "cascade")
    surely = table.quality - 1.645 * np.sqrt(table.quality * (1 - table.quality) / len(known))
    kept = table[surely >= sla]
    return float(kept.sort_values("cost")["threshold"].iloc[0]) if len(kept) else math.inf


def _plug_in(known: Outcomes, sla: float) -> float:
    """Near miss: expects on new requests the same quality as on the known ones."""
    table = frontier(known, "cascade")
    kept = table[table.quality >= sla]
    return float(kept.sort_values("cost")["threshold"].iloc[0]) if len(kept) else math.inf


def _read_as_promised(known: Outcomes, sla: float) -> float:
    """Near miss: uses the promised quality itself as the threshold."""
    return sla


def _best_quality(known: Outcomes, sla: float) -> float:
    """Near miss: takes the best quality there is, and so saves next to nothing."""
    table = frontier(known, "cascade")
    return float(table.sort_values("quality")["threshold"].iloc[-1])


def _world(rng: random.Random, n: int, ease: float, gap: float) -> Outcomes:
    """Known outcomes of `n` random requests, about the share `ease` of them easy.

    Scores tell hard from easy with some error. The large model is right with probability `gap`, and hard answers cost more.
    """
    draw = np.random.default_rng(rng.randrange(2**32))
    hard = draw.random(n) > ease
    chance = np.where(hard, draw.beta(1, 3, n), draw.beta(30, 1, n))
    score = np.clip(chance + draw.normal(0, 0.12, n), 0, 1)
    small = (draw.random(n) < chance).astype(float)
    large = (draw.random(n) < gap).astype(float)
    return Outcomes(score, small, large, draw.gamma(8, 0.125, n), draw.gamma(8, 0.8, n) * np.where(hard, 2.5, 1.0))


def _check_threshold(answer: Callable[[Outcomes, float], float], rng: random.Random) -> Iterator[Outcome]:
    sure = Outcomes(np.array([0.1, 0.9] * 500), np.array([0.0, 1.0] * 500), np.ones(1000), np.ones(1000), 9 * np.ones(1000))
    got = call(answer, sure, 0.9)
    number = isinstance(got, (int, float, np.floating)) and not isinstance(got, bool)
    yield holds("a threshold is a number", number, given="1,000 known requests", expected="a number", actual=repr(got))
    if not number:
        return
    yield holds(
        "the sure half stays small and the unsure half goes up",
        0.1 < got <= 0.9,
        given="500 requests scored 0.1, always wrong when small; 500 scored 0.9, always right; quality 0.9",
        expected="above 0.1, up to 0.9",
        actual=repr(got),
    )
    hopeless = Outcomes(np.linspace(0, 1, 60), np.zeros(60), np.array([1.0, 0.0] * 30), np.ones(60), 9 * np.ones(60))
    yield holds(
        "where no threshold keeps the promise, all go up",
        call(answer, hopeless, 0.9) == math.inf,
        given="a small model that is always wrong, a large one that is right every other time; quality 0.9",
        expected="math.inf",
    )
    right = np.array([1.0] * 285 + [0.0] * 15)
    close = Outcomes(np.full(300, 0.9), right, np.ones(300), np.ones(300), 9 * np.ones(300))
    for sla, enough in ((0.92, True), (0.935, False)):
        got = call(answer, close, sla)
        yield holds(
            f"285 right answers of 300 are {'' if enough else 'not '}surely at least {sla}",
            (got <= 0.9) is enough,
            given=f"300 requests scored 0.9, 285 of them right when small, all right when large; quality {sla}",
            expected="0.9 or below: all stay small" if enough else "above 0.9: all go up",
            actual=repr(got),
            why="95 % of these were right. With 95 % confidence that proves some 93 % of all, and no more.",
        )
    kept, paid, could = 0, 0.0, 0.0
    worlds = 60
    for _ in range(worlds):
        ease, gap = rng.uniform(0.4, 0.75), rng.uniform(0.95, 0.99)
        known, unseen = _world(rng, 300, ease, gap), _world(rng, 6000, ease, gap)
        sla = 0.92 * gap
        chosen = float(call(answer, known, sla))
        kept += at_threshold(chosen, "quality", "cascade")(unseen) >= sla
        paid += at_threshold(chosen, "cost", "cascade")(unseen)
        could += at_threshold(choose_threshold(known, sla), "cost", "cascade")(unseen)
    yield holds(
        "the quality is kept on unseen traffic in most worlds",
        kept >= 0.8 * worlds,
        given=f"{worlds} worlds, each with 300 known requests and 6,000 unseen ones",
        expected=f"kept in at least {math.ceil(0.8 * worlds)}",
        actual=f"kept in {kept}",
        why="The threshold that looks just good enough on the known requests is, on others, too low about every other time. "
        "Ask for more than the promise: as much more as 300 requests can be wrong.",
    )
    yield holds(
        "and little is paid beyond what that takes",
        paid <= 1.05 * could,
        given=f"the same {worlds} worlds",
        expected=f"a mean cost of at most {1.05 * could / worlds:.3f}",
        actual=f"{paid / worlds:.3f}",
        why="Sending more up always keeps the promise. The point is to keep it for less.",
    )


def confidence(answer: Completion, unsafe: Sequence[str], wants_json: bool) -> float:
    """How surely an answer may be delivered, 0 to 1.

    It is 0 for an answer that is cut off, unsafe, not JSON where JSON is wanted, or without log-probabilities; else the
    probability of all its tokens together.
    """
    text = answer.text.casefold()
    if answer.done.finish_reason != "stop" or any(phrase.casefold() in text for phrase in unsafe):
        return 0.0
    if wants_json:
        try:
            json.loads(answer.text)
        except ValueError:
            return 0.0
    said = [token.logprob for token in answer.logprobs]
    return math.exp(sum(said)) if said else 0.0


def _mean_confidence(answer: Completion, unsafe: Sequence[str], wants_json: bool) -> float:
    """Near miss: the geometric mean per token, which lets long wrong answers pass."""
    whole = confidence(answer, unsafe, wants_json)
    return whole ** (1 / len(answer.logprobs)) if whole else 0.0


def _case_matters(answer: Completion, unsafe: Sequence[str], wants_json: bool) -> float:
    """Near miss: finds unsafe phrases in one spelling only."""
    return 0.0 if any(phrase in answer.text for phrase in unsafe) else confidence(answer, (), wants_json)


def _silence_is_sure(answer: Completion, unsafe: Sequence[str], wants_json: bool) -> float:
    """Near miss: takes an answer without log-probabilities for certain, because the sum of none is 0."""
    return confidence(answer, unsafe, wants_json) if answer.logprobs else 1.0


def _cut_is_fine(answer: Completion, unsafe: Sequence[str], wants_json: bool) -> float:
    """Near miss: does not look at how the answer ended."""
    return confidence(_answered(answer.text, [t.logprob for t in answer.logprobs]), unsafe, wants_json)


def _answered(text: str, logprobs: Sequence[float], finish_reason: str = "stop") -> Completion:
    tokens = tuple(TokenLogprob("…", value) for value in logprobs)
    done = Done(Usage(40, len(logprobs)), Timing(0.0), finish_reason)
    return Completion(text, "", (Chunk(text, 0.0, logprobs=tokens),), done)


def _check_confidence(answer: Callable[[Completion, Sequence[str], bool], float], rng: random.Random) -> Iterator[Outcome]:
    def case(text: str, logprobs: Sequence[float], wants_json: bool, reason: str = "stop", why: str = "") -> Outcome:
        given = _answered(text, logprobs, reason)
        expected = confidence(given, unsafe, wants_json)
        actual = call(answer, given, unsafe, wants_json)
        said = f"{text!r}, log-probabilities {[round(p, 3) for p in logprobs]}, ended with {reason!r}, {wants_json=}"
        close = isinstance(actual, (int, float)) and math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-12)
        return holds("confidence", close, given=said, expected=f"{expected:.6g}", actual=repr(actual), why=why)

    unsafe = ["full refund", "guaranteed"]
    yield case("store credit", [math.log(0.9), math.log(0.5)], False, why="0.9 × 0.5: the probability of the whole answer.")
    yield case("You get a Full Refund.", [-0.01] * 5, False, why="Unsafe in any spelling.")
    yield case('{"name": "Hera 4}', [-0.0005] * 4, True, why="Sure of itself, and not JSON.")
    yield case('{"name": "Hera"}', [-0.1, -0.2], True)
    yield case("exchange", [-0.1], False, why="Not JSON, and nobody asked for it.")
    yield case("The fee is", [-0.01] * 3, False, "length", why="Cut off in the middle.")
    yield case("Let me look that up.", [-0.01] * 5, False, "tool_calls", why="It waits for a tool: this is not its end.")
    yield case("refusal", [], False, why="No log-probabilities: nothing is known, which is not the same as sure.")
    texts = [
        "store credit",
        "GUARANTEED in 3 days",
        '{"order": "TS-1"}',
        '{"order": TS-1}',
        "781 EUR",
        "a full refund",
        "[1, 2",
    ]
    for _ in range(40):
        logprobs = [-rng.expovariate(8) for _ in range(rng.randrange(0, 12))]
        reason = rng.choice(["stop", "stop", "stop", "length", "content_filter", "tool_calls"])
        yield case(rng.choice(texts), logprobs, rng.random() < 0.4, reason)


CHAPTER = Chapter(
    number="05",
    name="model_routing",
    title="Model routing: which question needs the large model",
    predictions=("05.saving", "05.calls", "05.sure"),
    quizzes=QUIZZES,
    bank=BANK,
    claims=("05.formula", "05.cascade"),
    needs=("answers", "logprobs"),
    exercises=(
        Exercise(
            id="05.1",
            title="What to ship, if anything",
            minutes=8,
            difficulty=2,
            answer="threshold_to_ship",
            check=_check_ship,
            reference=threshold_to_ship,
            hints=(
                "`frontier(known, way)` is a table with `threshold`, `quality` and `cost`, one row for each threshold that "
                "makes a difference.",
                "A wrong answer costs the same whoever gave it: to each row's cost add `wrong_usd` times its share of wrong "
                "answers.",
                "Always large without a router is no row of a cascade's table: the last one sends all up, and has paid for "
                "the small model. Compute it from `known.cost_large` and `known.right_large`, and compare.",
            ),
            wrong=(_always_a_router, _cheapest_calls, _fewest_wrong, _small_is_free),
            equivalent={
                "line 9: always_large <= total.min() -> always_large < total.min()": "where both cost the same, either is "
                "the cheapest"
            },
        ),
        Exercise(
            id="05.2",
            title="A threshold that keeps a promise",
            minutes=10,
            difficulty=2,
            answer="choose_threshold",
            check=_check_threshold,
            reference=choose_threshold,
            hints=(
                '`frontier(known, "cascade")` is a table with `threshold`, `quality` and `cost`, one row for each threshold '
                "that makes a difference.",
                "A share q seen on n requests has a standard error of √(q·(1 − q) / n). Ask that q less 1.645 of these is "
                "still at least the promise.",
                "Of the rows that pass take the cheapest (sort by cost, the first one); where none passes, `math.inf` sends "
                "all up.",
            ),
            wrong=(_plug_in, _read_as_promised, _best_quality, lambda known, sla: math.inf),
            equivalent={
                "line 5: surely >= sla -> surely > sla": "the two are equal by an accident of rounding, or where all known "
                "answers are right: there stricter tests than this one (Wilson's) rightly refuse a promise of 1"
            },
            limit_s=30.0,
        ),
        Exercise(
            id="05.3",
            title="A judge that combines three doubts",
            minutes=8,
            difficulty=2,
            answer="confidence",
            check=_check_confidence,
            reference=confidence,
            hints=(
                "Three things make it 0 at once: `answer.done.finish_reason` is not `stop`, an unsafe phrase in any "
                "spelling (`casefold`), no JSON where JSON is wanted (`json.loads` raises `ValueError`).",
                "Else it is the product of the probabilities of all tokens: the exponential of the sum of their logarithms.",
                "What is the sum of no log-probabilities, and what does that make of an answer that came without any?",
            ),
            wrong=(
                _mean_confidence,
                _case_matters,
                _silence_is_sure,
                _cut_is_fine,
                lambda answer, unsafe, wants_json: confidence(answer, unsafe, True),
            ),
        ),
        BUILD,
    ),
)
