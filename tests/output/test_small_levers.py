"""Stops, loops and verbosity: what is sent, and what is made of the answers."""

from __future__ import annotations

import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.output import NoLoops, Stops, Verbosity, compare_ways, obedience, tail, words_of
from labkit.request import InvalidValue, Message, Request, complete, run_virtual, stack
from labkit.streaming import JsonFields

from .writer import Writer


def ask(handler, *messages, **more):
    return run_virtual(complete(handler, Request(messages or "What?", **more)))


def test_stops_are_added_to_the_requests_own() -> None:
    engine = Writer(("a", "\n", "b"))
    answer = ask(stack(Stops(("\n", "#")), engine=engine), stop=("#", "!"))
    assert (answer.text, answer.done.usage.output_tokens, engine.asked[0].stop) == ("a", 2, ("#", "!", "\n"))
    assert Stops("ab").texts == ("ab",)
    for wrong in ((), ("",), (3,)):
        with pytest.raises(InvalidValue):
            Stops(wrong)


def test_the_tail_is_what_comes_behind_the_useful_part() -> None:
    said = ("Sure! ", "It ", "is ", "red. ", "Anything ", "else?")
    found = tail([ask(ScriptedEngine(said)), ask(ScriptedEngine(("Hm",)))], "prose")
    # The sentence is whole once white space follows it, in its own token.
    assert (found.answers, found.tokens, found.behind, found.share) == (2, 7, 2, 2 / 7)
    json = tail([ask(ScriptedEngine(('{"answer": 1', ", ", '"why": "x"}')))], JsonFields("answer"))
    assert (json.tokens, json.behind) == (3, 1)
    assert tail([], "prose").share == 0.0


def test_loops_are_looked_for_by_the_engine() -> None:
    engine = Writer(("a",))
    assert ask(stack(NoLoops(4, 6), engine=engine)).done.route == ("output:no-loops",)
    assert engine.asked[0].extra == {"repetition_detection": {"max_pattern_size": 4, "min_count": 6}}
    for wrong in ((0, 3), (4, 1), (2.5, 3)):
        with pytest.raises(InvalidValue):
            NoLoops(*wrong)


def test_ways_are_compared_on_the_same_requests() -> None:
    loop = ScriptedEngine(("{", *" " * 9), finish_reason="length")
    clean = ScriptedEngine(("{", "}"))
    ended = ScriptedEngine(("{", " ", " "), finish_reason="repetition")
    requests = [Request(f"{i}?") for i in range(8)]
    found = run_virtual(compare_ways({"loose": loop, "ended": ended, "clean": clean}, requests))
    loose, stopped, whole = found
    assert [request.messages for request in loop.asked] == [request.messages for request in requests]
    assert (loose.reasons, loose.tokens, loose.blank, loose.seconds) == ({"length": 8}, 80, 0.9, 10.0)
    assert (stopped.reasons, stopped.tokens) == ({"repetition": 8}, 24)
    assert (loose.cut.estimate, stopped.cut.estimate, whole.cut.estimate) == (1.0, 1.0, 0.0)
    assert 0.6 < loose.cut.low < loose.cut.high == 1.0
    price = self_defined("x", "0", "1000000")
    assert [way.cost(price) for way in found] == [80, 24, 16]
    with pytest.raises(InvalidValue, match="no request"):
        run_virtual(compare_ways({"x": loop}, []))


@pytest.mark.parametrize(
    ("lever", "told"),
    [
        (Verbosity("brief"), "Desk. Answer briefly."),
        (Verbosity("detailed"), "Desk. Answer in detail."),
        (Verbosity("normal", words=12), "Desk. Answer in at most 12 words."),
        (Verbosity("brief", wording="Kurz!"), "Desk. Kurz!"),
        (Verbosity("normal"), "Desk."),
    ],
)
def test_the_instruction_stands_at_the_end_of_the_system_prompt(lever, told) -> None:
    engine = Writer(("a",))
    ask(stack(lever, engine=engine), Message("system", "Desk."), Message("user", "What?"))
    assert [message.content for message in engine.asked[0].messages] == [told, "What?"]
    assert lever.instruction in told


def test_or_at_the_end_of_the_last_message() -> None:
    engine = Writer(("a",))
    turns = [Message("system", "Desk."), Message("user", "What?"), Message("assistant", "So."), Message("user", "Why?\n")]
    ask(stack(Verbosity("brief", where="last"), engine=engine), *turns)
    assert engine.asked[0].messages[:3] == tuple(turns[:3])  # what was read before is read again as it was
    assert engine.asked[0].messages[3].content == "Why?\nAnswer briefly."
    ask(stack(Verbosity("brief"), engine=engine))
    assert engine.asked[1].messages == (Message("system", "Answer briefly."), Message("user", "What?"))


def test_obedience() -> None:
    found = obedience(["one two three", "one", "one two three four five"], 3)
    assert (found.kept.estimate, found.mean_words, found.median_words, found.ratio) == (2 / 3, 3, 3, 1)
    assert 0 < found.kept.low < found.kept.high < 1
    assert words_of("  a\u00a0b \n c ") == 3
    for texts, words in (([], 3), (["a"], 0)):
        with pytest.raises(InvalidValue):
            obedience(texts, words)
    for wrong in ({"level": "loud"}, {"words": 0}, {"where": "first"}):
        with pytest.raises(InvalidValue):
            Verbosity(**wrong)
