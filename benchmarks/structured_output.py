"""What a grammar costs: to compile it, cold and warm, and with every token, at 1 and at 32 streams.

    python -m benchmarks.structured_output [--turns 7] [--tokens 200] [--json FILE]

The lab's small model on live vLLM, with xgrammar and with llguidance ("guidance"), each as vLLM's default for the engine.

1. Compile: the time to the first token of a request with a schema that the engine has never seen (cold: a property's name is
   new each time), of the same request again (warm), and of the same prompt without a form. Three sizes of schema: 1, 8 and
   40 fields; and the 8 fields as one regular expression (`pattern_of`). In milliseconds, and cold less warm: the grammar's
   own.
2. Tokens: answers of one length (`--tokens`; the grammar allows a text without an end, and the free answers ignore theirs),
   1 and 32 at a time. Time an output token, as a ratio to free text of the same turn.

Variants take turns; each ratio is the median over the turns' own ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from itertools import count
from pathlib import Path
from typing import Any

from labkit.engines import Engine, connect
from labkit.output import pattern_of
from labkit.request import Completion, Message, Request, complete

BACKENDS = ("xgrammar", "guidance")
_FRESH = count(time.time_ns() % 1_000_000_000)
_PROMPT = (Message("system", "You work at the support desk of Trailhead Supply."), Message("user", "Tell me all of it."))


def schema_of(fields: int) -> dict[str, Any]:
    """A schema of so many fields, which no engine has seen: the first one's name is new."""
    kinds: tuple[dict[str, Any], ...] = (
        {"type": "string", "maxLength": 40},
        {"type": "integer", "minimum": 0, "maximum": 9999},
        {"enum": ["paid", "unpaid", "refused"]},
        {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
    )
    names = [f"field_{next(_FRESH)}", *(f"field {i}" for i in range(1, fields))]
    properties = {name: kinds[i % len(kinds)] for i, name in enumerate(names)}
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def formed(schema: dict[str, Any] | None, regex: bool = False, **more: Any) -> Request:
    """A request for an answer of this form, or for free text."""
    extra: dict[str, Any] = dict(more.pop("extra", {}))
    if schema is not None:
        extra["structured_outputs"] = {"regex": pattern_of(schema)} if regex else {"json": schema}
    return Request(_PROMPT, extra=extra, **more)


async def compile_times(engine: Engine, turns: int) -> dict[str, dict[str, float]]:
    """Milliseconds to the first token: cold, warm, and without a form; medians over the turns."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(turns + 1):
        for name, fields, regex in (
            ("1 field", 1, False),
            ("8 fields", 8, False),
            ("40 fields", 40, False),
            ("8, regex", 8, True),
        ):
            schema = schema_of(fields)
            asked = formed(schema, regex, max_tokens=4)
            times = [await first_token(engine, request) for request in (asked, asked, formed(None, max_tokens=4))]
            if turn:  # the first turn warms the engine up
                for what, value in zip(("cold", "warm", "free"), times, strict=True):
                    found.setdefault(name, {}).setdefault(what, []).append(1000 * value)
    return {
        name: {
            **{what: statistics.median(values) for what, values in own.items()},
            "grammar": statistics.median(c - w for c, w in zip(own["cold"], own["warm"], strict=True)),
        }
        for name, own in found.items()
    }


async def first_token(engine: Engine, request: Request) -> float:
    """Seconds from sending `request` to its first token."""
    ttft = (await complete(engine, request)).done.timing.ttft
    assert ttft is not None, "an answer of four tokens has a first one"
    return ttft


async def token_times(engine: Engine, streams: int, tokens: int, turns: int) -> dict[str, float]:
    """Time an output token with a grammar, as a ratio to free text of the same turn; `free_ms` is that of free text."""
    endless = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    variants = {
        "free": formed(None, max_tokens=tokens, extra={"ignore_eos": True}),
        "schema": formed(endless, max_tokens=tokens),
        "regex": formed(endless, True, max_tokens=tokens),
    }
    ratios: dict[str, list[float]] = {}
    free: list[float] = []
    for turn in range(turns + 1):
        times: dict[str, float] = {}
        for name, request in variants.items():
            started = time.perf_counter()
            answers: list[Completion] = await asyncio.gather(*(complete(engine, request) for _ in range(streams)))
            written = sum(answer.done.usage.output_tokens for answer in answers)
            times[name] = (time.perf_counter() - started) * streams / written
        if turn:
            free.append(1000 * times["free"])
            for name in ("schema", "regex"):
                ratios.setdefault(name, []).append(times[name] / times["free"])
    return {**{name: statistics.median(values) for name, values in ratios.items()}, "free_ms": statistics.median(free)}


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {}
    for backend in BACKENDS:
        config = {"backend": backend, "disable_any_whitespace": True}
        async with await connect("vllm", "small", structured_outputs_config=config, max_num_seqs=32) as engine:
            compiled = await compile_times(engine, given.turns)
            print(f"\n{backend}: first token, ms (medians of {given.turns})")
            for name, row in compiled.items():
                print(f"  {name:<10}" + "".join(f" {what} {value:7.1f}" for what, value in row.items()))
            paid = {str(n): await token_times(engine, n, given.tokens, given.turns) for n in (1, 32)}
            for n, row in paid.items():
                print(
                    f"  {n:>2} streams: a token of free text {row['free_ms']:.2f} ms; schema × {row['schema']:.2f}, "
                    f"regex × {row['regex']:.2f}"
                )
            report[backend] = {"compile_ms": compiled, "tokens": paid}
    if given.json:
        given.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
