"""Reads JSON while it is being written: each field is reported as soon as nothing that follows can change it.

The grammar is that of ijson (https://github.com/ICRAR/ijson), which is fed one character at a time. So a field is final at
the same character, and a fault is found at the same character, however the text is cut into chunks. A number is final with
the character after it (`1` may become `12`), a string with its closing quote, an object or a list with its bracket.
Strings are read here, by the rules of Python's `json`, because ijson fails at a lone half of a surrogate pair
(`"\\ude00"`), which models write where they break off an emoji.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import ijson

Path = tuple[str | int, ...]
"""The keys and list indices that lead to a value; () is the whole document."""

DEEPEST = 1000
"""The deepest nesting of objects and lists that is read; Python's own `json` gives up near this depth, too."""


@dataclass(frozen=True, slots=True)
class Final:
    """The value at `path` is whole. `at` is the number of characters, from the start of the text, needed to know that."""

    path: Path
    value: Any
    at: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """No JSON text begins like this one. Values that were final before stay final; nothing becomes final after.

    `at` is the number of characters, from the start of the text, up to and with the one that showed the fault. A wrong
    bracket or quote shows at once; a word or number out of place, with the character that ends it; a text that ends too
    early, with its last character. `why` says what is wrong.
    """

    at: int
    why: str


Found = Final | Malformed


class Reader(Protocol):
    """Takes a text piece by piece and returns the values that become final."""

    def feed(self, text: str) -> list[Found]:
        """The values that `text`, the next piece, makes final, innermost first; after a `Malformed` nothing follows."""
        ...

    def end(self) -> list[Found]:
        """The values that the end of the text makes final, or a `Malformed`."""
        ...


@dataclass(slots=True)
class _Container:
    path: Path
    value: dict[str, Any] | list[Any]
    at: int
    key: str = ""


class PartialJSON:
    """A `Reader` of a text that is JSON and nothing else; anything but white space around the document is `Malformed`.

    A key that comes twice in one object is also `Malformed`, because its first value was already reported as final.
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self._events)
        self._open: list[_Container] = []
        self._string: _String | None = None
        self._text = ""  # of the string that has just ended
        self._at = 0
        self._whole_at: int | None = None
        self._over = False

    def feed(self, text: str) -> list[Found]:
        """The values that `text`, the next piece, makes final, innermost first; after a `Malformed` nothing follows."""
        found: list[Found] = []
        for character in text:
            if self._over:
                break
            self._at += 1
            if self._string is None:
                found += self._send(character)
                if character == '"':
                    self._string = _String()
            elif why := self._string.step(character):
                found += self._fault(why)
            elif self._string.over:
                self._text, self._string = self._string.value(), None
                found += self._send('"')
        return found

    def end(self) -> list[Found]:
        """The value that the end of the text makes final (a lone number), or `Malformed` if the document is not whole."""
        if self._over:
            return []
        try:
            self._parser.close()
        except ijson.JSONError as error:
            return self._take() + self._fault(_first_line(error))
        found = self._take()
        self._over = True
        return found

    @property
    def in_string(self) -> bool:
        """Whether the next character stands between two quotes."""
        return self._string is not None

    def opened_at(self) -> list[int]:
        """For each bracket that is still open, outermost first: the number of characters up to and with it."""
        return [container.at for container in self._open]

    def _send(self, character: str) -> list[Found]:
        try:
            self._parser.send(character.encode())
        except UnicodeEncodeError:
            return self._fault(f"{character!r} is half of a character")
        except ijson.JSONError as error:
            return self._take() + self._fault(_first_line(error))
        found = self._take()
        # yajl reports no fault in text after a document while that text is only a part of a token, even if it stays so
        if self._whole_at is not None and self._at > self._whole_at and character not in " \t\r\n":
            found += self._fault("trailing garbage")
        return found

    def _fault(self, why: str) -> list[Found]:
        if self._over:  # a key that comes twice was found first
            return []
        self._over = True
        return [Malformed(self._at, why)]

    def _take(self) -> list[Found]:
        found: list[Found] = []
        for event, value in self._events:
            if event == "map_key":
                container = self._open[-1]
                if self._text in container.value:
                    found += self._fault(f"the key {self._text!r} comes twice in the object at {container.path}")
                    break
                container.key = self._text
            elif event in ("start_map", "start_array"):
                if len(self._open) == DEEPEST:
                    found += self._fault(f"more than {DEEPEST} containers in each other")
                    break
                self._open.append(_Container(self._place(), {} if event == "start_map" else [], self._at))
            elif event in ("end_map", "end_array"):
                ended = self._open.pop()
                found.append(self._final(ended.path, ended.value))
            elif event == "string":
                found.append(self._final(self._place(), self._text))
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
            # a number ends one character earlier: at the one before the character that ends it
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._whole_at = self._at - number
        return Final(path, value, self._at)


class _String:
    """The text between two quotes, read here; ijson is given an empty string in its place."""

    def __init__(self) -> None:
        self._characters: list[str] = []
        self._escape = ""
        self.over = False

    def step(self, character: str) -> str:
        """Take the next character; returns why it is not allowed there, "" if it is."""
        if self._escape:
            self._escape += character
            if len(self._escape) == 2:
                if character not in '"\\/bfnrtu':
                    return f"invalid escape {self._escape!r} in a string"
            elif character not in "0123456789abcdefABCDEF":
                return f"{self._escape!r} in a string: four hexadecimal digits must follow \\u"
            if len(self._escape) == (6 if self._escape[1] == "u" else 2):
                self._escape = ""
        elif character == '"':
            self.over = True
            return ""
        elif character == "\\":
            self._escape = character
        elif character < " ":
            return f"invalid character {character!r} inside a string: it must be escaped"
        self._characters.append(character)
        return ""

    def value(self) -> str:
        """The text; two halves of a surrogate pair side by side become one character."""
        text: str = json.loads('"' + "".join(self._characters) + '"')
        if text.isascii():
            return text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # the lines below show the place in yajl's own buffer
