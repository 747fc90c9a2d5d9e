"""The first useful token: when a reader has something to act on, which is later than when something appears.

"Sure! I'd be happy to help you with that." streams early and says nothing. Time to first token rewards it; time to the
first *useful* token does not. The kind of answer decides what is useful:

- prose: the end of the first sentence that is more than a greeting, a filler or an announcement ("Here is the answer:");
- a list: the end of the first item's line;
- JSON: the end of the first wanted field's value.

Each is decided by the text alone, at the character that completes it. So the chunks in which the text came do not matter,
except that the time is that of the chunk with this character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from labkit.request import Chunk, InvalidValue
from labkit.streaming.after_prose import AfterProse
from labkit.streaming.partial_json import Final, Found, Path


@dataclass(frozen=True, slots=True)
class JsonFields:
    """An answer in JSON that is useful once one of the values at `paths` is whole.

    For example `JsonFields("answer", ("order", "id"), ("items", 0))`. A lone string is a key at the top level. One tuple of
    paths, such as the field `paths` itself, is accepted too. Prose around the document is skipped (`AfterProse` says which
    bracket begins the document). Raises `InvalidValue` without a path, and for a step that is neither a key nor an index.
    """

    paths: tuple[Path, ...]

    def __init__(self, *paths: str | Path) -> None:
        given: tuple[object, ...] = paths
        if len(paths) == 1 and paths[0] and all(isinstance(step, tuple) for step in paths[0]):
            given = tuple(paths[0])
        if not given:
            raise InvalidValue("no field is wanted; name one, as in JsonFields('answer')")
        object.__setattr__(self, "paths", tuple(_path(path) for path in given))


def _path(given: object) -> Path:
    path = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, tuple | list) else None
    if path is None or not all(isinstance(step, str | int) for step in path):
        raise InvalidValue(f"{given!r} is no path to a field; write a key, or keys and indices as ('order', 'id')")
    return path


Kind = Literal["prose", "list"] | JsonFields


class FirstUseful:
    """Takes an answer's text piece by piece and tells after how many characters it first becomes useful.

    Raises `InvalidValue` for a kind that it does not know.
    """

    def __init__(self, kind: Kind) -> None:
        self._rule = _rule(kind)
        self._fed = 0
        self._at: int | None = None

    def feed(self, text: str) -> int | None:
        """The number of characters up to and with the one that made the answer useful; None while it is not useful."""
        for character in text:
            self._fed += 1
            if self._at is None and self._rule.step(character):
                self._at = self._fed
        return self._at

    def end(self) -> int | None:
        """The result of `feed` now that the answer is over, so that its last sentence or item is whole."""
        if self._at is None and self._rule.end():
            self._at = self._fed
        return self._at


def first_useful_at(chunks: Iterable[Chunk], kind: Kind) -> float | None:
    """When the first useful piece of a whole answer was complete, in seconds of `clock.now()`; None if it has none.

    Subtract `Timing.sent` to compare it with the time to first token. Reasoning is left out, because no reader sees it.
    """
    finder = FirstUseful(kind)
    last = None
    for chunk in chunks:
        if chunk.text:
            last = chunk.at
        if finder.feed(chunk.text) is not None:
            return chunk.at
    return last if finder.end() is not None else None


class _Rule(Protocol):
    def step(self, character: str) -> bool: ...

    def end(self) -> bool: ...


def _rule(kind: Kind) -> _Rule:
    if isinstance(kind, JsonFields):
        return _Json(kind.paths)
    if kind == "prose":
        return _Prose()
    if kind == "list":
        return _List()
    raise InvalidValue(f"kind {kind!r} is unknown; use 'prose', 'list' or JsonFields(...)")


# A mark ends a sentence only before white space: "3.14", "shop.example" and "?!" do not end at their first mark.
_MARK = re.compile(r"""[.!?;…]["'”’)\]*]*$""")
_WIDE_MARK = re.compile(r"[。！？；]$")  # Chinese and Japanese put no space after theirs
_NO_END = re.compile(r"(?:^\s*\d+|\b(?:e\.g|i\.e|mr|mrs|ms|dr|prof|st|vs|approx|incl))\.$", re.IGNORECASE)
_OPENER = re.compile(
    r"""(?: (?i:hi|hello|hey|dear|good\ (?:morning|afternoon|evening|day)) (?:\ there|\ [A-Z]\w*)?
          | (?i:sure(?:\ thing)?|certainly|of\ course|absolutely|definitely|gladly|great|okay|ok|alright|well|hmm+|ah|oh
            | thanks|thank\ you(?:\ (?:so|very)\ much)?|sorry|no\ problem|my\ pleasure|understood|got\ it)
        ) (?![\w']) [\s,.!;:…–—-]*""",
    re.VERBOSE,
)
_FILLER = re.compile(
    r"""(?: (?:that(?:'s|\ is)\ )?(?:a|an)?\ ?(?:great|good|excellent|interesting)\ question
          | (?:thanks|thank\ you)?\ ?for\ (?:your|asking|reaching|contacting|getting|the\ (?:question|message))\b.*
          | i(?:'m|\ am)\ (?:here|happy|glad|pleased|sorry)\b.*
          | i(?:'ll|\ will|\ can|\ would|'d)\ (?:be\ (?:happy|glad|pleased)|(?:gladly\ |love\ to\ )?help)\b.*
          | i\ (?:completely\ |totally\ )?(?:understand|see|apologi[sz]e)\b.*
          | let(?:\ me|'s|\ us)\ (?:see|check|look|think|help|take|start|break|explain|walk)\b.*
          | (?:happy|glad)\ to\ help\b.*
          | as\ an\ ai\b.*
        ) [\s.!?…]*""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


class _Prose:
    def __init__(self) -> None:
        self._sentence = ""

    def step(self, character: str) -> bool:
        sentence = self._sentence
        if character == "\n":
            self._sentence = ""
            # A line that ends in a comma or colon greets or announces: "Dear Ms Berg,", "Here is the answer:"
            return not sentence.rstrip().endswith((",", ":")) and says_something(sentence)
        self._sentence = sentence + character
        over = sentence if character.isspace() and _MARK.search(sentence) and not _NO_END.search(sentence) else None
        if over is None and _WIDE_MARK.search(character):
            over = self._sentence
        if over is None:
            return False
        self._sentence = ""
        return says_something(over)

    def end(self) -> bool:
        return says_something(self._sentence)


def says_something(sentence: str) -> bool:
    """Whether a whole sentence is more than greetings, fillers and marks."""
    rest = " ".join(sentence.replace("’", "'").split())
    while not _FILLER.fullmatch(rest) and (opener := _OPENER.match(rest)):  # "Sure, it is red." says something
        rest = rest[opener.end() :]
    return any(character.isalnum() for character in rest) and not _FILLER.fullmatch(rest)


_ITEM = re.compile(r"\s*(?:[-*+•–]|\d+[.)])\s+(?P<text>.*)")


class _List:
    def __init__(self) -> None:
        self._line = ""

    def step(self, character: str) -> bool:
        if character != "\n":
            self._line += character
            return False
        whole = self.end()
        self._line = ""
        return whole

    def end(self) -> bool:
        item = _ITEM.fullmatch(self._line)
        if item is None:
            return False
        text = item["text"].rstrip("* ")
        return any(character.isalnum() for character in text) and not text.endswith(":")  # a colon announces a list below


class _Json:
    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths
        self._reader = AfterProse()

    def step(self, character: str) -> bool:
        return self._wanted(self._reader.feed(character))

    def end(self) -> bool:
        return self._wanted(self._reader.end())

    def _wanted(self, found: list[Found]) -> bool:
        return any(isinstance(one, Final) and one.path in self._paths for one in found)
