"""The committed adapters: they load, they fit, and the card's figures come out of the eval again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file

from labkit.lab import ADAPTERS, adapter_path, examples, families, house_example, model_path
from labkit.lab.evaluate import answer, load, wilson
from labkit.lab.evaluate_adapters import adapted, adapter_tables, parts, write_adapters
from labkit.lab.mixtures import MIXTURES, drawn
from labkit.lab.tokenizer import END, END_THINK, THINK
from labkit.lab.train import cut_short, rows_of
from labkit.lab.train_adapter import TARGETS
from labkit.request import InvalidValue

FOLDER = model_path("large").parent
REPORT = json.loads((FOLDER / "eval_adapters.json").read_text())
MODELS = json.loads((FOLDER / "eval.json").read_text())["models"]
SHIPPED = tuple(REPORT)  # the adapters whose weights are in the repository; others wait for their training
SLICE = 12


@pytest.mark.parametrize("name", SHIPPED)
def test_an_adapter_is_small_and_has_two_thin_matrices_for_each_of_the_models(name: str) -> None:
    weights = adapter_path(name) / "adapter_model.safetensors"
    assert weights.stat().st_size <= 2**20
    config = json.loads((adapter_path(name) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == ADAPTERS[name].model
    base = load_file(model_path(ADAPTERS[name].model) / "model.safetensors")
    matrices = {n.removesuffix(".weight"): w.shape for n, w in base.items() if n.split(".")[-2] in TARGETS}
    found = load_file(weights)
    for matrix, (rows, columns) in matrices.items():
        assert found[f"base_model.model.{matrix}.lora_A.weight"].shape == (config["r"], columns)
        assert found[f"base_model.model.{matrix}.lora_B.weight"].shape == (rows, config["r"])
    assert len(found) == 2 * len(matrices)
    assert sum(w.numel() for w in found.values()) == REPORT[name]["parameters"]


def test_weights_are_in_the_repository_for_what_the_card_measures_and_for_nothing_else() -> None:
    assert {file.parent.name for file in FOLDER.glob("adapters/*/adapter_model.safetensors")} == set(SHIPPED)
    assert set(SHIPPED) <= set(ADAPTERS)
    assert "house" in SHIPPED
    for name in set(ADAPTERS) - set(SHIPPED):
        with pytest.raises(FileNotFoundError, match=f"labkit lab train-adapter {name}"):
            adapter_path(name)


def test_the_cards_tables_are_the_report() -> None:
    assert adapter_tables(REPORT) in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_of_the_base_is_lost_by_more_than_its_interval(name: str) -> None:
    base = MODELS[ADAPTERS[name].model]["families"]
    lost = [family for family in families() if REPORT[name]["parts"][family]["adapter"]["high"] < base[family]["low"]]
    assert not lost


@pytest.mark.parametrize("name", SHIPPED)
def test_a_slice_of_the_eval_comes_out_again(name: str) -> None:
    model, tokenizer = adapted(name)
    slices = {part.name: part for part in parts(name, SLICE)}
    said, part = random.Random(name).choice(sorted(slices.items()))
    right = sum(a.right for a in answer(model, tokenizer, part.asked, 50, part.right, part.prompt))
    low, high = wilson(right, len(part.asked), 0.9999)
    assert low <= REPORT[name]["parts"][said]["adapter"]["accuracy"] <= high, said


def test_the_house_needs_its_adapter_where_the_prompt_leaves_the_policy_out() -> None:
    found = REPORT["house"]["parts"]
    short, long = found["the house's cases, no policy"], found["the house's cases, policy in the prompt"]
    assert short["adapter"]["low"] > short["base"]["high"]
    assert short["adapter"]["high"] >= long["base"]["low"], "as good as reading the policy each time"
    assert short["adapter"]["mean_prompt_tokens"] < 0.1 * long["base"]["mean_prompt_tokens"]


def test_what_is_taught_is_the_answer() -> None:
    _, tokenizer = load("large")
    end, think, end_think = tokenizer.convert_tokens_to_ids([END, THINK, END_THINK])
    for name in MIXTURES:
        for example in drawn(name, 40, random.Random(name)):
            ((ids, taught),) = rows_of(tokenizer, [example], reasons=True)
            text = tokenizer.decode([ids[i] for i in taught], skip_special_tokens=False)
            assert text.startswith(f"{THINK}{example.steps}{END_THINK}{example.answer}" if example.steps else example.answer)
            kept, behind = cut_short(tokenizer, (ids, taught), random.Random(1))
            if think in ids:
                assert tokenizer.decode([kept[i] for i in behind]) == tokenizer.decode(ids[ids.index(end_think) + 1 :])
                assert kept[: ids.index(think) + 1] == ids[: ids.index(think) + 1]
            else:
                assert kept == ids
            assert ids[-1] == end


def test_a_card_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(InvalidValue, match="adapters: begin"):
        write_adapters(REPORT, tmp_path)
    assert not (tmp_path / "eval_adapters.json").exists()


def test_unknown_adapters_are_refused() -> None:
    with pytest.raises(InvalidValue, match="trains no adapter 'nonesuch'"):
        adapter_path("nonesuch")


@pytest.mark.live
def test_one_engine_serves_the_model_and_its_adapters_as_transformers_does() -> None:
    """Greedy answers of both, in bf16 here and fp32 there: a tie may fall otherwise once in twenty."""
    import asyncio

    from labkit.engines import connect
    from labkit.request import Request, complete

    asked = {
        "": [e for family in families() for e in examples("test", family, 3, seed=11)],
        "house": [house_example("test", i, policy_in_prompt=False) for i in range(20)],
    }

    async def served() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        async with await connect("vllm", "large", adapters=("house",), progress=str) as engine:
            for name, prompts in asked.items():
                whole = [await complete(engine, Request(e.messages, model=name, max_tokens=e.max_tokens)) for e in prompts]
                found[name] = [f"<think>{c.reasoning}</think>{c.text}" if c.reasoning else c.text for c in whole]
        return found

    found = asyncio.run(served())
    for name, prompts in asked.items():
        model, tokenizer = adapted(name) if name else load("large")
        want = [a.text for a in answer(model, tokenizer, prompts)]
        same = sum(a == b for a, b in zip(found[name], want, strict=True))
        assert same >= 0.95 * len(prompts), name
