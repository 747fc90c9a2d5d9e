import pytest

from labkit.workbook.shape import problems
from tests.workbook.tiny import CHAPTER, SOURCE

SIZE = {"a chapter has a quiz of three, this one of 1", "a chapter has three exercises or more, this one 1"}


def test_the_guides_example_lacks_nothing_but_its_size():
    assert set(problems(SOURCE, CHAPTER)) == SIZE


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# ## Predict", "# ## Guess", "sections"),
        ("**Time.**", "Time.", "lacks"),
        ("off the bill?", "off?", "no money"),
        ("Only the input got cheaper.", "It took 12 ms.", "states '12 ms'"),
        ("import altair as alt", "import altair as alt\n%pip install x", "no installing"),
        ("book.recap()", "pass", "recap"),
        ('book.check("99.1", cached_share)', "pass", "book.check"),
        ("usage = Usage(", "seed = 3\nusage = Usage(", "overwrites the parameter seed"),
        ("Chapter 01.", "See `/home/me/x`.", "absolute path"),
        ('book.reveal("99.cheaper", "no")', "pass", "book.reveal"),
    ],
)
def test_a_missing_bone_is_named(old, new, words):
    assert old in SOURCE
    assert any(words in problem for problem in problems(SOURCE.replace(old, new), CHAPTER))
