"""White space, lines and paragraphs that say nothing new: the cuts that need no model and lose nothing.

*Duplicates*: a paragraph of prose that an earlier place has already, in the same words, in the same message or in one that
the model reads with the same authority (the same role and name). *Repeated lines*: a sentence on a line of its own, right
below the same sentence, unless it holds a figure, since how often a figure is said may count. *White space*: blanks at the
end of a line, blank lines after the first of a run and at both ends of a message, blanks after the first inside of prose.

Never touched: what stands between fences or is indented, tables, lists and YAML (but for blanks at their ends), white space
in quotes and in protected text, the answers of tools and the turns that call them. No message is left empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from labkit.request import InvalidValue, Message, Request
from labkit.shrink.cut import Cut
from labkit.shrink.harm import harmless
from labkit.shrink.layout import Line, lines_of, paragraphs_of, runs_of_blanks
from labkit.shrink.protect import FACTS, NOTHING, NUMBERS, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk

_Plan = Callable[[Sequence[Message]], Iterator[Cut]]
_SENTENCE = re.compile(r"(?:\S+\s+){2}.*[.!?][\"”’)]?|.{8,}[。！？।]")


@dataclass(frozen=True, slots=True)
class Tidy(Shrinker):
    """Removes white space, repeated lines, and duplicate paragraphs of at least `least` characters, as far as asked.

    All its cuts are lossless, and done twice it changes nothing more. Raises `InvalidValue` for a `least` below 1.
    """

    white_space: bool = True
    repeated_lines: bool = True
    duplicates: bool = True
    least: int = 80
    protect: Protect = FACTS

    def __post_init__(self) -> None:
        if self.least < 1:
            raise InvalidValue(f"Tidy.least is {self.least}; a duplicate has at least 1 character")

    async def shrink(self, request: Request) -> Shrunk:
        """The messages of `request` without what says nothing new; one step a rule.

        Raises `InstructionMissing` as `Protect.check` does.
        """
        self.protect.check(request.messages)
        rules: list[_Plan] = [
            *([self._duplicates] if self.duplicates else []),
            *([self._repeated_lines] if self.repeated_lines else []),
            *([self._white_space] if self.white_space else []),
        ]
        done, before = Shrunk.of(request.messages), -1
        while before < len(done.steps):  # a cut may bring two equal lines together: once more, until nothing is left to do
            before = len(done.steps)
            for rule in rules:
                cuts = harmless(done.after, rule(done.after), NOTHING)
                done = done.then(Shrunk.of(done.after, [replace(cut, lossless=True) for cut in cuts]))
        return done

    def _duplicates(self, messages: Sequence[Message]) -> Iterator[Cut]:
        first: dict[tuple[str, str, str], int] = {}
        for at, message in _open(messages):
            text, spans = message.content, self.protect.spans(message.content)
            paragraphs = list(paragraphs_of(lines_of(text)))
            cuts = []
            for paragraph in paragraphs:
                start, end = paragraph[0].start, paragraph[-1].end
                if end - start < self.least or any(line.kind != "prose" for line in paragraph):
                    continue
                said = text[start:end]
                if not any(instruction in said for instruction in self.protect.instructions):
                    said = " ".join(said.split())
                key = (message.role, message.name, said)
                if key in first and _holds_whole(spans, start, end):
                    why = f"message {first[key]} ({message.role}) says the same"
                    cuts.append(Cut(at, start, paragraph[-1].next, by="duplicates", why=why))
                first.setdefault(key, at)
            if len(cuts) < len(paragraphs):
                yield from cuts

    def _repeated_lines(self, messages: Sequence[Message]) -> Iterator[Cut]:
        for at, message in _open(messages):
            spans = self.protect.spans(message.content)
            for above, line in pairwise(lines_of(message.content)):
                if (
                    above.kind == line.kind == "prose"
                    and above.text.split() == line.text.split()
                    and _SENTENCE.fullmatch(line.text)
                    and not NUMBERS.spans(line.text)
                    and _holds_whole(spans, line.start, line.end)
                ):
                    yield Cut(at, line.start, line.next, by="repeated-lines", why="the line above says the same")

    def _white_space(self, messages: Sequence[Message]) -> Iterator[Cut]:
        planned = [cut for at, message in _open(messages) for cut in _blanks(at, message.content)]
        yield from harmless(messages, planned, self.protect)


def _open(messages: Sequence[Message]) -> Iterator[tuple[int, Message]]:
    """The messages that may be changed, with their numbers: not the calls of tools, nor their answers."""
    return ((at, m) for at, m in enumerate(messages) if m.role != "tool" and not m.tool_calls)


def _holds_whole(spans: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Whether each protected text that has a part in start to end lies in it."""
    return all(start <= a and b <= end for a, b in spans if a < end and start < b)


def _blanks(at: int, text: str) -> Iterator[Cut]:
    """The white space of message number `at` that says nothing."""
    lines = lines_of(text)
    for line in lines:
        if line.kind in ("prose", "other"):
            yield from _cut(at, *_trailing(text, line), "blanks at the end of a line")
        if line.kind == "prose":
            for start, end in runs_of_blanks(line):
                yield from _cut(at, start, end, "one blank is enough here")
    begin = 0
    for blank, run in groupby(lines, lambda line: line.kind == "blank"):
        end = begin + len(list(run))
        if blank and end - begin < len(lines):
            yield from _blank_lines(at, text, lines, begin, end)
        begin = end


def _blank_lines(at: int, text: str, lines: Sequence[Line], begin: int, end: int) -> Iterator[Cut]:
    """The blank lines number `begin` to `end` (not included), but for the first of those between two texts."""
    if begin == 0:
        yield from _cut(at, 0, lines[end].start, "blank lines at the beginning")
    elif end == len(lines):
        above = lines[begin - 1]
        yield from _cut(at, above.next - len(_line_end(text, above)), len(text), "blank lines at the end")
    elif not lines[begin - 1].kind == lines[end].kind == "fixed":  # in code they may stand on purpose
        yield from _cut(at, *_trailing(text, lines[begin]), "blanks at the end of a line")
        yield from _cut(at, lines[begin].next, lines[end].start, "blank lines in a row")


def _cut(at: int, start: int, end: int, why: str) -> Iterator[Cut]:
    if start < end:
        yield Cut(at, start, end, by="white-space", why=why)


def _trailing(text: str, line: Line) -> tuple[int, int]:
    return line.end, line.next - len(_line_end(text, line))


def _line_end(text: str, line: Line) -> str:
    after = text[line.end : line.next]
    return after[len(after.rstrip("\r\n")) :]
