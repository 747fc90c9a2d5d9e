"""The glossary's words, and the links that a chapter's first use of each of them becomes.

The words stand in `docs/words.md`, one row each: the word, the forms in a text that link to it, its meaning, its unit
or formula, and the chapter that brings it in. `docs/make_glossary.py` makes the page that they link to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.workbook.exercise import ExerciseError

__all__ = ["Linker", "Word", "read_words"]

PAGE = "../docs/glossary.md"  # as seen from the folder `notebooks`
_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)
_COLUMNS = 5
_NO_PROSE = re.compile(
    r"```.*?```"  # a block of code
    r"|`[^`\n]*`"
    r"|!?\[[^\]]*\]\([^)]*\)"  # a link or picture
    r"|<[^>\n]+>"
    r"|(?<!\\)\$[^$\n]+\$"  # a formula
    r"|^#+ .*?$"
    r"|\{\{[^}]*\}\}",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the glossary. `forms` are the texts that link to it, none for a word that is too ordinary to link.

    A form of small letters is also found with a capital at its beginning; all else must agree. `formula` is its formula or
    unit, and `chapter` the number of the chapter that brings it in; both may be empty. Raises `ExerciseError` for an empty
    name or meaning.
    """

    name: str
    forms: tuple[str, ...]
    meaning: str
    formula: str = ""
    chapter: str = ""

    def __post_init__(self) -> None:
        if not self.anchor or not self.meaning:
            raise ExerciseError(f"the glossary's word {self.name!r} needs a name and a meaning")

    @property
    def anchor(self) -> str:
        """The place of its entry on the page: its letters and digits in lower case, joined by hyphens."""
        return "-".join(re.findall(r"[a-z0-9]+", self.name.lower().replace("'s", "s")))


def read_words(path: Path) -> tuple[Word, ...]:
    """The words in a file like `docs/words.md`, in its order.

    Raises `ExerciseError` where a row lacks a column, and where two words share an anchor or a form.
    """
    _, _, *rows = [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(path.read_text(encoding="utf-8"))]
    ragged = [row[0] for row in rows if len(row) != _COLUMNS]
    if ragged:
        raise ExerciseError(f"{path.name}: the rows of {', '.join(ragged)} need {_COLUMNS} columns")
    words = tuple(
        Word(name, tuple(form.strip() for form in forms.split(",") if form.strip()), meaning, formula, chapter)
        for name, forms, meaning, formula, chapter in rows
    )
    for taken in ([word.anchor for word in words], [form for word in words for form in word.forms]):
        double = sorted({one for one in taken if taken.count(one) > 1})
        if double:
            raise ExerciseError(f"{path.name}: two words share {', '.join(double)}")
    return words


class Linker:
    """Turns the first use of each word in a chapter's prose into a link. Its texts must come in the chapter's order.

    Code, links, formulas and headings are left as they are.
    """

    def __init__(self, words: Sequence[Word]) -> None:
        self._word = {form: word for word in words for form in word.forms}
        self._forms = re.compile(_pattern(self._word)) if self._word else None
        self._linked: set[str] = set()

    def link(self, text: str) -> str:
        """The markdown with links at the words that it uses first."""
        if self._forms is None:
            return text
        return "".join(part if code else self._forms.sub(self._linked_once, part) for part, code in _parts(text))

    def _linked_once(self, found: re.Match[str]) -> str:
        said = " ".join(found[0].split())
        word = self._word.get(said) or self._word[said[:1].lower() + said[1:]]
        if word.name in self._linked:
            return found[0]
        self._linked.add(word.name)
        return f"[{found[0]}]({PAGE}#{word.anchor})"


def _pattern(forms: Collection[str]) -> str:
    longest_first = sorted(forms, key=len, reverse=True)
    return rf"(?<![\w\-/])(?:{'|'.join(map(_form, longest_first))})(?![\w\-/])"


def _form(form: str) -> str:
    first = f"[{form[0]}{form[0].upper()}]" if form == form.lower() and form[0].isalpha() else re.escape(form[0])
    return first + r"\s+".join(map(re.escape, form[1:].split(" ")))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and of each whether it is something else than prose."""
    at = 0
    for found in _NO_PROSE.finditer(text):
        yield text[at : found.start()], False
        yield found[0], True
        at = found.end()
    yield text[at:], False
