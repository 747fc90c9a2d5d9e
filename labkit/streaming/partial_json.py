"""JSON while it is being written: each field is told as soon as nothing that follows can change it.

The grammar is ijson's (https://github.com/ICRAR/ijson), which is fed one character at a time: so a field is final at the
same character, and a fault is found at the same character, however the text is cut into chunks. A number is final with
the character after it (`1` may become `12`), a string with its closing quote, an object or a list with its bracket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import ijson

Path = tuple[str | int, ...]
"""Where a value stands: the keys and list indices that lead to it; () is the whole document."""


@dataclass(frozen=True, slots=True)
class Final:
    """The value at `path` is whole. `at`: characters of the text, from its beginning, that it took to know that."""

    path: Path
    value: Any
    at: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """No JSON text begins like this one. What was final before stays so; nothing becomes final after.

    `at`: characters of the text, from its beginning, up to the one that gave the fault away: a bracket or quote at once, a
    word or number out of place with the character that ends it, a text that ended too early with its last.
    """

    at: int
    why: str


Found = Final | Malformed


@dataclass(slots=True)
class _Container:
    path: Path
    value: dict[str, Any] | list[Any]
    key: str = ""


class PartialJSON:
    """Takes a JSON text piece by piece and tells what has become final.

    With `after_prose`, everything before the first `{` or `[` is passed over ("Here is the JSON: ```json"), and nothing
    after the document is looked at; without it, anything but white space around the document is `Malformed`. So is a key
    that comes twice in one object: the first value was told to be final.
    """

    def __init__(self, after_prose: bool = False) -> None:
        self._after_prose = after_prose
        self._prose = after_prose
        self._events: list[tuple[str, Any]] = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self._events)
        self._open: list[_Container] = []
        self._at = 0
        self._whole_at: int | None = None
        self._over = False

    def feed(self, text: str) -> list[Found]:
        """What `text`, the next piece, has made final, innermost first; after a `Malformed` there is nothing more."""
        found: list[Found] = []
        for character in text:
            if self._over:
                break
            self._at += 1
            if self._prose and character not in "{[":
                continue
            self._prose = False
            try:
                self._parser.send(character.encode())
            except UnicodeEncodeError:
                found += self._fault(f"{character!r} is half of a character")
            except ijson.JSONError as error:
                found += self._take() + self._fault(_first_line(error))
            else:
                found += self._take()
                # yajl does not mind what follows a document while it is half of a token, nor when it stays so
                if self._whole_at is not None and self._at > self._whole_at and character not in " \t\r\n":
                    found += self._fault("trailing garbage")
        return found

    def end(self) -> list[Found]:
        """What the end of the text makes final: a lone number; or `Malformed` for a document that is not whole."""
        if self._over:
            return []
        try:
            self._parser.close()
        except ijson.JSONError as error:
            return self._take() + self._fault(_first_line(error))
        found = self._take()
        self._over = True
        return found

    def _fault(self, why: str) -> list[Found]:
        if self._over:  # a twin key was found first
            return []
        self._over = True
        return [Malformed(self._at, why)]

    def _take(self) -> list[Found]:
        found: list[Found] = []
        for event, value in self._events:
            if event == "map_key":
                container = self._open[-1]
                if value in container.value:
                    self._over = True
                    found.append(Malformed(self._at, f"the key {value!r} comes twice in the object at {container.path}"))
                    break
                container.key = value
            elif event in ("start_map", "start_array"):
                self._open.append(_Container(self._place(), {} if event == "start_map" else []))
            elif event in ("end_map", "end_array"):
                ended = self._open.pop()
                found.append(self._final(ended.path, ended.value))
            else:
                found.append(self._final(self._place(), float(value) if isinstance(value, Decimal) else value))
        del self._events[:]
        return found

    def _place(self) -> Path:
        if not self._open:
            return ()
        container = self._open[-1]
        return (*container.path, container.key if isinstance(container.value, dict) else len(container.value))

    def _final(self, path: Path, value: Any) -> Final:
        if self._open:
            container = self._open[-1]
            if isinstance(container.value, dict):
                container.value[container.key] = value
            else:
                container.value.append(value)
        else:
            self._over = self._after_prose
            # a number is ended by what follows it
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._whole_at = self._at - number
        return Final(path, value, self._at)


def progressive(pieces: Iterable[str], after_prose: bool = False) -> Iterator[Found]:
    """The fields of a JSON text as they become final while `pieces` arrive, and a last `Malformed` if it is none.

    A value is told before the object or list that holds it; the last one, at path (), is the document.
    """
    parser = PartialJSON(after_prose)
    for piece in pieces:
        yield from parser.feed(piece)
    yield from parser.end()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # below it, yajl draws where in its own buffer it is
