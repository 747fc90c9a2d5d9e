"""Chapter 06: streaming, and what its end saves."""
# ruff: noqa: ARG001, ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from labkit.portal import PORTAL
from labkit.streaming import Repeating
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b06 import BUILD
from labkit.workbook.chapters.q06 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds


@dataclass(frozen=True)
class Feature:
    """What is known of a feature whose readers sometimes leave an answer before its end.

    Times start at the first token. `left`: answers a month that their readers leave, on average after `leaves_s`.
    `paid`: what the feature pays for, "tokens" that were written until the stream was closed, "whole answers" whoever
    leaves, or "GPUs" that are rented by the month. `usd`: dollars per million output tokens.
    """

    name: str
    answer: int
    tokens_per_s: float
    left: int
    leaves_s: float
    paid: str
    usd: float


def worth_a_button(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Names of the features whose stop button takes at least `least` dollars off the month's invoice, the most first."""
    saved = {
        one.name: one.left * (one.answer - one.tokens_per_s * (one.leaves_s + notices_s)) * one.usd / 1e6
        for one in features
        if one.paid == "tokens"
    }
    return sorted((name for name, usd in saved.items() if usd >= least), key=lambda name: -saved[name])


def _check_worth(answer: Callable[..., list[str]], rng: random.Random) -> Iterator[Outcome]:
    chat, desk = PORTAL.assistant, PORTAL.desk
    answers = PORTAL.sessions * chat.turns
    long = Feature("essays", 1_000, 50, 100_000, 4, "tokens", 10)
    yield agree(answer, [long], 0, 100, expected=["essays"], why="200 of 1,000 tokens are written: 800 million are not.")
    yield agree(
        answer,
        [Feature("desk", desk.answer, 50, PORTAL.questions, 2.5, "tokens", 10)],
        0,
        1,
        expected=[],
        why=f"All {desk.answer} tokens are written when the reader leaves, and nothing can be taken back.",
    )
    yield agree(
        answer,
        [replace(long, paid="whole answers")],
        0,
        100,
        expected=[],
        why="Who pays for whole answers saves nothing by a stop.",
    )
    yield agree(
        answer,
        [Feature("assistant", chat.answer, chat.tokens_per_s, answers, 2.5, "GPUs", 10)],
        0,
        100,
        expected=[],
        why="The GPUs are rented whoever leaves. Room on them is no money.",
    )
    yield agree(answer, [long], 16, 100, expected=[], why="By the time that the engine hears of it, the answer is whole.")
    yield agree(answer, [long], 1, 750, expected=["essays"], why="250 tokens are written: exactly 750 dollars are saved.")
    many = replace(long, left=200_000_000)
    yield agree(answer, [many], 1, 1_500_001, expected=[], why="1,500,000 dollars are less than the least.")
    cheap, dear = replace(long, name="cheap", usd=2), replace(long, name="dear", usd=20)
    yield agree(answer, [cheap, long, dear], 0, 100, expected=["dear", "essays", "cheap"], why="The most dollars first.")
    yield agree(answer, [], 0, 100, expected=[])
    for _ in range(25):
        features = [
            Feature(
                f"feature {i + 1}",
                rng.randrange(10, 2_000),
                rng.choice((20, 50, 120, 300)),
                rng.randrange(1_000, 200_000),
                rng.uniform(0.2, 20),
                rng.choice(("tokens", "tokens", "tokens", "whole answers", "GPUs")),
                rng.choice((0.4, 2.0, 10.0)),
            )
            for i in range(rng.randrange(1, 7))
        ]
        notices_s, least = rng.choice((0.0, 0.1, 1.0)), rng.choice((5.0, 100.0, 400.0))
        yield agree(answer, features, notices_s, least, expected=worth_a_button(features, notices_s, least))


def whole_items(pieces: Iterable[str]) -> Iterator[str]:
    """The items of a streamed list, each as soon as its line is whole; an item is a line that begins with "- "."""
    line = ""
    for piece in pieces:
        *whole, line = (line + piece).split("\n")
        for each in whole:
            if each.startswith("- "):
                yield each[2:].strip()
    if line.startswith("- "):
        yield line[2:].strip()


def _when(answer: Callable[..., Iterable[object]], pieces: Sequence[str]) -> object:
    """What `answer` yields from `pieces`, each with the number of pieces taken by then; a blank answer's result as it is."""
    taken = 0

    def feed() -> Iterator[str]:
        nonlocal taken
        for piece in pieces:
            taken += 1
            yield piece

    out: Any = answer(feed())
    return out if out is None or out is ... else [(found, taken) for found in out]


def _cut(whole: str, rng: random.Random, at_most: int) -> list[str]:
    """`whole` cut into pieces of 0 to `at_most` characters."""
    places = [0]
    while places[-1] < len(whole):
        places.append(min(len(whole), places[-1] + rng.randrange(0, at_most + 1)))
    return [whole[a:b] for a, b in pairwise(places)]


_GOODS = ("tent", "stove", "rope", "kayak", "boots, size 42", "lamp - the red one", "mug", "compass: brass", "blanket")


def _check_items(answer: Callable[[Iterable[str]], Iterable[str]], rng: random.Random) -> Iterator[Outcome]:
    def shown(pieces: list[str]) -> object:
        return _when(answer, pieces)

    yield agree(
        shown,
        ["Sure:\n- ten", "t\n- st", "ove\n"],
        expected=[("tent", 2), ("stove", 3)],
        why="(item, pieces taken by then). “tent” is whole with the second piece, which holds its line's end.",
    )
    yield agree(shown, ["- rope\n- mu", "g"], expected=[("rope", 1), ("mug", 2)], why="The last line may have no end.")
    yield agree(shown, ["- a\n- b\n", "- c"], expected=[("a", 1), ("b", 1), ("c", 2)])
    for _ in range(15):
        lines = [rng.choice(("Here is your order:", "Of course!", "What you need - in short:"))] * rng.randrange(0, 2)
        lines += [f"- {rng.choice(_GOODS)}" for _ in range(rng.randrange(1, 8))]
        if rng.random() < 0.5:
            lines.insert(rng.randrange(len(lines)), "")
        text = "\n".join(lines) + rng.choice(("", "\n", "\n\nAnything else?"))
        pieces = _cut(text, rng, rng.choice((1, 4, 12, 60)))
        yield agree(shown, pieces, expected=_when(whole_items, pieces))


def going_in_circles(text: str) -> bool:
    """Whether the text ends with one passage four times in a row, at least 60 characters in all."""
    for size in range(15, len(text) // 4 + 1):
        passage = text[-size:]
        if passage.strip() and text.endswith(passage * 4):
            return True
    return False


_WORDS = ("returns", "are", "free", "within", "thirty", "days", "the", "tent", "is", "dry", "we", "ship", "on", "Monday")


def _sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words)).capitalize() + ". "


def _good(rng: random.Random) -> str:
    """An answer that must be read to its end. It may repeat itself, but not four times in a row over 60 characters."""
    kind = rng.choice(("prose", "refrain", "rule", "table", "zeros", "list"))
    around = _sentence(rng, 9), _sentence(rng, 8)
    if kind == "refrain":
        middle = _sentence(rng, rng.randrange(3, 12)) * 3
    elif kind == "rule":
        middle = "\n" + "-" * rng.randrange(20, 51) + "\n"
    elif kind == "table":
        columns = rng.randrange(2, 6)
        row = "| " + " | ".join(rng.choices(_WORDS, k=columns)) + " |\n"
        middle = "\n" + row + "|---" * columns + "|\n" + row * 2
    elif kind == "zeros":
        middle = "[" + ", ".join(["0"] * rng.randrange(5, 16)) + "] "
    elif kind == "list":
        middle = "\n" + "".join(f"- {i} x {rng.choice(_WORDS)}, in stock\n" for i in range(1, rng.randrange(4, 8)))
    else:
        middle = "".join(_sentence(rng, rng.randrange(4, 12)) for _ in range(4))
    return around[0] + middle + around[1]


def _stopped_at(policy: Callable[[str], object], pieces: Sequence[str]) -> int | None:
    """Characters after which `policy`, asked after each piece, stops the answer; None if it never does."""
    text = ""
    for piece in pieces:
        text += piece
        if call(policy, text):
            return len(text)
    return None


def _check_circles(answer: Callable[[str], bool], rng: random.Random) -> Iterator[Outcome]:
    once = "We ship on Mondays. "
    yield agree(answer, "Yes. " + once * 4, expected=True, why="The fourth time in a row: it will not end by itself.")
    yield agree(answer, once * 4, expected=True, why="Nothing else stands before it: it is in circles all the same.")
    yield agree(answer, "Yes. " + once * 3, expected=False, why="Three times is a refrain.")
    lead = "The tent is dry, the ropes are new and the stove burns well. "
    yield agree(answer, lead + once * 3, expected=False, why="Three times is a refrain, whatever stands before it.")
    yield agree(answer, "Yes. " + "Ask us by day. " * 4, expected=True, why="Four times 15 characters are 60.")
    yield agree(answer, "Yes. " + "Ask us by day " * 4, expected=False, why="Four times 14 characters are 56, and 60 count.")
    yield agree(answer, "Total:" + " " * 80, expected=False, why="Blanks alone are no passage.")
    yield agree(answer, "a | b\n" + "-" * 50, expected=False, why="A rule of dashes is no loop yet.")
    lab = Repeating()
    best = mine = 0
    for _ in range(12):
        good = _good(rng)
        cut = _stopped_at(answer, _cut(good, rng, 12))
        yield holds(
            "a good answer is never cut",
            cut is None,
            given=good,
            expected="read to its end",
            actual=""
            if cut is None
            else f"stopped after {cut} of {len(good)} characters: …{good[max(0, cut - 60) : cut]!r}",
        )
        passage = rng.choice((_sentence(rng, rng.randrange(3, 14)), rng.choice(_WORDS) + ", "))
        whole = _good(rng) + passage * (900 // len(passage))
        pieces = _cut(whole, rng, 12)
        at = _stopped_at(answer, pieces)
        yield holds(
            "an answer that goes in circles is stopped",
            at is not None,
            given=whole,
            expected="stopped",
            actual="read to its end",
        )
        mine += len(whole) - (at or len(whole))
        best += len(whole) - (_stopped_at(lab, pieces) or len(whole))
    yield holds(
        "it saves nine tenths of what the lab's own policy saves",
        mine >= 0.9 * best,
        given="12 endless answers of about 1,000 characters",
        expected=f"at least {0.9 * best:.0f} characters not generated",
        actual=f"{mine} characters",
    )


# --- near misses ------------------------------------------------------------------------------------------------------


def _whoever_pays(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Near miss: prices every feature by the token."""
    return worth_a_button([replace(one, paid="tokens") for one in features], notices_s, least)


def _at_once(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Near miss: believes that the engine stops when the reader leaves."""
    return worth_a_button(features, 0.0, least)


def _a_share_of_all(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Near miss: the whole answer is saved."""
    return worth_a_button([replace(one, leaves_s=0.0) for one in features], 0.0, least)


def _most_leavers_first(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Near miss: sorts by who leaves most."""
    kept = worth_a_button(features, notices_s, least)
    return [one.name for one in sorted(features, key=lambda one: -one.left) if one.name in kept]


def _any_saving(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Near miss: does not ask whether it is worth it."""
    return worth_a_button(features, notices_s, 1e-9)


def _each_piece_alone(pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        for line in piece.split("\n"):
            if line.startswith("- "):
                yield line[2:].strip()


def _when_all_is_there(pieces: Iterable[str]) -> Iterator[str]:
    for line in "".join(pieces).split("\n"):
        if line.startswith("- "):
            yield line[2:].strip()


def _without_the_last(pieces: Iterable[str]) -> Iterator[str]:
    line = ""
    for piece in pieces:
        *whole, line = (line + piece).split("\n")
        for each in whole:
            if each.startswith("- "):
                yield each[2:].strip()


def _with_the_next_one(pieces: Iterable[str]) -> Iterator[str]:
    """Near miss: shows an item only when the next one begins."""
    text, shown = "", 0
    for piece in pieces:
        text += piece
        items = [line[2:].strip() for line in text.split("\n") if line.startswith("- ")]
        yield from items[shown : max(shown, len(items) - 1)]
        shown = max(shown, len(items) - 1)
    yield from [line[2:].strip() for line in text.split("\n") if line.startswith("- ")][shown:]


_STRIPPED = "the second character of the mark is a blank, which strip takes off as well"
_TOO_LONG = "a passage of more than a quarter of the text cannot stand in it four times"

CHAPTER = Chapter(
    number="06",
    name="streaming_first_token",
    title="Streaming: the first useful token",
    predictions=("06.think", "06.stop", "06.slow"),
    claims=("06.stops",),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("answers", "metrics", "tokenizer"),
    exercises=(
        Exercise(
            id="06.1",
            title="Where a stop button pays",
            minutes=6,
            difficulty=2,
            answer="worth_a_button",
            check=_check_worth,
            reference=worth_a_button,
            hints=(
                "Who pays for what is left? Only one of the three kinds of `paid` pays less when a stream is closed.",
                "The engine writes `tokens_per_s` until it hears of the close: for `leaves_s + notices_s`.",
                "What is left may be below zero: the answer was over. Such a feature saves nothing.",
            ),
            wrong=(_whoever_pays, _at_once, _a_share_of_all, _most_leavers_first, _any_saving),
        ),
        Exercise(
            id="06.2",
            title="Show the first useful piece soonest",
            minutes=8,
            difficulty=2,
            answer="whole_items",
            check=_check_items,
            reference=whole_items,
            hints=(
                "Pieces end anywhere. Keep what is behind the last line end until the next piece comes.",
                '`*whole, line = (line + piece).split("\\n")` leaves the unfinished line in `line`.',
                "When the pieces are over, the unfinished line is finished.",
            ),
            wrong=(_each_piece_alone, _when_all_is_there, _without_the_last, _with_the_next_one),
            equivalent={"line 8: 2: -> 1:": _STRIPPED, "line 10: 2: -> 1:": _STRIPPED},
        ),
        Exercise(
            id="06.3",
            title="A cancel policy",
            minutes=10,
            difficulty=2,
            answer="going_in_circles",
            check=_check_circles,
            reference=going_in_circles,
            hints=(
                "If a passage of `size` characters stands at the end four times, `text.endswith(text[-size:] * 4)`.",
                "Try every size. Four times 15 characters are 60: smaller passages show up as multiples of themselves.",
                "A size can be at most a quarter of the text.",
            ),
            wrong=(
                lambda text: False,
                lambda text: len(text) > 600,
                lambda text: len(text) > 40 and text[-40:] in text[:-1],
                lambda text: any(text.endswith(text[-size:] * 4) for size in range(1, len(text) // 4 + 1)),
                lambda text: any(text.endswith(text[-size:] * 2) for size in range(15, len(text) // 2 + 1)),
                lambda text: any(text.endswith(text[-size:] * 12) for size in range(15, len(text) // 12 + 1)),
            ),
            equivalent={
                "line 3: range(15, len(text) // 4 + 1) -> range(15, len(text) // 4 + 1 + 1)": _TOO_LONG,
                "line 3: len(text) // 4 -> len(text) // 3": _TOO_LONG,
                "line 3: len(text) // 4 + 1 -> len(text) // 4 + 2": _TOO_LONG,
            },
        ),
        BUILD,
    ),
)
