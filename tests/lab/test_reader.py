"""The reader finds prompts likely, in both orders, and those of other splits too; the small model does not."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path

import pytest

from labkit.lab import model_path, reader_path
from labkit.lab.reader import prompts, reading, train_reader
from labkit.shrink import TransformersScorer


def nats(folder: Path, question_first: bool) -> float:
    """Nats a token on test prompts."""
    scorer, found = TransformersScorer(str(folder)), []
    for example in prompts("test", 28, random.Random(3)):
        scored = asyncio.run(scorer.score(reading(example.messages, question_first)))
        found += [-logprob for logprob in scored.logprobs[1:]]
    return sum(found) / len(found)


@pytest.mark.parametrize("question_first", [False, True])
def test_the_reader_has_read_prompts(question_first: bool) -> None:
    guess = math.log(json.loads((reader_path() / "config.json").read_text())["vocab_size"])
    assert nats(reader_path(), question_first) < 1.3
    assert nats(model_path("small"), question_first) > guess  # it has only ever been taught answers


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    log = [json.loads(line) for line in (train_reader(tmp_path, steps=2) / "train.jsonl").open()]
    assert log[0]["seed"] == 0
    assert {row["dev"] for row in log if "dev" in row} == {"in order", "question first"}
    assert all(row["nats_a_token"] < row["small"] for row in log if "dev" in row)
    assert (tmp_path / "model.safetensors").exists()
    committed = [json.loads(line) for line in (reader_path() / "train.jsonl").open()]
    assert committed[0]["steps"] == 400
