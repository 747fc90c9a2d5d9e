"""docs/glossary.md is what the package's docstrings say, and each of its nouns has one meaning."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

from labkit.workbook import ExerciseError
from labkit.workbook.chapters import chapters
from labkit.workbook.glossary import Linker, Word, read_words

ROOT = Path(__file__).parents[1]
OPENS = "\0a link opens\0"


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


def test_each_word_is_explained_once_in_the_order_of_the_alphabet():
    words = read_words(ROOT / "docs" / "words.md")
    assert len(words) > 100
    assert len({word.name for word in words}) == len(words)
    assert [word.name for word in words] == sorted((word.name for word in words), key=str.lower)


def prose(notebook):
    """The prose of a notebook's markdown as (text, address or None), by a parser that knows nothing of the linker."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        heading, address = False, None
        for block in MarkdownIt().parse(cell.source) if cell.cell_type == "markdown" else ():
            heading = block.type == "heading_open" or (heading and block.type != "heading_close")
            for part in () if heading else block.children or ():
                if part.type == "link_open":
                    address = part.attrs["href"]
                    yield OPENS, address
                    continue
                elif part.type == "link_close":
                    address = None
                yield {"text": part.content, "softbreak": " "}.get(part.type, "\0"), address


@pytest.mark.parametrize("contents", chapters(), ids=lambda contents: contents.number)
@pytest.mark.parametrize("folder", ["", "solutions"])
def test_the_first_use_of_each_word_in_a_chapter_links_to_its_entry(contents, folder):
    path = ROOT / "notebooks" / folder / f"{contents.notebook}.ipynb"
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    seen = list(prose(path))
    links = [address for text, address in seen if text == OPENS and "glossary.md" in address]
    for address in links:
        file, anchor = address.split("#")
        assert (path.parent / file).resolve() == ROOT / "docs" / "glossary.md"
        assert page.count(f'<a id="{anchor}"></a>') == 1
    linked = [address.split("#")[1] for address in links]
    assert len(linked) >= 6
    words = read_words(ROOT / "docs" / "words.md")
    for word in words:
        before = ""
        for text, address in seen:
            if address and address.endswith(f"#{word.anchor}"):
                break
            before += f"\0{text}\0" if address else text
        said = [form for form in word.forms if is_said(form, " ".join(before.split()), words)]
        assert not said, f"{word.name} is said before it is linked"
        assert linked.count(word.anchor) <= 1


def is_said(form, text, words):
    """Whether the text uses the form by itself, and not in a longer form, as “prefill” is in “chunked prefill”."""
    for longer in (other for word in words for other in word.forms if form in other and form != other):
        text = text.replace(longer, "").replace(longer.capitalize(), "")
    any_case = f"(?i:{form[0]})" if form.islower() else re.escape(form[0])
    return re.search(rf"(?<![\w/-]){any_case}{re.escape(form[1:])}(?![\w/-])", text) is not None


def test_a_link_is_made_at_the_first_use_in_prose_only():
    words = (
        Word("TTFT", ("TTFT",), "time"),
        Word("KV block", ("KV block", "KV blocks"), "unit"),
        Word("lever", ("lever",), "x"),
    )
    linker = Linker(words)
    assert linker.link("# TTFT\n`TTFT`, [TTFT](x), a TTFT-like ttft: **TTFT**, TTFT") == (
        "# TTFT\n`TTFT`, [TTFT](x), a TTFT-like ttft: **[TTFT](../docs/glossary.md#ttft)**, TTFT"
    )
    assert linker.link("TTFT. Lever and lever. Leverage. KV\nblocks") == (
        "TTFT. [Lever](../docs/glossary.md#lever) and lever. Leverage. [KV\nblocks](../docs/glossary.md#kv-block)"
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("| a | a | x | |",), "5 columns"),
        (("| a | one | x | | |", "| b | one | y | | |"), "share one"),
        (("| a b | | x | | |", "| A-B | | y | | |"), "share a-b"),
        (("| a | | | | |",), "meaning"),
    ],
)
def test_a_wrong_row_is_named(rows, words, tmp_path):
    file = tmp_path / "words.md"
    file.write_text("\n".join(("| word | links | meaning | unit | chapter |", "|---|---|---|---|---|", *rows)))
    with pytest.raises(ExerciseError, match=words):
        read_words(file)
