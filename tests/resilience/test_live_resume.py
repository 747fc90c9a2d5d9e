"""An answer is gone on with on a second vLLM engine: after a cut, and after the first engine's process was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from labkit.engines import Engine, connect, running_engines
from labkit.lab import model_path
from labkit.ledger import Booked, Ledger
from labkit.request import Chunk, Completion, Done, Handler, Request, complete, stack
from labkit.resilience import Mishap, Mishaps, Resume
from labkit.routing import Breaker, Fallback

pytestmark = pytest.mark.live

QUESTIONS = ("Tell me about your opening hours.", "What does shipping cost?", "How do I send a parcel back?")
LENGTH = 40


def _engine(**arguments: object) -> Iterator[Engine]:
    engine = asyncio.run(connect("vllm", "small", progress=lambda step: None, **arguments))
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def second(host: None) -> Iterator[Engine]:
    yield from _engine()


@pytest.fixture
def first(host: None) -> Iterator[Engine]:
    """An engine of its own, which a test may kill (the number of sequences tells it from the second)."""
    yield from _engine(max_num_seqs=7)


def asked(question: str) -> Request:
    """A request whose answer has LENGTH tokens, none of which ends it: a token that is no text could not be gone on from."""
    end = json.loads((model_path("small") / "config.json").read_text())["eos_token_id"]
    return Request(question, max_tokens=LENGTH, extra={"logit_bias": {str(end): -100.0}})


@pytest.mark.parametrize("after", [7, LENGTH - 1, LENGTH])
def test_the_bytes_after_a_cut(second: Engine, after: int) -> None:
    async def both() -> list[tuple[Completion, Completion]]:
        found = []
        for question in QUESTIONS:
            handler = stack(Resume(times=LENGTH), Mishaps((Mishap("cut", after=after),)), engine=second)
            found.append((await complete(second, asked(question)), await complete(handler, asked(question))))
        return found

    answers = asyncio.run(both())
    assert len(answers) == len(QUESTIONS)
    assert [resumed.text for _, resumed in answers] == [whole.text for whole, _ in answers]


def by_its_name(engine: Engine) -> Handler:
    """The engine, asked for the model that it serves and not by its name in the order."""
    return lambda request: engine(replace(request, model=engine.model))


def test_the_bytes_after_the_first_engine_was_killed(first: Engine, second: Engine) -> None:
    """SIGKILL half way: the second engine ends the answer, and the ledger has both attempts."""

    async def killed(handler: Handler) -> tuple[str, Done]:
        pids = {engine.url: engine.pid for engine in await running_engines()}
        text, done, dead = "", None, False
        async with aclosing(handler(asked(QUESTIONS[0]))) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    text += event.text
                    if not dead and len(text.split()) > 3:
                        os.killpg(pids[first.url], signal.SIGKILL)
                        dead = True
                else:
                    done = event
        assert dead
        assert done is not None
        return text, done

    whole = asyncio.run(complete(second, asked(QUESTIONS[0])))
    with Ledger(":memory:") as ledger:
        order = Fallback(("first", "second"), Breaker(failures=1))
        handler = stack(Booked(ledger), Resume(), order, engine={"first": by_its_name(first), "second": by_its_name(second)})
        text, done = asyncio.run(killed(handler))
        rows = list(ledger.rows())
    assert text == whole.text
    if len(rows) == 1:  # the whole answer was in the connection's buffer before the signal came
        pytest.skip("the engine was faster than the signal")
    assert [row.outcome for row in rows] == ["failed", "completed"]
    assert "resume:2" in done.route
    assert sum(row.output_tokens or 0 for row in rows) == LENGTH
