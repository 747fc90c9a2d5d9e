"""The parts of an answer as endpoints write them: text, reasoning, refusals, log-probabilities, letters cut in half."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from labkit.request import EngineError, StreamIncomplete, TokenLogprob

_SURROGATE = re.compile("[\ud800-\udfff]")


class Halves:
    """Joins letters that come in two pieces, separately for each stream of text (a key).

    JSON may write an emoji as two halves (a surrogate pair), and an endpoint may cut between them. A half that stays alone
    becomes U+FFFD, because UTF-8 has no form for it.
    """

    def __init__(self) -> None:
        self._waiting: dict[str | int, str] = {}

    def join(self, key: str | int, text: str) -> str:
        """`text` after the half that waited under `key`. A half at its end is held back for the next call."""
        if self._waiting:
            text = self._waiting.pop(key, "") + text
        if text.isascii() or not _SURROGATE.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            self._waiting[key], text = text[-1], text[:-1]
        return clean(text)

    def rest(self) -> dict[str | int, str]:
        """U+FFFD for each key whose text ended with a half; nothing waits after that."""
        waiting, self._waiting = self._waiting, {}
        return dict.fromkeys(waiting, "\ufffd")


def parts_of(content: Any) -> tuple[str, str, str]:
    """(text, reasoning, refusal) of content that is not plain text.

    Raises `StreamIncomplete` for content that cannot be read, `EngineError` for a kind that this lab does not carry.
    """
    if content is None:
        return "", "", ""
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise StreamIncomplete(f"the engine sent content that is a {type(content).__name__}, not text")
    text, reasoning, refusal = [], [], []
    for part in content:
        if isinstance(part, str):
            text.append(part)
            continue
        if not isinstance(part, Mapping):
            raise StreamIncomplete(f"the engine sent a part of content that is a {type(part).__name__}, not text")
        kind = part.get("type") or "text"
        if kind in ("text", "output_text") and isinstance(part.get("text"), str):
            text.append(part["text"])
        elif kind in ("thinking", "reasoning"):
            reasoning.append(thoughts_of(part.get("thinking") or part.get("reasoning") or part.get("text")))
        elif kind == "refusal":
            refusal.append(refusal_of(part.get("refusal")))
        else:
            kind = kind if isinstance(kind, str) else type(kind).__name__
            raise EngineError(f"the answer holds content of kind {kind[:40]!r}, which this lab does not carry")
    return "".join(text), "".join(reasoning), "".join(refusal)


def thoughts_of(thoughts: Any, depth: int = 0) -> str:
    """The text of reasoning, nested at most four deep. Raises `StreamIncomplete` for anything else."""
    if isinstance(thoughts, str):
        return thoughts
    if isinstance(thoughts, Mapping) and depth < 4:
        said = thoughts.get("text") or thoughts.get("content") or thoughts.get("summary") or thoughts.get("thinking")
        return thoughts_of(said, depth + 1)
    if isinstance(thoughts, list) and depth < 4:
        return "".join(thoughts_of(part, depth + 1) for part in thoughts)
    if thoughts is None:
        return ""  # encrypted, or an empty form
    raise StreamIncomplete(f"the engine sent reasoning that is a {type(thoughts).__name__}, not text")


def refusal_of(refusal: Any) -> str:
    """The text of a refusal, "" for None. Raises `StreamIncomplete` for anything else."""
    if refusal is None:
        return ""
    if not isinstance(refusal, str):
        raise StreamIncomplete(f"the engine sent a refusal that is a {type(refusal).__name__}, not text")
    return refusal


def name_of(value: Any) -> str:
    """An id or a model's name: text, or a number as text; "" for anything else."""
    if isinstance(value, str):
        return clean(value[:500])
    return str(value) if type(value) in (int, float) and abs(value) < 1e30 else ""


def logprobs_of(choice: Mapping[str, Any], warn: Callable[[str], None]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities in a choice; an entry without a token or a number is left out, and `warn` is told."""
    given = choice.get("logprobs")
    content = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(content, list):
        return ()
    found = []
    for entry in content:
        one = _logprob(entry)
        if one is None:
            warn("logprobs")
            continue
        top = entry.get("top_logprobs")
        pairs = [pair for pair in map(_logprob, top if isinstance(top, list) else ()) if pair is not None]
        found.append(TokenLogprob(*one, tuple(pairs)))
    return tuple(found)


def clean(text: str) -> str:
    """`text` with pairs of surrogates joined, and lone ones as U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _logprob(entry: Any) -> tuple[str, float] | None:
    if not isinstance(entry, Mapping):
        return None
    token, logprob = entry.get("token"), entry.get("logprob")
    if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    try:
        value = float(logprob)
    except OverflowError:
        return None
    return None if math.isnan(value) else (clean(token), value)
