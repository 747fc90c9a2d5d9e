"""The long build of chapter 04: what decides whether an old answer may be given again."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from labkit.lab import Question, hard_pairs, pairs
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, equals, holds


class SameAnswer:
    """Decides whether an old answer may be given again; of what it gives, the share `bound` may be wrong, no more.

    That is proved with `confidence`, for traffic like that of its calibration. `threshold` is the lowest similarity at which
    it gives an answer: infinity, so none, before it is calibrated.
    """

    def __init__(self, bound: float, confidence: float = 0.95) -> None:
        self.bound = bound
        self.confidence = confidence
        self.threshold = math.inf

    def upper(self, wrong: int, hits: int) -> float:
        """The Clopper–Pearson bound: with `confidence`, no greater share is wrong where `wrong` of `hits` were."""
        return float(beta.ppf(self.confidence, wrong + 1, hits - wrong)) if wrong < hits else 1.0

    def apart(self, cached: str, new: str) -> bool:
        """Whether two questions differ in a figure, a unit, a name, or in being denied."""
        a, b = self._words(cached), self._words(new)
        return (
            self._figures(a) != self._figures(b)
            or self._denied(a) != self._denied(b)
            or not self._names(cached) <= {*b}
            or not self._names(new) <= {*a}
            or self._turned(a, b)
            or self._turned(b, a)
        )

    def _joined(self, text: str) -> str:
        """The text with single blanks, in which a sign and a unit belong to their number."""
        units = (
            r"km?|°?[cf]|kg|lbs?|[kmgt]?b(?:its|ytes)?|kwh?|m?l|[cm]?m|mi|k?hz|[a-z]{4,}s|feet|[mb]illion|usd|eur|[%$€£¥₽₺₹]"
        )
        text = re.sub(r"\bminus (?=\d)", "-", " ".join(text.replace("’", "'").split()))
        return re.sub(rf"(?<=\d) (?=(?:{units})(?:\W|$))", "", text, flags=re.IGNORECASE)

    def _words(self, text: str) -> list[str]:
        """The words in small letters, without what ends a sentence."""
        return [word.rstrip("?.!,:;").removesuffix("'s") for word in self._joined(text).casefold().split()]

    def _figures(self, words: Sequence[str]) -> Counter[str]:
        return Counter(word for word in words if re.search(r"\d", word))

    def _denied(self, words: Sequence[str]) -> bool:
        denials = r"not|never|no|cannot|cant|dont|without|nobody|impossible|unable|.*n't"
        return sum(bool(re.fullmatch(denials, word)) for word in words) % 2 == 1

    def _names(self, text: str) -> set[str]:
        """What begins with a capital though no sentence does."""
        found = re.findall(r"(?<=[^.?!,:;] )\.?[A-Z]\S*", self._joined(text))
        return {word for name in found for word in self._words(name)} - {"i", "ok"}

    def _turned(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Whether a word of one stands in the other with un-, in-, dis- … before it."""
        prefixed = {re.sub(r"^(?:un|in|im|il|dis|de|non-)", "", word) for word in {*other} - {*one}}
        return bool(prefixed & ({*one} - {*other}))

    def calibrate(self, compared: Sequence[tuple[str, str, float, bool]]) -> float:
        """Set the threshold, and return it, from (cached, new, score, whether the old answer was right).

        It is the lowest score from which on the bound is proved, tried from the highest down; the first score that fails
        although there are enough hits to prove the bound ends the search. Pairs that are `apart` do not count.
        """
        order = sorted(
            ((score, right) for cached, new, score, right in compared if not self.apart(cached, new)), reverse=True
        )
        self.threshold, wrong = math.inf, 0
        for hits, (score, right) in enumerate(order, 1):
            wrong += not right
            if hits < len(order) and order[hits][0] == score:
                continue  # a threshold takes equal scores in together
            if self.upper(wrong, hits) <= self.bound:
                self.threshold = score
            elif self.upper(0, hits) <= self.bound:
                break
        return self.threshold

    def place(self, tenant: str, permissions: Iterable[str], era: str) -> Hashable:
        """Where answers are kept: equal exactly where tenant, permissions and the version of the facts are."""
        return tenant, frozenset(permissions), era

    def find(self, kept: Sequence[tuple[Hashable, str, float]], place: Hashable, question: str) -> int | None:
        """The number of the kept answer to give, or None; `kept` are (place, its question, its similarity)."""
        fit = [
            (score, -at)
            for at, (where, text, score) in enumerate(kept)
            if where == place and score >= self.threshold and not self.apart(text, question)
        ]
        return -max(fit)[1] if fit else None


# --- traffic, played to a judge ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """A question that found an earlier one: both texts, how alike they are, and whether the old answer is right."""

    cached: str
    new: str
    score: float
    right: bool


def play(judge: Any, asked: Sequence[Question], vectors: NDArray[np.floating], candidates: int = 4) -> list[Comparison]:
    """What `judge` finds in traffic whose every question is kept, whatever its score; thresholds are for the caller.

    `vectors` (n, d) are of unit length, one for each question. For each one the `candidates` nearest earlier questions of
    the same place are shown to the judge, nearest first. The judge's threshold is set to −1 for this.
    """
    judge.threshold = -1.0
    places = [judge.place(question.tenant, (), "") for question in asked]
    members: dict[Hashable, list[int]] = {}
    found = []
    for at, question in enumerate(asked):
        earlier = members.setdefault(places[at], [])
        if earlier:
            scores = vectors[earlier] @ vectors[at]
            near = [int(i) for i in np.argsort(-scores, kind="stable")[:candidates]]
            kept = [(places[at], asked[earlier[i]].text, float(scores[i])) for i in near]
            chosen = judge.find(kept, places[at], question.text)
            if chosen is not None:
                _, text, score = kept[chosen]
                right = asked[earlier[near[chosen]]].answer == question.answer
                found.append(Comparison(text, question.text, score, right))
        earlier.append(at)
    return found


def rates_at(found: Sequence[Comparison], questions: int, threshold: float) -> tuple[float, float]:
    """Hit rate, and wrong answers per hit (0 without hits), at a threshold, of traffic of so many questions."""
    hits = [one.right for one in found if one.score >= threshold]
    return len(hits) / questions, hits.count(False) / max(1, len(hits))


# --- the stages --------------------------------------------------------------------------------------------------------


def _upper(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    for confidence, wrong, hits, expected, why in (
        (0.95, 0, 0, 1.0, "Nothing was seen, so nothing is known."),
        (0.95, 3, 3, 1.0, "All were wrong: so may all others be."),
        (0.5, 0, 1, 0.5, "One right hit is an even bet where half of all are wrong."),
        (0.75, 0, 2, 0.5, "Two right hits in a row: a chance of 0.5² where half of all are wrong."),
        (0.95, 0, 100, 1 - 0.05**0.01, "The rule of three: about 3/n where none was wrong."),
    ):
        yield agree(answer(0.02, confidence).upper, wrong, hits, expected=expected, rel=1e-6, why=why)
    yield agree(answer(0.02).upper, 0, 1, expected=0.95, rel=1e-6, why="Unless it is told otherwise, it is 95 % confident.")
    for _ in range(15):
        hits, confidence = rng.randrange(2, 900), rng.choice((0.8, 0.9, 0.95, 0.99))
        wrong = min(hits - 1, rng.choice((0, 1, 2, rng.randrange(hits))))
        got = call(answer(0.02, confidence).upper, wrong, hits)
        number = isinstance(got, (int, float)) and 0 < got < 1
        chance = float(binom.cdf(wrong, hits, got)) if number else math.nan
        yield holds(
            "if just this share were wrong, so few wrong hits would be an accident of exactly the probability allowed",
            number and math.isclose(chance, 1 - confidence, rel_tol=1e-4),
            given=f"{wrong} wrong of {hits}, confidence {confidence}",
            expected=f"a share with binom.cdf({wrong}, {hits}, share) = {1 - confidence:.2f}",
            actual=f"{got!r}, with {chance:.4f}",
        )


_CASES = (
    ("Can I return it after 14 days?", "May I send it back after 14 days?", False, "Other words, the same question."),
    ("Can I return it after 14 days?", "Can I return it after 41 days?", True, "Another number."),
    ("Is 5 more than 3?", "Is 5 more than 3 and 3?", True, "A number occurs more often."),
    ("Convert 12 C to Fahrenheit", "Convert -12 C to Fahrenheit", True, "A sign changes the number."),
    ("Convert -5 C to Fahrenheit.", "Convert minus 5 C to Fahrenheit", False, "The same sign, in words."),
    ("Where is TS-1234?", "Where is TS-1243?", True, "Another order."),
    ("Where is order TS-1234?", "Order ts-1234: where is it?", False, "The same order in other letters."),
    ("Can it carry 5 kg?", "Can it carry 5 lb?", True, "Another unit."),
    ("Can it carry 5 kg?", "Can it carry 5kg?", False, "The same weight without the blank."),
    ("Can it carry 5  kg?", "Can it carry 5 kg, please?", False, "The unit is followed by a comma."),
    ("Does 20 metres of it do?", "Does 20 feet of it do?", True, "Another unit."),
    ("Is 20 € enough?", "Is 20 $ enough?", True, "Another currency."),
    ("Is it open on Monday?", "Is it open on Sunday?", True, "Another name."),
    ("Is it open on Monday?", "On Monday, is it open?", False, "The same name elsewhere."),
    ("Is the tent in Oslo?", "is the tent in oslo?", False, "A name in small letters is the same name."),
    ("Is Mira's tent in Oslo?", "Is the tent of Mira in Oslo?", False, "“Mira's” speaks of Mira."),
    ("Is Mira’s tent in Oslo?", "Is the tent of Mira in Oslo?", False, "The same with the other apostrophe."),
    ("Is it in Oslo?", "Oslo?", False, "The name is all that the other says."),
    ("Oslo?", "Is it in Oslo?", False, "The name is all that the other says."),
    ("When does it open in Oslo?", "When does it open?", True, "A name on one side only."),
    ("When does it open?", "When does it open in Oslo?", True, "A name on one side only."),
    ("Hello, May I pay in cash?", "Could I pay in cash?", False, "What begins a sentence is no name, and “I” is none."),
    ("Is it OK to pay in cash?", "May one pay in cash?", False, "“OK” is no name."),
    ("How do I sort in C++?", "How do I sort in C#?", True, "Other languages, and other names."),
    ("How do I sort in .NET?", "How do I sort in NET?", True, "A name may begin with a dot."),
    ("Can I return it?", "Can I not return it?", True, "A denial."),
    ("Can I return it?", "Can't I return it?", True, "A denial."),
    ("Can I return it?", "Can’t I return it?", True, "A denial, with the other apostrophe."),
    ("Can I never return it?", "Can I not return it?", False, "Both are denied."),
    ("Can I return it?", "Is it not impossible to return it?", False, "Two denials make none."),
    ("Can't I return it?", "Is it not impossible that I cannot return it?", False, "Three denials are as good as one."),
    ("Is it legal to park here?", "Is it illegal to park here?", True, "A denial in a prefix."),
    ("Is it unsafe here?", "Is it safe here?", True, "A denial in a prefix, on the other side."),
    ("How to activate my card?", "How to deactivate my card?", True, "The opposite by a prefix."),
    ("Is it safe, or is it unsafe?", "Is it unsafe, or is it safe?", False, "Both words stand in both."),
    ("Is it safe, or unsafe?", "Is it safe?", False, "The bare word stands in both."),
)
_STRICT = ("sign", "unit", "currency", "version", "name", "language name", "negation")
_DESK = {
    "identifier": ("identifier",),
    "number": ("number", "unit"),
    "name": ("name", "place", "day"),
    "negation": ("negation",),
    "paraphrase": ("paraphrase",),
}


def _apart(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    judge = answer(0.02)
    for cached, new, expected, why in _CASES:
        yield agree(judge.apart, cached, new, expected=expected, why=why)
    hidden = [pair for pair in hard_pairs("test") if pair.language == "en"]
    seen = [(kind, [p for p in hidden if p.kind == kind], 0.85) for kind in _STRICT]
    seen.append(("nothing that matters", [p for p in hidden if p.same], 0.8))
    for kind, some, least in seen:
        wrong = [p for p in some if bool(call(judge.apart, p.cached, p.new)) == p.same]
        yield _share(f"hard pairs that differ in {kind}", [(p.cached, p.new) for p in wrong], len(some), least)
    desk = list(pairs("test", 500, seed=rng.randrange(10**6)))
    for name, kinds in _DESK.items():
        of_kind = [p for p in desk if p.kind in kinds]
        judged = [(p, bool(call(judge.apart, p.cached.text, p.new.text))) for p in of_kind]
        missed = [(p.cached.text, p.new.text) for p, says in judged if says == p.same]
        yield _share(f"pairs of the desk, {name}", missed, len(of_kind), 0.8 if name == "paraphrase" else 0.95)


def _share(what: str, missed: Sequence[tuple[str, str]], total: int, least: float) -> Outcome:
    return holds(
        what,
        len(missed) <= (1 - least) * total,
        given=f"{total} hidden pairs" + (f", for example {missed[0]}" if missed else ""),
        expected=f"{least:.0%} of them judged rightly",
        actual=f"{1 - len(missed) / max(1, total):.0%}",
    )


_SAME, _OTHER = ("May I pay in cash?", "Could I pay in cash?"), ("May I pay in cash?", "May I not pay in cash?")


def _calibrate(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def threshold(compared: Sequence[tuple[str, str, float, bool]], bound: float, confidence: float) -> Any:
        judge = answer(bound, confidence)
        said = judge.calibrate(compared)
        return said if said is None or judge.threshold == said else f"returned {said}, and threshold {judge.threshold}"

    def pairs_of(*rows: tuple[float, bool]) -> list[tuple[str, str, float, bool]]:
        return [(*_SAME, score, right) for score, right in rows]

    clean = [(i / 100, True) for i in range(100)]
    for rows, bound, confidence, expected, why in (
        (clean[:20], 0.05, 0.95, math.inf, "Twenty right hits cannot prove 5 % with 95 % confidence."),
        (clean, 0.05, 0.95, 0.0, "A hundred hits without a fault prove 5 %, down to the lowest score."),
        ([], 0.05, 0.95, math.inf, "Without pairs nothing is proved."),
        ([(0.9, True), (0.8, True), (0.8, False)], 0.6, 0.75, math.inf, "Equal scores come in together."),
        ([(0.8, False), (0.9, True), (0.9, True), (0.9, True)], 0.51, 0.75, 0.9, "The order of the pairs does not matter."),
        (
            [(0.9, False), (0.8, True), (0.7, True), *[(0.6, True)] * 90],
            0.6,
            0.5,
            math.inf,
            "The first could have proved it.",
        ),
        ([(0.9, False), *[(0.8, True)] * 5], 0.5, 0.75, 0.8, "One hit could not have proved it yet: go on."),
    ):
        yield agree(threshold, pairs_of(*rows), bound, confidence, expected=expected, why=why)
    faults = [(*_OTHER, 0.99, False)] * 30
    yield agree(
        threshold,
        [*faults, *pairs_of(*clean)],
        0.05,
        0.95,
        expected=0.0,
        why="Pairs that `apart` refuses are never given, so their faults do not count.",
    )
    for _ in range(8):
        knee = rng.uniform(0.3, 0.7)
        scores = [round(rng.random(), 3) for _ in range(rng.randrange(200, 500))]
        compared = [
            (*(_SAME if rng.random() < 0.8 else _OTHER), s, rng.random() < 1 / (1 + math.exp(-18 * (s - knee))))
            for s in scores
        ]
        bound, confidence = rng.choice((0.02, 0.05, 0.1)), rng.choice((0.8, 0.95))
        expected = SameAnswer(bound, confidence).calibrate(compared)
        yield equals(
            f"the threshold of {len(compared)} pairs, bound {bound}, confidence {confidence}",
            call(threshold, compared, bound, confidence),
            expected,
        )
    judge = answer(0.05)
    judge.calibrate(pairs_of(*clean))
    judge.calibrate(pairs_of(*clean[:20]))
    yield equals("the threshold after a second calibration that proves nothing", judge.threshold, math.inf)


def _place(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    judge = answer(0.02)
    words = ("a", "b", "ab", "a,b", "", "a b", "1", "a|b")

    def one() -> tuple[str, list[str], str]:
        permissions = rng.sample(words, rng.randrange(3))
        return rng.choice(words), permissions, rng.choice(words)

    drawn = [(("a", ["b"], "ab"), ("ab", ["b"], "a")), (("a", ["a", "b"], "1"), ("a", ["a,b"], "1"))]
    drawn += [(("a", ["a", "b"], "1"), ("a", ["b", "a"], "1")), (("a", ["b", "b"], "1"), ("a", ["b"], "1"))]
    for at in (0, 1, 2) * 9:
        first, other = one(), one()
        tenant, permissions, era = (other if part == at else first for part in range(3))
        drawn.append((first, (tenant[0], permissions[1], era[2])))
    for first, second in drawn:
        same = (first[0], set(first[1]), first[2]) == (second[0], set(second[1]), second[2])
        ours, theirs = call(judge.place, *first), call(judge.place, *second)
        yield agree(hash, ours, expected=hash(ours), why="A place must fit into a dictionary.")
        yield holds(
            "two places are equal exactly where tenant, permissions and era are",
            (ours == theirs) is same and ours is not None,
            given=f"{first} and {second}",
            expected="the same place" if same else "two places",
            actual=f"{ours!r} and {theirs!r}",
        )


def _find(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def found(kept: Sequence[tuple[Hashable, str, float]], place: Hashable, question: str) -> object:
        judge = answer(0.02)
        judge.threshold = 0.8
        at = judge.find(kept, place, question)
        return "nothing" if at is None else at

    ask, other, denied = "May I pay in cash?", "Could I pay in cash?", "May I not pay in cash?"
    for kept, expected, why in (
        ([], "nothing", "An empty cache has nothing to give."),
        ([("here", other, 0.8)], 0, "A score at the threshold is enough."),
        ([("here", other, 0.79)], "nothing", "Below the threshold."),
        ([("there", other, 0.99)], "nothing", "It is kept in another place: another tenant's, perhaps."),
        ([("elsewhere", other, 0.99)], "nothing", "It is kept in another place: another tenant's, perhaps."),
        ([("here", denied, 0.99)], "nothing", "The nearest question says the opposite."),
        ([("here", denied, 0.99), ("here", other, 0.9)], 1, "The nearest says the opposite; the next one fits."),
        ([("here", other, 0.85), ("here", ask, 0.9), ("here", other, 0.81)], 1, "Of those that fit, the most similar."),
        ([("here", ask, 0.85), ("here", other, 0.95), ("there", ask, 1.0)], 1, "Of those that fit, the most similar."),
        ([("here", other, 0.9), ("here", ask, 0.9)], 0, "Of equals, the first."),
    ):
        yield agree(found, kept, "here", ask, expected=expected, why=why)
    late = "May I pay after 41 days?"
    yield agree(found, [("here", ask, 0.9)], "here", late, expected="nothing", why="The new question says more.")
    new = answer(0.02)
    yield equals("what it gives before it is calibrated", call(new.find, [("here", ask, 1.0)], "here", ask), None)
    for _ in range(25):
        kept = [
            (rng.choice("abc"), rng.choice((ask, other, denied)), rng.randrange(70, 100) / 100)
            for _ in range(rng.randrange(9))
        ]
        fit = [
            (score, -at) for at, (where, text, score) in enumerate(kept) if where == "b" and text != denied and score >= 0.8
        ]
        yield agree(found, kept, "b", ask, expected=-max(fit)[1] if fit else "nothing")


# --- near misses -------------------------------------------------------------------------------------------------------


class _Wald(SameAnswer):
    """The bound of the normal distribution, which is 0 where no fault was seen."""

    def upper(self, wrong: int, hits: int) -> float:
        share = wrong / hits if hits else 1.0
        return min(1.0, share + 1.645 * math.sqrt(share * (1 - share) / max(1, hits)))


class _TwoSided(SameAnswer):
    """The upper end of a two-sided interval: right, and dearer than it need be."""

    def upper(self, wrong: int, hits: int) -> float:
        return float(beta.ppf((1 + self.confidence) / 2, wrong + 1, hits - wrong)) if wrong < hits else 1.0


class _AnyOtherWord(SameAnswer):
    """Refuses every question that is not word for word the same."""

    def apart(self, cached: str, new: str) -> bool:
        return cached.casefold() != new.casefold()


class _BareDigits(SameAnswer):
    """Looks at digits only, and not at signs, units, names or denials."""

    def apart(self, cached: str, new: str) -> bool:
        return re.findall(r"\d+", cached) != re.findall(r"\d+", new)


class _GoesOn(SameAnswer):
    """Takes the lowest score that fits, however many before it failed."""

    def calibrate(self, compared: Sequence[tuple[str, str, float, bool]]) -> float:
        order = sorted(((s, right) for cached, new, s, right in compared if not self.apart(cached, new)), reverse=True)
        self.threshold = math.inf
        for hits, (score, _) in enumerate(order, 1):
            if self.upper(sum(not right for _, right in order[:hits]), hits) <= self.bound:
                self.threshold = score
        return self.threshold


class _JoinedPlace(SameAnswer):
    """Joins the parts of a place into one text, in which one tenant can be made to look like another."""

    def place(self, tenant: str, permissions: Iterable[str], era: str) -> Hashable:
        return f"{tenant}{','.join(sorted(set(permissions)))}{era}"


class _NoEra(SameAnswer):
    """Keeps answers beyond the facts that they were made from."""

    def place(self, tenant: str, permissions: Iterable[str], era: str) -> Hashable:  # noqa: ARG002
        return tenant, frozenset(permissions)


class _NearestOnly(SameAnswer):
    """Looks at the nearest question alone, so a denial that stands before a paraphrase hides it."""

    def find(self, kept: Sequence[tuple[Hashable, str, float]], place: Hashable, question: str) -> int | None:
        nearest = max(range(len(kept)), key=lambda at: kept[at][2], default=None)
        return None if nearest is None or super().find([kept[nearest]], place, question) is None else nearest


_TO_THE_LAST_BIT = "whether a computed bound is met to its last bit is a matter of rounding"
_COUNTED = "sum((bool(re.fullmatch(denials, word)) for word in words))"

BUILD = Exercise(
    id="04.5",
    title="A semantic cache's judge",
    minutes=45,
    difficulty=3,
    answer="SameAnswer",
    stages=(
        Stage(
            "a bound from a count",
            _upper,
            (
                "Were exactly the share p of all hits wrong, `binom.cdf(wrong, hits, p)` would be the chance of so few "
                "wrong ones. It falls as p grows. The bound is the p at which it is 1 − confidence.",
                "Halve the interval from 0 to 1 some fifty times; or read it off: "
                "`beta.ppf(confidence, wrong + 1, hits - wrong)`.",
                "Where all hits were wrong, and where there were none, the bound is 1.",
            ),
        ),
        Stage(
            "a second look at the words",
            _apart,
            (
                "Figures: pull “minus” and the unit to their number (`re.sub`), then compare how often each word with a "
                "digit occurs (`Counter`), in small letters and without the sentence's last mark.",
                "Names: words with a capital whose word before does not end a sentence or a clause. Each must occur, in any "
                "letters, in the other question. “I” and “OK” are none.",
                "Denials: count not, never, no, cannot, without, impossible and …n't; compare whether the number is odd.",
                "Prefixes: a word of one question that the other has with un-, in-, im-, il-, dis-, de- or non- before it, "
                "and not without.",
            ),
        ),
        Stage(
            "a threshold to answer for",
            _calibrate,
            (
                "Leave out the pairs that are `apart`; sort the others, the highest score first; count faults as you go.",
                "Try a score only when all pairs of that score are in.",
                "Stop at the first score that fails though `self.upper(0, hits)` would have done.",
            ),
        ),
        Stage(
            "a place for each answer",
            _place,
            (
                "A tuple can be hashed if its parts can, and keeps them apart, which a joined text does not.",
                "Permissions have no order: `frozenset`.",
            ),
        ),
        Stage(
            "the answer to give",
            _find,
            ("Three conditions: the place, the threshold, the second look. Of those that meet them, the highest score.",),
        ),
    ),
    reference=SameAnswer,
    wrong=(_Wald, _TwoSided, _AnyOtherWord, _BareDigits, _GoesOn, _JoinedPlace, _NoEra, _NearestOnly),
    limit_s=30.0,
    equivalent={
        "line 70: order[hits][0] == score -> order[hits][0] >= score": "the scores that follow are no higher",
        "line 72: self.upper(wrong, hits) <= self.bound -> self.upper(wrong, hits) < self.bound": _TO_THE_LAST_BIT,
        "line 74: self.upper(0, hits) <= self.bound -> self.upper(0, hits) < self.bound": _TO_THE_LAST_BIT,
        "line 80: return (tenant, frozenset(permissions), era) -> return (era, frozenset(permissions), tenant)": (
            "places are only compared with one another"
        ),
    }
    | {
        f"line 46: {_COUNTED} % 2 == 1 -> {_COUNTED} % 2 {other}": "only whether the two questions differ counts"
        for other in ("!= 1", ">= 1", "== 0")
    },
)
