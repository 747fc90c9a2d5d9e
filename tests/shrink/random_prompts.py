"""Random prompts through random stacks of all shrinkers: whatever they do, every character that is gone is explained.

    python -m tests.shrink.random_prompts 100000 [--seed 0]

The prompts hold many scripts, emoji, right-to-left text, JSON, code, one giant token, nothing at all, protected text only,
and tool calls with their answers. What is checked is worked out here, not asked of the room: `after` is `before` with the
cuts made, character by character; what a lever protects is found again in its order, and figures and negations are not one
more or fewer; a call of a tool and its answer stay or go together; the last message stays and something is left. Only
`InvalidRequest` may be raised.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from labkit.engines import ScriptedEngine
from labkit.request import InvalidRequest, Message, Request, ToolCall, complete, run_virtual, stack
from labkit.shrink import (
    FACTS,
    MARKED,
    NEGATIONS,
    NOTHING,
    NUMBERS,
    SAFETY,
    BehindPrefix,
    Budget,
    Chunks,
    Compact,
    Cut,
    Once,
    Option,
    Passage,
    Protect,
    Sentences,
    ShotsInPrompt,
    Shrinker,
    ShrinkStep,
    Shrunk,
    Tidy,
    TokenBudget,
    Window,
    harmless,
)
from tests.caches.words import Words

PROTECTS = (FACTS, NUMBERS, NEGATIONS, NUMBERS | NEGATIONS, SAFETY, MARKED, NOTHING)


def words(text: str) -> int:
    """A quick count, for levers that need one."""
    return len(text.split()) + len(text) // 8


WORDS = Words()


def by_length(_: str, chunks: Sequence[Passage]) -> list[float]:
    """A value for chunks that needs no marks."""
    return [len(chunk.text) - 20.0 for chunk in chunks]


@dataclass(frozen=True)
class Anywhere(Shrinker):
    """Cuts anywhere at all, as far as it does no harm: the worst lever that there can be."""

    seed: int
    protect: Protect

    async def shrink(self, request: Request) -> Shrunk:
        rng = random.Random(self.seed)
        planned = []
        for number, message in enumerate(request.messages):
            edges = sorted(rng.sample(range(len(message.content) + 1), min(len(message.content) + 1, 2 * rng.randrange(6))))
            for start, end in zip(edges[::2], edges[1::2], strict=False):
                planned.append(
                    Cut(number, start, end, rng.choice(["", "", " ", "x", "7", "not "]), by="anywhere", why="asked")
                )
        return Shrunk.of(request.messages, harmless(request.messages, planned, self.protect), self.protect)


Make = Callable[[random.Random], Shrinker]
SHRINKERS: list[Make] = [
    lambda rng: Anywhere(rng.randrange(10**9), rng.choice(PROTECTS)),
    lambda rng: Tidy(least=rng.choice([1, 20, 80]), protect=rng.choice(PROTECTS)),
    lambda rng: Compact(drop_nulls=rng.random() < 0.5, defaults={"qty": 1}, count=words, protect=rng.choice(PROTECTS)),
    lambda rng: Window(rng.randrange(1, 4), rng.random() < 0.5, rng.choice(PROTECTS)),
    lambda rng: TokenBudget(rng.randrange(20, 400), words, pin_first=rng.random() < 0.2, protect=rng.choice(PROTECTS)),
    lambda rng: ShotsInPrompt(1, rng.randrange(2), count=words, protect=rng.choice(PROTECTS)),
    lambda rng: Chunks(rng.randrange(40), rng.choice((None, by_length)), words, rng.choice(PROTECTS)),
    lambda rng: Sentences(
        WORDS, rng.randrange(60), begin=rng.choice(PIECES[:9]), end="", count=words, protect=rng.choice(PROTECTS)
    ),
]
"""One line for each shrinker of the room."""


def budget_of(rng: random.Random) -> Budget:
    protect = rng.choice(PROTECTS)
    options = [
        Option(Tidy(protect=protect), 0.0),
        Option(Anywhere(rng.randrange(10**9), protect), 0.1, kind="once"),
        Option(Anywhere(rng.randrange(10**9), protect), 0.2, kind="twice"),
    ]
    return Budget(rng.randrange(1, 200), options, words, protect)


_PLAIN = tuple(SHRINKERS)
SHRINKERS += [
    lambda rng: BehindPrefix(rng.choice(_PLAIN)(rng), rng.randrange(4), rng.randrange(1, 60)),
    lambda rng: Once(rng.choice(_PLAIN)(rng), rng.randrange(4), rng.randrange(1, 60)),
    budget_of,
]
"""Those that hold others; a prefix may end anywhere, in the middle of a figure, a character or a tool's answers."""

PIECES = (
    "Please send a tent to Anna.", "You must never promise a refund above 40 euros.",
    "the order TS-12345 costs $1,200.50", "not", "don’t", "we met Dr. Ødegård on 3 March 2026",
    "Be kind to them.\nBe kind to them.", "a   b", "\n\n\n", "   ", "\t", "4", "5 a", "%", "你好，不要超过五个。",
    "これは使わないでください。", "لا تدفع أكثر من ٤٥ دينار", "\u2067שלום\u2069 ‏12", "यह नहीं है क्षि", "ไม่จำกัด",
    "각각\u1112\u1161\u11ab", "👩‍💻👍🏽🇩🇪🇫🇷", "e\u0301", "\u0301", "\u200d", "\u202e", "\r\n", "\ud83d",
    "<keep>the code is x</keep>", "<keep>", "</keep>", "```", "`x = 1`", "| a | b |", "key:  value",
    '{"id": 1, "note": null}',
    '<chunk id="7">', "<chunk>", "</chunk>", "</chunk>",
    "nicht ohne", "ne pas", "z" * 300, "https://a.b/c?d=1", "“Blue Tent”", "\x00",
)  # fmt: skip


def text_of(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.04:
        return ""
    if kind < 0.06:
        return rng.choice("a1不é") * rng.randrange(1, 4_000)
    if kind < 0.09:
        return " ".join(rng.choice(["40", "not", "TS-12345", "$5", "٤٥", "不"]) for _ in range(rng.randrange(1, 20)))
    return "".join(rng.choice(PIECES) + rng.choice(["", " ", " ", "\n", ". "]) for _ in range(rng.randrange(1, 16)))


def answer_of(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return text_of(rng)
    row = lambda n: {"id": n, "name": rng.choice(PIECES[:20]), "qty": rng.choice([1, 2.0, None]), "at": {"city": "Köln"}}  # noqa: E731
    rows = [row(n) for n in range(rng.randrange(6))]
    value = rng.choice([rows, {"total": len(rows), "rows": rows}, {"a": [{}], "b": -0.0}])
    return json.dumps(value, indent=rng.choice([None, 2]), ensure_ascii=rng.random() < 0.5)


def prompt_of(rng: random.Random) -> tuple[Message, ...]:
    """A conversation as an endpoint takes it: system, then turns, each call of a tool with its answers behind it."""
    messages = [Message("system", text_of(rng)) for _ in range(rng.choice([0, 1, 1]))]
    shared = text_of(rng)
    for turn in range(rng.choice([0, 0, 1, 2, 3])):
        messages.append(Message("user", rng.choice([shared, text_of(rng), f"{shared}\n\n{text_of(rng)}"])))
        if rng.random() < 0.4:
            calls = tuple(ToolCall(f"{turn}-{n}", "look", "{}") for n in range(rng.randrange(1, 3)))
            messages.append(Message("assistant", rng.choice(["", shared]), calls))
            messages += [Message("tool", answer_of(rng), tool_call_id=call.id) for call in calls]
        messages.append(Message("assistant", text_of(rng)))
    asked = rng.choice([text_of(rng), f"```json\n{answer_of(rng)}\n```\n{text_of(rng)}", shared])
    return (*messages, Message("user", asked))


def remade(step: ShrinkStep) -> tuple[Message, ...]:
    """What the cuts of a step leave, worked out character by character."""
    left = []
    for number, message in enumerate(step.before):
        own = [cut for cut in step.cuts if cut.message == number]
        if any(cut.whole for cut in own):
            continue
        there: list[str] = list(message.content)
        for cut in own:
            for at in range(cut.start, cut.end):
                there[at] = ""
        said = {cut.start: cut.left for cut in own}
        content = "".join(said.get(at, "") + letter for at, letter in enumerate([*there, ""]))
        left.append((message.role, content, message.tool_calls, message.tool_call_id, message.name))
    return tuple(Message(*each) for each in left)


def check_protected(step: ShrinkStep, protect: Protect) -> None:
    """What `protect` keeps stands in each message that is left, in its order, but for what lossless cuts moved."""
    countable = Protect(kinds=tuple(kind for kind in protect.kinds if kind in ("numbers", "negations")))
    for number in range(len(step.before)):
        cuts = [cut for cut in step.cuts if cut.message == number]
        if not cuts:
            continue
        first = [cut for cut in cuts if cut.lossless]
        base = remade(ShrinkStep((step.before[number],), tuple(_of_first(cut) for cut in first)))
        whole = remade(ShrinkStep((step.before[number],), tuple(_of_first(cut) for cut in cuts)))
        before, after = base[0].content if base else "", whole[0].content if whole else ""
        at = 0
        for start, end in protect.spans(before):
            found = after.find(before[start:end], at)
            assert found >= 0, f"{before[start:end]!r} of {before!r} is lost in {after!r}"
            at = found + 1
        spans = countable.spans
        assert [before[a:b] for a, b in spans(before)] == [after[a:b] for a, b in spans(after)], (before, after)


def _of_first(cut: Cut) -> Cut:
    return Cut(0, cut.start, cut.end, cut.left, cut.by, cut.why, cut.lossless, cut.whole)


def pairs(messages: Sequence[Message]) -> tuple[set[str], set[str]]:
    """The calls of tools in `messages`, and the calls that have their answers behind them."""
    called: set[str] = set()
    answered: set[str] = set()
    for message in messages:
        called |= {call.id for call in message.tool_calls}
        if message.role == "tool":
            assert message.tool_call_id in called, "an answer without its call"
            answered.add(message.tool_call_id)
    return called, answered


@dataclass
class Seen:
    """What came by."""

    prompts: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    refused: int = 0


async def tried(rng: random.Random, seen: Seen) -> None:
    """One random prompt through one random stack."""
    messages = prompt_of(rng)
    seen.prompts += 1
    levers = [rng.choice(SHRINKERS)(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    if rng.random() < 0.02:  # the whole way, through handlers
        try:
            answer = await complete(stack(*levers, engine=ScriptedEngine("yes")), Request(messages))
            assert not answer.done.faults, answer.done.faults
        except InvalidRequest:
            seen.refused += 1
    for lever in levers:
        protect = getattr(getattr(lever, "shrinker", lever), "protect", NOTHING)
        try:
            done = await lever.shrink(Request(messages))
        except InvalidRequest:
            seen.refused += 1
            return
        assert done.before == messages
        for step in done.steps:
            assert step.before == messages
            assert all(cut.by and cut.why for cut in step.cuts)
            check_protected(step, protect)
            messages = remade(step)
            seen.cuts.update(cut.by for cut in step.cuts)
        assert done.after == messages
        called, answered = pairs(messages)
        assert called == answered, "a call without its answer"
        assert messages, "nothing is left"
        assert messages[-1].role == "user"


async def run(count: int, seed: int, seconds: float | None = None) -> Seen:
    """`count` prompts, or as many as fit into `seconds`. Raises `AssertionError` with the number of one that fails."""
    seen, began = Seen(), time.monotonic()
    for number in range(seed, seed + count):
        if seconds is not None and time.monotonic() - began > seconds:
            break
        try:
            await tried(random.Random(number), seen)
        except Exception as error:
            raise AssertionError(f"prompt {number}: {error!r:.2000}") from error
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seen = run_virtual(run(options.prompts, options.seed))
    print(f"{seen.prompts:,} prompts, {seen.refused:,} refused; cuts, each of them explained: {dict(seen.cuts)}")


if __name__ == "__main__":
    main()
