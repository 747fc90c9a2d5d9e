"""What a handler adds: 32 concurrent streams through labkit against the bare `openai` client, on the same live engine.

    python benchmarks/engines_overhead.py [--model FOLDER] [--rounds 5]

The client runs twice in each round: plain, and asking for running usage as labkit does. The three ways take turns, so that a
busy machine disturbs all alike. A ratio compares summed wall times with the plain client's. Target: <= 1.03. All run in this
process, as they would in a caller's.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import openai

from labkit.engines import Engine, connect
from labkit.request import Request, complete

STREAMS = 32
TOKENS = 200
PROMPT = "Where is my order? It was due on Monday."
BODY = {"ignore_eos": True}


async def bare(client: openai.AsyncOpenAI, model: str, index: int, vllm_usage: bool) -> int:
    """One stream the way the `openai` documentation shows it."""
    options = {"include_usage": True, **({"continuous_usage_stats": True} if vllm_usage else {})}
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"{index}: {PROMPT}"}],
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
        stream_options=options,
        extra_body=BODY,
    )
    pieces, tokens = [], 0
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
    return tokens


async def handled(engine: Engine, index: int) -> int:
    """One stream through labkit's engine, without levers."""
    request = Request(f"{index}: {PROMPT}", max_tokens=TOKENS, extra=BODY)
    return (await complete(engine, request)).done.usage.output_tokens


async def timed(streams: list) -> float:
    """Wall seconds for all of `streams` at once."""
    started = time.perf_counter()
    counts = await asyncio.gather(*streams)
    assert counts == [TOKENS] * len(streams), counts
    return time.perf_counter() - started


async def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    async with (
        await connect("vllm", options.model) as engine,
        openai.AsyncOpenAI(base_url=engine.url, api_key=engine.api_key, max_retries=0) as client,
    ):
        ways = {
            "bare openai client": lambda i: bare(client, engine.model, i, False),
            "bare, with running usage": lambda i: bare(client, engine.model, i, True),
            "labkit handler": lambda i: handled(engine, i),
        }
        totals = dict.fromkeys(ways, 0.0)
        for way in ways.values():  # a warm-up round of each
            await timed([way(i) for i in range(STREAMS)])
        for _ in range(options.rounds):
            for name, way in ways.items():
                totals[name] += await timed([way(i) for i in range(STREAMS)])
    base = totals["bare openai client"]
    print(f"{engine.provenance.caption()}; {STREAMS} streams of {TOKENS} tokens, {options.rounds} rounds")
    for name, seconds in totals.items():
        rate = STREAMS * TOKENS * options.rounds / seconds
        print(f"{name:28}{seconds / options.rounds:8.3f} s/round{rate:9.0f} tok/s   ratio {seconds / base:.3f}")


if __name__ == "__main__":
    asyncio.run(main())
