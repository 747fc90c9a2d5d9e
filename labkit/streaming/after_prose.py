"""Finds the JSON document in an answer that also holds prose: it skips the text before and does not read the text after.

Prose has brackets, too: citations ("[1]"), links ("[the docs](http://…)"), intervals ("[0, 1]"), placeholders ("{name}"),
examples in backquotes. So a bracket only begins a *candidate*. A candidate becomes the document

- at once, if it is the first thing in a fence whose language is JSON or is not given;
- at the colon of its first key, or, for a list of strings that begins the answer, at its first comma, because prose has
  neither;
- at the end of the text, if no other candidate has become the document by then. This holds for a list with more than
  numbers in it, for an example in backquotes or in another language's fence, and for numbers or an empty bracket that stand
  alone on a line or after a colon. The first such candidate is taken.

A candidate that turns out not to be JSON before any of its fields was reported is taken for prose, and its text is searched
for other candidates. The exception is a document at the very beginning of the answer: that is reported as malformed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from labkit.streaming.partial_json import Final, Found, Malformed, PartialJSON, Reader

_JSON_FENCES = ("", "json", "jsonc", "json5", "jsonl", "ndjson", "geojson", "js", "javascript")


class _Prose:
    """What the characters before a bracket say about it: fence, line and neighbours."""

    def __init__(self) -> None:
        self.empty = True  # nothing but white space so far
        self.last_on_line = ""  # the last character on this line that is no white space
        self.before = ""  # the character before
        self.fence: str | None = None  # its language, lower case; None outside fences
        self.fence_is_empty = False  # nothing in it yet
        self._naming = False  # the fence's language is being written
        self._run = 0

    def step(self, character: str) -> None:
        self._run = self._run + 1 if character == self.before and character in "`~" else 1
        if character in "`~" and self._run == 3:
            self.fence = "" if self.fence is None else None
            self._naming = self.fence_is_empty = self.fence is not None
        elif self._naming and character not in "`~" and not character.isspace():
            self.fence = (self.fence or "") + character.lower()
        elif self._naming and character.isspace():
            self._naming = False
        elif not character.isspace() and not self._naming:
            self.fence_is_empty = False
        self.before = character
        if not character.isspace():
            self.last_on_line = character
            self.empty = False
        elif character in "\r\n":
            self.last_on_line = ""


@dataclass(slots=True)
class _Candidate:
    """A bracket that may begin the document. `early`: whether it may become the document before the end of the text."""

    early: bool
    first: bool  # nothing stands before it
    on_its_own: bool  # it begins a line, or follows a colon
    parser: PartialJSON = field(default_factory=PartialJSON)
    characters: list[tuple[int, str]] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    is_document: bool = False
    told: bool = False
    may_stand: bool = False

    def becomes_document(self, character: str, in_string: bool) -> bool:
        """Whether `character`, the last one, shows that this is not prose."""
        if not self.early or in_string:
            return False
        return character == ":" or (
            self.first and character == "," and bool(self.finals) and isinstance(self.finals[0].value, str)
        )


class AfterProse:
    """A `Reader` of the first JSON document in a text; at the end of a text without one it returns `Malformed`."""

    def __init__(self) -> None:
        self._prose = _Prose()
        self._todo: deque[tuple[int, str]] = deque()
        self._received = 0
        self._candidate: _Candidate | None = None
        self._whole: list[_Candidate] = []
        self._judged: _Candidate | None = None  # whole; the text after it on its line decides whether it may stand
        self._no_start: set[int] = set()
        self._why = "no JSON document in the text"
        self._over = False

    def feed(self, text: str) -> list[Found]:
        """The values that `text`, the next piece, makes final, innermost first; after a `Malformed` nothing follows."""
        found: list[Found] = []
        for character in text:
            if self._over:
                break
            self._received += 1
            self._todo.append((self._received, character))
            found += self._work()
        return found

    def end(self) -> list[Found]:
        """The document, if only the end of the text shows which it is; `Malformed` if there is none, or half of one."""
        while not self._over and self._candidate is not None:
            if self._candidate.is_document:
                self._over = True
                return [self._here(found) for found in self._candidate.parser.end()]
            self._was_prose(self._candidate)
            found = self._work()
            if found:
                return found + self.end()
        if self._over:
            return []
        self._over = True
        if self._judged is not None:
            self._judged.may_stand = True
        for whole in self._whole:
            if whole.may_stand:
                return [self._here(final) for final in whole.finals]
        return [Malformed(self._received, self._why)]

    def _work(self) -> list[Found]:
        found: list[Found] = []
        while self._todo and not self._over:
            at, character = self._todo.popleft()
            if self._candidate is None:
                self._look(at, character)
            if self._candidate is not None:
                found += self._take(self._candidate, at, character)
            else:
                self._prose.step(character)
        return found

    def _look(self, at: int, character: str) -> None:
        """Begin a candidate if the character is a bracket that may; also judge the one that has just ended."""
        if self._judged is not None and (not character.isspace() or character in "\r\n"):
            self._judged.may_stand = character in "\r\n`~"
            self._judged = None
        if character not in "{[" or at in self._no_start:
            return
        prose = self._prose
        fenced = prose.fence is not None
        self._candidate = _Candidate(
            early=prose.fence in _JSON_FENCES if fenced else prose.before != "`",
            first=prose.empty,
            on_its_own=prose.last_on_line in ("", ":"),
            is_document=fenced and prose.fence_is_empty and prose.fence in _JSON_FENCES,
        )

    def _take(self, candidate: _Candidate, at: int, character: str) -> list[Found]:
        in_string = candidate.parser.in_string
        candidate.characters.append((at, character))
        now = candidate.parser.feed(character)
        finals = [found for found in now if isinstance(found, Final)]
        candidate.finals += finals
        for fault in now:
            if isinstance(fault, Malformed):
                if candidate.told or (candidate.first and candidate.is_document):
                    self._over = True
                    return [self._here(found) for found in now]
                if candidate.is_document:
                    self._why = f"{fault.why} (at character {at})"
                self._was_prose(candidate)
                return []
        if not candidate.is_document and candidate.becomes_document(character, in_string):
            candidate.is_document = True
            finals = candidate.finals
        whole = bool(candidate.finals) and candidate.finals[-1].path == ()
        if candidate.is_document:
            candidate.told = candidate.told or bool(finals)
            self._over = whole
            return [self._here(final) for final in finals]
        if whole:
            self._keep(candidate)
        return []

    def _keep(self, candidate: _Candidate) -> None:
        self._whole.append(candidate)
        if _says_something(candidate.finals):
            candidate.may_stand = True
        elif candidate.on_its_own:
            self._judged = candidate
        self._candidate = None
        for _, character in candidate.characters:
            self._prose.step(character)

    def _was_prose(self, candidate: _Candidate) -> None:
        """Go back to just after its bracket. The brackets that were still open failed with it and are not tried again."""
        start = candidate.characters[0][0]
        self._no_start = {start + at - 1 for at in candidate.parser.opened_at()} | {start}
        self._candidate = None
        self._todo.extendleft(reversed(candidate.characters))

    def _here(self, found: Found) -> Found:
        return replace(found, at=self._received)


def _says_something(finals: list[Final]) -> bool:
    """Whether a document holds more than numbers; citations and intervals hold only numbers."""
    return any(isinstance(final.value, str) or (isinstance(final.value, dict) and final.value) for final in finals)


def progressive(pieces: Iterable[str], after_prose: bool = False) -> Iterator[Found]:
    """The fields of a JSON text as they become final while `pieces` arrive, and a last `Malformed` if it is not JSON.

    A value comes before the object or list that holds it; the last one, at path (), is the document. With `after_prose` the
    text may have prose around the document (`AfterProse`), otherwise it must be the document alone (`PartialJSON`).
    """
    reader: Reader = AfterProse() if after_prose else PartialJSON()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.end()
