"""Chapter 10: how long an answer may be, and what a correct one costs."""
# ruff: noqa: ARG001 - near misses keep the signature they share

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b10 import BUILD
from labkit.workbook.chapters.q10 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree


def cheapest_cap(whole: Sequence[int], runaways: int, question_usd: float, token_usd: float) -> int:
    """The cap, in tokens, that costs least over the sample: one of the lengths in `whole`, of equals the longest."""

    def wasted(cap: int) -> float:
        cut = sum(tokens > cap for tokens in whole) + runaways
        return cut * (question_usd + cap * token_usd)

    return min(sorted(set(whole), reverse=True), key=wasted)


def _check_cap(answer: Callable[..., int], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer,
        [10, 12, 40],
        0,
        0.001,
        0.00001,
        expected=40,
        why="Nothing runs away. A cap at 40 cuts nobody and costs nothing; every lower one is paid for with a cut.",
    )
    yield agree(
        answer,
        [10, 12, 40],
        5,
        0.005,
        0.001,
        expected=12,
        why="In thousandths of a dollar: at 12, six cuts of 17; at 10, seven of 15; at 40, five of 45.",
    )
    yield agree(answer, [10, 20], 1, 0.0, 1.0, expected=20, why="Both caps waste 20 dollars: of equals, the longest.")
    yield agree(
        answer, [10, 20], 1, 1.0, 1.0, expected=20, why="22 dollars at 10, 21 at 20: the question is read again, too."
    )
    yield agree(answer, [10, 20], 2, 0.0, 1.0, expected=10, why="Three cut at 10 waste 30 dollars, two at 20 waste 40.")
    yield agree(answer, [7], 3, 0.01, 0.01, expected=7, why="A cap below the only length would cut everything.")
    for _ in range(40):
        whole = [rng.choice((8, 13, 21, 34, 60, 90, 150)) + rng.randrange(4) for _ in range(rng.randrange(1, 25))]
        runaways, question = rng.choice((0, 1, 2, 5)), rng.choice((0.0, 0.0002, 0.003, 0.01))
        yield agree(answer, whole, runaways, question, 0.0001, expected=cheapest_cap(whole, runaways, question, 0.0001))


def can_run_away(schema: Mapping[str, Any], path: str = "$") -> list[str]:
    """Paths of the places in the schema where a valid text may be as long as it likes, from the top down."""
    if "enum" in schema or "const" in schema:
        return []
    bounded = {
        "boolean": True,
        "null": True,
        "string": "maxLength" in schema,
        "integer": "minimum" in schema and "maximum" in schema,
        "array": "maxItems" in schema,
        "object": schema.get("additionalProperties") is False,
    }
    found = [] if bounded.get(schema.get("type", ""), False) else [path]
    for name, part in schema.get("properties", {}).items():
        found += can_run_away(part, f"{path}.{name}")
    if "items" in schema:
        found += can_run_away(schema["items"], f"{path}[]")
    return found


def _schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """A random schema of at most `depth` levels."""
    kind = rng.choice(
        ("string", "string", "integer", "number", "boolean", "null", "choice", "const", "any", "object", "array")
    )
    if kind in ("object", "array") and not depth:
        kind = "string"
    if kind == "choice":
        return {"type": "string", "enum": ["paid", "unpaid"]}
    if kind == "const":
        return {"type": "number", "const": 3}
    if kind == "any":
        return rng.choice(({}, {"description": "whatever fits"}))
    found: dict[str, Any] = {"type": kind}
    if kind == "string" and rng.random() < 0.5:
        found["maxLength"] = 40
    if kind in ("integer", "number"):
        found |= {bound: 0 for bound in ("minimum", "maximum") if rng.random() < 0.7}
    if kind == "object":
        found["properties"] = {name: _schema(rng, depth - 1) for name in rng.sample("abcd", rng.randrange(1, 4))}
        found |= rng.choice(
            ({"additionalProperties": False}, {"additionalProperties": False}, {"additionalProperties": True}, {})
        )
    if kind == "array":
        found["items"] = _schema(rng, depth - 1)
        found |= {"maxItems": 5} if rng.random() < 0.5 else {}
    return found


def _check_schema(answer: Callable[..., list[str]], rng: random.Random) -> Iterator[Outcome]:
    for schema, expected, why in (
        ({}, ["$"], "An empty schema allows anything, and as much of it as fits."),
        ({"type": "string"}, ["$"], "A string without maxLength."),
        ({"type": "string", "maxLength": 20}, [], ""),
        ({"type": "string", "enum": ["paid", "unpaid"]}, [], "A choice of texts is bounded by the longest."),
        ({"const": "paid"}, [], "There is only one text, whatever the type."),
        ({"enum": [1, 2.5]}, [], "A choice is bounded, whatever the type."),
        ({"type": "integer", "minimum": 0, "maximum": 99}, [], "Two digits at most."),
        ({"type": "integer", "minimum": 0}, ["$"], "Digit after digit: nothing stops it at the top."),
        ({"type": "integer", "maximum": 99}, ["$"], "Digit after digit behind a minus sign."),
        ({"type": "number", "minimum": 0, "maximum": 1}, ["$"], "0.333…: the digits behind the point have no end."),
        ({"type": "boolean"}, [], ""),
        ({"type": "null"}, [], ""),
        ({"type": "array", "items": {"type": "boolean"}}, ["$"], "An array without maxItems."),
        (
            {"type": "array", "maxItems": 3, "items": {"type": "string"}},
            ["$[]"],
            "Three items, none of which has an end.",
        ),
        ({"type": "array", "maxItems": 3}, [], "What its items are, is not said; we look at what is."),
        ({"type": "object", "additionalProperties": False}, [], ""),
        ({"type": "object"}, ["$"], "It may have as many further properties as it likes."),
        ({"type": "object", "additionalProperties": True}, ["$"], ""),
        ({"type": "object", "additionalProperties": {"type": "null"}}, ["$"], "As many as it likes, each of them null."),
        (
            {
                "type": "object",
                "properties": {"steps": {"type": "string"}, "lines": {"type": "array", "items": {"type": "number"}}},
            },
            ["$", "$.steps", "$.lines", "$.lines[]"],
            "From the top down, in the schema's order.",
        ),
        ({"type": "date"}, ["$"], "Of a type that is not in the list, nobody knows."),
    ):
        yield agree(answer, schema, expected=expected, why=why)
    for _ in range(40):
        schema = _schema(rng, 3)
        yield agree(answer, schema, expected=can_run_away(schema))


def most_who_may_ask(
    question: int, cached: int, brief: int, detailed: int, wish: int, fresh_usd: float, cached_usd: float, output_usd: float
) -> float:
    """The share of readers, from 0 to 1, who may ask for the detail before staging costs more than it saves."""
    saved = (detailed - brief) * output_usd
    more = (question - cached + brief + wish) * fresh_usd + cached * cached_usd + detailed * output_usd
    return max(0.0, saved / more)


def _check_staged(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer, 1_000, 1_000, 20, 220, 0, 1e-6, 0.0, 1e-5,
        expected=0.002 / 0.00222,
        why="200 tokens are spared each time. Who asks pays 220, and 20 are read again; the question is free.",
    )  # fmt: skip
    yield agree(
        answer, 1_000, 0, 20, 220, 10, 1e-6, 1e-7, 1e-5,
        expected=0.002 / 0.00323,
        why="Nothing is found in the cache: the second call reads the question once more at the full price.",
    )  # fmt: skip
    yield agree(
        answer, 100, 0, 30, 30, 5, 1e-6, 1e-7, 1e-5, expected=0.0, why="The short one is as long: nothing is spared."
    )
    yield agree(answer, 100, 0, 40, 30, 5, 1e-6, 1e-7, 1e-5, expected=0.0, why="A share is never below 0.")
    for _ in range(30):
        question = rng.randrange(20, 4_000)
        cached = rng.choice((0, question // 2, question))
        detailed = rng.randrange(10, 800)
        brief, wish = rng.randrange(1, detailed + 10), rng.randrange(0, 40)
        prices = rng.choice((1e-6, 3e-6)), rng.choice((1e-7, 3e-7)), rng.choice((1e-6, 1e-5))
        given = (question, cached, brief, detailed, wish, *prices)
        yield agree(answer, *given, expected=most_who_may_ask(*given))


Answers = Sequence[tuple[float, bool]]


def cost_ratio(one: Answers, other: Answers) -> tuple[float, float, float] | None:
    """What a correct answer costs one way, as a multiple of the other: (ratio, low, high); None for too little to tell."""
    n = len(one)
    right = [sum(is_right for _, is_right in way) for way in (one, other)]
    if n < 30 or min(right) < 5:
        return None

    def parts(way: Sequence[tuple[float, bool]]) -> tuple[float, list[float]]:
        usd, share = fmean(paid for paid, _ in way), fmean(float(is_right) for _, is_right in way)
        return usd / share, [paid / usd - is_right / share for paid, is_right in way]

    (first, of_first), (second, of_second) = parts(one), parts(other)
    error = stdev(a - b for a, b in zip(of_first, of_second, strict=True)) / math.sqrt(n)
    ratio = first / second
    return ratio, ratio * math.exp(-1.96 * error), ratio * math.exp(1.96 * error)


def _answers(rng: random.Random, n: int, usd: float, share: float) -> list[tuple[float, bool]]:
    return [(usd * (0.5 + rng.random()), rng.random() < share) for _ in range(n)]


def _check_ratio(answer: Callable[..., tuple[float, float, float] | None], rng: random.Random) -> Iterator[Outcome]:
    four_of_five = [(0.002, i % 5 != 0) for i in range(100)]
    all_right = [(0.004, True)] * 100
    yield agree(
        answer, four_of_five, four_of_five, expected=(1.0, 1.0, 1.0), why="The same answers: no difference, and no doubt."
    )
    yield agree(
        answer, all_right, [(0.002, True)] * 100, expected=(2.0, 2.0, 2.0), why="Twice as dear each time, and always right."
    )
    yield agree(
        lambda *ways: (answer(*ways) or (None,))[0],
        four_of_five,
        all_right,
        expected=0.625,
        why="0.002 / 0.8 = 0.0025 a correct answer, against 0.004.",
    )
    yield agree(answer, four_of_five[:29], all_right[:29], expected=None, why="29 questions are fewer than 30.")
    for few in (4, 5):
        rare = [(0.001, i < few) for i in range(40)]
        for given in ((rare, all_right[:40]), (all_right[:40], rare)):
            yield agree(answer, *given, expected=cost_ratio(*given), why=f"One way has {few} right answers; 5 will do.")
    thirty = _answers(rng, 30, 0.001, 0.7), _answers(rng, 30, 0.002, 0.9)
    yield agree(answer, *thirty, expected=cost_ratio(*thirty), why="30 questions are enough.")
    for _ in range(20):
        n = rng.randrange(30, 120)
        ways = (
            _answers(rng, n, 0.001, rng.uniform(0.4, 1)),
            _answers(rng, n, rng.uniform(0.0005, 0.003), rng.uniform(0.4, 1)),
        )
        yield agree(answer, *ways, expected=cost_ratio(*ways))


# --- near misses ------------------------------------------------------------------------------------------------------


def _the_95th(whole: Sequence[int], runaways: int, question_usd: float, token_usd: float) -> int:
    """Near miss: the percentile that everybody takes."""
    return sorted(whole)[min(len(whole) - 1, int(0.95 * len(whole)))]


def _no_question_again(whole: Sequence[int], runaways: int, question_usd: float, token_usd: float) -> int:
    """Near miss: forgets that a cut answer's question is read twice."""
    return cheapest_cap(whole, runaways, 0.0, token_usd)


def _cuts_are_free(whole: Sequence[int], runaways: int, question_usd: float, token_usd: float) -> int:
    """Near miss: fewer tokens are less money."""
    return min(set(whole), key=lambda cap: question_usd + token_usd * (sum(min(n, cap) for n in whole) + runaways * cap))


def _only_at_the_top(schema: Mapping[str, Any], path: str = "$") -> list[str]:
    """Near miss: does not look inside."""
    return [place for place in can_run_away(schema, path) if place == path]


def _numbers_end(schema: Mapping[str, Any], path: str = "$") -> list[str]:
    """Near miss: believes that a bound on a number's size bounds its digits."""
    kind = "integer" if schema.get("type") == "number" else schema.get("type")
    return can_run_away({**schema, "type": kind} if kind else schema, path)


def _second_call_is_free(
    question: int, cached: int, brief: int, detailed: int, wish: int, fresh_usd: float, cached_usd: float, output_usd: float
) -> float:
    """Near miss: counts only the tokens that are written."""
    return max(0.0, (detailed - brief) / detailed)


def _cache_finds_all(
    question: int, cached: int, brief: int, detailed: int, wish: int, fresh_usd: float, cached_usd: float, output_usd: float
) -> float:
    """Near miss: believes that the second call finds its whole question in the cache."""
    return most_who_may_ask(question, max(cached, question), brief, detailed, wish, fresh_usd, cached_usd, output_usd)


def _mean_of_ratios(one: Answers, other: Answers) -> tuple[float, float, float] | None:
    """Near miss: the price of an answer, right or wrong."""
    return cost_ratio([(usd, True) for usd, _ in one], [(usd, True) for usd, _ in other])


def _unpaired(one: Answers, other: Answers) -> tuple[float, float, float] | None:
    """Near miss: forgets that both ways were asked the same questions."""
    return cost_ratio(one, sorted(other))


_SQUARED = "a spread is the same whichever side it is looked at from"

CHAPTER = Chapter(
    number="10",
    name="output_length_control",
    title="Output length: what a correct answer costs",
    predictions=("10.cap", "10.json", "10.loop"),
    claims=("10.structured", "10.output", "10.json_accuracy", "10.budget", "10.capped"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("vllm",),
    exercises=(
        Exercise(
            id="10.1",
            title="The cheapest cap",
            minutes=6,
            difficulty=2,
            answer="cheapest_cap",
            check=_check_cap,
            reference=cheapest_cap,
            hints=(
                "What would be paid without any cap is paid anyway, sooner or later. What does one cut add to that?",
                "A cut wastes its question and the cap's tokens: `question_usd + cap * token_usd`.",
                "Cut are the whole answers that are longer than the cap, and every runaway. Try each length as a cap.",
            ),
            wrong=(_the_95th, _no_question_again, _cuts_are_free, lambda whole, *_: max(whole)),
        ),
        Exercise(
            id="10.2",
            title="Where a schema can run away",
            minutes=8,
            difficulty=2,
            answer="can_run_away",
            check=_check_schema,
            reference=can_run_away,
            hints=(
                "Begin with what is always bounded: a choice (`enum`), a `const`, true or false, null.",
                "A table from type to “is it bounded” keeps the code short; a type that is not in it is not bounded.",
                "Then look inside: each of `properties` at `path.name`, and `items` at `path[]`, by calling yourself.",
            ),
            wrong=(_only_at_the_top, _numbers_end, lambda schema, path="$": sorted(can_run_away(schema, path))),
        ),
        Exercise(
            id="10.3",
            title="How many may ask for more",
            minutes=6,
            difficulty=2,
            answer="most_who_may_ask",
            check=_check_staged,
            reference=most_who_may_ask,
            hints=(
                "Staging spares `detailed - brief` output tokens for everybody.",
                "Who asks for the detail pays a whole second call: the question once more (of it `cached` tokens at the "
                "cache's price), the short answer and the wish as fresh input, and the detailed answer.",
                "The break-even is the first by the second, or 0 where the short answer spares nothing.",
            ),
            wrong=(_second_call_is_free, _cache_finds_all),
        ),
        Exercise(
            id="10.4",
            title="The cost of a correct answer, with its doubt",
            minutes=9,
            difficulty=3,
            answer="cost_ratio",
            check=_check_ratio,
            reference=cost_ratio,
            hints=(
                "A correct answer costs the mean dollars by the share that is right.",
                "For each question, take dollars / mean dollars − right / share right for both ways; their difference says "
                "how far this question pulls the ratio.",
                "The standard error is `stdev(differences) / math.sqrt(n)`, and it is one of the ratio's logarithm.",
            ),
            wrong=(_mean_of_ratios, _unpaired, lambda one, other: cost_ratio(other, one)),
            equivalent={
                "line 10: paid / usd - is_right / share -> is_right / share - paid / usd": _SQUARED,
                "line 13: a - b -> b - a": _SQUARED,
            },
        ),
        BUILD,
    ),
)
