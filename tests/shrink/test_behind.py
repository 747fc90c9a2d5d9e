"""Shrinking behind the prefix leaves it as it is; shrinking it once gives every request the same shorter one."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines import ScriptedEngine
from labkit.request import InvalidValue, Message, Request, ToolCall, stack
from labkit.shrink import (
    FACTS,
    NOTHING,
    BehindPrefix,
    Budget,
    Cut,
    Holdout,
    Once,
    Option,
    Protect,
    Shrinker,
    Shrunk,
)
from labkit.stacks import from_data, to_data

RULES = Message("system", "Be kind to all. Answer in one word. Never promise anything.")


@dataclass(frozen=True)
class Random(Shrinker):
    """Cuts at random, in several steps, and another way for every prompt; now and then a whole message."""

    seed: int = 0
    steps: int = 2
    protect: Protect = NOTHING
    calls: list[int] = field(default_factory=list, compare=False)

    async def shrink(self, request: Request) -> Shrunk:
        self.calls.append(len(request.messages))
        rng = random.Random(f"{self.seed} {request.messages!r} {len(self.calls)}")
        found = Shrunk.of(request.messages)
        for _ in range(self.steps):
            cuts = []
            for number, message in enumerate(found.after):
                length = len(message.content)
                if rng.random() < 0.2:
                    cuts.append(Cut(number, 0, length, whole=True))
                elif length > 1:
                    start = rng.randrange(length)
                    cuts.append(Cut(number, start, rng.randrange(start, length + 1), left=rng.choice(("", "…"))))
            found = found.then(Shrunk.of(found.after, cuts, self.protect))
        return found


texts = st.text("ab c.", max_size=12)
prompts = st.lists(st.builds(Message, st.sampled_from(("user", "assistant")), texts), max_size=4).map(
    lambda more: (RULES, *more)
)


def text(messages) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


@given(prompts, st.integers(0, 6), st.integers(0, 20), st.integers(0, 99))
def test_the_prefix_stays_and_the_rest_is_what_the_shrinker_makes_of_it_alone(messages, stable, characters, seed):
    if not stable + characters:
        return
    request = Request(messages)
    shrunk = asyncio.run(BehindPrefix(Random(seed), stable, characters).shrink(request))
    assert shrunk.before == messages
    whole, begun = messages[:stable], messages[stable : stable + 1]
    assert shrunk.after[: len(whole)] == whole
    head = begun[0].content[:characters] if begun else ""
    if head:
        assert shrunk.after[len(whole)].content.startswith(head)
    tail = list(messages[stable:])
    if begun and characters:
        rest = begun[0].content[characters:]
        tail[:1] = [replace(begun[0], content=rest)] if rest else []
    if tail:
        alone = asyncio.run(Random(seed).shrink(Request(tuple(tail)))).after
        ends = "".join(m.content for m in shrunk.after).endswith("".join(m.content for m in alone))
        assert ends
        assert shrunk.saved(len) == sum(len(m.content) for m in tail) - sum(len(m.content) for m in alone)
    else:
        assert shrunk.after == messages


@given(prompts, prompts, st.integers(1, 2), st.integers(0, 8), st.integers(0, 99))
def test_all_requests_send_the_same_short_prefix(one, other, stable, characters, seed):
    first = Message("user", "The policy in force: nothing above 40 euros.")
    once = Once(Random(seed), stable, characters if stable == 1 else 0)
    a, b = ((RULES, first, *more[1:]) for more in (one, other))
    sent_a, sent_b, again = (asyncio.run(once.shrink(Request(m))) for m in (a, b, a))
    assert sent_a.after == again.after
    assert len(once.shrinker.calls) == 1
    begin = len(sent_a.after) - len(a[stable + bool(characters and stable == 1) :])
    assert text(sent_a.after[: max(begin - 1, 0)]) == text(sent_b.after[: max(begin - 1, 0)])
    assert text(sent_a.after)[begin:] == text(a)[len(a) - (len(sent_a.after) - begin) :]


def test_a_prefix_is_forgotten_when_there_are_too_many():
    once = Once(Random(), kept=2)
    for name in ("a", "b", "c", "b", "c", "a"):
        asyncio.run(once.shrink(Request((Message("system", f"You are {name}."), Message("user", "Hi.")))))
    assert len(once.shrinker.calls) == 4


def test_of_requests_at_the_same_moment_all_send_the_first_result():
    once = Once(Random(3))

    async def burst():
        return await asyncio.gather(*(once.shrink(Request((RULES, Message("user", f"{i}")))) for i in range(5)))

    assert len({shrunk.after[:-1] for shrunk in asyncio.run(burst())}) == 1


def test_what_reaches_over_the_seam_stays():
    asked = Request((Message("user", "Rules. <keep>this and that</keep> go."),))

    @dataclass(frozen=True)
    class Last(Shrinker):
        protect: Protect = FACTS

        async def shrink(self, request: Request) -> Shrunk:
            return Shrunk.of(request.messages, [Cut(0, 0, 3)], self.protect)

    assert asyncio.run(BehindPrefix(Last(), 0, 20).shrink(asked)).after == asked.messages
    assert asyncio.run(BehindPrefix(Last(), 0, 34).shrink(asked)).after[0].content == "Rules. <keep>this and that</keep> "


def test_a_prefix_does_not_end_between_a_call_and_its_answers():
    call = Message("assistant", "I look.", (ToolCall("1", "look", "{}"), ToolCall("2", "look", "{}")))
    answers = tuple(Message("tool", f"found {i}", tool_call_id=i) for i in "12")
    asked = (RULES, call, *answers, Message("user", "And now?"))

    @dataclass(frozen=True)
    class Last(Shrinker):
        async def shrink(self, request: Request) -> Shrunk:
            return Shrunk.of(
                request.messages, [Cut(i, 0, len(m.content), whole=True) for i, m in enumerate(request.messages[:-1])]
            )

    for stable, characters in ((2, 0), (1, 3), (2, 4), (3, 0)):
        assert asyncio.run(BehindPrefix(Last(), stable, characters).shrink(Request(asked))).after == asked
        assert asyncio.run(Once(Last(), stable, characters).shrink(Request(asked))).after == asked[3:]
    assert asyncio.run(BehindPrefix(Last(), 1).shrink(Request(asked))).after == (RULES, asked[-1])


def test_a_stack_of_them_comes_back_from_its_file():
    mine, engine = Random(), ScriptedEngine()
    handler = stack(
        Holdout(BehindPrefix(Budget(300, (Option(mine, 0.02, "mine"), mine)), 0, 40), 0.2, "exp", "user"),
        Once(mine, 2, kept=8),
        engine=engine,
    )
    names = {"mine": mine, "engine": engine}
    again = from_data(to_data(handler, names), names)
    assert str(again) == str(handler)
    assert again == handler


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BehindPrefix(Random(), -1), "-1 messages"),
        (lambda: Once(Random(), 0, 0), "not both of them 0"),
        (lambda: Once(Random(), kept=0), "at least 1"),
        (lambda: BehindPrefix(Random), "takes a shrinker"),
    ],
)
def test_what_cannot_be_meant_is_named(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()
