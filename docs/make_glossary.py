"""Writes docs/glossary.md: the words of docs/words.md, each with an anchor that the chapters link to, and every noun of the
package with its meaning, from the docstrings where they are defined.

python docs/make_glossary.py
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import labkit
from labkit.workbook import Word, read_words
from labkit.workbook.chapters import chapters

HEAD = """# Glossary

What the lab's words mean. The first part is written by hand, in `docs/words.md`; a chapter's first use of one of these words
links here. The second part is made from the package's docstrings. `python docs/make_glossary.py` puts them together, and a
test keeps it so. One noun has one meaning.

## Words

{words}

## Nouns of the package

| noun | meaning | room |
|---|---|---|
{nouns}
"""
FILE = Path(__file__).with_name("glossary.md")
WORDS = Path(__file__).with_name("words.md")


def nouns() -> Iterator[tuple[str, str, str]]:
    """(noun, meaning, room) of every class that a room exports."""
    for found in pkgutil.iter_modules(labkit.__path__):
        if found.ispkg:
            room = importlib.import_module(f"labkit.{found.name}")
            for name in getattr(room, "__all__", ()):
                thing = getattr(room, name)
                if inspect.isclass(thing) and thing.__module__.startswith(room.__name__):
                    yield name, meaning(thing), room.__name__


def meaning(thing: type) -> str:
    """The first sentence of its docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:;])\s", text, maxsplit=1)[0].rstrip(".:;").replace("|", "\\|")


def entry(word: Word, notebooks: dict[str, str]) -> str:
    """A word under a heading that can be linked to. `notebooks` maps chapters to their file names."""
    formula = f" Unit or formula: {word.formula}." if word.formula else ""
    where = f" [Chapter {word.chapter}](../notebooks/{notebooks[word.chapter]}.ipynb)." if word.chapter else ""
    return f'### <a id="{word.anchor}"></a>{word.name}\n\n{word.meaning[:1].upper()}{word.meaning[1:]}.{formula}{where}\n'


def glossary() -> str:
    """The whole page."""
    notebooks = {contents.number: contents.notebook for contents in chapters()}
    words = "\n".join(entry(word, notebooks) for word in read_words(WORDS))
    rows = [f"| `{name}` | {told} | `{room}` |" for name, told, room in sorted(nouns(), key=lambda row: row[0].lower())]
    return HEAD.format(words=words.strip(), nouns="\n".join(rows))


if __name__ == "__main__":
    FILE.write_text(glossary(), encoding="utf-8")
