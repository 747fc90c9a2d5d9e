"""Reasoning arrives apart from the answer, and is counted, on a real engine whose every token is known beforehand."""

from __future__ import annotations

import asyncio
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from labkit.engines import Engine, connect
from labkit.request import Completion, Request, Usage, complete

from .tiny import make_scripted_model

pytestmark = pytest.mark.live


def say(model: Path, request: Request) -> Completion:
    async def scenario() -> Completion:
        async with await connect("vllm", str(model), progress=str) as engine:
            return await complete(engine, request)

    return asyncio.run(scenario())


def test_what_a_model_thinks_is_reasoning_and_what_it_says_is_the_answer(live: Engine, tmp_path: Path) -> None:
    model = make_scripted_model(tmp_path / "thinker", ["<think>", "A", "B", "C", "</think>", "D", "E"])
    answer = say(model, Request("why?", max_tokens=20))
    assert (answer.reasoning, answer.text) == ("ABC", "DE")
    assert answer.done.finish_reason == "stop"
    usage = answer.done.usage
    # Seven tokens and the closing </s>; vLLM counts as reasoning what lies between the marks.
    assert usage == Usage(usage.input_tokens, 8, reasoning_tokens=3)
    assert sum(chunk.tokens for chunk in answer.chunks) == usage.output_tokens
    assert answer.done.timing.first_token == next(chunk.at for chunk in answer.chunks if chunk.reasoning)


def test_an_answer_without_thinking_is_an_answer(live: Engine, tmp_path: Path) -> None:
    model = make_scripted_model(tmp_path / "talker", ["D", "E"])
    answer = say(model, Request("why?", max_tokens=20))
    assert (answer.reasoning, answer.text) == ("", "DE")
    assert answer.done.usage.reasoning_tokens == 0


def test_thinking_cut_short_is_all_reasoning(live: Engine, tmp_path: Path) -> None:
    model = make_scripted_model(tmp_path / "brooder", ["<think>", "A", "B", "C", "</think>", "D"])
    answer = say(model, Request("why?", max_tokens=3))
    assert (answer.reasoning, answer.text) == ("AB", "")
    assert answer.done.finish_reason == "length"
    assert answer.done.usage.visible_output_tokens == answer.done.usage.output_tokens - 2


def test_the_marks_are_found_however_the_tokens_are_cut_into_deltas(tmp_path: Path) -> None:
    # A slow client gets what several steps wrote in one delta, so every way to cut the stream occurs.
    from transformers import AutoTokenizer

    from labkit.engines.host.think_marks import ThinkMarksParser

    script = ["<think>", "A", "B", "C", "</think>", "D", "E"]
    tokenizer = AutoTokenizer.from_pretrained(str(make_scripted_model(tmp_path / "thinker", script)))
    ids = tokenizer.convert_tokens_to_ids(script)
    for n in range(len(script)):
        for cuts in combinations(range(1, len(script)), n):
            parser, reasoning, answer = ThinkMarksParser(tokenizer), "", ""
            for begin, end in pairwise((0, *cuts, len(script))):
                texts = ("".join(script[:begin]), "".join(script[:end]), "".join(script[begin:end]))
                message = parser.extract_reasoning_streaming(*texts, ids[:begin], ids[:end], ids[begin:end])
                if message is not None:
                    reasoning, answer = reasoning + (message.reasoning or ""), answer + (message.content or "")
            assert (reasoning, answer) == ("ABC", "DE"), cuts


def test_the_answer_begins_behind_a_mark_that_the_text_leaves_out() -> None:
    # As vLLM streams: special tokens are not in the text, letters of several tokens wait for their last byte.
    from tokenizers.decoders import DecodeStream
    from transformers import AutoTokenizer

    from labkit.engines.host.think_marks import ThinkMarksParser
    from labkit.lab import model_path

    tokenizer = AutoTokenizer.from_pretrained(str(model_path("large")))
    for thought, answer in (("5*77=385 free", "165 EUR"), ("über 4 × 2", "naïve – ja"), ("a", "5"), ("x " * 4, "")):
        ids = [
            i for text in ("<think>", thought, "</think>", answer) for i in tokenizer.encode(text, add_special_tokens=False)
        ]
        for cuts in [c for n in (0, 1, 2, 3) for c in combinations(range(1, len(ids)), n)]:
            parser, stream = ThinkMarksParser(tokenizer), DecodeStream(skip_special_tokens=True)
            reasoning = said = before = ""
            for begin, end in pairwise((0, *cuts, len(ids))):
                delta = "".join(stream.step(tokenizer.backend_tokenizer, i) or "" for i in ids[begin:end])
                message = parser.extract_reasoning_streaming(
                    before, before + delta, delta, ids[:begin], ids[:end], ids[begin:end]
                )
                before += delta
                if message is not None:
                    reasoning, said = reasoning + (message.reasoning or ""), said + (message.content or "")
            assert (reasoning, said) == (thought, answer), cuts
