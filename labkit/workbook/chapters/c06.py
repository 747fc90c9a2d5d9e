"""Chapter 06: streaming, and what its end saves."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from labkit.streaming import Decoder, Repeating, buffered, frame, streamed
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds.b06 import BUILD
from labkit.workbook.chapters.q06 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds

StartAndFinish = tuple[float, float]


def two_readings(first: float, gap: float, words: int, rate: float) -> tuple[StartAndFinish, StartAndFinish]:
    """(start, finish) of reading an answer that is streamed, and of one that is shown when whole, in seconds since the send.

    Words arrive every `gap` seconds from `first` on; the reader reads `rate` words per second.
    """
    last = first + (words - 1) * gap
    return (first, max(first + words / rate, last + 1 / rate)), (last, last + words / rate)


def _check_readings(answer: Callable[..., tuple[StartAndFinish, StartAndFinish]], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, 1.0, 0.0, 40, 4.0, expected=((1.0, 11.0), (1.0, 11.0)), why="All words come at once: no difference.")
    yield agree(
        answer,
        0.5,
        0.1,
        41,
        4.0,
        expected=((0.5, 10.75), (4.5, 14.75)),
        why="The engine is faster than the reader, who reads from the first word on and never waits.",
    )
    yield agree(
        answer,
        0.5,
        1.0,
        11,
        4.0,
        expected=((0.5, 10.75), (10.5, 13.25)),
        why="The engine is slower than the reader, who is done one word's reading after the last word arrives.",
    )
    for _ in range(25):
        first, gap = rng.uniform(0.05, 3), rng.choice((rng.uniform(0.001, 0.1), rng.uniform(0.1, 1)))
        words, rate = rng.randrange(1, 500), rng.uniform(1, 8)
        arrivals = [first + i * gap for i in range(words)]
        live, late = streamed(arrivals, rate), buffered(arrivals, rate)
        yield agree(answer, first, gap, words, rate, expected=((live.start_s, live.finish_s), (late.start_s, late.finish_s)))


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


Piece = TypeVar("Piece", str, bytes)


def _when(answer: Callable[..., Iterable[object]], pieces: Sequence[Piece]) -> object:
    """What `answer` yields from `pieces`, each with the number of pieces taken by then; a blank answer's result as it is."""
    taken = 0

    def feed() -> Iterator[Piece]:
        nonlocal taken
        for piece in pieces:
            taken += 1
            yield piece

    out = answer(feed())
    return out if out is None or out is ... else [(found, taken) for found in out]


def _cut(whole: Piece, rng: random.Random, at_most: int) -> list[Piece]:
    """`whole` cut into pieces of 0 to `at_most` characters or bytes."""
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


def messages(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """(id, data) of each event of a stream of Server-Sent Events, whose bytes may be cut anywhere."""
    rest, id, data = b"", "", list[str]()
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for raw in lines:
            line = raw.decode().removesuffix("\r")
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield id, "\n".join(data)
                data = []
            elif name == "data":
                data.append(value)
            elif name == "id":
                id = value


def _wire(rng: random.Random, count: int) -> bytes:
    """Events as servers send them: some with comments between, ids, data of several lines, or other alphabets."""
    out = []
    for i in range(count):
        data = rng.choice(('{"text": "12 €"}', " indented", "two\nlines", "déjà vu", "帐篷", "a: b", "", "x" * 40))
        event = frame(
            data,
            event=rng.choice(("", "chunk")),
            id=f"s:{i + 1}" if rng.random() < 0.7 else None,
            retry_ms=rng.choice((None, 50)),
        )
        out.append(rng.choice((b"", b"", b": keep-alive\n\n", b":\n")) + event)
    return b"".join(out)


def _check_messages(answer: Callable[[Iterable[bytes]], Iterable[tuple[str, str]]], rng: random.Random) -> Iterator[Outcome]:
    def heard(pieces: list[bytes]) -> object:
        return _when(answer, pieces)

    yield agree(
        heard,
        [b"id: 1\ndata: Hel", b"lo\n\nid: 2\nda", b"ta: you\n", b"\n"],
        expected=[(("1", "Hello"), 2), (("2", "you"), 4)],
        why="((id, data), pieces taken by then). An empty line sends the event.",
    )
    yield agree(heard, [b"id: 1\ndata: a\n\ndata: b\n\n"], expected=[(("1", "a"), 1), (("1", "b"), 1)], why="An id stays.")
    yield agree(heard, [b"data: a\n\ndata: hal"], expected=[(("", "a"), 1)], why="An event that the end cuts never was.")
    euro = "data: 12 €\r\n\r\n".encode()
    yield agree(heard, [euro[:10], euro[10:]], expected=[(("", "12 €"), 2)], why="The cut goes through the euro sign.")
    for _ in range(20):
        wire = _wire(rng, rng.randrange(1, 7))
        if rng.random() < 0.4:
            wire = wire[: rng.randrange(len(wire))]
        pieces = _cut(wire, rng, rng.choice((1, 3, 20, 200)))
        decoder = Decoder()
        expected = [((m.id, m.data), i) for i, piece in enumerate(pieces, 1) for m in decoder.feed(piece)]
        yield agree(heard, pieces, expected=expected)
        # With CR LF, an answer may see an empty line at its CR or at its LF. Both are right, so the time is not checked.
        crlf = _cut(wire.replace(b"\n", b"\r\n"), rng, 20)
        yield agree(lambda pieces: list(answer(iter(pieces))), crlf, expected=[message for message, _ in expected])
    sent = [(f"s:{i}", rng.choice(_WORDS)) for i in range(1, 9)]
    for _ in range(8):
        wire = b"".join(frame(data, id=id) for id, data in sent)
        broken = _cut(wire[: rng.randrange(len(wire))], rng, 9)
        first = call(lambda pieces: list(answer(iter(pieces))), broken)
        seen = int(first[-1][0].rpartition(":")[2]) if first else 0
        back = _cut(b"".join(frame(data, id=id) for id, data in sent[seen:]), rng, 9)
        again = call(lambda pieces: list(answer(iter(pieces))), back)
        yield holds(
            "a reader who comes back with the last id has every event once",
            [tuple(m) for m in (*first, *again)] == sent,
            given=f"a line broken after {sum(map(len, broken))} bytes",
            expected=repr(sent),
            actual=repr([*first, *again]),
        )


# --- near misses ------------------------------------------------------------------------------------------------------


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


def _decoded_by_piece(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    yield from messages(piece.decode(errors="replace").encode() for piece in pieces)


def _with_the_unfinished(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    yield from messages(iter([*pieces, b"\n\n"]))


def _id_forgotten(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    last = ""
    for id, data in messages(pieces):
        yield ("" if id == last else id), data
        last = id


def _stripped(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    for id, data in messages(pieces):
        yield id, data.strip()


_STRIPPED = "the second character of the mark is a blank, which strip takes off as well"
_TOO_LONG = "a passage of more than a quarter of the text cannot stand in it four times"

CHAPTER = Chapter(
    number="06",
    name="streaming_first_token",
    title="Streaming: the first useful token",
    predictions=("06.think", "06.stop", "06.slow"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("answers", "metrics", "tokenizer"),
    exercises=(
        Exercise(
            id="06.1",
            title="Reading it streamed, reading it whole",
            minutes=5,
            difficulty=1,
            answer="two_readings",
            check=_check_readings,
            reference=two_readings,
            hints=(
                "The last word arrives at `first + (words - 1) * gap`. Shown whole, reading starts there.",
                "Streamed, one of two things is the slowest: the reader from the first word on, or the last word's arrival.",
                "Whoever waits for the last word must still read it: 1 / rate more.",
            ),
            wrong=(
                lambda first, gap, words, rate: (
                    (first, first + words / rate),
                    (first + (words - 1) * gap, first + (words - 1) * gap + words / rate),
                ),
                lambda first, gap, words, rate: (
                    (first, max(first + words / rate, first + (words - 1) * gap)),
                    (first + (words - 1) * gap, first + (words - 1) * gap + words / rate),
                ),
                lambda first, gap, words, rate: (
                    (first, first + (words - 1) * gap + words / rate),
                    (first + (words - 1) * gap, first + (words - 1) * gap + words / rate),
                ),
            ),
        ),
        Exercise(
            id="06.2",
            title="Show the first useful piece soonest",
            minutes=10,
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
            minutes=15,
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
        Exercise(
            id="06.4",
            title="Read a stream that breaks",
            minutes=20,
            difficulty=3,
            answer="messages",
            check=_check_messages,
            reference=messages,
            hints=(
                'Cut the bytes into lines before you decode them: no character of UTF-8 has the byte b"\\n" inside.',
                "Keep three things across pieces: the unfinished line, the data lines of the event so far, and the last id.",
                "At an empty line: hand out the data if there is any, joined with line ends, and forget it. Not the id.",
                "`line.partition(':')` splits name and value; a comment has an empty name. Take one space off the value.",
            ),
            wrong=(_decoded_by_piece, _with_the_unfinished, _id_forgotten, _stripped),
        ),
        BUILD,
    ),
)
