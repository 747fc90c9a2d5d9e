"""What training starts from and what it is fed; the weights themselves are tested by what they answer."""

from __future__ import annotations

import random
import re

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from labkit.lab import MODELS
from labkit.lab.models import model_spec
from labkit.lab.train import long_example, look_back, recital


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_models_first_heads_look_back(name: str) -> None:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=1500,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        attn_implementation="eager",
        **model_spec(name).config(),
    )
    model = LlamaForCausalLM(config).eval()
    look_back(model)
    with torch.no_grad():
        seen = model(torch.randint(0, 1500, (4, 200)), output_attentions=True).attentions[0]
    for head, back in enumerate((1, 2, 3)[: config.num_attention_heads - 1]):
        looked = torch.diagonal(seen[:, head], -back, 1, 2)
        assert looked.median() > 0.9, f"head {head} should look {back} back"
    assert seen[:, -1, 20:].max() < 0.5, "the last head is left as it was"


def test_a_recital_asks_for_numbers_that_stand_in_its_policy() -> None:
    rng = random.Random(3)
    for _ in range(50):
        example = recital(rng)
        policy, asked = (m.content for m in example.messages)
        windows = dict(re.findall(r"window (\w+) (\d+) days", policy))
        answered = re.findall(r"window (\w+) (\d+) days", example.answer)
        assert dict(answered) == windows
        assert asked == "Recite " + ", ".join(noun for noun, _ in answered) + "."


def test_long_examples_are_long_and_some_are_easy_tasks_behind_a_policy() -> None:
    rng = random.Random(4)
    found = [long_example(rng) for _ in range(60)]
    assert max(len(e.messages[0].content) for e in found) > 3000
    easy = [e for e in found if not e.steps]
    assert 3 <= len(easy) <= 25
    assert all("You work at the support desk" in e.messages[0].content for e in found)
