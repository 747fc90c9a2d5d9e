"""The portal's log: three minutes of the running case's support desk, for readers who have no log at hand.

The questions are the lab's own traffic (`labkit.lab.traffic`): popular meanings in ever new words, three tenants with a
policy each as their system prompt, sessions of one to four turns, readers some of whom leave. Tokens are counted by the
lab's tokenizer. The times are not measured: the modelled engine, with the constants of two datasheets, served it on the
virtual clock. The same seed writes the same file.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.kvcache import plan
from labkit.lab import Deck, draw_policy, traffic
from labkit.latency import datasheet_model, hardware, shape
from labkit.load import poisson
from labkit.request import Chunk, Done, Handler, InvalidValue, Message, Request, Usage, clock, run_virtual
from labkit.tokens import tokenizer

SECONDS = 180.0
SESSIONS_PER_S = 1.0
MACHINE = "l40s"
_MODEL = "llama-3.1-8b"
_CONTEXT = 4096
TENANTS = ("alpine", "harbour", "meadow")
MODEL = "openai/gpt-5"  # served by the modelled engine under the name of the model that the portal's desk asks
_BEGIN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC).timestamp()
_TURNS = (0.5, 0.25, 0.15, 0.1)  # shares of sessions of 1 to 4 turns
_LEAVES = 0.06
_READING_S = 15.0


@dataclass(frozen=True, slots=True)
class _Session:
    id: str
    tenant: str
    at: float
    asked: tuple[tuple[str, str], ...]
    """(question, the desk's right answer), one for each turn."""


def write_portal(path: Path, seed: int = 0, duration_s: float = SECONDS) -> int:
    """Write `duration_s` seconds of the portal's log to `path` as JSON lines; returns the number of calls.

    A line has the request's body, the response's body with its usage, and times, as an API gateway keeps them. The last
    sessions end after `duration_s`. Raises `InvalidValue` for a duration that is not above 0.
    """
    if not duration_s > 0:
        raise InvalidValue(f"duration_s is {duration_s}; a log needs some seconds")
    lines = run_virtual(_day(seed, duration_s), epoch=_BEGIN)
    lines.sort(key=lambda line: line["start_time"])
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f"{path.name}.{os.getpid()}")  # another notebook may write it, too
    whole.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    whole.replace(path)
    return len(lines)


async def _day(seed: int, duration_s: float) -> list[dict[str, Any]]:
    reads = tokenizer("lab")
    render = reads.render
    if render is None:
        raise InvalidValue("the lab's tokenizer has no chat template; restore data/models")
    machine = hardware(MACHINE)
    settings = EngineSettings(plan(_MODEL, machine, _CONTEXT).blocks, max_model_len=_CONTEXT)
    model = datasheet_model(shape(_MODEL), machine)
    lines: list[dict[str, Any]] = []
    async with ModelledEngine(model, settings, tokenize=lambda request: reads.encode(render(request.messages))) as engine:
        policies = {tenant: draw_policy(Deck("test", random.Random(f"{seed}/{tenant}")), 6, 105).text for tenant in TENANTS}
        async with asyncio.TaskGroup() as group:
            for session in _sessions(seed, duration_s):
                group.create_task(_hold(engine, session, policies[session.tenant], reads.count, lines, seed))
    return lines


def _sessions(seed: int, duration_s: float) -> Iterator[_Session]:
    rng = random.Random(f"portal {seed}")
    times = list(takewhile(lambda at: at < duration_s, poisson(SESSIONS_PER_S, seed)))
    turns = rng.choices(range(1, len(_TURNS) + 1), _TURNS, k=len(times))
    questions = traffic("test", sum(turns), seed, tenants=TENANTS)
    for number, (at, n) in enumerate(zip(times, turns, strict=True)):
        asked = [next(questions) for _ in range(n)]
        own = [replace(question, tenant=asked[0].tenant) for question in asked]
        yield _Session(f"s{number}", asked[0].tenant, at, tuple((question.text, question.answer) for question in own))


async def _hold(engine: Handler, session: _Session, policy: str, count: Any, lines: list[dict[str, Any]], seed: int) -> None:
    """Hold one conversation, and add a line for each call of it; a reader who leaves asks nothing more."""
    rng = random.Random(f"{seed}/{session.id}")
    await clock.sleep_until(session.at)
    messages = [Message("system", f"You work at the support desk of {session.tenant}. {policy}")]
    for turn, (question, answer) in enumerate(session.asked):
        messages.append(Message("user", question))
        tokens = count(answer)
        leaves = rng.randrange(1, tokens + 1) if rng.random() < _LEAVES else 0
        request = Request(tuple(messages), max_tokens=tokens)
        sent, first, usage = clock.unix_now(), None, Usage()
        async with aclosing(engine(request)) as events:
            async for event in events:
                if isinstance(event, Done):
                    usage = event.usage
                    break
                first = clock.unix_now() if first is None else first
                usage = event.usage if isinstance(event, Chunk) and event.usage is not None else usage
                if leaves and usage.output_tokens >= leaves:
                    break
        left = bool(leaves) and usage.output_tokens < tokens
        lines.append(_line(session, turn, messages, "" if left else answer, usage, (sent, first, clock.unix_now()), left))
        if left:
            return
        messages.append(Message("assistant", answer))
        await clock.sleep_until(clock.now() + rng.expovariate(1 / _READING_S))


def _line(
    session: _Session,
    turn: int,
    messages: list[Message],
    answer: str,
    usage: Usage,
    times: tuple[float, float | None, float],
    left: bool,
) -> dict[str, Any]:
    sent, first, end = (None if at is None else datetime.fromtimestamp(at, UTC).isoformat() for at in times)
    return {
        "request_id": f"{session.id}-{turn}",
        "start_time": sent,
        "completion_start_time": first,
        "end_time": end,
        "status": "cancelled" if left else "success",
        "tenant": session.tenant,
        "session_id": session.id,
        "feature": "support",
        "request": {"model": MODEL, "messages": [{"role": m.role, "content": m.content} for m in messages]},
        "response": {
            "choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": None if left else "stop"}],
            "usage": {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            },
        },
    }
