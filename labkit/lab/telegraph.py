"""The desk's tasks in telegraph style: prompts with unimportant words left out.

What a task needs stays: numbers, names, products, negations, what is asked for. What goes are courtesies, articles, little
words, sentences of a policy that decide nothing, and windows for goods that nobody asks about.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from labkit.lab.tasks import DESK, FILLER, NOUNS, Example
from labkit.request import InvalidValue, Message

_LITTLE = frozenset(
    re.findall(
        r"\w+",
        "a an the to of at for by from with in on and how about as there here each so if is are be do does did have has had "
        "can could would will shall may i you we my your our me us it its that this these what which please like want need "
        "tell let",
    )
)
_COURTESIES = re.compile(
    r"\b(Hi|Hello|Good morning|Hey there|Dear team)[.,] |(?: (Thanks|Thank you!|Please hurry|I am waiting)[.]?)$"
)
# Little words that carry the meaning where they stand.
_KEPT = re.compile(r"\b(in all|in stock|have a copy|how (?:long|large)|size to take)\b")
_WINDOW = re.compile(rf"Return window ({'|'.join(NOUNS)}) \d+ days\.")
# Sentences that decide nothing: a policy's filler, and where the desk is.
_IDLE = re.compile(
    "|".join(re.escape(line).replace(r"\{n\}", r"\d+").replace(r"\{city\}", r"\w+") for line in (*FILLER, DESK)),
)


def terse(example: Example, share: float, rng: random.Random) -> Example:
    """`example` with about `share` (0 to 1) of its unimportant words left out, chosen by `rng`; the answer is the same.

    Whole sentences that decide nothing go with that probability too. The system prompt and the customer's messages are cut,
    an assistant's are not. Raises `InvalidValue` for a share out of range.
    """
    if not 0 <= share <= 1:
        raise InvalidValue(f"share is {share}; give the share of unimportant words to leave out, from 0 to 1")
    asked = set(re.findall("|".join(NOUNS), example.messages[-1].content))
    cut = []
    for message in example.messages:
        text = message.content
        if message.role == "system":
            text = _without_sentences(text, asked, share, rng)
        if message.role != "assistant":
            text = _without_words(_COURTESIES.sub(lambda m: "" if rng.random() < share else m[0], text), share, rng)
        cut.append(Message(message.role, text))
    return replace(example, id=f"{example.id}-terse", messages=tuple(cut))


def _without_sentences(text: str, asked: set[str], share: float, rng: random.Random) -> str:
    """Drop filler sentences, and windows for other goods than `asked`, each with probability `share`."""
    kept = []
    for sentence in re.split(r"(?<=[.:]) (?=[A-Z])", text):
        window = _WINDOW.fullmatch(sentence)
        idle = window[1] not in asked if window and asked else _IDLE.fullmatch(sentence)
        if not (idle and rng.random() < share):
            kept.append(sentence)
    return " ".join(kept)


def _without_words(text: str, share: float, rng: random.Random) -> str:
    protected = [m.span() for m in _KEPT.finditer(text)]

    def keep(found: re.Match[str]) -> str:
        inside = any(low <= found.start() < high for low, high in protected)
        little = found[1].lower() in _LITTLE and not inside
        return "" if little and rng.random() < share else found[0]

    return re.sub(r"(?<![\w'\"])([A-Za-z]+)(?![\w'\"])[ ]?", keep, text).strip()
