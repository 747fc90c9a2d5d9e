"""The long build of chapter 05: a router that learns from questions, keeps a promise, and knows its bill."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, holds


class Router:
    """Decides which models see a question: the small one, the large one, or first the small and then the large.

    `small_usd` and `large_usd` are what an answer costs on average. `threshold` is the probability below which an answer of
    the small model is not delivered: infinity, so never, before it is calibrated.
    """

    def __init__(self, small_usd: float, large_usd: float) -> None:
        self.small_usd = small_usd
        self.large_usd = large_usd
        self.threshold = math.inf
        self.train((), ())

    def features(self, question: str) -> set[str]:
        """The question's words in small letters, numbers as #, and each two neighbours with a blank between them."""
        words = ["#" if word.isdigit() else word for word in re.findall(r"[^\W\d_]+|\d+", question.lower())]
        return {*words, *map(" ".join, pairwise(words))}

    def train(self, questions: Sequence[str], right: Sequence[float]) -> None:
        """Learn from questions, and from whether the small model's answers were right (1) or wrong (0)."""
        self.questions = Counter(right)  # how many were answered rightly, and wrongly
        self.holding = {1: Counter[str](), 0: Counter[str]()}  # of those, how many hold each feature
        for question, verdict in zip(questions, right, strict=True):
            self.holding[int(verdict)].update(self.features(question))

    def score(self, question: str) -> float:
        """The probability that the small model answers rightly, by naive Bayes with one question added to each count."""
        right, wrong = self.questions[1], self.questions[0]
        odds = math.log((right + 1) / (wrong + 1))
        for feature in self.features(question):
            odds += math.log((self.holding[1][feature] + 1) / (right + 2))
            odds -= math.log((self.holding[0][feature] + 1) / (wrong + 2))
        return 0.5 + 0.5 * math.tanh(odds / 2)  # 1 / (1 + exp(-odds)), which is never too large for a float

    def surely(self, right: float, n: int) -> float:
        """Wilson's lower bound of a share, with 95 % confidence on this one side, where `right` of `n` were right."""
        z, p = 1.645, right / n
        return (p + z * z / (2 * n) - z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)

    def calibrate(self, chances: Sequence[float], small: Sequence[float], large: Sequence[float], sla: float) -> float:
        """Set the threshold, and return it: the lowest that surely keeps the share `sla` of right answers.

        `chances` are the probabilities of the small model's answers; `small` and `large` are 1 where a model was right. Each
        is tried from the highest down, up to the first that fails.
        """
        known = sorted(zip(chances, small, large, strict=True), reverse=True)
        self.threshold, right = math.inf, sum(large)
        for kept, (chance, by_small, by_large) in enumerate(known, 1):
            right += by_small - by_large
            if kept < len(known) and known[kept][0] == chance:
                continue  # a threshold keeps equal answers together
            if self.surely(right, len(known)) < sla:
                break
            self.threshold = chance
        return self.threshold

    def route(self, question: str, answer: str, chance: float, wants_json: bool) -> str:
        """Who answers: "large" at once, "small", or "both", where the small model's answer is not delivered."""
        if self.score(question) < self.small_usd / self.large_usd:
            return "large"
        if chance < self.threshold or not answer.strip():
            return "both"
        if wants_json:
            try:
                json.loads(answer)
            except ValueError:
                return "both"
        return "small"

    def bill(
        self,
        routes: Sequence[str],
        small: Sequence[float],
        large: Sequence[float],
        small_usd: Sequence[float],
        large_usd: Sequence[float],
    ) -> tuple[float, float]:
        """Mean cost of a request, and the share of right answers, with these routes."""
        paid = right = 0.0
        for route, by_small, by_large, usd_small, usd_large in zip(routes, small, large, small_usd, large_usd, strict=True):
            paid += (route != "large") * usd_small + (route != "small") * usd_large
            right += by_small if route == "small" else by_large
        return paid / len(routes), right / len(routes)


# --- the stages --------------------------------------------------------------------------------------------------------

_TEXTS = (
    "Where is order TS-1234?",
    "Which boots fit in winter?",
    "What do 3 tents at 120 euros each cost?",
    "May I return a tent after 14 days?",
    "Tell me the fee.",
    "Who repairs a stove?",
)


def _features(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    router = answer(1.0, 9.0)
    for text, expected, why in (
        ("Tents", {"tents"}, "Words in small letters."),
        ("", set(), "An empty question has none."),
        ("a tent, a rope", {"a", "tent", "rope", "a tent", "tent a", "a rope"}, "And the pairs of neighbours."),
        (
            "Order TS-1234?",
            {"order", "ts", "#", "order ts", "ts #"},
            "A run of digits is one #; a word ends where letters end.",
        ),
        ("3.5 or 12", {"#", "or", "# #", "# or", "or #"}, "3.5 are two runs of digits."),
        ("Können wir", {"können", "wir", "können wir"}, "Letters are those of all languages."),
        ("snake_case", {"snake", "case", "snake case"}, "An underscore is no letter."),
        ("5km", {"#", "km", "# km"}, "Digits end where letters begin."),
    ):
        yield agree(router.features, text, expected=expected, why=why)
    for _ in range(10):
        text = " ".join(rng.sample(_TEXTS, 2))
        yield agree(router.features, text, expected=Router(1, 9).features(text))


def _score(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def learnt(questions: Sequence[str], right: Sequence[float], text: str) -> Any:
        router = answer(1.0, 9.0)
        router.train(questions, right)
        return router.score(text)

    yield agree(learnt, [], [], "tents", expected=0.5, why="Nothing learnt: an even bet.")
    yield agree(learnt, ["a", "b", "c"], [1, 1, 1], "", expected=0.8, why="(3 + 1) to (0 + 1), without any words.")
    yield agree(
        learnt, ["tent"], [1], "tent", expected=8 / 11, why="2/1 for the one right, and 2/3 to 1/2 for “tent”: odds of 8/3."
    )
    yield agree(learnt, ["tent"], [0], "tent", expected=3 / 11, why="1/2, and 1/2 to 2/3: odds of 3/8.")
    why = "“tent” and “tent tent”, each once for the question: 2/1, and twice 2/3 to 1/2."
    yield agree(learnt, ["tent tent"], [1], "tent tent tent", expected=32 / 41, why=why)
    yield agree(learnt, ["tent"], [1], "rope", expected=4 / 7, why="Nobody has seen “rope”: 2/1, and 1/3 to 1/2.")
    long = " ".join("w" + "x" * n for n in range(900))
    for verdict in (1, 0):
        got = call(learnt, ["Where is my order?"] * 400, [verdict] * 400, long)
        yield holds(
            "a long question has a score between 0 and 1",
            isinstance(got, float) and 0 <= got <= 1,
            given=f"a question of 900 new words, after 400 of which {400 * verdict} were answered rightly",
            expected="a probability",
            actual=repr(got),
        )
    for _ in range(15):
        texts = [" ".join(rng.sample(_TEXTS, rng.randrange(1, 3))) for _ in range(rng.randrange(1, 12))]
        right = [float(rng.random() < 0.5) for _ in texts]
        own = Router(1, 9)
        own.train(texts, right)
        text = rng.choice(_TEXTS)
        yield agree(learnt, texts, right, text, expected=own.score(text), rel=1e-6)

    def twice(text: str) -> Any:
        router = answer(1.0, 9.0)
        router.train(["tent", "tent"], [1, 1])
        router.train(["tent"], [0])
        return router.score(text)

    yield agree(twice, "tent", expected=3 / 11, why="To train again is to begin anew.")


def _promise(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def bound(right: float, n: int) -> Any:
        return answer(1.0, 9.0).surely(right, n)

    z2 = 1.645**2
    yield agree(bound, 0, 40, expected=0.0, abs=1e-9, why="None was right: nothing is sure.")
    yield agree(bound, 40, 40, expected=40 / (40 + z2), rel=1e-6, why="All were right: n / (n + z²), which is not 1.")
    for right, n in ((1, 2), (285, 300), (rng.randrange(90), 90), (rng.randrange(700), 700)):
        # Wilson's bound is the p at which `right` lies 1.645 standard deviations of p above what p makes expect.
        low, high = 0.0, right / n
        for _ in range(80):
            p = (low + high) / 2
            low, high = (p, high) if right / n - p > 1.645 * math.sqrt(p * (1 - p) / n) else (low, p)
        yield agree(bound, right, n, expected=low, rel=1e-5, abs=1e-9)

    def threshold(chances: Sequence[float], small: Sequence[float], large: Sequence[float], sla: float) -> Any:
        router = answer(1.0, 9.0)
        said = router.calibrate(chances, small, large, sla)
        return said if said is None or router.threshold == said else f"returned {said}, and threshold {router.threshold}"

    half = [0.9] * 50 + [0.1] * 50
    for chances, small, large, sla, expected, why in (
        (half, [1.0] * 50 + [0.0] * 50, [1.0] * 100, 0.9, 0.9, "The sure half is right, and the unsure one wrong."),
        (half, [1.0] * 100, [1.0] * 100, 0.9, 0.1, "All are right: all may stay small."),
        (half, [0.0] * 100, [1.0] * 100, 0.9, math.inf, "All are wrong: all go up."),
        (
            [0.9, 0.8, 0.7],
            [0.0, 1.0, 1.0],
            [1.0, 0.0, 0.0],
            0.05,
            math.inf,
            "Stop at the first that fails, though others pass.",
        ),
        (half, [1.0] * 100, [1.0] * 100, 0.99, math.inf, "A hundred right answers do not prove 99 %."),
        (half[::-1], [0.0] * 50 + [1.0] * 50, [1.0] * 100, 0.9, 0.9, "The order of the questions does not matter."),
        (
            [0.9, 0.8, 0.7],
            [1.0, 0.0, 1.0],
            [1.0, 1.0, 1.0],
            0.5,
            0.9,
            "The second is wrong, and two of three prove nothing.",
        ),
        (
            [0.9, 0.8, 0.7],
            [1.0, 0.0, 1.0],
            [1.0, 1.0, 0.0],
            0.05,
            0.7,
            "Where the large model errs, the small one may be better.",
        ),
        ([0.9, 0.8, 0.8], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0], 0.5, 0.9, "Equal answers are kept together or not at all."),
    ):
        yield agree(threshold, chances, small, large, sla, expected=expected, why=why)
    for _ in range(12):
        n = rng.randrange(80, 300)
        chances = [round(rng.random(), 2) for _ in range(n)]
        small = [float(rng.random() < chance**0.5) for chance in chances]
        large = [float(rng.random() < 0.96) for _ in chances]
        sla = rng.choice((0.7, 0.8, 0.9))
        yield agree(threshold, chances, small, large, sla, expected=Router(1, 9).calibrate(chances, small, large, sla))


def _route(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def chosen(question: str, said: str, chance: float, wants_json: bool, large_usd: float = 3.0) -> Any:
        router = answer(2.0, 2 * large_usd)
        router.train(["hard"], [0])  # its score is 3/11, that of other words 3/7
        router.threshold = 0.8
        return router.route(question, said, chance, wants_json)

    for question, said, chance, wants_json, expected, why in (
        ("easy", "Yes.", 0.9, False, "small", "A sure answer is delivered."),
        ("easy", "Yes.", 0.8, False, "small", "The threshold is enough."),
        ("easy", "Yes.", 0.79, False, "both", "Less is not."),
        ("easy", " \n", 0.9, False, "both", "There is no answer in it."),
        ("easy", '{"order": "TS-1"}', 0.9, True, "small", "JSON, as wanted."),
        ("easy", '{"order": "TS-1', 0.9999, True, "both", "Sure of itself, and not JSON."),
        ("easy", "{order: TS-1}", 0.9999, True, "both", "It looks like JSON, and is none."),
        ("easy", '{"order": "TS-1', 0.9999, False, "small", "Not JSON, and nobody asked for it."),
        ("easy", '{"order": "TS-1"}', 0.1, True, "both", "JSON, and hardly sure."),
        ("hard", "Yes.", 0.9999, False, "large", "Its score of 3/11 is below 1/3, the ratio of the prices."),
        ("hard", '{"a": 1}', 0.9999, True, "large", "The question is looked at before any answer is paid for."),
        ("hard", " ", 0.1, True, "large", "The question is looked at before any answer is paid for."),
    ):
        yield agree(chosen, question, said, chance, wants_json, expected=expected, why=why)
    why = "Its score of 3/11 is above 1/4, the ratio of the prices: the small model is worth asking."
    yield agree(chosen, "hard", "Yes.", 0.9999, False, 4.0, expected="small", why=why)
    fresh = answer(1.0, 9.0)
    yield agree(
        fresh.route, "easy", "Yes.", 1.0, False, expected="both", why="Before it is calibrated nothing is sure enough."
    )
    for _ in range(10):
        dear = rng.uniform(2, 60)
        router, own = answer(1.0, dear), Router(1.0, dear)
        texts = [rng.choice(_TEXTS) for _ in range(rng.randrange(6, 40))]
        right = [float(len(text) < 28 or rng.random() < 0.1) for text in texts]
        for one in (router, own):
            one.train(texts, right)
            one.threshold = 0.5
        text, chance = rng.choice(_TEXTS), rng.random()
        yield agree(router.route, text, "Yes.", chance, False, expected=own.route(text, "Yes.", chance, False))


def _bill(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def bill(*columns: Sequence[Any]) -> Any:
        return answer(1.0, 9.0).bill(*columns)

    for route, usd, right, why in (
        ("small", 1.0, 0.0, "The small model is paid, and its answer delivered."),
        ("both", 11.0, 1.0, "Both are paid, and the large one's answer delivered."),
        ("large", 10.0, 1.0, "Only the large one is paid."),
    ):
        yield agree(bill, [route], [0.0], [1.0], [1.0], [10.0], expected=(usd, right), why=why)
    for _ in range(15):
        n = rng.randrange(2, 40)
        routes = rng.choices(("small", "both", "large"), k=n)
        small, large = ([float(rng.random() < share) for _ in range(n)] for share in (0.6, 0.95))
        cheap, dear = ([rng.uniform(low, 2 * low) for _ in range(n)] for low in (1, 9))
        paid = [{"small": s, "both": s + b, "large": b}[route] for route, s, b in zip(routes, cheap, dear, strict=True)]
        got = [s if route == "small" else b for route, s, b in zip(routes, small, large, strict=True)]
        yield agree(bill, routes, small, large, cheap, dear, expected=(sum(paid) / n, sum(got) / n))


# --- near misses -------------------------------------------------------------------------------------------------------


class _NumbersByName(Router):
    """Keeps each number as a word of its own, and learns the order numbers by heart."""

    def features(self, question: str) -> set[str]:
        words = re.findall(r"[^\W\d_]+|\d+", question.lower())
        return {*words, *map(" ".join, pairwise(words))}


class _Overflowing(Router):
    """The textbook's logistic function, which fails for a long question."""

    def score(self, question: str) -> float:
        p = super().score(question)
        return 1 / (1 + math.exp(-math.log(p / (1 - p))))


class _PlugIn(Router):
    """Takes the share on the known questions for the share on all."""

    def surely(self, right: float, n: int) -> float:
        return right / n


class _TwoSided(Router):
    """The bound of an interval with two sides, which gives away savings."""

    def surely(self, right: float, n: int) -> float:
        z2, p = 1.96**2, right / n
        return (p + z2 / (2 * n) - math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))) / (1 + z2 / n)


class _LooksLikeJson(Router):
    """Looks at the first and the last letter only."""

    def route(self, question: str, answer: str, chance: float, wants_json: bool) -> str:
        good = not wants_json or (answer[:1] == "{" and answer[-1:] == "}")
        return super().route(question, answer, chance, wants_json=False) if good else "both"


class _NeverSkips(Router):
    """Asks the small model even where that is money thrown away."""

    def route(self, question: str, answer: str, chance: float, wants_json: bool) -> str:
        way = super().route(question, answer, chance, wants_json)
        return "both" if way == "large" else way


class _FreeSmall(Router):
    """Forgets that a request that goes up has paid for the small model, too."""

    def bill(self, routes: Sequence[str], *columns: Sequence[float]) -> tuple[float, float]:
        return super().bill(["large" if route == "both" else route for route in routes], *columns)


_TO_THE_LAST_BIT = "whether two computed numbers are equal to their last bit is a matter of rounding"
_LAST_OF_THREE = "of both, large and small, small is the last in the alphabet"

BUILD = Exercise(
    id="05.4",
    title="A router from end to end",
    minutes=50,
    difficulty=3,
    answer="Router",
    stages=(
        Stage(
            "what a question is made of",
            _features,
            (
                r"`re.findall(r'[^\W\d_]+|\d+', text)` finds runs of letters and runs of digits.",
                "`itertools.pairwise(words)` gives each two neighbours; without it, `zip(words, words[1:])`.",
            ),
        ),
        Stage(
            "a score from known questions",
            _score,
            (
                "Count the questions answered rightly and wrongly, and for each feature how many of either kind hold it.",
                "Add the logarithms up: one for the share of right questions, two for each feature.",
                "1 / (1 + exp(−x)) is 0.5 + 0.5 · tanh(x / 2), and `math.tanh` takes any number.",
            ),
        ),
        Stage(
            "a threshold that keeps a promise",
            _promise,
            (
                "With z = 1.645 and p = right / n: (p + z²/2n − z · √(p(1 − p)/n + z²/4n²)) / (1 + z²/n).",
                "At first all go up, and `sum(large)` are right. Each answer kept small changes that by small − large.",
                "Sort by the chance, the highest first. Judge only where the next chance is another one. "
                "Stop at the first that fails.",
            ),
        ),
        Stage(
            "small, large, or both",
            _route,
            (
                "With the chance p of a right answer, small first costs small + (1 − p) · large. When is that more "
                "than large alone?",
                "p < small / large: go straight to the large model. Only then look at the answer.",
                "`json.loads` raises `ValueError` for what is no JSON.",
            ),
        ),
        Stage(
            "what it costs and what it gets right",
            _bill,
            ("The small model is paid unless the route is large; the large one unless it is small.",),
        ),
    ),
    reference=Router,
    wrong=(_NumbersByName, _Overflowing, _PlugIn, _TwoSided, _LooksLikeJson, _NeverSkips, _FreeSmall),
    limit_s=20.0,
    equivalent={
        "line 50: known[kept][0] == chance -> known[kept][0] >= chance": "the chances that follow are no higher",
        "line 52: self.surely(right, len(known)) < sla -> self.surely(right, len(known)) <= sla": _TO_THE_LAST_BIT,
        "line 59: self.score(question) < self.small_usd / self.large_usd -> self.score(question) <= self.small_usd / "
        "self.large_usd": _TO_THE_LAST_BIT,
        "line 81: route != 'small' -> route < 'small'": _LAST_OF_THREE,
        "line 82: route == 'small' -> route >= 'small'": _LAST_OF_THREE,
    },
)
