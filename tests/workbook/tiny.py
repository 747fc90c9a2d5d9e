"""The authoring guide's own example, so that what the guide teaches is what the tests prove."""

import re

from labkit.request import Usage
from labkit.workbook import Book, Chapter, Exercise, Quiz, agree
from labkit.workbook.paths import notebooks_dir
from labkit.workbook.store import Journal

GUIDE = (notebooks_dir() / "AUTHORING.md").read_text(encoding="utf-8")
SOURCE = next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "# # 99 · Tiny" in block)


def cached_share(usage: Usage) -> float:
    return usage.cached_tokens / usage.input_tokens if usage.input_tokens else 0.0


def check_cached_share(answer, rng):
    for _ in range(20):
        total = rng.randrange(1, 9_000)
        usage = Usage(total, rng.randrange(100), cached_tokens=rng.randrange(total + 1))
        yield agree(answer, usage, expected=cached_share(usage))
    yield agree(answer, Usage(0, 5), expected=0.0)


EXERCISE = Exercise(
    id="99.1",
    title="The cached share",
    minutes=3,
    difficulty=1,
    answer="cached_share",
    check=check_cached_share,
    reference=cached_share,
    hints=("Look at the fields of Usage.", "Cached tokens are part of input_tokens."),
    wrong=(lambda usage: usage.cached_tokens / (usage.input_tokens + usage.cached_tokens),),
    limit_s=1.0,
)
QUIZ = Quiz(
    "99.q1",
    "Are cached tokens part of input_tokens?",
    answer="yes",
    why="Because.",
    wrong={"no": "For <that> reason."},
)
CHAPTER = Chapter("99", "tiny", "Tiny", (EXERCISE,), ("99.share", "99.cheaper"), (QUIZ,))


class NoBench:
    """The bench of a book that measures nothing; it remembers results and lines, and what a quiet machine found."""

    def __init__(self, quiet=None):
        self.said = {}
        self.lines = []
        self.quiet = quiet

    def revealed(self, id, result):
        self.said[id] = result

    def billed(self, line):
        self.lines.append(line)

    def quiet_result(self, _id):
        return self.quiet


def book_of(contents=CHAPTER, **fields):
    chosen = {"profile": "ci", "engine": "auto", "seed": 0, "solutions": False, "bench": NoBench(), "journal": Journal(None)}
    return Book(contents, **(chosen | fields))
