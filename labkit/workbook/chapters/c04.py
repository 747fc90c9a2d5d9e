"""Chapter 04: answers given again, and what a wrong one costs."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from scipy.stats import binom

from labkit.caches import fingerprint, scope_of
from labkit.lab import pairs
from labkit.request import Message, Request
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b04 import BUILD
from labkit.workbook.chapters.q04 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, equals, holds

# --- 04.1 -------------------------------------------------------------------------------------------------------------


def net_saving(hit_rate: float, wrong_share: float, answer: float, look: float, wrong: float) -> float:
    """Net saving of a cache, as a share of the bill without it; below 0 where the cache costs more than it saves.

    The cache answers the share `hit_rate` of all requests, and the share `wrong_share` of its answers are wrong. An answer
    by the model costs `answer`, every look-up `look`, and every wrong answer given to a customer `wrong`, all in USD.
    """
    return hit_rate - look / answer - hit_rate * wrong_share * wrong / answer


def worth_it(hit_rate: float, least: float, most: float, answer: float, look: float, wrong: float) -> str:
    """Whether a cache pays: "pays", "loses" or "cannot tell", where `least` to `most` of its hits are wrong.

    Costs in USD: of a model's `answer`, of a `look`-up, of a `wrong` answer that was given.
    """
    if net_saving(hit_rate, most, answer, look, wrong) > 0:
        return "pays"
    return "loses" if net_saving(hit_rate, least, answer, look, wrong) < 0 else "cannot tell"


def _check_worth(answer: Callable[..., str], rng: random.Random) -> Iterator[Outcome]:
    # Numbers that a float holds exactly.
    for given, expected, why in (
        ((0.5, 0.0, 0.125, 1.0, 0.25, 1.0), "pays", "Even at 1 wrong hit in 8, 18.75 % are left."),
        ((0.5, 0.125, 0.5, 1.0, 0.25, 8.0), "loses", "Even at the fewest wrong hits it costs 25 % more than it saves."),
        ((0.5, 0.0, 0.5, 1.0, 0.25, 8.0), "cannot tell", "No wrong hit was seen, but half of them may be wrong."),
        ((0.5, 0.0, 0.25, 1.0, 0.25, 2.0), "cannot tell", "At the most wrong hits, exactly nothing is left."),
        ((0.5, 0.25, 0.5, 1.0, 0.25, 2.0), "cannot tell", "At the fewest wrong hits, exactly nothing is lost."),
        ((0.25, 0.0, 0.0, 1.0, 0.5, 8.0), "loses", "Without any wrong hit, the look-ups cost more than the hits save."),
    ):
        yield agree(answer, *given, expected=expected, why=why)
    for _ in range(60):
        hits, price = rng.uniform(0.1, 0.9), rng.uniform(0.0005, 0.02)
        look, wrong = price * rng.random() * 0.3, price * rng.uniform(1, 400)
        even = max(0.0, (hits - look / price) * price / (hits * wrong))  # the share of wrong hits at which nothing is left
        least, most = sorted((even * rng.uniform(0, 2), even * rng.uniform(0, 2)))
        given = (hits, min(1.0, least), min(1.0, most), price, look, wrong)
        nets = [net_saving(hits, share, price, look, wrong) for share in given[1:3]]
        if min(map(abs, nets)) > 1e-6:
            yield agree(answer, *given, expected=worth_it(*given))


# --- 04.2 -------------------------------------------------------------------------------------------------------------


def cache_key(request: Request) -> Hashable:
    """A key that is equal for two requests exactly when one may be given the other's answer."""
    return (
        request.tenant,
        request.permissions,
        request.model,
        request.messages,
        request.max_tokens,
        request.temperature,
        request.top_p,
        request.seed,
        request.stop,
    )


_CHANGES: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "tenant": lambda rng: {"tenant": rng.choice(["Trailhead", "Nordkapp"])},
    "permissions": lambda rng: {"permissions": frozenset(rng.sample(["staff", "prices"], rng.randrange(3)))},
    "model": lambda rng: {"model": rng.choice(["small", "large"])},
    "question": lambda rng: {"messages": (Message("user", rng.choice(["May I?", "May I not?"])),)},
    "system prompt": lambda rng: {"messages": (Message("system", rng.choice("ab")), Message("user", "May I?"))},
    "max_tokens": lambda rng: {"max_tokens": rng.choice([5, 128])},
    "temperature": lambda rng: {"temperature": rng.choice([0.0, 0.7])},
    "top_p": lambda rng: {"top_p": rng.choice([0.9, 1.0])},
    "stop": lambda rng: {"stop": (rng.choice(["\n", "."]),)},
    "seed": lambda rng: {"seed": rng.choice([1, 2])},
}
_WHO_AND_WHEN: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "user": lambda rng: {"user": rng.choice(["mira", "tom"])},
    "feature": lambda rng: {"feature": rng.choice(["chat", "mail"])},
    "priority": lambda rng: {"priority": rng.randrange(3)},
    "attempt": lambda rng: {"attempt": rng.randrange(1, 4)},
    "workflow": lambda rng: {"workflow": rng.choice(["return", "repair"])},
    "idempotency_key": lambda rng: {"idempotency_key": f"k{rng.randrange(99)}"},
    "shadow": lambda rng: {"shadow": rng.random() < 0.5},
    "deadline": lambda rng: {"deadline": rng.choice([None, 5.0])},
}


def random_request(rng: random.Random) -> Request:
    """A request with some of its fields drawn at random."""
    fields: dict[str, Any] = {"messages": (Message("user", "May I?"),), "model": "small", "tenant": "Trailhead"}
    for change in (*rng.sample(list(_CHANGES.values()), 2), *rng.sample(list(_WHO_AND_WHEN.values()), 2)):
        fields |= change(rng)
    return Request(**fields)


def _check_key(answer: Callable[[Request], Hashable], rng: random.Random) -> Iterator[Outcome]:
    base = Request((Message("user", "May I?"),), model="small", tenant="Trailhead")
    for name, change in _CHANGES.items():
        for _ in range(20):
            other = replace(base, **change(rng))
            if (scope_of(other), fingerprint(other)) != (scope_of(base), fingerprint(base)):
                break
        ours, theirs = call(answer, base), call(answer, other)
        try:
            hash(ours)
        except TypeError:
            yield holds("a key can be looked up in a dictionary", False, given="a plain request", actual=repr(ours))
            return
        yield holds(
            f"another {name} is another key",
            ours != theirs,
            given=f"requests that differ in their {name}",
            expected="two different keys",
            actual=f"{ours!r} for both",
        )
    for name, change in _WHO_AND_WHEN.items():
        other = replace(base, **change(rng))
        yield holds(
            f"the {name} changes nothing",
            call(answer, base) == call(answer, other),
            given=f"requests that differ in {name}",
            expected="the same key",
            actual=f"{call(answer, base)!r} and {call(answer, other)!r}",
        )
    for _ in range(60):
        a, b = random_request(rng), random_request(rng)
        share = (scope_of(a), fingerprint(a)) == (scope_of(b), fingerprint(b))
        yield equals("two random requests share an answer", call(answer, a) == call(answer, b), share)


def leaks(key_of: Callable[[Request], Hashable], requests: Sequence[Request]) -> list[tuple[Request, Request]]:
    """The wrong answers that a cache keyed by `key_of` gives when `requests` come in this order.

    Each is a pair of requests that may not share an answer: the request that the answer was made for, and the request that
    was given it.
    """
    kept: dict[Hashable, Request] = {}
    wrong = []
    for request in requests:
        first = kept.setdefault(key_of(request), request)
        if (scope_of(first), fingerprint(first)) != (scope_of(request), fingerprint(request)):
            wrong.append((first, request))
    return wrong


# --- 04.3 -------------------------------------------------------------------------------------------------------------


def safe_threshold(scores: Sequence[float], right: Sequence[bool], bound: float, confidence: float) -> float:
    """The lowest score from which on at most the share `bound` of hits is wrong, proved with `confidence`; else infinity.

    Scores are tried from the highest down. The search ends at the first score that fails once there are enough hits to prove
    the bound at all.
    """
    order = sorted(zip(scores, right, strict=True), reverse=True)
    best, wrong = math.inf, 0
    for hits, (score, good) in enumerate(order, 1):
        wrong += not good
        if hits < len(order) and order[hits][0] == score:
            continue  # a threshold takes equal scores in together
        # If more than the share `bound` of hits were wrong, so few wrong ones would be an accident.
        proved = binom.cdf(wrong, hits, bound) <= 1 - confidence
        if proved:
            best = score
        elif hits >= math.log(1 - confidence) / math.log(1 - bound):
            break
    return best


def _near_threshold(pick: Callable[[int, int, float, float], bool]) -> Callable[..., float]:
    """Near misses: thresholds that `pick` accepts in place of the proof."""

    def choose(scores: Sequence[float], right: Sequence[bool], bound: float, confidence: float) -> float:
        order = sorted(zip(scores, right, strict=True), reverse=True)
        best, wrong = math.inf, 0
        for hits, (score, good) in enumerate(order, 1):
            wrong += not good
            if pick(wrong, hits, bound, confidence):
                best = score
        return best

    return choose


def _check_threshold(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    # Numbers that a float holds exactly: the chance that n hits without a fault are luck is 0.5 ** n.
    for sure, right, lowest, why in (
        (0.5, [True], 0.9, "Luck in 50 % of all cases is exactly what a confidence of 50 % allows."),
        (0.75, [True], math.inf, "One right hit is luck in 50 % of all cases, and 25 % are allowed."),
        (0.75, [True, True], 0.8, "Two right hits are luck in exactly the 25 % of all cases that are allowed."),
        (0.5, [False, True, True], math.inf, "One hit could have proved it and failed: to go on is to try until it fits."),
    ):
        yield agree(answer, [0.9, 0.8, 0.7][: len(right)], right, 0.5, sure, expected=lowest, why=why)
    why = "A threshold of 0.8 lets all three in, and one wrong in three is no proof; equal scores are one threshold."
    yield agree(answer, [0.9, 0.8, 0.8], [True, True, False], 0.5, 0.75, expected=math.inf, why=why)
    why = "Three hits without a fault prove it, whatever the scores they share."
    yield agree(answer, [0.8, 0.8, 0.8], [True, True, True], 0.5, 0.75, expected=0.8, why=why)
    why = "Two hits could have proved it, and one was wrong: to go on is to try until it fits."
    yield agree(answer, [0.9, 0.8] + [0.7] * 20, [True, False] + [True] * 20, 0.5, 0.75, expected=math.inf, why=why)
    clean = [i / 1000 for i in range(1000)]
    got = call(answer, clean[:20], [True] * 20, 0.05, 0.95)
    yield equals("20 right hits cannot prove 5 % with 95 % confidence", got, math.inf)
    got = call(answer, clean, [True] * 1000, 0.05, 0.95)
    yield equals("1,000 hits without a fault prove 5 % down to the lowest score", got, 0.0)
    for _ in range(12):
        bound, confidence = rng.choice([0.02, 0.05, 0.1]), rng.choice([0.8, 0.9, 0.95])
        knee = rng.uniform(0.3, 0.7)
        scores = [round(rng.random(), 6) for _ in range(rng.randrange(300, 900))]
        right = [rng.random() < 1 / (1 + math.exp(-18 * (s - knee))) for s in scores]
        got = call(answer, scores, right, bound, confidence)
        given = f"{len(scores)} scores, bound {bound}, confidence {confidence}"
        yield holds("the answer is a number", isinstance(got, (int, float)), given=given, actual=repr(got))
        if not isinstance(got, (int, float)):
            return
        hits = [good for s, good in zip(scores, right, strict=True) if s >= got]
        if hits:
            chance = float(binom.cdf(hits.count(False), len(hits), bound))
            yield holds(
                "from it on, the faults prove the bound",
                chance <= 1 - confidence + 1e-9,
                given=given,
                expected=f"so few faults by accident at most {1 - confidence:.2f} of the time",
                actual=f"{hits.count(False)} wrong of {len(hits)}, by accident {chance:.3f} of the time",
            )
        yield equals("the lowest score before the first that fails", got, safe_threshold(scores, right, bound, confidence))


# --- 04.4 -------------------------------------------------------------------------------------------------------------


def says_something_else(cached: str, new: str) -> bool:
    """Whether two questions, however alike, differ in a number, an identifier, or in being negated."""

    def literals(text: str) -> Counter[str]:
        return Counter(re.findall(r"[a-z]*-?\d[\w-]*", text.lower()))

    def denied(text: str) -> bool:
        return len(re.findall(r"\b(?:not|never|no|cannot|impossible)\b|n['’]t\b", text.lower())) % 2 == 1

    return literals(cached) != literals(new) or denied(cached) != denied(new)


def _check_contrast(answer: Callable[[str, str], bool], rng: random.Random) -> Iterator[Outcome]:
    for cached, new, expected in (
        ("Where is order TS-1234?", "Where is order TS-1243?", True),
        ("Can I return it?", "Can't I return it?", True),
        ("Can't I return it?", "Can I return it?", True),
        ("Can I return it?", "Isn't it impossible to return it?", False),
        ("Can I return it?", "Isn't it impossible that I cannot return it?", True),
        ("May I pay in cash?", "Could I pay in cash?", False),
    ):
        yield agree(answer, cached, new, expected=expected)
    caught: Counter[str] = Counter()
    total: Counter[str] = Counter()
    missed: dict[str, tuple[str, str]] = {}
    for pair in pairs("test", 1200, seed=rng.randrange(10**6)):
        if pair.kind not in ("paraphrase", "negation", "identifier", "number"):
            continue
        total[pair.kind] += 1
        says = bool(call(answer, pair.cached.text, pair.new.text))
        caught[pair.kind] += says
        if says == (pair.kind == "paraphrase"):
            missed.setdefault(pair.kind, (pair.cached.text, pair.new.text))
    for kind, least in (("negation", 0.95), ("identifier", 0.99), ("number", 0.99)):
        yield holds(
            f"a changed {kind} is noticed",
            caught[kind] >= least * total[kind],
            given=f"{total[kind]} hidden pairs, for example {missed.get(kind, '')}",
            expected=f"{least:.0%} of them",
            actual=f"{caught[kind] / total[kind]:.0%}",
        )
    passed = 1 - caught["paraphrase"] / total["paraphrase"]
    yield holds(
        "paraphrases pass",
        passed >= 0.85,
        given=f"{total['paraphrase']} hidden pairs, for example {missed.get('paraphrase', '')}",
        expected="85% of them",
        actual=f"{passed:.0%}",
    )


_BOTH_TURNED = "both questions' denials are turned into their opposites, and only whether they differ counts"

CHAPTER = Chapter(
    number="04",
    name="response_and_semantic_caching",
    title="Response and semantic caching: what an old answer is worth",
    predictions=("04.wrong", "04.pays", "04.time"),
    quizzes=QUIZZES,
    bank=BANK,
    claims=("04.hit_rate", "04.repetitive"),
    needs=("answers",),
    exercises=(
        Exercise(
            id="04.1",
            title="Does it pay?",
            minutes=6,
            difficulty=1,
            answer="worth_it",
            check=_check_worth,
            reference=worth_it,
            hints=(
                "Which end of the range is the worst for the cache, and which the best?",
                "It pays for sure if it still saves at `most`. It loses for sure if it costs money even at `least`.",
                "Two calls of `net_saving(hit_rate, share, answer, look, wrong)`, one with each end as its share.",
            ),
            wrong=(
                lambda hit_rate, least, most, answer, look, wrong: (
                    "pays" if net_saving(hit_rate, (least + most) / 2, answer, look, wrong) > 0 else "loses"
                ),
                lambda hit_rate, least, most, answer, look, wrong: worth_it(hit_rate, most, least, answer, look, wrong),
                lambda hit_rate, least, most, answer, look, wrong: worth_it(hit_rate, least, most, answer, 0.0, wrong),
                lambda hit_rate, least, most, answer, look, wrong: worth_it(hit_rate, least, least, answer, look, wrong),
            ),
        ),
        Exercise(
            id="04.2",
            title="Mend the leak",
            minutes=8,
            difficulty=2,
            answer="cache_key",
            check=_check_key,
            reference=cache_key,
            hints=(
                "Two questions: what changes the *answer*, and who may *see* it? Both belong in the key.",
                "Go through the fields of `Request`. A user's name, a deadline or a priority changes neither.",
                "tenant, permissions, model, messages, max_tokens, temperature, top_p, seed, stop: all can be hashed.",
            ),
            wrong=(
                lambda request: request.messages[-1].content,
                lambda request: (request.tenant, request.messages, request.model),
                lambda request: request,
            ),
            equivalent={
                "line 3: return (request.tenant, request.permissions, request.model, request.messages, r… -> "
                "return (request.stop, request.seed, request.top_p, request.temperature, request…": "keys are only compared "
                "with each other, and the order of their parts is the same in all of them"
            },
        ),
        Exercise(
            id="04.3",
            title="A threshold that one can answer for",
            minutes=12,
            difficulty=3,
            answer="safe_threshold",
            check=_check_threshold,
            reference=safe_threshold,
            hints=(
                "After each score, you know how many hits there are so far (`hits`) and how many were wrong (`wrong`).",
                "If more than `bound` of hits were wrong, how likely are so few faults? `binom.cdf(wrong, hits, bound)`. It "
                "proves the bound where that is at most 1 − confidence.",
                "Equal scores come in together: judge when the last of them is in. "
                "Stop at the first score that fails once enough hits are in: `hits >= log(1 − confidence) / log(1 − "
                "bound)`. Going on until another happens to pass would be trying until it fits.",
            ),
            wrong=(
                _near_threshold(lambda wrong, hits, bound, confidence: wrong / hits <= bound),
                _near_threshold(lambda wrong, hits, bound, confidence: wrong == 0),
                lambda scores, right, bound, confidence: math.inf,
            ),
            equivalent={
                "line 11: order[hits][0] == score -> order[hits][0] >= score": "the next score is never higher",
            },
        ),
        Exercise(
            id="04.4",
            title="The second look",
            minutes=20,
            difficulty=3,
            answer="says_something_else",
            check=_check_contrast,
            reference=says_something_else,
            hints=(
                "Collect everything with a digit in it from both questions (`re.findall`); compare how often each occurs.",
                "A question is denied by “not”, “never”, “no”, “cannot”, “impossible” and by what ends in “n't”. Two "
                "denials make none: compare whether their number is odd.",
            ),
            wrong=(
                lambda cached, new: cached != new,
                lambda cached, new: False,
                lambda cached, new: re.findall(r"\d", cached) != re.findall(r"\d", new),
                lambda cached, new: ("not" in cached) != ("not" in new),
            ),
            equivalent={
                "line 8: % 2 == 1 -> % 2 != 1": _BOTH_TURNED,
                "line 8: 2 == 1 -> 2 == 0": _BOTH_TURNED,
                "line 8: % 2 == 1 -> % 2 >= 1": "a rest by 2 is 0 or 1",
            },
        ),
        BUILD,
    ),
)
