"""The prefix cache's predictions, against brute force, published statistics and the live engine's own counter."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.caches.prefix import Hits, PrefixCache, block_hits
from labkit.engines import connect
from labkit.request import ContextWindowExceeded, InvalidValue, Message, Request, complete

TRACES = Path(os.environ.get("LABKIT_TRACES", Path(__file__).resolve().parents[3] / "shared" / "traces"))


def test_an_endless_cache_finds_every_full_block_that_began_a_request_before() -> None:
    cache = PrefixCache(1000, 4)
    assert cache.serve(range(10)) == 0
    assert cache.serve(range(10)) == 8, "two full blocks; the half one is not kept"
    assert cache.serve(range(8)) == 4, "the last token is computed, so an exact multiple computes its last block again"
    assert cache.serve([*range(4), 99, *range(5, 10)]) == 4, "the first difference ends the hit"
    assert cache.serve(range(10), salt="another tenant") == 0


def test_what_was_written_is_found_but_for_its_last_token() -> None:
    cache = PrefixCache(1000, 4)
    cache.serve(range(6), output=[6, 7])
    assert cache.serve([*range(8), 50]) == 4, "token 7 was written but never computed: the second block is not full"
    cache.serve(range(6), output=[6, 7, 8])
    assert cache.serve([*range(8), 50]) == 8


def test_a_small_cache_forgets_tails_before_beginnings() -> None:
    cache = PrefixCache(1 + 3, 4)
    cache.serve(range(12))
    cache.serve([100, 101, 102, 103])
    assert cache.serve(range(12)) == 8, "one block made room: the oldest request's tail"


@given(
    requests=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=30),
    block=st.integers(1, 5),
)
def test_an_endless_cache_agrees_with_a_set_of_prefixes(requests: list[list[int]], block: int) -> None:
    cache, seen = PrefixCache(5000, block), set()
    hits = []
    for prompt in requests:
        expected = 0
        while expected + block < len(prompt) and tuple(prompt[: expected + block]) in seen:
            expected += block
        hits.append((cache.serve(prompt), expected))
        seen |= {tuple(prompt[:end]) for end in range(block, len(prompt) + 1, block)}
    assert [served for served, _ in hits] == [expected for _, expected in hits]


@given(
    requests=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=25),
    capacity=st.integers(1, 8),
)
def test_a_bounded_cache_never_hits_more_than_an_endless_one(requests: list[list[int]], capacity: int) -> None:
    chained = [[tuple(ids[: i + 1]) for i in range(len(ids))] for ids in requests]
    assert block_hits(chained, capacity).hits <= block_hits(chained, capacity + 1).hits <= block_hits(chained).hits


@pytest.mark.parametrize(("name", "blocks", "hits"), [("conversation", 180_049, 62_740), ("synthetic", 60_671, 23_152)])
def test_the_published_traces_have_their_published_hits(name: str, blocks: int, hits: int) -> None:
    file = TRACES / f"mooncake_{name}.jsonl.gz"
    if not file.exists():
        pytest.skip(f"no trace at {file}: set LABKIT_TRACES to the folder that holds it")
    with gzip.open(file, "rt") as lines:
        assert block_hits(json.loads(line)["hash_ids"] for line in lines) == Hits(blocks, hits)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidValue, match="0 blocks of 16"):
        PrefixCache(0, 16)
    with pytest.raises(ContextWindowExceeded, match="100 tokens do not fit into 32"):
        PrefixCache(3, 16).serve(range(100))
    with pytest.raises(InvalidValue, match="capacity is 0"):
        block_hits([[1]], 0)


@pytest.mark.live
@pytest.mark.timeout(300)
def test_live_vllm_reports_exactly_the_predicted_cached_tokens() -> None:
    predicted, reported = asyncio.run(predict_and_ask(60))
    assert reported == predicted
    assert len(set(predicted)) > 4, "a workload that hits nothing, or always the same, shows nothing"


async def predict_and_ask(requests: int) -> tuple[list[int], list[int]]:
    """Cached tokens of a random workload on a small live cache: as predicted, and as reported."""
    from transformers import AutoTokenizer

    words = ["the", "tent", "and", "a", "stove", "for", "my", "kayak", "with", "rope", "under", "rain", "by", "night"]
    async with await connect("vllm", model="small", block_size=32, num_gpu_blocks_override=24, max_model_len=512) as engine:
        tokenizer = AutoTokenizer.from_pretrained(engine.tokenizer_path)
        config = (await engine.metrics()).cache_config
        assert (config["block_size"], config["num_gpu_blocks"]) == ("32", "24")
        cache = PrefixCache(24, 32)
        rng = random.Random(7)
        system = [" ".join(rng.choices(words, k=n)) for n in (40, 90, 200)]
        history: list[str] = []
        predicted, reported = [], []
        for i in range(requests):
            # New prompts, repeats (also of exact block multiples), shared beginnings, and other tenants' copies of them.
            text = (
                rng.choice(history)
                if history and rng.random() < 0.4
                else rng.choice(system) + " " + rng.choice(words) * (i % 7)
            )
            history.append(text)
            salt = rng.choice(("", "", "b"))
            request = Request((Message("user", text),), max_tokens=1, extra={"cache_salt": salt} if salt else {})
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
            )
            done = (await complete(engine, request)).done
            assert done.usage.input_tokens == len(ids)
            predicted.append(cache.serve(ids, output=[0], salt=salt))
            reported.append(done.usage.cached_tokens)
        return predicted, reported
