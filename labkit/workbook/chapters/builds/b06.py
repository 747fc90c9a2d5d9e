"""The long build of chapter 06: a reader of streamed answers that loses no byte and hides no end."""

from __future__ import annotations

import codecs
import json
import random
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

from labkit.request import EngineError, StreamIncomplete
from labkit.streaming import Decoder, frame
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, holds


class AnswerReader:
    """Reads one answer from the bytes of its stream, which may be cut anywhere.

    What has arrived is always there: `text`, `finish_reason` (None until the engine names it) and `usage` (empty until it
    is reported). `done` says whether `[DONE]` has come.
    """

    def __init__(self) -> None:
        self.text = ""
        self.finish_reason: str | None = None
        self.usage: dict[str, int] = {}
        self.done = False
        self._rest = b""  # the line that has not ended yet
        self._after_cr = False  # whether the last piece ended in CR: an LF that follows it ends no second line
        self._first = True
        self._event = ""
        self._data: list[str] = []

    def lines(self, piece: bytes) -> list[str]:
        """The lines that `piece` completes, without their ends."""
        if not piece:
            return []
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
        self._after_cr = piece.endswith(b"\r")
        parts = (self._rest + piece).splitlines(keepends=True)
        self._rest = parts.pop() if parts and not parts[-1].endswith((b"\r", b"\n")) else b""
        found = [part.rstrip(b"\r\n").decode(errors="replace") for part in parts]
        if found and self._first:
            found[0] = found[0].removeprefix("\ufeff")
            self._first = False
        return found

    def events(self, piece: bytes) -> list[tuple[str, str]]:
        """(event, data) of each event that `piece` completes."""
        found = []
        for line in self.lines(piece):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if self._data:
                    found.append((self._event or "message", "\n".join(self._data)))
                self._event, self._data = "", []
            elif name == "data":
                self._data.append(value)
            elif name == "event":
                self._event = value
        return found

    def feed(self, piece: bytes) -> str:
        """The text that `piece` brings; also takes down the finish reason, the usage and the end."""
        new = ""
        for event, data in self.events(piece):
            if self.done or data.strip() == "[DONE]":
                self.done = True
                break
            try:
                said = json.loads(data)
            except ValueError:
                said = {"error": "this is no JSON"}
            if event == "error" or said.get("error"):
                raise EngineError(f"after {len(self.text)} characters came an error, or what cannot be read: {data}")
            self.usage = said.get("usage") or self.usage
            for choice in said.get("choices") or []:
                more = (choice.get("delta") or {}).get("content") or ""
                self.text += more
                new += more
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
        return new

    def close(self) -> str:
        """The whole text. Raises `StreamIncomplete` where the stream was cut before the answer's end."""
        if not self.done and self.finish_reason is None:
            raise StreamIncomplete(f"the stream was cut after {len(self.text)} characters; they are kept in `text`")
        return self.text


# --- what is put on the line -------------------------------------------------------------------------------------------


def delta(text: str | None = None, *, finish: str | None = None, usage: dict[str, int] | None = None) -> dict[str, Any]:
    """One event of an OpenAI-compatible stream: a piece of text, the reason of the end, or (without a choice) the usage."""
    if usage is not None:
        return {"choices": [], "usage": usage}
    return {"choices": [{"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}]}


def on_the_wire(texts: Sequence[str], usage: dict[str, int]) -> bytes:
    """The bytes in which an OpenAI-compatible engine sends an answer made of `texts`."""
    said = [delta(""), *map(delta, texts), delta(finish="stop"), delta(usage=usage)]
    return b"".join(frame(json.dumps(each, ensure_ascii=False)) for each in said) + frame("[DONE]")


def cut_evenly(wire: bytes, size: int) -> list[bytes]:
    """`wire` in pieces of `size` bytes, as a network hands them over."""
    return [wire[at : at + size] for at in range(0, len(wire), size)]


_TEXTS = (
    "Hello",
    " 12 €",
    "\n- 帐篷",
    " déjà",
    "\n\n",
    " 👍🏽",
    ' "quoted"',
    " a: b",
    "\\",
    " data: x",
    "\u2028next",
    " [DONE]",
)


def _answer(rng: random.Random) -> tuple[list[str], dict[str, int]]:
    texts = rng.choices(_TEXTS, k=rng.randrange(1, 9))
    return texts, {"prompt_tokens": rng.randrange(1, 900), "completion_tokens": len(texts)}


def _dressed(wire: bytes, rng: random.Random) -> bytes:
    """The same events as another server would send them: other line ends, a BOM, comments, the JSON over two lines."""
    events = wire.split(b"\n\n")[:-1]
    out = []
    for event in events:
        if event.startswith(b'data: {"choices": [{') and rng.random() < 0.3:
            event = event.replace(b'[{"index"', b'[{\ndata:"index"', 1)
        out.append(rng.choice((b"", b": keep-alive\n\n", b":\n", b"retry: 9\nid: 7\n")) + event + b"\n\n")
    whole = b"".join(out).replace(b"\n", rng.choice((b"\n", b"\r\n", b"\r")))
    return rng.choice((b"", codecs.BOM_UTF8)) + whole


def _cut(wire: bytes, rng: random.Random) -> list[bytes]:
    """`wire` cut into pieces of random sizes, empty ones among them."""
    at_most = rng.choice((1, 3, 20, 200))
    places = [0]
    while places[-1] < len(wire):
        places.append(min(len(wire), places[-1] + rng.randrange(0, at_most + 1)))
    return [wire[a:b] for a, b in pairwise(places)]


# --- the stages --------------------------------------------------------------------------------------------------------


def _lines(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def heard(pieces: Sequence[bytes]) -> list[list[str]] | None:
        reader = answer()
        found = [reader.lines(piece) for piece in pieces]
        return None if None in found else found

    euro = "12 €\n".encode()
    for pieces, expected, why in (
        ([b"one\ntwo\n"], [["one", "two"]], "Two lines, without their ends."),
        ([b"on", b"e\ntw", b"o\n"], [[], ["one"], ["two"]], "Keep the line that has not ended for the next piece."),
        ([euro[:4], euro[4:]], [[], ["12 €"]], "The cut goes through the euro sign: cut into lines first, then decode."),
        ([b"\na\n"], [["", "a"]], "A stream may begin with an empty line."),
        ([b"a\r\n\r\nb\r\n"], [["a", "", "b"]], "CR LF is one end, and an empty line is a line."),
        ([b"a\rb\r"], [["a", "b"]], "A CR alone ends a line, too, and at once."),
        ([b"a\r", b"\nb\n"], [["a"], ["b"]], "The cut goes through CR LF: the LF ends no second line."),
        ([b"a\r", b"", b"\nb\n"], [["a"], [], ["b"]], "An empty piece says nothing: the LF still belongs to the CR before."),
        ([b"a\r", b"\n", b"\nb\n"], [["a"], [], ["", "b"]], "Only the first LF belongs to the CR."),
        ([b"\xef\xbb", b"\xbfa\n\xef\xbb\xbfb\n"], [[], ["a", "\ufeffb"]], "A BOM is taken off the stream's start only."),
        ([b"a\n", b"\xef\xbb\xbfb\n"], [["a"], ["\ufeffb"]], "A BOM is taken off the stream's start only."),
        (["a\u2028b\x0bc\n".encode()], [["a\u2028b\x0bc"]], "Only CR and LF end a line; `str.splitlines` knows many more."),
        ([b"a \xff b\n"], [["a \ufffd b"]], 'A byte that is no UTF-8 must not stop the answer: `errors="replace"`.'),
        (
            [b"\xef\xbb\xbf\n\xef\xbb\xbfa\n"],
            [["", "\ufeffa"]],
            "The BOM is of the first line, though nothing else is in it.",
        ),
    ):
        yield agree(heard, pieces, expected=expected, why=why)
    for _ in range(20):
        wire = _dressed(on_the_wire(*_answer(rng)), rng)
        text = wire.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        yield agree(lambda pieces: list(chain(*(heard(pieces) or []))), _cut(wire, rng), expected=text.split("\n")[:-1])


def _events(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def heard(pieces: Sequence[bytes]) -> list[list[tuple[str, str]]] | None:
        reader = answer()
        found = [reader.events(piece) for piece in pieces]
        return None if None in found else [list(map(tuple, events)) for events in found]

    for pieces, expected, why in (
        ([b"data: Hel", b"lo\n", b"\n"], [[], [], [("message", "Hello")]], "An empty line sends the event."),
        ([b"data:a\n\ndata:  b\n\n"], [[("message", "a"), ("message", " b")]], "At most one space behind the colon goes."),
        ([b"data: a\ndata: b\n\n"], [[("message", "a\nb")]], "Each `data` line adds a line."),
        ([b": keep-alive\n\n:\n\n"], [[]], "Comments are no events."),
        ([b"event: error\ndata: a\n\ndata: b\n\n"], [[("error", "a"), ("message", "b")]], "A name is for one event."),
        ([b"event: error\n\ndata: b\n\n"], [[("message", "b")]], "An empty line forgets the name, too."),
        ([b"data\n\n"], [[("message", "")]], "A line without a colon is a field without a value."),
        ([b"id: 3\nretry: 9\ndatum: x\ndata: a: b\n\n"], [[("message", "a: b")]], "Other fields are passed over."),
        ([b"data: a\n\ndata: half\n"], [[("message", "a")]], "What the stream's end cuts never was an event."),
        ([b"data: a\r\n\r", b"\ndata: b\r\n\r\n"], [[("message", "a")], [("message", "b")]], "CR LF, cut in two."),
    ):
        yield agree(heard, pieces, expected=expected, why=why)
    for _ in range(20):
        wire = _dressed(on_the_wire(*_answer(rng)), rng)
        pieces, lab = _cut(wire, rng), Decoder()
        yield agree(heard, pieces, expected=[[(e.event, e.data) for e in lab.feed(piece)] for piece in pieces])


def _report(answer: Any, pieces: Sequence[bytes]) -> dict[str, Any]:
    """What a reader has to say of the pieces, with the error that it raised."""
    reader, new, error = answer(), [], ""
    try:
        new += [reader.feed(piece) for piece in pieces]
    except EngineError as raised:
        error = str(raised)
    return {
        "new": new,
        "text": reader.text,
        "finish": reader.finish_reason,
        "usage": reader.usage,
        "done": reader.done,
        "failed": bool(error),
    } | ({"says": error} if error else {})


def _text(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def heard(pieces: Sequence[bytes]) -> dict[str, Any]:
        return _report(answer, pieces)

    def said(new: list[str], finish: str | None, usage: dict[str, int], done: bool) -> dict[str, Any]:
        whole = "".join(new)
        return {"new": new, "text": whole, "finish": finish, "usage": usage, "done": done, "failed": False}

    def sent(*events: dict[str, Any]) -> bytes:
        return b"".join(frame(json.dumps(event)) for event in events)

    used = {"completion_tokens": 2}
    for pieces, expected, why in (
        ([sent(delta("Hel")), sent(delta("lo"))], said(["Hel", "lo"], None, {}, False), "What each piece brings, and all."),
        ([sent(delta("Hel"), delta("lo"))], said(["Hello"], None, {}, False), "Two events in one piece."),
        ([sent(delta(""), delta(None), delta("a"))], said(["a"], None, {}, False), "A delta may hold no content."),
        ([sent({"choices": [{"delta": {"content": None}}]})], said([""], None, {}, False), "Content may be null."),
        ([sent({"choices": [{"delta": None}]}, {})], said([""], None, {}, False), "A delta may be null, choices missing."),
        (
            [sent(delta(finish="stop"), delta(None))],
            said([""], "stop", {}, False),
            "The reason stays when a later event says nothing.",
        ),
        (
            [sent(delta("a"), delta(finish="stop"), delta(usage=used)), b"data: [DONE]\n\n"],
            said(["a", ""], "stop", used, True),
            "The usage comes last, in an event without choices.",
        ),
        (
            [sent(delta("a") | {"usage": None}, delta(usage=used), {"choices": [], "usage": None})],
            said(["a"], None, used, False),
            "`usage` is null in all events but one, and must not be forgotten.",
        ),
        (
            [b"data: [DONE] \n\n" + sent(delta("late"))],
            said([""], None, {}, True),
            "What follows [DONE] is not part of the answer; blanks around it do not matter.",
        ),
        (
            [b"data: [DONE]\n\n", sent(delta("late"))],
            said(["", ""], None, {}, True),
            "What follows [DONE] is not part of the answer, in the next piece either.",
        ),
        (
            [sent(delta("a [DONE]"))],
            said(["a [DONE]"], None, {}, False),
            "An answer may speak of [DONE]. Only data that is nothing else ends it.",
        ),
    ):
        yield agree(heard, pieces, expected=expected, why=why)
    for _ in range(20):
        texts, usage = _answer(rng)
        report = call(heard, _cut(_dressed(on_the_wire(texts, usage), rng), rng))
        expected = {"text": "".join(texts), "finish": "stop", "usage": usage, "done": True, "failed": False}
        yield holds(
            "the answer is the same, however its bytes are cut and dressed",
            {name: report[name] for name in expected} == expected and "".join(report["new"]) == report["text"],
            given=f"an answer of {len(texts)} pieces of text",
            expected=repr(expected),
            actual=repr(report),
        )


def _ends(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    good, bad = frame(json.dumps(delta("Hello"))), frame('{"error": {"message": "out of memory"}}')
    named, plain = frame('{"message": "out of memory"}', event="error"), frame("out of memory", event="error")
    for what, pieces in (
        ("an event that holds an error", [good, bad]),
        ("an event named error", [good, named]),
        ("an event named error, whose data is no JSON", [good, plain]),
        ("an error in the same piece as text", [good + bad]),
        ("an error after the reason of the end", [good + frame(json.dumps(delta(finish="stop"))) + bad]),
        ("what a proxy sends when it gives up", [good, frame("<html>502: out of memory</html>")]),
    ):
        report = call(lambda pieces: _report(answer, pieces), pieces)
        yield holds(
            "an error is raised as EngineError, with the words that came, and what had arrived is kept",
            report["failed"] and report["text"] == "Hello" and "out of memory" in report.get("says", ""),
            given=f"“Hello”, then {what}",
            expected="EngineError with “out of memory” in its message, and text 'Hello'",
            actual=repr(report),
        )
    other = _report(answer, [frame(json.dumps(delta("Hello")), event="chunk")])
    yield holds(
        "an event of another name is no error",
        other["text"] == "Hello" and not other["failed"],
        given="an event named chunk",
        expected="its text",
        actual=repr(other),
    )

    def closed(pieces: Sequence[bytes]) -> tuple[str, str, str]:
        reader = answer()
        for piece in pieces:
            reader.feed(piece)
        try:
            return "whole", reader.close(), ""
        except StreamIncomplete as error:
            return "cut", reader.text, str(error)

    for pieces, kind, why in (
        ([good, frame(json.dumps(delta(finish="stop")))], "whole", "It has a finish_reason: only the usage is missing."),
        ([good, b"data: [DONE]\n\n"], "whole", "Some engines send no finish_reason, and [DONE] says that it is whole."),
        ([good], "cut", "Neither a finish_reason nor [DONE]: nobody said that this is all."),
        ([], "cut", "Nothing came at all."),
        ([good, b'data: {"choices": [{"delta": {"cont'], "cut", "The last event is cut, and its half is not text."),
    ):
        got = call(closed, pieces)
        yield holds(
            "`close` tells a whole answer from one that was cut",
            got[0] == kind and got[1] == ("Hello" if pieces else ""),
            given=f"{len(pieces)} pieces: {b''.join(pieces)[-60:]!r}",
            expected=f"{kind}, with all the text there is",
            actual=repr(got),
            why=why,
        )
    for _ in range(6):
        texts, usage = _answer(rng)
        wire = on_the_wire(texts, usage)
        at = rng.randrange(len(wire) + 1)
        arrived = wire[:at]
        kind, text, says = call(closed, _cut(arrived, rng))
        complete = arrived.count(b"\n\n")  # events: the opening one, the texts, the reason, the usage, the end
        kept = "".join(texts[: max(0, complete - 1)])
        whole = complete >= len(texts) + 2
        yield holds(
            "a stream cut anywhere is noticed, and its text kept",
            (kind, text) == ("whole" if whole else "cut", kept) and (whole or str(len(kept)) in says),
            given=f"an answer of {len(wire)} bytes, cut after {at}",
            expected=f"{'whole' if whole else 'cut'}, {kept!r}"
            + ("" if whole else f", and a message that says how many characters arrived ({len(kept)})"),
            actual=repr((kind, text, says)),
        )


# --- near misses -------------------------------------------------------------------------------------------------------


class _DecodedByPiece(AnswerReader):
    """Decodes each piece by itself, so a character that is cut becomes two marks of damage."""

    def lines(self, piece: bytes) -> list[str]:
        return super().lines(piece.decode(errors="replace").encode())


class _TwoEnds(AnswerReader):
    """Takes the LF of a CR LF that is cut in two for an empty line."""

    def lines(self, piece: bytes) -> list[str]:
        self._after_cr = False
        return super().lines(piece)


class _Stripped(AnswerReader):
    """Strips data of all its blanks, which is where words are glued together."""

    def events(self, piece: bytes) -> list[tuple[str, str]]:
        return [(event, data.strip()) for event, data in super().events(piece)]


class _EndsAtTheReason(AnswerReader):
    """Stops at the finish reason, before the usage comes."""

    def feed(self, piece: bytes) -> str:
        return "" if self.finish_reason else super().feed(piece)


class _NeverCut(AnswerReader):
    """Believes that a stream which ends is an answer which ends."""

    def close(self) -> str:
        return self.text


class _ForgetsOnError(AnswerReader):
    """Throws away what had arrived when the engine fails."""

    def feed(self, piece: bytes) -> str:
        try:
            return super().feed(piece)
        except EngineError:
            self.text = ""
            raise


class _DoneInside(AnswerReader):
    """Ends the answer at any data that speaks of [DONE]."""

    def feed(self, piece: bytes) -> str:
        new = ""
        for _, data in self.events(piece):
            self.done = self.done or "[DONE]" in data
            if not self.done:
                new += super().feed(frame(data))
        return new


BUILD = Exercise(
    id="06.4",
    title="A reader of streams that loses nothing",
    minutes=45,
    difficulty=3,
    answer="AnswerReader",
    stages=(
        Stage(
            "lines from bytes",
            _lines,
            (
                "Keep the bytes behind the last line end for the next piece. Cut first, decode after: no character of UTF-8 "
                "has the byte of CR or LF inside it.",
                "`bytes.splitlines(keepends=True)` knows CR, LF and CR LF, and nothing else. Its last part may have no end.",
                "A CR at a piece's end ends its line now. Remember it, and take one LF off the start of the next piece that "
                "holds anything. The BOM can only stand in the first line of all.",
            ),
        ),
        Stage(
            "events from lines",
            _events,
            (
                "`line.partition(':')` splits name and value; a comment has an empty name.",
                "At an empty line, hand out the data if there is any, and forget both the data and the name.",
            ),
        ),
        Stage(
            "the answer from events",
            _text,
            (
                "Nearly everything may be missing or null: `(choice.get('delta') or {}).get('content') or ''`.",
                "The event that holds the usage has no choices. Never replace what is known by null.",
                "`[DONE]` is no JSON: look for it first. After it, nothing counts.",
            ),
        ),
        Stage(
            "errors and cuts",
            _ends,
            (
                "Put each piece of text into `self.text` as it comes, so that it is there when something is raised later.",
                "`json.loads` raises `ValueError` for what is no JSON; here that is as bad as an error.",
                "An answer is whole when `[DONE]` or a finish reason came. Any other end is `StreamIncomplete`.",
            ),
        ),
    ),
    reference=AnswerReader,
    wrong=(_DecodedByPiece, _TwoEnds, _Stripped, _EndsAtTheReason, _NeverCut, _ForgetsOnError, _DoneInside),
    limit_s=20.0,
    equivalent={"line 56: break -> continue": "once `done`, each event that follows comes to the same place"},
)
