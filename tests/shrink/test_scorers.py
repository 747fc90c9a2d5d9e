"""Scorers give the probabilities that the model gives, whatever window the text is read in."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from labkit.engines import Provenance, absent, connect
from labkit.lab import examples, model_path
from labkit.request import EngineError, EngineUnreachable, InvalidValue
from labkit.shrink import LiveScorer, Scored, TransformersScorer

HERE = Provenance("replay", "m", "cpu", "vLLM", "0", "small", "2026-11-29", "x")
FOLDER = str(model_path("small"))
TEXT = "\n\n".join(m.content for m in next(examples("test", "extract", 1)).messages)


def score(scorer: Any, text: str, before: str = "") -> Scored:
    return asyncio.run(scorer.score(text, before))


def test_probabilities_are_those_of_the_model_asked_one_token_at_a_time() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    scored = score(TransformersScorer(FOLDER), TEXT)
    assert len(scored.logprobs) == len(ids)
    assert scored.logprobs[0] == -math.inf
    for i in (1, 2, len(ids) // 2, len(ids) - 1):
        with torch.no_grad():
            chances = model(torch.tensor([ids[:i]])).logits[0, -1].softmax(-1)
        assert scored.logprobs[i] == pytest.approx(math.log(float(chances[ids[i]])), abs=1e-3)
    assert "".join(TEXT[a:b] for a, b in scored.spans) == TEXT


def test_what_stands_before_counts_and_is_not_scored() -> None:
    cut = TEXT.index(" ", 40)  # a token begins there
    scorer = TransformersScorer(FOLDER)
    whole, part = score(scorer, TEXT), score(scorer, TEXT[cut:], TEXT[:cut])
    same = [lp for (a, _), lp in zip(whole.spans, whole.logprobs, strict=True) if a >= cut]
    assert list(part.logprobs) == pytest.approx(same, abs=1e-3)


def test_long_texts_are_read_in_windows_and_nothing_is_left_out() -> None:
    whole, windowed = score(TransformersScorer(FOLDER), TEXT), score(TransformersScorer(FOLDER, window=24), TEXT)
    assert windowed.spans == whole.spans
    assert windowed.logprobs[1:24] == pytest.approx(whole.logprobs[1:24], abs=1e-3)
    assert score(TransformersScorer(FOLDER), "") == Scored((), ())
    with pytest.raises(InvalidValue, match="window is 3"):
        TransformersScorer(FOLDER, window=3)
    with pytest.raises(InvalidValue, match="2 tokens have 1"):
        Scored(((0, 1), (1, 2)), (0.0,))


class _Engine:
    """As much of an engine as a scorer needs."""

    model, api_key, tokenizer_path = "small", "key", FOLDER

    def __init__(self, url: str) -> None:
        self.url = url


@contextmanager
def answering(answer: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives `answer(body)`, (status, JSON), and a list of the bodies it got."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({**body, "path": self.path, "key": self.headers["Authorization"]})
            status, given = answer(body)
            data = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_engine_is_asked_for_its_probabilities_window_by_window() -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        rows = [None] + [{str(t): {"logprob": -i / 10, "rank": 1}} for i, t in enumerate(body["prompt"][1:], 1)]
        return 200, {"choices": [{"text": "x", "prompt_logprobs": rows}]}

    with answering(answer) as (url, asked):
        scored = score(LiveScorer(_Engine(url), window=16), TEXT)  # type: ignore[arg-type]
    assert len(asked) > 2
    assert {(a["path"], a["key"], a["max_tokens"], a["prompt_logprobs"]) for a in asked} == {
        ("/v1/completions", "Bearer key", 1, 0)
    }
    assert scored.logprobs[:3] == (-math.inf, -0.1, -0.2)
    assert scored.logprobs[16] == -0.8  # the second window begins with eight tokens that are known already


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ((400, {"error": "no such thing"}), "400"),
        ((200, {"choices": [{"text": "x"}]}), "without prompt_logprobs"),
        ((200, {"choices": [{"prompt_logprobs": [None]}]}), "for each token"),
        ((200, []), "without prompt_logprobs"),
    ],
)
def test_an_engine_without_probabilities_is_an_error_that_says_so(answer: tuple[int, Any], named: str) -> None:
    with answering(lambda _: answer) as (url, _), pytest.raises(EngineError, match=named):
        score(LiveScorer(_Engine(url)), TEXT)  # type: ignore[arg-type]


def test_an_engine_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(EngineUnreachable, match="could not be asked"):
        score(LiveScorer(_Engine("http://127.0.0.1:9/v1")), TEXT)  # type: ignore[arg-type]
    with pytest.raises(EngineUnreachable, match="no live vLLM"):
        score(LiveScorer(absent("small", HERE, "not here")), TEXT)


@pytest.mark.live
def test_live_vllm_gives_the_probabilities_that_transformers_gives() -> None:
    async def both() -> tuple[Scored, Scored]:
        async with await connect("vllm", "small") as engine:
            return await LiveScorer(engine).score(TEXT), await TransformersScorer(FOLDER).score(TEXT)

    live, here = asyncio.run(both())
    assert live.spans == here.spans
    # vLLM reckons in bfloat16 and `small` finds prompts very improbable, so that rounding is large.
    assert live.logprobs[1:] == pytest.approx(here.logprobs[1:], abs=0.8)
