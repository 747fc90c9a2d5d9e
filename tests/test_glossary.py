"""docs/glossary.md is what the package's docstrings say, and each of its nouns has one meaning."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def maker():
    spec = importlib.util.spec_from_file_location("make_glossary", ROOT / "docs" / "make_glossary.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_glossary_is_up_to_date():
    made = maker()
    assert made.FILE.read_text(encoding="utf-8") == made.glossary(), "run `python docs/make_glossary.py`"


def test_each_noun_has_one_meaning_and_a_room():
    rows = list(maker().nouns())
    names = [noun for noun, _, _ in rows]
    assert len(rows) > 150
    assert len(names) == len(set(names))
    assert not [noun for noun, told, _ in rows if len(told) < 5]


def test_each_word_is_explained_once_and_in_a_line():
    words = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs" / "words.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(words) > 25
    assert len({word for word, _ in words}) == len(words)
