from dataclasses import replace

import jupytext
import pytest

from labkit.workbook.build import build, folded
from labkit.workbook.minutes import Minutes, estimate, is_further
from tests.workbook.test_exercise import staged
from tests.workbook.tiny import CHAPTER, SOURCE

FURTHER = """\
# %% [markdown]
# ### First
# {words}

# %% [markdown] tags=["further"]
# ### Second
# {words}

# %% [markdown]
# #### A part of the second
# {words}

# %%
n = 1

# %% [markdown]
# ### Third
# {words}

# %% [markdown] tags=["further"]
# {{{{exercise 99.1}}}}
# {words}

# %% [markdown]
# ## Quiz
# {words}
""".format(words="word " * 200)


def minutes(source, measured_s=None):
    cells = jupytext.reads(source, fmt="py:percent").cells
    return estimate(cells, CHAPTER, [folded(cell) for cell in cells], measured_s or {})


def test_a_part_to_skip_ends_at_the_next_heading_of_its_level_or_above():
    cells = jupytext.reads(FURTHER, fmt="py:percent").cells
    assert is_further(cells) == [False, True, True, True, False, True, False]
    found = minutes(FURTHER)
    heads = 10 / 200  # of six headings
    assert found.core == pytest.approx(3, abs=heads)
    assert found.further == pytest.approx(3 + 3 + 1 / 15, abs=heads)  # three texts, the exercise's 3 minutes, a line


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ("# %%\nx = 1\n\ny = 2\n", 8),
        ("# %%\nshow(chart, alt='', source='')\n", 20),
        ("# %%\nlive_chart(draw)\n", 90),
        ('# %%\nbook.quiz("99.q1", "?", answer="a", why="b", wrong={})\n', 40),
        ('# %%\nfound = await book.measure("sweep", work)\n', 4 + 30),
        ('# %%\nlive = await book.connect("small")\n', 4 + 20),
        ("# %% [markdown]\n# " + "word " * 100 + "\n", 30),
    ],
)
def test_each_thing_takes_its_time(more, seconds):
    base = minutes(SOURCE, {"sweep": 30}).core
    assert 60 * (minutes(f"{SOURCE}\n{more}", {"sweep": 30}).core - base) == pytest.approx(seconds)


def test_a_long_build_has_minutes_of_its_own():
    contents = replace(CHAPTER, exercises=(staged(id="99.1", minutes=45),))
    cells = jupytext.reads(FURTHER, fmt="py:percent").cells
    found = estimate(cells, contents, [folded(cell) for cell in cells], {})
    assert found.build == 45
    assert found.further == pytest.approx(minutes(FURTHER).further - 3)
    assert found.words.endswith(", and 45 more if you take on the long build.")
    assert (
        Minutes(41, 12, 45).words == "45 minutes, 15 more for the parts marked ◇, and 45 more if you take on the long build."
    )
    assert Minutes(41, 0, 45).words == "45 minutes, and 45 more if you take on the long build."


def test_the_notebook_says_both_and_marks_what_may_be_skipped():
    assert Minutes(41, 0).words == "45 minutes."
    assert Minutes(41, 12).words == "45 minutes, and 15 more for the parts marked ◇."
    source = SOURCE.replace("# %% [markdown]\n# {{exercise", '# %% [markdown] tags=["further"]\n# {{exercise')
    source = source.replace(
        "# %% [markdown]\n# ## Do\n#\n# {{", '# %% [markdown]\n# ## Do\n\n# %% [markdown] tags=["further"]\n# {{'
    )
    built = build(source, CHAPTER).learner
    assert "more for the parts marked ◇." in built
    assert "### ◇ Exercise 99.1" in built
    assert "{{" not in built.replace("{{{", "")
