"""The shrinker that keeps the best of the examples which a prompt has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from labkit.request import InvalidRequest, InvalidValue, Request, clock, is_whole
from labkit.shrink.conversation import holds, without
from labkit.shrink.count import lab_tokens
from labkit.shrink.pick import First, Pick
from labkit.shrink.protect import MARKED, Protect
from labkit.shrink.shots import Shot, asked, check_picking, leading, pick_shots
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk


@dataclass(frozen=True)
class ShotsInPrompt(Shrinker):
    """Keep the best of the examples that a prompt has: its first `shots` pairs of user and assistant behind the system's.

    `pick`, `k`, `tokens` and `count` are those of `FewShot`. Pairs keep their order. A pair with protected text stays. The
    default protects marked text only: the numbers of an example are no facts of the question. Raises `InvalidValue`
    for settings that cannot work, and `InvalidRequest` for a prompt with fewer pairs than `shots`, and where the pairs that
    must stay are more than `k` or have more than `tokens` tokens.
    """

    shots: int
    k: int | None = None
    tokens: int | None = None
    pick: Pick = field(default_factory=First)
    count: Callable[[str], int] = lab_tokens
    protect: Protect = MARKED

    def __post_init__(self) -> None:
        if not is_whole(self.shots, 1):
            raise InvalidValue(f"shots is {self.shots!r:.80}; say how many pairs of the prompt are examples, at least 1")
        check_picking(self.k, self.tokens, self.pick, self.count)

    async def shrink(self, request: Request) -> Shrunk:
        """The prompt with fewer examples."""
        messages = request.messages
        self.protect.check(messages)
        start = leading(messages)
        block = messages[start : start + 2 * self.shots]
        roles = [message.role for message in block]
        if roles != ["user", "assistant"] * self.shots or any(message.tool_calls for message in block):
            raise InvalidRequest(
                f"the prompt does not begin with {self.shots} pairs of user and assistant without calls of tools; behind "
                f"the system's messages it has {', '.join(message.role for message in messages[start:]) or 'nothing'}"
            )
        if start + len(block) == len(messages):
            raise InvalidRequest(f"the prompt has nothing behind its {self.shots} pairs of examples; put the question there")
        pairs = [(n, n + 1) for n in range(start, start + len(block), 2)]
        pool = [Shot(messages[a].content, messages[b].content) for a, b in pairs]
        stay = {i for i, pair in enumerate(pairs) if holds(self.protect, messages, pair)}
        taken = sum(self.count(pool[i].question) + self.count(pool[i].answer) for i in stay)
        if (self.k is not None and len(stay) > self.k) or (self.tokens is not None and taken > self.tokens):
            raise InvalidRequest(
                f"{len(stay)} of the examples hold protected text, {taken} tokens in all; allow k={len(stay)} and "
                f"tokens={taken}, or protect less"
            )
        open_ = [i for i in range(len(pool)) if i not in stay]
        found = await clock.off_loop(
            lambda: pick_shots(
                [pool[i] for i in open_], asked(messages), self.pick, None if self.k is None else self.k - len(stay),
                None if self.tokens is None else self.tokens - taken, self.count,
            )
        )  # fmt: skip
        cuts = [
            cut for i, why in sorted(found.left_out.items())
            for cut in without(messages, pairs[open_[i]], "shots", f"example {open_[i]}: {why}")
        ]  # fmt: skip
        return Shrunk.of(messages, cuts, self.protect)
