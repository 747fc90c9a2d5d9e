"""Reasoning arrives apart from the answer, and is counted, on a real engine whose every token is known beforehand."""

from __future__ import annotations

import asyncio
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
