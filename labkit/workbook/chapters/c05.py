"""Chapter 05: which question needs the large model."""
# ruff: noqa: ARG001, ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from labkit.request import Chunk, Completion, Done, Timing, TokenLogprob, Usage
from labkit.routing import Outcomes, at_threshold, frontier
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b05 import BUILD
from labkit.workbook.chapters.q05 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds

Numbers = Sequence[float]


def cascade_bill(scores: Numbers, small: Numbers, large: Numbers, threshold: float) -> tuple[float, float]:
    """Mean cost of a request in a cascade: (by the formula, really).

    The formula is c_small + (1 − p)·c_large, with average costs and p the share of requests that stay small. The real mean
    adds up what each request costs. A score below `threshold` goes up to the large model.
    """
    n = len(scores)
    up = [score < threshold for score in scores]
    formula = sum(small) / n + sum(up) / n * sum(large) / n
    return formula, sum(s + (c if goes else 0.0) for s, c, goes in zip(small, large, up, strict=True)) / n


def _bill_of_those_up(scores: Numbers, small: Numbers, large: Numbers, threshold: float) -> tuple[float, float]:
    """Near miss: a request that goes up does not pay for the small model."""
    n = len(scores)
    up = [score < threshold for score in scores]
    formula = sum(small) / n + sum(up) / n * sum(large) / n
    return formula, sum(c if goes else s for s, c, goes in zip(small, large, up, strict=True)) / n


def _check_bill(answer: Callable[..., tuple[float, float]], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer,
        [0.9, 0.8, 0.1, 0.9],
        [1.0, 1.0, 1.0, 1.0],
        [4.0, 4.0, 20.0, 4.0],
        0.5,
        expected=(3.0, 6.0),
        why="One in four goes up. The formula sends up an average answer (8), the cascade the dear one (20).",
    )
    yield agree(answer, [0.5], [1.0], [10.0], 0.5, expected=(1.0, 1.0), why="A score at the threshold stays small.")
    yield agree(answer, [0.2, 0.9], [1.0, 3.0], [10.0, 30.0], 0.5, expected=(12.0, 7.0))
    for _ in range(25):
        n = rng.randrange(1, 30)
        scores = [round(rng.random(), 2) for _ in range(n)]
        small = [rng.uniform(0.1, 2) for _ in range(n)]
        large = [rng.uniform(2, 9) * (3 if score < 0.4 else 1) for score in scores]
        threshold = rng.choice([*scores, 0.0, 1.0, rng.random()])
        yield agree(
            answer, scores, small, large, threshold, expected=cascade_bill(scores, small, large, threshold), abs=1e-12
        )


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


def stop_after(differences: Sequence[int], alpha: float, bet: float) -> int | None:
    """The number of pairs after which a stake of 1, bet on B, first reaches 1 / `alpha`; None if it never does.

    `differences` are 1 where B won the pair, 0 for a tie and −1 where B lost. `bet` is the share of the stake put on B.
    """
    stake = 1.0
    for seen, difference in enumerate(differences, 1):
        stake *= 1 + bet * difference
        if stake >= 1 / alpha:
            return seen
    return None


def _peeking(differences: Sequence[int], alpha: float, bet: float) -> int | None:
    """Near miss: an ordinary test, looked at after every pair."""
    total = squares = 0
    for seen, difference in enumerate(differences, 1):
        total, squares = total + difference, squares + difference**2
        if squares and total / math.sqrt(squares) > 1.645:
            return seen
    return None


def _at_the_end(differences: Sequence[int], alpha: float, bet: float) -> int | None:
    """Near miss: looks at the stake once, when all pairs are in."""
    return len(differences) if math.prod(1 + bet * d for d in differences) >= 1 / alpha else None


def _simple_interest(differences: Sequence[int], alpha: float, bet: float) -> int | None:
    """Near miss: always bets the same amount and not a share of the stake, so it can go on after it has lost all."""
    stake = 1.0
    for seen, difference in enumerate(differences, 1):
        stake += bet * difference
        if stake >= 1 / alpha:
            return seen
    return None


def _check_stop(answer: Callable[[Sequence[int], float, float], int | None], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, [1] * 10, 0.05, 0.5, expected=8, why="1.5⁷ is 17, 1.5⁸ is 26: the stake reaches 20 with the eighth.")
    yield agree(answer, [0, 1, 0, 1], 0.5, 0.5, expected=4, why="Ties leave the stake as it is.")
    yield agree(
        answer, [1] * 8 + [-1] * 20, 0.05, 0.5, expected=8, why="Who stopped has stopped: what comes later is not looked at."
    )
    yield agree(
        answer, [0, 1], 0.5, 1.0, expected=2, why="All on B: the stake is 2 with the second pair, and 1 / alpha is 2."
    )
    yield agree(answer, [-1, -1], 0.05, 0.5, expected=None, why="The stake only shrinks.")
    yield agree(answer, [], 0.05, 0.5, expected=None)
    false = 0
    for _ in range(300):
        same = [rng.choice((1, -1)) if rng.random() < 0.2 else 0 for _ in range(400)]
        false += call(answer, same, 0.05, 0.3) is not None
    yield holds(
        "A against itself, looked at after every pair, hardly ever has a winner",
        false <= 0.09 * 300,
        given="300 tests of 400 pairs between equals, alpha 0.05",
        expected="a winner in about 15 of them or fewer",
        actual=f"a winner in {false}",
        why="A threshold made for one look is crossed sooner or later by chance, if one looks often enough.",
    )
    for _ in range(30):
        lead = rng.uniform(-0.1, 0.4)
        pairs = [rng.choices((1, 0, -1), (0.2 + lead / 2, 0.6, 0.2 - lead / 2))[0] for _ in range(rng.randrange(20, 200))]
        alpha, bet = rng.choice((0.01, 0.05, 0.1)), rng.uniform(0.05, 0.9)
        yield agree(answer, pairs, alpha, bet, expected=stop_after(pairs, alpha, bet))


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
            title="The bill of a cascade, twice",
            minutes=5,
            difficulty=1,
            answer="cascade_bill",
            check=_check_bill,
            reference=cascade_bill,
            hints=(
                "A score below the threshold goes up; at or above it the answer stays.",
                "The formula takes three averages: of `small`, of `large`, and the share that goes up.",
                "Really, everybody pays their own `small`, and those who go up their own `large` as well.",
            ),
            wrong=(
                _bill_of_those_up,
                lambda scores, small, large, threshold: (cascade_bill(scores, small, large, threshold)[0],) * 2,
                lambda scores, small, large, threshold: cascade_bill(scores, small, large, threshold + 1e-9),
            ),
        ),
        Exercise(
            id="05.2",
            title="A threshold that keeps a promise",
            minutes=15,
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
            minutes=10,
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
        Exercise(
            id="05.4",
            title="A test that may be looked at",
            minutes=15,
            difficulty=3,
            answer="stop_after",
            check=_check_stop,
            reference=stop_after,
            hints=(
                "Start with a stake of 1 and put the share `bet` of what you have on B, again and again.",
                "A pair won multiplies the stake by 1 + bet, a tie by 1, a pair lost by 1 − bet.",
                "Return the number of the first pair after which the stake is at least 1 / alpha.",
            ),
            wrong=(
                _peeking,
                _at_the_end,
                _simple_interest,
                lambda differences, alpha, bet: stop_after(differences, 2 * alpha, bet),
            ),
            equivalent={"line 11: return None -> pass": "a function that ends without a return returns None"},
        ),
        BUILD,
    ),
)
