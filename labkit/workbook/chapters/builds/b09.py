"""The long build of chapter 09: a compressor that keeps answers right above a floor, at the lowest rate that proves it."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from scipy.stats import beta, binom

from labkit.lab import Example
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, equals, holds

Count = Callable[[str], int]
Trial = tuple[Sequence[str], str, bool]


class Compressor:
    """Cuts whole sentences out of prompts, first those that are missed least, and no further than a floor of right answers.

    `floor`: the least share of right answers, and `confidence`: how surely it is to be kept. `rate`: the share of a prompt's
    tokens that `cut` leaves; 1, so all of them, before it is calibrated.
    """

    def __init__(self, floor: float, confidence: float = 0.95) -> None:
        self.floor = floor
        self.confidence = confidence
        self.rate = 1.0
        self.dropped: Counter[tuple[str, bool]] = Counter()  # trials in which a word was dropped, by (word, in the question)
        self.wrong: Counter[tuple[str, bool]] = Counter()  # and those of them with a wrong answer
        self.trials = self.failed = 0

    def sentences(self, text: str) -> list[str]:
        """The text in sentences, each with the white space behind it; joined they are the text."""
        marked = [found.span() for found in re.finditer(r"<keep>.*?</keep>", text, re.DOTALL)]
        ends = []
        for found in re.finditer(r"[.!?]+[\"”’')\]]*\s+|[。！？]+\s*|\s*\n\s*", text):
            at, after = found.end(), text[found.end() : found.end() + 1]
            goes_on = found[0][0] in ".!?" and "\n" not in found[0] and (after.islower() or after.isdigit())
            if not goes_on and text[:at].strip() and not any(start < at < end for start, end in marked):
                ends.append(at)
        return [text[start:end] for start, end in pairwise([0, *ends, len(text)]) if start < end]

    def stays(self, sentence: str) -> str:
        """Why a sentence must stay: "marked", "denial" or "rule", the first that fits; "" for one that may go."""
        if "<keep>" in sentence:
            return "marked"
        words = set(re.findall(r"\w+", sentence.casefold()))
        if words & {"not", "no", "never", "without", "nothing", "nobody", "none", "cannot"}:
            return "denial"
        if re.search(r"n['’]t\b", sentence.casefold()):
            return "denial"
        return "rule" if words & {"must", "always", "only", "unless", "except"} else ""

    def keys(self, sentence: str, question: str) -> set[tuple[str, bool]]:
        """Its words, in small letters, each with whether the question has it, too."""
        asked = set(re.findall(r"\w+", question.casefold()))
        return {(word, word in asked) for word in re.findall(r"\w+", sentence.casefold())}

    def learn(self, trials: Sequence[tuple[Sequence[str], str, bool]]) -> None:
        """Count further trials: (the sentences that were dropped, the question, whether the answer was right)."""
        for sentences, question, right in trials:
            gone = {key for sentence in sentences for key in self.keys(sentence, question)}
            self.dropped.update(gone)
            self.wrong.update(gone if not right else ())
            self.trials += 1
            self.failed += not right

    def risk(self, sentence: str, question: str) -> float:
        """How likely the answer is wrong without the sentence: as without that one of its words that was missed most."""
        mean = self.failed / self.trials if self.trials else 1.0
        keys = self.keys(sentence, question)
        return max(((self.wrong[key] + mean) / (self.dropped[key] + 1) for key in keys), default=0.0)

    def shrink(
        self, text: str, question: str, target: int, count: Callable[[str], int]
    ) -> tuple[str, list[tuple[str, float]]]:
        """The text in `target` tokens or fewer, and what was dropped, in the order of the text, each with its risk.

        What must stay is in. Then the others come in, the riskiest first and of equals the first, each where it has room.
        Raises `ValueError`, which says how many tokens are needed, where what must stay has more than `target`.
        """
        parts = self.sentences(text)
        risks = [self.risk(part, question) for part in parts]
        gone = [i for i, part in enumerate(parts) if not self.stays(part)]

        def left(without: Sequence[int]) -> str:
            return "".join(part for i, part in enumerate(parts) if i not in without)

        if count(left(gone)) > target:
            raise ValueError(f"{count(left(gone))} tokens are needed for what must stay; the target is {target}")
        for i in sorted(gone, key=lambda i: -risks[i]):
            others = [other for other in gone if other != i]
            if count(left(others)) <= target:
                gone = others
        return left(gone), [(parts[i], risks[i]) for i in gone]

    def lower(self, right: int, asked: int) -> float:
        """The Clopper–Pearson bound: with `confidence`, no smaller share is right where `right` of `asked` were."""
        return float(beta.ppf(1 - self.confidence, right, asked - right + 1)) if right else 0.0

    def calibrate(self, graded: Mapping[float, tuple[int, int]]) -> float:
        """Set the rate, and return it, from (right answers, questions asked) by rate.

        It is the lowest rate that proves the floor as all higher ones do: they are tried from the highest down, to the first
        that does not. 1 where none does.
        """
        self.rate = 1.0
        for rate in sorted(graded, reverse=True):
            if self.lower(*graded[rate]) < self.floor:
                break
            self.rate = rate
        return self.rate

    def cut(self, text: str, question: str, count: Callable[[str], int]) -> tuple[str, list[tuple[str, float]]]:
        """The text at the calibrated rate, rounded to whole tokens, or as near to it as what must stay allows."""
        needed = count("".join(part for part in self.sentences(text) if self.stays(part)))
        return self.shrink(text, question, max(needed, round(self.rate * count(text))), count)


# --- what a case needs ---------------------------------------------------------------------------------------------------


def missed(task: Example, kept: str) -> list[str]:
    """What the answer to a case under a policy needs (`labkit.lab.policy_example`) and `kept`, the shortened prompt, "
    "lacks."""
    policy, told = task.messages[0].content, task.messages[-1].content
    bought = re.search(r"I bought an? \S+ (\w+) \d+ days ago", told)
    needed = [rf"Return window {bought[1]} \d+ days\."] if bought else []
    needed += [r"Members get \d+ more days\."] if "I am a member" in told else []
    late = re.search(r"Late goods get [^.]+\.", policy)
    opened = re.search(r"Opened goods get [^.]+\.", policy)
    needed += [re.escape(found[0]) for found in (late, opened) if found and found[0].removesuffix(".").endswith(task.answer)]
    return [pattern for pattern in needed if not re.search(pattern, kept)]


# --- the stages --------------------------------------------------------------------------------------------------------

_SPLIT: tuple[tuple[str, list[str], str], ...] = (
    ("Parcels leave at 5. Gift wrapping costs 3 euros.", ["Parcels leave at 5. ", "Gift wrapping costs 3 euros."], ""),
    ("One sentence", ["One sentence"], "Without an end it is one all the same."),
    ("", [], "Nothing has no sentences."),
    ("Really?! Yes.  No!", ["Really?! ", "Yes.  ", "No!"], "White space belongs to the sentence before it."),
    ("It costs 1.50 euros. Good.", ["It costs 1.50 euros. ", "Good."], "No white space, no end."),
    ("Bring gear, e.g. ropes. Go.", ["Bring gear, e.g. ropes. ", "Go."], "A small letter follows: the sentence goes on."),
    ("Bring e.g.  ropes", ["Bring e.g.  ropes"], "A small letter follows: the sentence goes on."),
    ("See No. 5 there. Then go.", ["See No. 5 there. ", "Then go."], "A digit follows: the sentence goes on."),
    ("He said “go.” Then he went.", ["He said “go.” ", "Then he went."], "A closing quote belongs to its sentence."),
    ('He said "go." Then (so.) He went.', ['He said "go." ', "Then (so.) ", "He went."], "So does a bracket."),
    ("tents\nropes\n\nboots", ["tents\n", "ropes\n\n", "boots"], "A line break ends a sentence, whatever follows."),
    (
        "It ends.\nso does this. Next.",
        ["It ends.\n", "so does this. ", "Next."],
        "A line break ends a sentence, whatever follows.",
    ),
    ("\n\nFirst. Second.", ["\n\nFirst. ", "Second."], "White space at the start belongs to the first sentence."),
    ("今日は。明日！ Next.", ["今日は。", "明日！ ", "Next."], "The Chinese and Japanese full stop needs no blank."),
    ("五。5天。", ["五。", "5天。"], "Behind that full stop a digit may begin a sentence."),
    ("<keep>A. B.\nC.</keep> D. E.", ["<keep>A. B.\nC.</keep> D. ", "E."], "What is marked is not taken apart."),
    (
        "A. <keep>B. C.</keep> <keep>D. E.</keep>",
        ["A. ", "<keep>B. C.</keep> <keep>D. E.</keep>"],
        "Two marks, one sentence.",
    ),
    ("A. <keep>B.</keep>\nC. D.", ["A. ", "<keep>B.</keep>\n", "C. ", "D."], "Behind the mark the text goes on as usual."),
    ("Über 3 Tage. Äpfel. ändern", ["Über 3 Tage. ", "Äpfel. ändern"], "Capital and small letters are not only a to z."),
)
_ALPHABET = ("a", "B", "9", "é", " ", "  ", ". ", "! ", "\n", "。", "<keep>", "</keep>", '"', "e.g. ", "Go. ")


def _sentences(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    made = answer(0.9)
    for text, expected, why in _SPLIT:
        yield agree(made.sentences, text, expected=expected, why=why)
    for _ in range(25):
        text = "".join(rng.choice(_ALPHABET) for _ in range(rng.randrange(1, 25)))
        got = call(made.sentences, text)
        whole = isinstance(got, list) and "".join(got) == text and all(got)
        yield holds("joined, the sentences are the text, and none is empty", whole, given=repr(text), actual=repr(got))
        yield holds(
            "no end is found where there is none, and none is missed",
            got == Compressor(0.9).sentences(text),
            given=repr(text),
            expected=repr(Compressor(0.9).sentences(text)),
            actual=repr(got),
        )


_REASONS = (
    ("Gift wrapping costs 3 euros.", "", "It may go."),
    ("Opened goods are not refunded.", "denial", "A denial turns a sentence round."),
    ("NEVER promise a refund.", "denial", "In capital letters, too."),
    ("Do nothing.", "denial", ""),
    ("Nobody may.", "denial", ""),
    ("None of them.", "denial", ""),
    ("No refunds here.", "denial", ""),
    ("Without a receipt we exchange.", "denial", ""),
    ("We cannot ship it.", "denial", ""),
    ("We don't ship it.", "denial", "The short form."),
    ("We don’t ship it.", "denial", "The short form, with the other apostrophe."),
    ("Note the knot in another rope.", "", "Words, not parts of words."),
    ("The ant's nest, isn'take", "", "No word ends there."),
    ("Ask for the receipt: you must.", "rule", ""),
    ("Always ask.", "rule", ""),
    ("Only members may.", "rule", ""),
    ("Refunds, unless they are late.", "rule", ""),
    ("All, except boots.", "rule", ""),
    ("You must not promise.", "denial", "It fits both; denials are named first."),
    ("<keep>Boots are 45 euros.</keep>", "marked", "Somebody marked it."),
    ("<keep>Do not ask.</keep>", "marked", "It fits both; marks are named first."),
    ("The mustard", "", "Words, not parts of words."),
    ("", "", "Nothing may go."),
)


def _stays(answer: Any, rng: random.Random) -> Iterator[Outcome]:  # noqa: ARG001
    made = answer(0.9)
    for sentence, expected, why in _REASONS:
        yield agree(made.stays, sentence, expected=expected, why=why)


def _learn(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def risks(trials: Sequence[Trial], *asked: tuple[str, str]) -> list[float]:
        made = answer(0.9)
        for part in (trials[: len(trials) // 2], trials[len(trials) // 2 :]):  # in two goes: what was counted, counts on
            made.learn(part)
        return [made.risk(*one) for one in asked]

    yield agree(
        risks,
        [],
        ("Any word.", "Any?"),
        ("***", ""),
        expected=[1.0, 0.0],
        why="Who knows nothing counts on the worst; what has no words has nothing to lose.",
    )
    one = (["Parcels leave at 5."], "Tent?", True)
    yield agree(
        risks,
        [one],
        ("Parcels!", "Tent?"),
        ("Boots", "Tent?"),
        expected=[0.0, 0.0],
        why="All went well in one trial of one.",
    )
    two = [(["Tents: 30 days."], "My tents?", False), (["Boots: 9 days."], "My tents?", True)]
    yield agree(
        risks,
        two,
        ("tents", "My tents?"),
        ("tents", "My boots?"),
        ("days", "My tents?"),
        ("boots", "My tents?"),
        ("Tents and boots", "My tents?"),
        expected=[0.75, 0.5, 1.5 / 3, 0.25, 0.75],
        why="A word that the question has, too, is counted apart from the same word where the question lacks it; a "
        "word's risk "
        "is (wrong + mean) / (dropped + 1), and a sentence has that of its riskiest word.",
    )
    same = [(["Go. ", "Go on."], "?", False), ([], "?", True), (["GO"], "?", True)]
    yield agree(
        risks,
        same,
        ("go", "?"),
        expected=[(1 + 1 / 3) / 3],
        why="In one trial a word counts once, in however many sentences it was dropped; and capitals do not matter.",
    )
    nouns = ("tent", "boots", "rope", "stove", "kayak")
    for _ in range(6):
        needed, trials = "window", []
        sentences = [
            *(f"Return {needed} {noun} {rng.randrange(10, 99)} days." for noun in nouns),
            *(f"The {rng.choice('ABC')} store has {rng.randrange(9)} places." for _ in range(4)),
        ]
        for _ in range(60):
            noun = rng.choice(nouns)
            gone = rng.sample(sentences, rng.randrange(1, 5))
            trials.append((gone, f"My {noun}?", not any(noun in sentence for sentence in gone)))
        asked = [(sentence, f"My {rng.choice(nouns)}?") for sentence in sentences]
        own = Compressor(0.9)
        own.learn(trials)
        yield agree(risks, trials, *asked, expected=[own.risk(*one) for one in asked])


def _words(text: str) -> int:
    return len(text.split())


def _taught(answer: Any) -> Any:
    """A compressor to which each word has about its risk: so many of a hundred trials without it went wrong."""
    made = answer(0.9)
    for (word, question), risk in _RISKS.items():
        made.learn([([word], question, i >= round(100 * risk)) for i in range(100)])
    made.learn([(["a b c d x one two three four five"], question, True) for question in (_ASKED, "") for _ in range(100)])
    return made


_ASKED = "My tent?"
_RISKS = {
    ("alpha", _ASKED): 0.9,
    ("beta", _ASKED): 0.6,
    ("gamma", _ASKED): 0.3,
    ("delta", _ASKED): 0.1,
    ("store", _ASKED): 0.0,
    ("tent", _ASKED): 0.95,
    ("tent", ""): 0.05,
}
_PLANTED = ("alpha", "beta", "gamma", "delta", "store", "tent")


def _shrink(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def shrunk(text: str, target: int, question: str = _ASKED) -> Any:
        kept, gone = _taught(answer).shrink(text, question, target, _words)
        return kept, [sentence for sentence, _ in gone]

    for text, target, expected, why in (
        ("Alpha one. Beta two. Gamma three.", 6, ("Alpha one. Beta two. Gamma three.", []), "It fits as it is."),
        ("Gamma one. Alpha two. Beta three.", 4, ("Alpha two. Beta three.", ["Gamma one. "]), "What is missed least goes."),
        ("Gamma a. Alpha b. Beta c.", 2, ("Alpha b. ", ["Gamma a. ", "Beta c."]), "What goes is told in the text's order."),
        ("Store a. Store b. Store c.", 4, ("Store a. Store b. ", ["Store c."]), "Of equals, the first stay."),
        ("Delta a b c d. Gamma a. Alpha b.", 4, ("Gamma a. Alpha b.", ["Delta a b c d. "]), "The riskiest come in first."),
        ("Gamma a b c d. Delta a. Alpha b.", 4, ("Delta a. Alpha b.", ["Gamma a b c d. "]), "Gamma has no room, Delta has."),
        ("Never store. Alpha two.", 2, ("Never store. ", ["Alpha two."]), "A denial stays, whatever its words' risk."),
        ("Alpha. Beta.", 0, ("", ["Alpha. ", "Beta."]), "Nothing has to stay."),
        ("Alpha a. Tent b.", 2, ("Tent b.", ["Alpha a. "]), "The question asks for the tent."),
    ):
        yield agree(shrunk, text, target, expected=expected, why=why)
    yield agree(shrunk, "Store a. Tent b.", 2, "", expected=("Tent b.", ["Store a. "]), why="Nobody asks for the tent.")
    yield agree(shrunk, "Boots a. Tent b.", 2, "", expected=("Boots a. ", ["Tent b."]), why="Of boots nothing is known yet.")
    text = "Alpha one. Never say that. Delta two. We must ask. Store."
    gone = call(_taught(answer).shrink, text, _ASKED, 8, _words)[1]
    yield equals("what was dropped, and each one's risk", gone, _taught(Compressor).shrink(text, _ASKED, 8, _words)[1])
    yield agree(shrunk, text, 6, expected=("Never say that. We must ask. ", ["Alpha one. ", "Delta two. ", "Store."]))
    for target in (5, 0):
        try:
            got: object = _taught(answer).shrink(text, _ASKED, target, _words)
        except ValueError as error:
            got = str(error)
        named = isinstance(got, str) and "6" in re.findall(r"\d+", got)
        yield holds(
            f"a ValueError that says that 6 tokens are needed, for a target of {target}", named, given=text, actual=got
        )
    model = _taught(Compressor)
    for _ in range(15):
        text, count = _drawn(rng), rng.choice((_words, len))
        needed = count("".join(part for part in model.sentences(text) if model.stays(part)))
        target = rng.randrange(needed, count(text) + 1)
        got = call(_taught(answer).shrink, text, _ASKED, target, count)
        yield equals(f"{text!r} in {target} by {count.__name__}", got, model.shrink(text, _ASKED, target, count))


def _drawn(rng: random.Random) -> str:
    """A text of planted words, some of which forbid that their sentence is cut."""
    return "".join(
        f"{rng.choice((*_PLANTED, 'never', 'must')).capitalize()} {'x ' * rng.randrange(4)}{rng.choice('abcd')}. "
        for _ in range(rng.randrange(3, 12))
    )


def _calibrate(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    for confidence, right, asked, expected, why in (
        (0.95, 0, 10, 0.0, "None was right: perhaps none ever is."),
        (0.5, 1, 1, 0.5, "One right answer is an even bet where half of all are right."),
        (0.75, 2, 2, 0.5, "Two right answers: a chance of 0.5² where half of all are right."),
        (0.95, 100, 100, 0.05**0.01, "The rule of three: about 1 − 3/n where all were right."),
    ):
        yield agree(answer(0.9, confidence).lower, right, asked, expected=expected, rel=1e-6, why=why)
    yield agree(answer(0.9).lower, 1, 1, expected=0.05, rel=1e-6, why="Unless it is told otherwise, it is 95 % confident.")
    for _ in range(12):
        asked, confidence = rng.randrange(2, 500), rng.choice((0.8, 0.9, 0.95, 0.99))
        right = max(1, asked - rng.choice((0, 1, 2, rng.randrange(asked))))
        got = call(answer(0.9, confidence).lower, right, asked)
        number = isinstance(got, (int, float)) and 0 < got < 1
        chance = float(binom.sf(right - 1, asked, got)) if number else math.nan
        yield holds(
            "were just this share right, so many right answers would be an accident of exactly the probability allowed",
            number and math.isclose(chance, 1 - confidence, rel_tol=1e-4),
            given=f"{right} of {asked}, {confidence}",
            expected=f"a chance of {1 - confidence:.2f}",
            actual=f"{got!r}, with {chance:.4f}",
        )

    def rate(graded: Mapping[float, tuple[int, int]], floor: float, confidence: float = 0.95) -> Any:
        made = answer(floor, confidence)
        said = made.calibrate(graded)
        return said if said is None or made.rate == said else f"returned {said}, and rate {made.rate}"

    clean, poor = (100, 100), (80, 100)
    for graded, floor, confidence, expected, why in (
        ({0.5: clean, 0.8: clean, 0.3: poor}, 0.9, 0.95, 0.5, "The lowest that proves it, in whatever order they come."),
        (
            {0.5: clean, 0.8: poor, 0.9: clean},
            0.9,
            0.95,
            0.9,
            "0.5 comes behind one that failed: chance may have smiled on it.",
        ),
        ({0.9: poor, 0.5: clean}, 0.9, 0.95, 1.0, "The first one failed: nothing is cut."),
        ({}, 0.9, 0.95, 1.0, "Nothing was tried."),
        ({0.5: (20, 20)}, 0.9, 0.95, 1.0, "Twenty right answers cannot prove 90 %."),
        ({0.5: (1, 1)}, 0.0, 0.95, 0.5, "A floor of 0 holds always."),
        ({0.5: (0, 1), 0.25: (0, 4)}, 0.0, 0.95, 0.25, "A floor of 0 holds always."),
    ):
        yield agree(rate, graded, floor, confidence, expected=expected, why=why)
    made = answer(0.9)
    yield equals("the rate before any calibration", made.rate, 1.0)
    made.calibrate({0.5: clean})
    made.calibrate({0.5: poor})
    yield equals("the rate after a second calibration that proves nothing", made.rate, 1.0)
    for _ in range(8):
        graded = {round(0.1 * i, 1): (100 - rng.randrange(0, 4 + 3 * (9 - i)), 100) for i in rng.sample(range(1, 10), 6)}
        floor = rng.choice((0.8, 0.9, 0.95))
        yield agree(rate, graded, floor, expected=Compressor(floor).calibrate(graded))


def _cut(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def at(rate: float, text: str) -> Any:
        made = _taught(answer)
        made.rate = rate
        kept, gone = made.cut(text, _ASKED, _words)
        return kept, [sentence for sentence, _ in gone]

    text = "Tent one. Alpha two. Beta three. Gamma four. Store five."
    parts = Compressor(0.9).sentences(text)
    for rate, left in ((1.0, 5), (0.8, 4), (0.6, 3), (0.55, 3), (0.5, 2), (0.2, 1)):
        yield agree(at, rate, text, expected=("".join(parts[:left]), parts[left:]), why=f"{rate} of 10 tokens, rounded.")
    stuck = "Alpha one. Never do that now. Beta two."
    yield agree(
        at,
        0.1,
        stuck,
        expected=("Never do that now. ", ["Alpha one. ", "Beta two."]),
        why="What must stay has more than the rate allows: all else goes.",
    )
    made = answer(0.9)
    yield agree(made.cut, text, "", _words, expected=(text, []), why="Before it is calibrated, nothing is cut.")
    for _ in range(12):
        text, rate, model = _drawn(rng), rng.choice((0.3, 0.5, 0.7, 0.9)), _taught(Compressor)
        model.rate = rate
        kept, gone = model.cut(text, _ASKED, _words)
        yield agree(at, rate, text, expected=(kept, [sentence for sentence, _ in gone]))


# --- near misses -------------------------------------------------------------------------------------------------------


class _SplitsOnDots(Compressor):
    """Takes every full stop for an end, also that of “e.g.” and of “1.50”."""

    def sentences(self, text: str) -> list[str]:
        return [part for part in re.split(r"(?<=[.!?])", text) if part]


class _OnlyNot(Compressor):
    """Knows one word for a denial."""

    def stays(self, sentence: str) -> str:
        return "denial" if re.search(r"\bnot\b", sentence.casefold()) else "marked" if "<keep>" in sentence else ""


class _BlindToTheQuestion(Compressor):
    """Counts words whatever is asked: a line that one case in twelve needs is then needed a twelfth by each."""

    def keys(self, sentence: str, question: str) -> set[tuple[str, bool]]:
        return {(word, False) for word, _ in super().keys(sentence, question)}


class _Average(Compressor):
    """A sentence's risk is the mean of its words', so that one word that decides is watered down."""

    def risk(self, sentence: str, question: str) -> float:
        mean = self.failed / self.trials if self.trials else 1.0
        found = [(self.wrong[key] + mean) / (self.dropped[key] + 1) for key in self.keys(sentence, question)]
        return sum(found) / len(found) if found else 0.0


class _CountsEachTime(Compressor):
    """Counts a word as often as it was dropped, not once a trial."""

    def learn(self, trials: Sequence[Trial]) -> None:
        for sentences, question, right in trials:
            for sentence in sentences:
                self.dropped.update(self.keys(sentence, question))
                self.wrong.update(self.keys(sentence, question) if not right else ())
            self.trials += 1
            self.failed += not right


class _FromTheFront(Compressor):
    """Plain truncation: drops what comes last, whatever its risk."""

    def shrink(self, text: str, question: str, target: int, count: Count) -> tuple[str, list[tuple[str, float]]]:
        parts = self.sentences(text)
        gone = [i for i, part in enumerate(parts) if not self.stays(part)]
        out: list[int] = []
        while count("".join(p for i, p in enumerate(parts) if i not in out)) > target and len(out) < len(gone):
            out.append(gone[-1 - len(out)])
        kept = "".join(p for i, p in enumerate(parts) if i not in out)
        if count(kept) > target:
            raise ValueError(f"{count(kept)} tokens are needed")
        return kept, [(parts[i], self.risk(parts[i], question)) for i in sorted(out)]


class _StopsAtTheFirst(Compressor):
    """Stops where one sentence has no room, though a shorter one would have."""

    def shrink(self, text: str, question: str, target: int, count: Count) -> tuple[str, list[tuple[str, float]]]:
        kept, gone = super().shrink(text, question, target, count)
        full = max((risk for _, risk in gone), default=0.0)
        parts = self.sentences(text)
        out = [i for i, p in enumerate(parts) if not self.stays(p) and gone and self.risk(p, question) <= full]
        fewer = "".join(p for i, p in enumerate(parts) if i not in out)
        return (fewer, [(parts[i], self.risk(parts[i], question)) for i in out]) if gone else (kept, gone)


class _TakesTheShare(Compressor):
    """Takes the share that was right for the share that will be."""

    def lower(self, right: int, asked: int) -> float:
        return right / asked


class _TwoSided(Compressor):
    """The lower end of a two-sided interval: dearer than it need be."""

    def lower(self, right: int, asked: int) -> float:
        return float(beta.ppf((1 - self.confidence) / 2, right, asked - right + 1)) if right else 0.0


class _TheLowest(Compressor):
    """Takes the lowest rate that fits, however many above it failed."""

    def calibrate(self, graded: Mapping[float, tuple[int, int]]) -> float:
        self.rate = min((rate for rate, seen in graded.items() if self.lower(*seen) >= self.floor), default=1.0)
        return self.rate


class _RefusesWhatMustStay(Compressor):
    """Stops the caller where what must stay is more than the rate allows."""

    def cut(self, text: str, question: str, count: Count) -> tuple[str, list[tuple[str, float]]]:
        return self.shrink(text, question, round(self.rate * count(text)), count)


BUILD = Exercise(
    id="09.5",
    title="A compressor with a floor",
    minutes=50,
    difficulty=3,
    answer="Compressor",
    stages=(
        Stage(
            "a prompt in sentences",
            _sentences,
            (
                "`re.finditer` with three kinds of ends: a mark with its closing quotes and white space; 。！？ with or "
                "without "
                "white space; a line break. Note where each match ends.",
                "Leave an end out where the next character is a small letter or a digit (`str.islower`, `str.isdigit`), "
                "but for "
                "line breaks and 。; and where it lies between <keep> and </keep>.",
                "Cut the text at the ends that are left. Before the first word there is no end.",
            ),
        ),
        Stage(
            "what must stay",
            _stays,
            (
                "Compare whole words in small letters: `set(re.findall(r'\\w+', sentence.casefold()))`.",
                "The short forms end in n't, with either apostrophe, at the end of a word.",
                "In this order: marked, denial, rule.",
            ),
        ),
        Stage(
            "what is missed",
            _learn,
            (
                "Count pairs (word, whether the question has it): in how many trials it was dropped, and how many of these "
                "were answered wrongly. A set of the pairs of one trial counts each once.",
                "The mean is the share of all trials that were answered wrongly; 1 where there was none.",
                "Risk of a pair: (wrong + mean) / (dropped + 1). Of a sentence: its pairs' highest; 0 without words.",
            ),
        ),
        Stage(
            "to a target, and not further",
            _shrink,
            (
                "Begin with all gone that may go. If `count` of what is left is more than the target, raise `ValueError` "
                "with it.",
                "Then go through what is gone, the riskiest first and of equals the first, and put back what still fits.",
                "Count the joined text each time: tokens of parts do not add up to those of the whole.",
            ),
        ),
        Stage(
            "a floor to answer for",
            _calibrate,
            (
                "Were exactly the share p right, `binom.sf(right - 1, asked, p)` would be the chance of so many right "
                "answers; "
                "the bound is the p at which it is 1 − confidence: `beta.ppf(1 - confidence, right, asked - right + 1)`.",
                "From the highest rate down: where the bound is below the floor, stop; else that is the rate so far.",
            ),
        ),
        Stage(
            "a prompt at that rate",
            _cut,
            ("The target: the rate times the text's tokens, rounded, or the tokens of what must stay, whichever is more.",),
        ),
    ),
    reference=Compressor,
    wrong=(
        _SplitsOnDots,
        _OnlyNot,
        _BlindToTheQuestion,
        _Average,
        _CountsEachTime,
        _FromTheFront,
        _StopsAtTheFirst,
        _TakesTheShare,
        _TwoSided,
        _TheLowest,
        _RefusesWhatMustStay,
    ),
    limit_s=30.0,
    equivalent={
        "line 23: start < at < end -> start < at <= end": "a mark ends in “>”, and no sentence does",
        "line 41: word in asked -> word not in asked": "the two kinds of a word are only told from one another",
    },
)
