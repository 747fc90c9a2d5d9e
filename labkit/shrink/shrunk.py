"""What a shrinker did to a prompt: the messages before and after, and every cut between them, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from labkit.request import InvalidValue, Message
from labkit.shrink.cut import Cut
from labkit.shrink.harm import check, made
from labkit.shrink.protect import NOTHING, Protect


@dataclass(frozen=True, slots=True)
class ShrinkStep:
    """One shrinker's work: the messages it was given, and its cuts in their order."""

    before: tuple[Message, ...]
    cuts: tuple[Cut, ...]

    def removed(self, cut: Cut) -> str:
        """The text that `cut` took away."""
        return self.before[cut.message].content[cut.start : cut.end]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A prompt and what became of it: `after` is always `before` with the cuts of `steps` made, one step after another.

    Made by `Shrunk.of`, so that nothing can be removed without a cut that says so.
    """

    before: tuple[Message, ...]
    after: tuple[Message, ...]
    steps: tuple[ShrinkStep, ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message], cuts: Iterable[Cut] = (), protect: Protect = NOTHING) -> Self:
        """`messages` with `cuts` made. Cuts may come in any order and must not overlap.

        Raises `InvalidValue` for cuts that overlap or lie outside their message, or that take a visible character apart.
        Raises `ProtectedTextLost`, which names the text, where a cut that is not lossless would remove or change text that
        `protect` keeps, or would make new text of that kind. `harmless` picks those cuts of a list that pass.
        """
        before = tuple(messages)
        ordered = tuple(sorted(cuts, key=lambda cut: (cut.message, cut.start, cut.end)))
        by_message: dict[int, list[Cut]] = {}
        for cut in ordered:
            if cut.message >= len(before) or cut.end > len(before[cut.message].content):
                raise InvalidValue(f"{cut} lies outside the prompt, which has {len(before)} messages")
            by_message.setdefault(cut.message, []).append(cut)
        after: list[Message] = []
        for number, message in enumerate(before):
            own = by_message.get(number, [])
            if not own:
                after.append(message)
                continue
            check(message.content, own, protect)
            if not own[0].whole:
                after.append(replace(message, content=made(message.content, own)))
        return cls(before, tuple(after), (ShrinkStep(before, ordered),) if ordered else ())

    def then(self, later: Shrunk) -> Shrunk:
        """This and `later`, which went on from what this left. Raises `InvalidValue` where it began from something else."""
        if later.before != self.after:
            raise InvalidValue("the second shrinker did not begin from the messages that the first one left")
        return Shrunk(self.before, later.after, self.steps + later.steps)

    @property
    def lossless(self) -> bool:
        """Whether all that was cut can be restored from what is left."""
        return all(cut.lossless for step in self.steps for cut in step.cuts)

    def saved(self, count: Callable[[str], int]) -> int:
        """Tokens of the messages' texts that are gone, by `count` (such as `tokenizer("lab").count`); negative for more."""
        return sum(count(m.content) for m in self.before) - sum(count(m.content) for m in self.after)

    def explain(self, limit: int = 60) -> str:
        """One line a cut: which message, what was removed, what stands there now, by which rule and why.

        `limit` is the number of characters shown of each text.
        """
        lines = []
        for number, step in enumerate(self.steps):
            for cut in step.cuts:
                gone = _short(step.removed(cut), limit)
                left = f" → {_short(cut.left, limit)}" if cut.left else ""
                role = step.before[cut.message].role
                stage = f"step {number + 1}, " if len(self.steps) > 1 else ""
                lines.append(f"{stage}message {cut.message} ({role}) [{cut.by}] {gone}{left}: {cut.why}")
        return "\n".join(lines) or "nothing was removed"


def _short(text: str, limit: int) -> str:
    shown = text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
    return repr(shown)
