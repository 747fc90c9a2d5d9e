"""The committed models: they load, they fit, and the card's figures come out of the eval again."""

from __future__ import annotations

import json

import pytest

from labkit.lab import MODELS, examples, families, model_path
from labkit.lab.evaluate import answer, card_tables, load, wilson
from labkit.lab.tokenizer import prompt_text

FOLDER = model_path("large").parent
REPORT = json.loads((FOLDER / "eval.json").read_text())
SLICE = 20


def test_all_weights_together_stay_under_16_mib() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 16 * 2**20


def test_the_cards_tables_are_the_report() -> None:
    assert card_tables(REPORT) in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", MODELS)
def test_a_slice_of_the_eval_comes_out_again(name: str) -> None:
    model, tokenizer = load(name)
    assert model.num_parameters() == REPORT["models"][name]["parameters"]
    for family in families():
        right = sum(a.right for a in answer(model, tokenizer, list(examples("test", family, SLICE))))
        low, high = wilson(right, SLICE, 0.9999)
        assert low <= REPORT["models"][name]["families"][family]["accuracy"] <= high, family


def test_the_chat_template_renders_the_prompt_the_models_were_trained_on() -> None:
    _, tokenizer = load("small")
    for family in families():
        for example in examples("test", family, 3):
            chat = [{"role": m.role, "content": m.content} for m in example.messages]
            assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == prompt_text(example)


def test_only_the_large_model_thinks() -> None:
    figures = {name: REPORT["models"][name]["families"]["total"]["mean_reasoning_tokens"] for name in MODELS}
    assert figures["small"] == 0
    assert figures["large"] > 10


def test_small_and_large_differ_where_it_is_hard() -> None:
    # What routing has to work with: both are good at what is easy, and only large at what is hard.
    small, large = (REPORT["models"][name] for name in ("small", "large"))
    for model in (small, large):
        for family in families("easy"):
            assert model["families"][family]["accuracy"] >= 0.9, family
    assert large["difficulty"]["hard"]["low"] >= 0.85
    assert large["difficulty"]["hard"]["low"] - small["difficulty"]["hard"]["high"] >= 0.25


def test_large_answers_from_policies_as_long_as_its_context() -> None:
    buckets = REPORT["models"]["large"]["prompt_tokens"]
    assert len(buckets) > 2
    for bucket, found in buckets.items():
        assert found["accuracy"] >= 0.8, bucket
