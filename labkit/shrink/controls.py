"""The two controls of every chart of accuracy: cutting the text off, and dropping words by lot.

A shrinker that keeps no more answers right than these at the same length has learned nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.request import InvalidValue
from labkit.shrink.dropping import Prompt, WordDropper


@dataclass(frozen=True)
class Truncate(WordDropper):
    """Keeps one end of the prompt, the "head" or the "tail", or "ends" (both), and drops the words farthest from it.

    All messages count as one text in their order.
    """

    keep: Literal["head", "tail", "ends"] = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep not in ("head", "tail", "ends"):
            raise InvalidValue(f"keep is {self.keep!r:.40}; use head, tail or ends")

    async def judge(self, prompt: Prompt) -> list[float]:
        """How near each word is to what stays."""
        n = len(prompt.free)
        if self.keep == "ends":
            return [abs(i - (n - 1) / 2) for i in range(n)]
        return [float(-i if self.keep == "head" else i) for i in range(n)]

    def why(self, worths: Sequence[float]) -> str:  # noqa: ARG002
        """Where the text was cut."""
        return {"head": "cut off behind", "tail": "cut off in front", "ends": "cut out of the middle"}[self.keep]


@dataclass(frozen=True)
class DropRandom(WordDropper):
    """Drops words by lot. The same prompt loses the same words with the same `seed`."""

    seed: int = 0

    async def judge(self, prompt: Prompt) -> list[float]:
        """A random number for each word."""
        whole = "/".join((str(self.seed), *(m.content for m in prompt.messages)))
        rng = random.Random(whole.encode("utf-8", "surrogatepass"))
        return [rng.random() for _ in prompt.free]

    def why(self, worths: Sequence[float]) -> str:  # noqa: ARG002
        """The lot."""
        return f"drawn by lot, seed {self.seed}"
