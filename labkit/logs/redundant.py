"""Chapter 09's question: how much of the prompts says nothing new, so that it could go with nothing lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from labkit.logs.call import Call, Log
from labkit.logs.numbers import TEXTS, Need, OwnNumber, cannot, in_percent, of, percent, ratio
from labkit.request import InvalidRequest, Message, Request
from labkit.shrink import Compact, Shrinker, Shrunk, Tidy

MOST = 200
"""So many prompts are looked at, evenly spread over the log."""
_WHAT = "the share of the prompts' text that could go with nothing lost"
_REPEATED = {"duplicates", "repeated-lines"}


def spare(log: Log, most: int = MOST) -> OwnNumber:
    """The share of the prompts' characters that `Tidy` and `Compact` take away with nothing lost, in up to `most` prompts.

    That is white space, lines and paragraphs that a prompt says twice, and JSON of tools that can be written shorter. What
    is said again from call to call is another matter: a prefix cache sells it cheaper (chapter 03). Characters stand for
    tokens, of which a log does not keep the text. A log without prompts says what it needs.
    """
    calls = [call for call in log.calls if call.turns]
    if not calls:
        return cannot("09", _WHAT, "%", log, TEXTS)
    step = max(1, len(calls) // most)
    parts = [_parts(call) for call in calls[::step][:most]]
    found = ratio((white + twice + json, whole) for whole, white, twice, json in parts)
    if found is None:
        return cannot("09", _WHAT, "%", log, TEXTS)
    whole = sum(part[0] for part in parts)
    rows = tuple(
        (name, f"{100 * sum(part[at] for part in parts) / whole:.1f} %")
        for at, name in ((1, "white space"), (2, "said twice in one prompt"), (3, "JSON of tools, written as columns"))
    )
    number, interval = in_percent(found)
    sentence = (
        f"{of(log)}: {percent(found)} of the prompts' text could go with nothing lost, as white space, as what a prompt "
        "says twice, or as JSON that can be written shorter."
    )
    seen = (("prompts looked at", f"{len(parts):,} of {len(calls):,}"),)
    needs = () if len(calls) == len(log) else (Need(f"prompt in {len(log) - len(calls):,} calls", TEXTS.log),)
    return OwnNumber("09", _WHAT, number, "%", sentence, interval, needs, (*rows, *seen))


def _parts(call: Call) -> tuple[int, int, int, int]:
    """Characters of a prompt, and those of them that go as white space, as said twice, and as longer JSON."""
    messages = tuple(_message(role, text) for role, text in call.turns)
    tidy = _done(Tidy(), messages)
    compact = _done(Compact(count=len), tidy.after)
    gone = {"white": 0, "twice": 0, "json": 0}
    for step in (*tidy.steps, *compact.steps):
        for cut in step.cuts:
            kind = "twice" if cut.by in _REPEATED else "json" if cut.by == "compact" else "white"
            gone[kind] += cut.end - cut.start - len(cut.left)
    return sum(len(m.content) for m in messages), gone["white"], gone["twice"], gone["json"]


def _done(shrinker: Shrinker, messages: Sequence[Message]) -> Shrunk:
    """What `shrinker` does; the two that are used here wait for nothing, so no event loop is needed."""
    try:
        shrinker.shrink(Request(tuple(messages))).send(None)
    except StopIteration as end:
        return cast(Shrunk, end.value)
    raise AssertionError(f"{type(shrinker).__name__} waits for something")


def _message(role: str, text: str) -> Message:
    """A turn of a log; a role that the lab does not know counts as the user's."""
    try:
        return Message(role, text)  # type: ignore[arg-type]
    except InvalidRequest:
        return Message("user", text)
