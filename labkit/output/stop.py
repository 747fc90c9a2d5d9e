"""Stop sequences: the engine ends an answer at a text, and what is not written costs nothing.

A stop sequence is the cheap way where a text marks the end: the engine looks for it itself. Where a rule must read the
answer, `labkit.streaming.StopWhen` ends it from outside; what is useful is decided by `labkit.streaming.FirstUseful`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from labkit.output.asking import asked_as
from labkit.request import Completion, Handler, InvalidValue, Lever, Request
from labkit.streaming import FirstUseful, Kind


@dataclass(frozen=True)
class Stops(Lever):
    """Every request also stops at each of `texts`, which are not part of the answer. Most endpoints take up to four."""

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        lone: object = self.texts
        given = (lone,) if isinstance(lone, str) else tuple(self.texts)
        object.__setattr__(self, "texts", given)
        if not given or not all(isinstance(text, str) and text for text in given):
            raise InvalidValue(f"Stops takes texts that are not empty, as in Stops(('\\n\\n',)); it got {given!r:.80}")

    def over(self, inner: Handler) -> Handler:
        """`inner`, with these stop sequences beside the request's own."""

        def asking(request: Request) -> Request:
            return replace(request, stop=tuple(dict.fromkeys((*request.stop, *self.texts))))

        return asked_as(inner, asking, "stops")


@dataclass(frozen=True, slots=True)
class Tail:
    """Output tokens of some answers, and how many of them came behind the first useful part."""

    answers: int
    tokens: int
    behind: int

    @property
    def share(self) -> float:
        """The share of the output tokens that came behind the useful part, 0 for no tokens."""
        return self.behind / self.tokens if self.tokens else 0.0


def tail(completions: Iterable[Completion], kind: Kind) -> Tail:
    """What a stop right behind the useful part would save at most, by the `kind` of answer.

    Counted by chunks: the tokens of the chunk that completes the useful part count as needed. An answer that never becomes
    useful has no tail. Reasoning counts as needed.
    """
    answers = tokens = behind = 0
    for completion in completions:
        answers += 1
        tokens += completion.done.usage.output_tokens
        finder = FirstUseful(kind)
        needed = 0
        for chunk in completion.chunks:
            needed += chunk.counted.output_tokens
            if finder.feed(chunk.text) is not None:
                behind += max(0, completion.done.usage.output_tokens - needed)
                break
    return Tail(answers, tokens, behind)
