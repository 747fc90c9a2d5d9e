"""A shrunk prompt is its original with the named cuts made, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from labkit.engines import ScriptedEngine
from labkit.request import InvalidRequest, InvalidValue, Message, Request, clock, complete, run_virtual, stack
from labkit.shrink import FACTS, NUMBERS, Cut, Protect, ProtectedTextLost, Shrinker, Shrunk

TOLD = (Message("system", "Be kind. Never promise a refund above 40 euros."), Message("user", "Hello, hello there."))


def test_the_cuts_are_made_and_explained() -> None:
    shrunk = Shrunk.of(TOLD, [Cut(1, 0, 7, by="courtesy", why="said twice"), Cut(0, 0, 8, left="Kind.", by="short")])
    assert [m.content for m in shrunk.after] == ["Kind. Never promise a refund above 40 euros.", "hello there."]
    assert "message 1 (user) [courtesy] 'Hello, ': said twice" in shrunk.explain()
    assert shrunk.saved(len) == 10
    assert not shrunk.lossless


def test_a_whole_message_goes_and_nothing_else_changes() -> None:
    shrunk = Shrunk.of(TOLD, [Cut(1, 0, len(TOLD[1].content), whole=True, by="window")])
    assert shrunk.after == TOLD[:1]
    assert Shrunk.of(TOLD).explain() == "nothing was removed"


@pytest.mark.parametrize(
    "cuts",
    [
        [Cut(0, 0, 5), Cut(0, 4, 8)],
        [Cut(2, 0, 1)],
        [Cut(1, 0, 99)],
        [Cut(1, 0, 3, whole=True)],
        [Cut(1, 0, 19, whole=True, left="x")],
    ],
)
def test_cuts_that_do_not_fit_are_refused(cuts: list[Cut]) -> None:
    with pytest.raises(InvalidValue, match=r"Cut|cut"):
        Shrunk.of(TOLD, cuts)


def test_protected_text_stays_unless_the_cut_can_be_undone() -> None:
    with pytest.raises(ProtectedTextLost, match="Never promise"):
        Shrunk.of(TOLD, [Cut(0, 38, 47)], FACTS)
    kept = Shrunk.of(TOLD, [Cut(0, 33, 47, left="over 40 euros")], NUMBERS)
    assert kept.after[0].content.endswith("over 40 euros")
    assert Shrunk.of(TOLD, [Cut(0, 38, 47, lossless=True)], FACTS).lossless


def test_steps_follow_one_another() -> None:
    first = Shrunk.of(TOLD, [Cut(1, 0, 7)])
    both = first.then(Shrunk.of(first.after, [Cut(1, 0, 6)]))
    assert both.after[1].content == "there."
    assert both.before == TOLD
    with pytest.raises(InvalidValue, match="did not begin"):
        first.then(Shrunk.of(TOLD))


def test_an_instruction_that_is_not_there_is_refused_by_name() -> None:
    Protect(instructions=("Be kind.",)).check(TOLD)
    with pytest.raises(InvalidRequest, match="Be brave"):
        Protect(instructions=("Be brave.",)).check(TOLD)
    with pytest.raises(InvalidValue, match="no regular expression"):
        Protect(("(",))


@dataclass(frozen=True)
class LastWords(Shrinker):
    """Keeps the last characters of the last message."""

    kept: int = 6

    async def shrink(self, request: Request) -> Shrunk:
        last = len(request.messages) - 1
        end = len(request.messages[last].content) - self.kept
        if end < 0:
            raise InvalidRequest(f"the question has fewer than {self.kept} characters")
        return Shrunk.of(request.messages, [Cut(last, 0, end, by="last-words")])


def test_the_lever_sends_what_is_left_and_says_so() -> None:
    engine = ScriptedEngine("yes")
    asked: list[Request] = []

    def listening(request: Request):  # type: ignore[no-untyped-def]
        asked.append(request)
        return engine(request)

    answer = run_virtual(complete(stack(LastWords(), engine=listening), Request(TOLD)))
    assert asked[0].messages[1].content == "there."
    assert "shrink:LastWords" in answer.done.route
    with pytest.raises(InvalidRequest, match="fewer than 99"):
        run_virtual(complete(stack(LastWords(99), engine=engine), Request(TOLD)))


@dataclass(frozen=True)
class Slow(Shrinker):
    """Takes its time, and takes nothing away."""

    async def shrink(self, request: Request) -> Shrunk:
        await asyncio.sleep(5)
        return Shrunk.of(request.messages)


def test_the_time_to_shorten_is_part_of_the_wait() -> None:
    handler = stack(Slow(), engine=ScriptedEngine("yes"))
    waited = clock.run_virtual(complete(handler, Request(TOLD))).done.timing.ttft
    alone = clock.run_virtual(complete(ScriptedEngine("yes"), Request(TOLD))).done.timing.ttft
    assert waited is not None
    assert alone is not None
    assert waited == pytest.approx(alone + 5)


@dataclass(frozen=True)
class Broken(Shrinker):
    async def shrink(self, request: Request) -> Shrunk:
        raise RuntimeError("the scorer is gone")


def test_a_shrinker_that_fails_costs_nobody_the_answer() -> None:
    answer = run_virtual(complete(stack(Broken(), engine=ScriptedEngine("yes")), Request(TOLD)))
    assert answer.text == "yes"
    assert [str(fault) for fault in answer.done.faults] == ["shrink: the scorer is gone"]
    assert not any(hop.startswith("shrink") for hop in answer.done.route)
    assert replace(answer.done, faults=()).finish_reason == "stop"
