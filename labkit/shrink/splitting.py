"""Where the sentences of a text begin and end, in the scripts of the world, in lists, tables and code."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.M)
_ENDS = re.compile(
    r"(?P<wide>[。！？｡।॥።။។؟۔]++[」』”’）)\"]*+\s*+)"
    r"|(?<![.!?…])(?P<mark>[.!?…]++)[\"'”’»›)\]*_]*+(?P<gap>\s++)"
    r"|(?<![ \t])(?P<line>[ \t]*+\n\s*+)"
)
_NEW_LINE = re.compile(r"[-*+•·–—◦▪>|#]|\d{1,3}[.)]|[a-zA-Z][.)]\s|</?[\w.-]+[^<>]*>|[^\s:：]{1,30}[:：]\s")
_OWN_LINE = re.compile(r"\s*(?:[-*+•·–—◦▪>|#]|\d{1,3}[.)]\s|</?[\w.-]+[^<>]*>\s*$)")
_WORD = re.compile(r"[\w.&-]+\Z")
_SHORT = (
    r"mr|mrs|ms|dr|prof|st|sr|jr|rev|gen|col|sgt|capt|lt|hon|vs|viz|cf|ca|approx|eds|mme|mlle|mm|av|bd|env|sra|srta|uds?|ing"
    r"|dott|sig|bzw|ggf|inkl|exkl|evtl|vgl|hrsg|str|tel|bspw|sog|bijv|dhr|mevr|tzw|p\.ex|c\.-à-d|jan|feb|apr|jun|jul|aug|sept?"
    r"|oct|nov|dec|[^\W\d]|(?:[^\W\d]\.)+[^\W\d]"
)
_MAY_END = "a.m", "p.m", "u.s", "u.k", "e.u", "inc", "ltd", "co", "corp", "usw", "al", "enz", "itd", "itp"
_BEFORE_NUMBERS = "no", "nos", "nr", "nrs", "fig", "figs", "eq", "sec", "ch", "vol", "p", "pp", "art", "abs", "tab", "núm"
_MONTH = re.compile(
    r"(?i)jan|f[eé]v|feb|m[aä]r|a[pv]r|ma[ijy]|ju[nli]|a[uo][gû]|sep|o[ck]t|nov|d[eé][cz]|gen|giu|lug|ago|set|ott|dic"
)
_WRAPPED = 60  # characters in a line of prose from which its end may be where a text was broken over lines


def sentences(text: str) -> list[tuple[int, int]]:
    """The sentences of `text` as (start, end), in order. They leave nothing out: blanks belong to the sentence before them.

    A full stop ends no sentence after a known abbreviation or an initial, in a number, or before a small letter. The marks
    of Chinese, Japanese, Hindi, Arabic and others end one without a blank. A line of a list, a table, a heading or a tag is
    a sentence of its own, while prose that is broken over lines is put together again. A fenced block of code is one
    sentence.
    """
    found: list[tuple[int, int]] = []
    at = 0
    for start, end, is_code in _blocks(text):
        if is_code:
            found.append((start, end))
            continue
        at = start
        for stop in _stops(text, start, end):
            found.append((at, stop))
            at = stop
        if at < end:
            found.append((at, end))
    return _without_blanks(text, found)


def _blocks(text: str) -> list[tuple[int, int, bool]]:
    """`text` cut into prose and fenced code, each with its line breaks."""
    fences = [match.start() for match in _FENCE.finditer(text)]
    blocks, at = [], 0
    for opens, closes in zip(fences[::2], fences[1::2], strict=False):
        end = text.find("\n", closes)
        end = len(text) if end < 0 else end + 1
        blocks += [(at, opens, False), (opens, end, True)]
        at = end
    return [block for block in (*blocks, (at, len(text), False)) if block[0] < block[1]]


def _stops(text: str, start: int, end: int) -> list[int]:
    """Where a sentence ends within prose, after its blanks."""
    stops, line = [], start
    for match in _ENDS.finditer(text, start, end):
        blanks = match["gap"] or match["line"] or match["wide"]
        if match.end() < end and _ends(text, match, start, line, blanks):
            stops.append(match.end())
        if "\n" in blanks:
            line = match.end()
    return stops


def _ends(text: str, match: re.Match[str], start: int, line: int, blanks: str) -> bool:
    """Whether the mark or the line break that `match` found ends a sentence; `line` is where its line begins."""
    after = text[match.end() : match.end() + 40]
    if match["wide"] or blanks.count("\n") > 1:
        return True
    if "\n" in blanks and (_NEW_LINE.match(after) or _OWN_LINE.match(text[line : match.start()])):
        return True
    if match["line"]:
        if text[match.start() - 1 : match.start()] in (":", "："):
            return True
        return not after[:1].islower() and match.start() - line < _WRAPPED
    if after[:1].islower():
        return False
    if match["mark"] != ".":
        return True
    word = _WORD.search(text, max(start, match.start() - 20), match.start())
    return word is None or not _is_short(word[0].lower(), after, begins_line=word.start() - line < 4)


def _is_short(word: str, after: str, begins_line: bool) -> bool:
    """Whether the full stop after `word` belongs to it, and ends no sentence."""
    if word.isdecimal():
        return len(word) <= 3 and (begins_line or _MONTH.match(after) is not None)
    if word in _MAY_END:
        return not after[:1].isupper()
    if word in _BEFORE_NUMBERS:
        return after[:1].isdecimal()
    return re.fullmatch(_SHORT, word) is not None


def _without_blanks(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """`spans` with those that are blank joined to the one before, or at the beginning to the one after."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and not (text[start:end].strip() and text[slice(*found[-1])].strip()):
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
