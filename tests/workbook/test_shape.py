from dataclasses import replace

import pytest

from labkit.workbook.shape import problems
from tests.workbook.test_exercise import staged
from tests.workbook.tiny import CHAPTER, SOURCE

SIZE = {
    "a chapter has a quiz of three, this one of 1",
    "a chapter has three exercises or more, this one 1",
    "a chapter leaves three more questions or more to later ones (bank=), this one 0",
}


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
        ("{{time}}", "10 minutes.", "{{time}}"),
        ("{{needs}}", "Nothing.", "{{needs}}"),
        ("usage = Usage(", "live = await connect('small')\nusage = Usage(", "book.connect"),
        ("book.warm_up()", "pass", "warm_up"),
        ("# ## Predict", "# ## Predict\n\n# %%\nbook.warm_up()", "warm_up"),
        ("def cached_share(", "a = 1\n" * 40 + "def cached_share(", "lines of code, more than 40"),
    ],
)
def test_a_missing_bone_is_named(old, new, words):
    assert old in SOURCE
    assert any(words in problem for problem in problems(SOURCE.replace(old, new), CHAPTER))


def test_a_long_build_stands_where_it_may_be_skipped():
    contents = replace(CHAPTER, exercises=(staged(id="99.1"),))
    assert "the long build 99.1 must stand in a cell tagged further" in problems(SOURCE, contents)
    apart = SOURCE.replace("# ## Do\n#\n# {{exercise", '# ## Do\n\n# %% [markdown] tags=["further"]\n# {{exercise')
    assert apart != SOURCE
    assert set(problems(apart, contents)) == SIZE
    two = replace(contents, exercises=(*contents.exercises, staged(id="99.2")))
    assert any("one long build at most" in problem for problem in problems(apart, two))


UNDER = """
# %%
show(chart, alt="", source="")

# %% [markdown]{tags}
# {prose}
#
# ### The next part
#
# What is faster here is another matter.
"""


@pytest.mark.parametrize(
    ("cell", "refused"),
    [
        ('chart.properties(title="Caching is faster")', "faster"),
        ('chart.properties(title=f"{n} users: half of the time")', "half"),
        ('chart.properties(title="Caching is faster" if fast else "It is not")', ""),
        ('chart.properties(title=f"{n} times")', ""),
        ('alt.X("n:Q", title="lower is better")', ""),
        ('Markdown(f"It was **{n} ms**, twice the other.")', "twice"),
        ('Markdown(f\'It was {n} ms: {"less" if n < 2 else "never so much"}.\')', ""),
        ('book.finding(below(a, b), "It is faster.", "It is slower.")', ""),
        (UNDER.format(tags="", prose="The second one was cheaper."), "cheaper"),
        (UNDER.format(tags="", prose="Two numbers, one of each."), ""),
        (UNDER.format(tags=' tags=["reasoned"]', prose="More tokens never take fewer steps."), ""),
    ],
)
def test_what_is_said_of_a_result_must_depend_on_it(cell, refused):
    source = SOURCE.replace("# %% [markdown]\n# ## Move", f"# %%\n{cell}\n\n# %% [markdown]\n# ## Move")
    found = set(problems(source, CHAPTER)) - SIZE
    assert len(found) == bool(refused)
    assert all(refused in problem for problem in found)


CHART = 'show(1, alt="a", source="s")\n'


@pytest.mark.parametrize(
    ("shown", "leaks"),
    [
        (f"# %%\n{CHART}\n# %%\nbook.reveal('99.share', 1)\n", True),
        (f"# %%\n{CHART}book.reveal('99.share', 1)\n", True),
        ("# %%\nbook.finding(True, 'a', 'b')\n\n# %%\nbook.reveal('99.share', 1)\n", True),
        (f"# %%\nbook.reveal('99.share', 1)\n\n# %%\n{CHART}", False),
        (f"# %%\n{CHART}\n# %% [markdown]\n# ### Next\n\n# %%\nbook.reveal('99.share', 1)\n", False),
    ],
)
def test_what_shows_a_result_before_it_is_revealed_is_named(shown, leaks):
    source = f"# %%\nfound = await book.measure('m', work)\n\n{shown}"
    assert any("before ['99.share'] is revealed" in problem for problem in problems(source, CHAPTER)) is leaks


@pytest.mark.parametrize(
    ("by", "refused"), [("", True), (", by=' '", True), (", by='A Blog, 2025'", False), (", by=f'{a}, {b}'", False)]
)
def test_a_claim_names_who_makes_it(by, refused):
    cell = f"# %%\nbook.claim('99.half', 'It halves.', claimed=3{by})\n\n"
    source = SOURCE.replace("# %% [markdown]\n# ## Move", f"{cell}# %% [markdown]\n# ## Move")
    assert any("'99.half' names nobody" in problem for problem in problems(source, CHAPTER)) is refused
