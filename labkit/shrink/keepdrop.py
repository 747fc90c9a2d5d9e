"""Dropping the words that the answer does not need, as a small classifier judges them.

The classifier in `data/models/keepdrop` has learned from the lab's own prompts and grader (`labkit.shrink.train`). It knows
the shop's support desk and nothing else: on other text it guesses, and its card says how well.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from labkit.data import clone_path
from labkit.request import InvalidValue, Message
from labkit.shrink.dropping import Prompt, WordDropper
from labkit.shrink.protect import NOTHING
from labkit.shrink.wording import WordSpan, words

BUCKETS = 2048
NUMBERS = 12
AROUND = (-2, -1, 1, 2)
"""The words of whose hashes a word is judged: itself, these neighbours, and the one that begins its sentence."""
_FOLDER = clone_path("models") / "keepdrop"
_SHARED_LETTERS = 4  # shorter words, such as "the", tie no sentence to a question


@dataclass(frozen=True, slots=True)
class Features:
    """What the classifier sees of n words: `hashes` (n, 6) of `BUCKETS`, and `numbers` (n, `NUMBERS`) from 0 to 1."""

    hashes: NDArray[np.int32]
    numbers: NDArray[np.float32]


def features(messages: Sequence[Message], of: Mapping[int, Sequence[WordSpan]]) -> Features:
    """The features of all words of `of` (by the message's number), in their order, fixed ones included."""
    asked = {w for w in re.findall(r"\w+", messages[-1].content.lower()) if len(w) >= _SHARED_LETTERS}
    hashes: list[list[int]] = []
    numbers: list[list[float]] = []
    for number, found in of.items():
        text, last = messages[number].content, number == len(messages) - 1
        plain = [re.sub(r"\d", "0", text[w.start : w.end].lower()) for w in found]
        hashed = [1 + crc32(p.encode("utf-8", "surrogatepass")) % (BUCKETS - 1) for p in plain]
        starts = [
            i == 0 or plain[i - 1][-1] in ".?!:" or "\n" in text[found[i - 1].end : found[i].start]
            for i in range(len(found))
        ]
        begin = [i for i, start in enumerate(starts) if start] + [len(found)]
        for first, upto in pairwise(begin):
            opening = crc32(" ".join(plain[first : first + 2]).encode("utf-8", "surrogatepass")) % (BUCKETS - 1) + 1
            tied = not last and any(p in asked for p in plain[first:upto])
            for i in range(first, upto):
                near = [hashed[i + step] if 0 <= i + step < len(found) else 0 for step in AROUND]
                hashes.append([hashed[i], *near, opening])
                shown = text[found[i].start : found[i].end]
                numbers.append(
                    [
                        float(shown[0].isupper()),
                        float("0" in plain[i]),
                        float(not any(c.isalnum() for c in shown)),
                        min(1.0, len(shown) / 12),
                        float(messages[number].role == "system"),
                        float(last),
                        i / len(found),
                        min(1.0, (i - first) / 12),
                        min(1.0, (upto - i) / 12),
                        float(not last and plain[i] in asked),
                        float(tied),
                        min(1.0, len(found) / 200),
                    ]
                )
    return Features(
        np.array(hashes, dtype=np.int32).reshape(-1, 2 + len(AROUND)),
        np.array(numbers, dtype=np.float32).reshape(-1, NUMBERS),
    )


@dataclass(frozen=True)
class KeepDropModel:
    """The classifier's weights: a table of word vectors, and two layers.

    `needed(features)` is the probability, for each word, that the answer would be wrong without it.
    """

    table: NDArray[np.float32]
    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: float

    def needed(self, seen: Features) -> NDArray[np.float32]:
        """The probability that each word is needed, from 0 to 1."""
        if not len(seen.hashes):
            return np.zeros(0, dtype=np.float32)
        vectors = self.table[seen.hashes]
        whole = np.broadcast_to(vectors[:, 0].mean(0), (len(vectors), self.table.shape[1]))
        inputs = np.concatenate([vectors.reshape(len(vectors), -1), whole, seen.numbers], axis=1)
        hidden = np.maximum(inputs @ self.hidden + self.hidden_bias, 0)
        logits = hidden @ self.out + self.out_bias
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write `weights.npz`, in half precision, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            name: np.asarray(getattr(self, name), dtype=np.float16)
            for name in ("table", "hidden", "hidden_bias", "out", "out_bias")
        }
        np.savez(folder / "weights.npz", **arrays)


@cache
def keepdrop_model(folder: str = "") -> KeepDropModel:
    """The classifier in `folder`; without one, the lab's own.

    Raises `FileNotFoundError` where the weights are missing, and `InvalidValue` where they have another shape.
    """
    file = (Path(folder) if folder else _FOLDER) / "weights.npz"
    if not file.exists():
        raise FileNotFoundError(f"no weights in {file.parent}; restore them or run `python -m labkit.shrink.train`")
    with np.load(file) as found:
        loaded = {name: found[name].astype(np.float32) for name in found.files}
    wide = loaded["table"].shape[1] * (3 + len(AROUND)) + NUMBERS
    if loaded["table"].shape[0] != BUCKETS or loaded["hidden"].shape[0] != wide:
        raise InvalidValue(f"{file} was made by another version of labkit; run `python -m labkit.shrink.train` again")
    return KeepDropModel(loaded["table"], loaded["hidden"], loaded["hidden_bias"], loaded["out"], float(loaded["out_bias"]))


def keepdrop_card(folder: str = "") -> dict[str, Any]:
    """What the classifier was trained on and how well it does: `card.json` beside its weights."""
    found: dict[str, Any] = json.loads(((Path(folder) if folder else _FOLDER) / "card.json").read_text())
    return found


@dataclass(frozen=True)
class KeepDrop(WordDropper):
    """Drops the words that a small classifier thinks the answer does not need, the surest first.

    A word is worth −ln(1 − p), where p is the probability that the answer is wrong without it: the classifier was fitted so
    that these add up over the words that are dropped. `model` is a folder of weights; empty for the lab's own.
    """

    model: str = ""

    async def judge(self, prompt: Prompt) -> list[float]:
        """−ln(1 − p) of each word."""
        known = {n: words(m.content, NOTHING) for n, m in enumerate(prompt.messages)}
        needed = keepdrop_model(self.model).needed(features(prompt.messages, known))
        rows, worths = iter(needed.tolist()), []
        for n, found in known.items():
            rated = [(word.start, word.end, next(rows)) for word in found]
            at = 0
            for word in prompt.words.get(n, ()):
                if word.fixed:
                    continue
                while at < len(rated) and rated[at][1] <= word.start:
                    at += 1
                p = max((p for start, _, p in rated[at : at + 1 + word.end - word.start] if start < word.end), default=0.0)
                worths.append(-math.log1p(-min(p, 1 - 1e-6)))
        return worths

    def why(self, worths: Sequence[float]) -> str:
        """How probable it is that the answer needs one of the words."""
        return f"not needed for the answer: probability {math.exp(-sum(worths)):.2f}"
