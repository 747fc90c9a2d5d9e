"""Words are dropped until the prompt has the length that was asked for; judged against a search through all lengths."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from labkit.engines import ScriptedEngine
from labkit.request import (
    EngineUnreachable,
    InvalidRequest,
    InvalidValue,
    Message,
    Request,
    complete,
    placed,
    run_virtual,
    stack,
)
from labkit.shrink import (
    FACTS,
    NOTHING,
    NUMBERS,
    ByPerplexity,
    DropRandom,
    KeepDrop,
    Prompt,
    Protect,
    Scored,
    Shrunk,
    TransformersScorer,
    Truncate,
    WordDropper,
    adherence,
    by_length,
)
from labkit.shrink.wording import without, words
from labkit.stacks import from_data, to_data

POLICY = (
    Message("system", "Decide the return by this policy.\nReturn window rope 85 days. Parcels leave at 9 o'clock."),
    Message("user", 'I bought a "Penplo" rope 90 days ago, and opened it. What do I get?'),
)
HOSTILE = [
    "",
    " ",
    "\n\n",
    "x" * 5000,
    "12 34 56",
    "👩‍👩‍👧 👍🏽👍🏽 🇩🇪🇫🇷 ok",
    "שלום לך, מה שלומך היום? 5",
    "السلام عليكم، كيف الحال؟",
    "e\u0301te\u0301 \u0301x a\u200db",
    "नमस्ते दुनिया। क्षत्रिय",
    "a\r\nb\r\n\r\nc",
    '(((x))) "\'" ... ?! --- —',
    "<keep>stay here</keep> and go there",
    "\ud800 broken \udc00",
]


def count(text: str) -> int:
    """A tokenizer whose pieces do not match words: three letters a token, blanks included."""
    return math.ceil(len(text) / 3)


def shrink(lever: WordDropper, messages: Sequence[Message] = POLICY) -> Shrunk:
    return asyncio.run(lever.shrink(Request(tuple(messages))))


def size(messages: Sequence[Message], by: object = count) -> int:
    return sum(by(m.content) for m in messages)  # type: ignore[operator]


@dataclass(frozen=True)
class ByLength(WordDropper):
    """Short words are worth least."""

    async def judge(self, prompt: Prompt) -> list[float]:
        return [float(len(prompt.text(*pair))) for pair in prompt.free]

    def why(self, worths: Sequence[float]) -> str:
        return f"short: {min(worths):.0f}"


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.77, 0.95, 1.0])
@pytest.mark.parametrize("protect", [NOTHING, FACTS])
def test_as_many_words_go_as_must_and_no_more(rate: float, protect: Protect) -> None:
    lever = ByLength(rate=rate, count=count, protect=protect)
    shrunk = shrink(lever)
    asked = round(rate * size(POLICY))
    prompt = lever.prompt(POLICY)
    order = sorted(range(len(prompt.free)), key=lambda i: (len(prompt.text(*prompt.free[i])), i))

    def after(dropped: int) -> list[str]:
        gone = {prompt.free[i] for i in order[:dropped]}
        made = []
        for n, message in enumerate(POLICY):
            cuts = list(without(message.content, prompt.words[n], [i for m, i in sorted(gone) if m == n]))
            text = message.content
            for start, end, _ in reversed(cuts):
                text = text[:start] + text[end:]
            made.append(text)
        return made

    fits = [d for d in range(len(order) + 1) if sum(map(count, after(d))) <= asked]
    expected = next((d for d in fits if d == 0 or d - 1 not in fits), len(order))
    assert [m.content for m in shrunk.after] == after(expected)
    assert (size(shrunk.after) > asked) == (not fits)
    assert ("have to stay" in shrunk.explain()) == (not fits)


def test_a_budget_below_what_is_protected_says_how_much_is_needed() -> None:
    needed = size(shrink(ByLength(rate=0.01, count=count)).after)
    with pytest.raises(InvalidRequest, match=f"at least {needed}"):
        shrink(ByLength(tokens=needed - 1, count=count))
    assert size(shrink(ByLength(tokens=needed, count=count)).after) == needed


def test_a_prompt_that_is_short_enough_is_left_alone() -> None:
    assert shrink(ByLength(tokens=size(POLICY), count=count)) == Shrunk.of(POLICY)


def test_only_the_named_roles_are_shortened() -> None:
    talk = (*POLICY, Message("assistant", "Late goods get a refusal."), Message("user", "Why is that so?"))
    after = shrink(ByLength(rate=0.01, count=count), talk).after
    assert after[2] == talk[2]
    assert shrink(ByLength(rate=0.01, count=count, roles=("assistant",)), talk).after[3] == talk[3]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "one of the two"),
        ({"rate": 0.5, "tokens": 5}, "one of the two"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": 1.5}, r"rate is 1\.5"),
        ({"tokens": 0}, "tokens is 0"),
        ({"rate": 0.5, "roles": ("judge",)}, "judge"),
        ({"rate": 0.5, "roles": "user"}, "tuple"),
        ({"rate": 0.5, "keep": "left"}, "head, tail or ends"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        Truncate(**settings)  # type: ignore[arg-type]


def test_a_missing_instruction_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="Never promise"):
        shrink(DropRandom(rate=0.5, protect=Protect(instructions=("Never promise a refund.",))))


@pytest.mark.parametrize("lever", [DropRandom(rate=0.5, count=count), Truncate(rate=0.5, count=count, keep="ends")])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_lose_whole_words_only(lever: WordDropper, text: str) -> None:
    shrunk = shrink(lever, (Message("user", text),))
    left = shrunk.after[0].content
    for start, end in FACTS.spans(text):
        assert text[start:end] in left
    pieces = [text[w.start : w.end] for w in words(text, FACTS)]
    at = 0
    for piece in pieces:  # what is left is a subsequence of whole words
        found = left.find(piece, at)
        at = found + len(piece) if found >= 0 else at
    assert len(left.split()) <= len(text.split())


def test_what_is_left_is_whole_words_in_their_order_and_never_two_run_together() -> None:
    rng = random.Random(4)
    alphabet = [*"abcABC012 \n\t\"'(),.!?-€👍", "\u0301", "é", "ש", "\r\n", "  ", "<keep>", "</keep>"]
    for _ in range(3000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(40)))
        found = words(text, FACTS)
        assert all(a.end <= b.start for a, b in pairwise(found))
        assert re.sub(r"\s", "", text) == re.sub(r"\s", "", "".join(text[w.start : w.end] for w in found))
        for start, end in FACTS.spans(text):
            assert any(w.fixed and w.start <= start and end <= w.end for w in found)
        gone = sorted(i for i in range(len(found)) if not found[i].fixed and rng.random() < 0.5)
        left, at = "", 0
        for start, end, held in without(text, found, gone):
            assert start >= at
            assert [i for i in held if not start <= found[i].start <= found[i].end <= end] == []
            left, at = left + text[at:start], end
        left += text[at:]
        stay = [i for i in range(len(found)) if i not in set(gone)]
        pieces = [text[found[i].start : found[i].end] for i in stay]
        assert re.sub(r"\s", "", left) == re.sub(r"\s", "", "".join(pieces))
        # Two words with blanks between them keep one, or a line break if there was one.
        for a, b in pairwise(stay):
            between = [text[found[i].end : found[i + 1].start] for i in range(a, b)]
            first, second = text[found[a].end - 1], text[found[b].start]
            if any(between) and first.isalnum() and second.isalnum():
                assert text[found[a].start : found[a].end] + text[found[b].start : found[b].end] not in left.split()
            assert left.count("\n") >= sum("\n" in text[found[a].end : found[b].start] for a, b in pairwise(stay))


def test_lines_stay_lines() -> None:
    text = "one two\nthree four\nfive six"
    found = words(text, NOTHING)
    (cut,) = list(without(text, found, [2, 3]))
    assert text[: cut[0]] + text[cut[1] :] == "one two\nfive six"


def test_by_lot_the_same_prompt_loses_the_same_words() -> None:
    a, b, c = (shrink(DropRandom(rate=0.6, seed=s, count=count)).after for s in (1, 1, 2))
    assert a == b != c


def test_truncation_keeps_the_end_that_it_names() -> None:
    head, tail, ends = (
        [m.content for m in shrink(Truncate(rate=0.4, keep=k, count=count, protect=NOTHING)).after]  # type: ignore[arg-type]
        for k in ("head", "tail", "ends")
    )
    assert POLICY[0].content.startswith(head[0])
    assert POLICY[1].content.endswith(tail[1])
    assert head[1] == tail[0] == ""
    assert ends[0].startswith("Decide the")
    assert ends[1].endswith("do I get?")


@pytest.mark.parametrize(
    "lever",
    [
        ByPerplexity(TransformersScorer("models/reader", window=500), rate=0.5, question=True),
        KeepDrop(tokens=300, roles=("system",), protect=NUMBERS),
        Truncate(rate=0.5, keep="tail", protect=NOTHING),
        DropRandom(rate=0.25, seed=3),
    ],
)
def test_each_can_be_written_to_a_file_and_read_again(lever: WordDropper) -> None:
    engine = ScriptedEngine("yes")
    data = to_data(stack(lever, engine=engine), {"here": engine})
    assert to_data(from_data(json.loads(json.dumps(data)), {"here": engine}), {"here": engine}) == data
    assert next(placed(from_data(data, {"here": engine}))).lever == lever


# --- by perplexity


@dataclass(frozen=True)
class Dictionary:
    """A scorer that knows the probability of each letter run; `told` is what a text in front makes likelier."""

    known: dict[str, float]
    told: tuple[str, ...] = ()

    async def score(self, text: str, before: str = "") -> Scored:
        spans, logprobs = [], []
        for match in re.finditer(r"\s?[^\s.,]+|[.,]|\s+", text):
            word = match.group().strip()
            spans.append(match.span())
            logprobs.append(self.known.get(word, -5.0) + (2.0 if before and word in self.told and word in before else 0.0))
        return Scored(tuple(spans), tuple(logprobs))


def test_the_most_predictable_words_go_first_and_each_cut_gives_the_probability() -> None:
    prompt = (Message("user", "Please tell me the fee of the tent"),)
    scorer = Dictionary({"the": -0.1, "of": -0.2, "me": -0.5})
    shrunk = shrink(ByPerplexity(scorer, rate=0.62, count=lambda t: len(t.split())), prompt)
    assert shrunk.after[0].content == "Please tell me fee tent"
    assert "[by perplexity] 'the '" in shrunk.explain() or "' the'" in shrunk.explain()
    assert f"probability {math.exp(-0.15):.2f} a token" in shrunk.explain()


def test_with_the_question_what_it_makes_likelier_stays() -> None:
    prompt = (
        Message("system", "Window rope is long. Window tent is short."),
        Message("user", "My rope broke."),
    )
    scorer = Dictionary({"is": -0.1}, told=("rope",))
    lever = ByPerplexity(scorer, rate=0.7, question=True, count=lambda t: len(t.split()))
    after = shrink(lever, prompt).after
    assert after[1] == prompt[1]
    assert "rope" in after[0].content
    assert (
        f"{math.exp(2 / 10):.2f} times as likely" in shrink(ByPerplexity(scorer, rate=0.01, question=True), prompt).explain()
    )
    with pytest.raises(InvalidRequest, match="role user"):
        shrink(lever, (Message("system", "a b c d e f"),))


def test_tokens_that_span_words_or_half_of_one_are_shared_out() -> None:
    @dataclass(frozen=True)
    class Odd:
        async def score(self, text: str, before: str = "") -> Scored:
            spans = tuple((i, min(len(text), i + 5)) for i in range(0, len(text), 5))
            return Scored(spans, tuple(-float(i) for i in range(len(spans))))

    prompt = (Message("user", "aa bb cccccccc dd"),)
    assert shrink(ByPerplexity(Odd(), rate=0.7, count=count), prompt).after[0].content == "cccccccc dd"
    explained = shrink(ByPerplexity(Odd(), rate=0.5, count=count), prompt).explain()
    assert f"probability {math.exp(-(0 + 0 + (1 + 2) / 2) / 3):.2f} a token" in explained


@dataclass(frozen=True)
class Gone:
    async def score(self, text: str, before: str = "") -> Scored:
        raise EngineUnreachable("the scorer is gone")


def test_a_scorer_that_fails_costs_nobody_the_answer() -> None:
    asked: list[Request] = []
    engine = ScriptedEngine("yes")

    def listening(request: Request):  # type: ignore[no-untyped-def]
        asked.append(request)
        return engine(request)

    answer = run_virtual(complete(stack(ByPerplexity(Gone(), rate=0.5), engine=listening), Request(POLICY)))
    assert answer.text == "yes"
    assert asked[0].messages == POLICY
    assert [str(fault) for fault in answer.done.faults] == ["shrink: the scorer is gone"]
    with pytest.raises(InvalidValue, match="LiveScorer"):
        ByPerplexity("reader", rate=0.5)  # type: ignore[arg-type]


# --- adherence


def test_asked_and_got_by_length() -> None:
    rng = random.Random(1)
    requests = [
        Request(" ".join(rng.choice(["tent", "rope", "a", "compass", "is", "9"]) for _ in range(n)))
        for n in (10, 40, 200, 900, 3000, 9000)
    ]
    lever = DropRandom(rate=0.5)
    found = asyncio.run(adherence(lever, requests))
    longest = max(lever.count(f" {word}") for word in ("tent", "compass", "rope"))
    assert all(0 <= row.asked - row.got <= longest for row in found)
    rows = by_length(found, edges=(150, 5000))
    assert [row.n for row in rows] == [2, 3, 1]
    assert all(abs(row.got - row.asked) < 0.06 for row in rows)
    held = asyncio.run(adherence(DropRandom(rate=0.1), [Request("1 2 3 4 5 6 seven")]))
    assert held[0].held_back
    assert by_length(held)[0].held_back == 1
    with pytest.raises(InvalidValue, match="rise"):
        by_length(found, edges=(5, 5))
