from __future__ import annotations

import asyncio

import pytest

from labkit.engines import Engine
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel
from labkit.request import Handler, Message, Request, Usage, complete
from labkit.request.clock import run_virtual
from labkit.tokens import tokenizer

HANDBOOK = "Nobody else in these tests reads this handbook. " * 18
CONVERSATIONS = [
    (Message("system", HANDBOOK), Message("user", "What does it say?")),
    (Message("system", HANDBOOK), Message("user", "What does it say?")),
    (Message("system", HANDBOOK), Message("user", "And what not?"), Message("assistant", HANDBOOK), Message("user", "Why?")),
    (Message("system", HANDBOOK[:200]), Message("user", "Is that all?")),
    (Message("system", HANDBOOK), Message("user", "And what not?"), Message("assistant", HANDBOOK), Message("user", "How?")),
]


async def usages(handler: Handler) -> list[Usage]:
    return [
        (await complete(handler, Request(messages, max_tokens=7, extra={"ignore_eos": True}))).done.usage
        for messages in CONVERSATIONS
    ]


@pytest.mark.live
def test_the_same_conversations_use_the_same_tokens_live_and_modelled(live: Engine):
    async def measured() -> tuple[list[Usage], dict[str, str]]:
        return await usages(live), dict((await live.metrics()).cache_config)

    measured_usages, cache = asyncio.run(measured())
    assert live.tokenizer_path is not None
    tokens = tokenizer(live.tokenizer_path)
    assert tokens.render is not None
    render = tokens.render
    modelled = ModelledEngine(
        LatencyModel(0.01, 0, 0, 0, 0, 0),
        EngineSettings(num_blocks=int(cache["num_gpu_blocks"]), block_size=int(cache["block_size"])),
        tokenize=lambda request: tokens.encode(render(request.messages)),
    )
    assert run_virtual(usages(modelled)) == measured_usages
    assert any(usage.cached_tokens for usage in measured_usages)
