"""Pools, limits and a dying engine, with a real vLLM behind them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from labkit.batching import CoalescingWindow, Gate, Pool, Pooled
from labkit.caches import SingleFlight
from labkit.engines import Engine, EngineStartError, connect, running_engines
from labkit.engines.metrics import MetricsSnapshot
from labkit.engines.modelled import EngineSettings
from labkit.load import ExactLengths
from labkit.request import ContextWindowExceeded, EngineError, Request, complete, stack
from tests.engines.tiny import make_scripted_model

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _vllm():
    pytest.importorskip("vllm")


@cache
def maker(tokenizer_path: str) -> ExactLengths:
    return ExactLengths(tokenizer_path)


def made(live: Engine, feature: str, prompt: int, output: int) -> Request:
    return replace(maker(str(live.tokenizer_path))(prompt, output), feature=feature)


async def until(condition: Callable[[MetricsSnapshot], bool], live: Engine) -> None:
    async with asyncio.timeout(30):
        while not condition(await live.metrics()):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.001)


def test_the_engine_serves_a_low_priority_first_and_pooled_sets_it() -> None:
    """One seat inside the engine, so that the order of its answers is the order of its queue."""

    async def order(live: Engine, priority: int) -> list[str]:
        handler = Pooled(Gate(32, Pool("chat"), Pool("bulk", priority=priority)))(live)
        ended: list[str] = []

        async def one(feature: str, i: int) -> None:
            await complete(handler, made(live, feature, 64, 200))
            ended.append(feature)

        flood = [asyncio.create_task(one("bulk", i)) for i in range(6)]
        await until(lambda seen: (seen.requests_waiting or 0) >= 3, live)
        await asyncio.gather(one("chat", 0), *flood)
        return ended

    async def scenario() -> tuple[list[str], list[str]]:
        async with await connect(
            "vllm", "small", progress=str, max_num_seqs=1, scheduling_policy="priority", block_size=64
        ) as live:
            return await order(live, 0), await order(live, 10)

    equals, urgent = asyncio.run(scenario())
    assert equals == ["bulk"] * 6 + ["chat"]
    assert Counter(urgent) == {"bulk": 6, "chat": 1}
    assert urgent.index("chat") < 6, "it passes at least the last of those that came before it"


def test_vllm_never_accepts_what_its_cache_cannot_hold_and_the_model_draws_the_line_where_it_does() -> None:
    tiny = {"num_gpu_blocks_override": 12, "block_size": 32}
    room = EngineSettings(12, 32).context_window

    async def scenario() -> None:
        # With a longer window than cache, it does not even start.
        with pytest.raises(EngineStartError, match="KV cache holds less than one full sequence") as refused:
            await connect("vllm", "small", progress=str, **tiny)
        assert f"estimated maximum model length is {room}." in "".join(refused.value.log_tail)
        async with await connect("vllm", "small", progress=str, max_model_len=room, **tiny) as live:
            gate = Gate(4, Pool("p"))
            handler = Pooled(gate)(live)
            sizes = [(room - 1, 1), (20, room - 20), (room - 50, 50), (room - 50, 51), (room, 1), (20, room + 1), (30, 20)]
            tasks = [complete(handler, made(live, "p", prompt, output)) for i, (prompt, output) in enumerate(sizes)]
            async with asyncio.timeout(60):
                found = await asyncio.gather(*tasks, return_exceptions=True)
            for (prompt, output), what in zip(sizes, found, strict=True):
                if prompt >= room or output > room:
                    assert isinstance(what, ContextWindowExceeded), (prompt, output, what)
                    assert f"{prompt} tokens and asks for up to {output} more" in str(what)
                else:  # vLLM cuts an answer where the window ends; the model, which knows no shorter one, refuses it
                    assert what.done.usage.output_tokens == min(output, room - prompt), (prompt, output)
            assert (gate.under_way("p"), gate.waiting("p")) == (0, 0)

    asyncio.run(scenario())


def test_an_answer_of_no_words_passes_every_lever(tmp_path: Path) -> None:
    model = make_scripted_model(tmp_path / "speechless", [])  # its first token ends the answer

    async def scenario() -> None:
        async with await connect("vllm", str(model), progress=str) as live:
            levers = (
                SingleFlight(),
                CoalescingWindow(0.01),
                Pooled(Gate(2, Pool("p"))),
            )
            handler = stack(*levers, engine=live)
            requests = [Request(f"say nothing {i % 3}", feature="p") for i in range(6)]
            answers = await asyncio.gather(*(complete(handler, request) for request in requests))
        assert {(a.text, a.done.timing.ttft, a.done.finish_reason) for a in answers} == {("", None, "stop")}
        assert sum(a.done.usage.output_tokens for a in answers) == 3

    asyncio.run(scenario())


def test_an_engine_killed_in_the_middle_of_a_batch_gives_each_caller_one_answer_or_one_error() -> None:
    async def scenario() -> None:
        async with await connect("vllm", "small", progress=str, block_size=96) as live:
            gate = Gate(4, Pool("p"))
            handler = Pooled(gate)(live)
            answers: list[object] = []

            async def one(i: int) -> None:
                try:
                    answers.append((i, await complete(handler, made(live, "p", 64, 700))))
                except EngineError as error:
                    answers.append((i, error))

            tasks = [asyncio.create_task(one(i)) for i in range(10)]
            await until(lambda seen: seen.requests_running == 4, live)
            victim = next(engine.pid for engine in await running_engines() if engine.url == live.url)
            os.killpg(victim, signal.SIGKILL)
            async with asyncio.timeout(120):
                await asyncio.gather(*tasks)
            assert sorted(i for i, _ in answers) == [*range(10)], "each has one answer or one error"
            failed = [error for _, error in answers if isinstance(error, EngineError)]
            assert len(failed) >= 4, "those that were under way"
            whole = [answer for _, answer in answers if not isinstance(answer, EngineError)]
            assert all(answer.done.usage.output_tokens == 700 for answer in whole)
            assert (gate.under_way("p"), gate.waiting("p")) == (0, 0)
            # In the moment until its host sees that it is gone, it is unreachable; then the next request starts it again.
            async with asyncio.timeout(30):
                while victim in [engine.pid for engine in await running_engines()]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            again = await complete(handler, made(live, "p", 64, 5))
            assert again.done.usage.output_tokens == 5

    asyncio.run(scenario())
