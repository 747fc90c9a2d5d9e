"""Experiments on the live engine, broken off and gone on with; and shapes with random weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from labkit.engines import Engine, MetricsSnapshot, Provenance, ScriptedEngine, lab_model, machine
from labkit.experiments import Measured, Measurement, jobs, run_all
from labkit.experiments.catalogue import grid
from labkit.experiments.measured import SUFFIX, recording_path
from labkit.experiments.shapes import dummy_model
from labkit.latency.model_shape import shape_path
from labkit.request import InvalidValue

SHAPE = shape_path("llama-3.1-8b")


@pytest.mark.live
def test_a_recording_is_broken_off_and_gone_on_with_on_a_live_engine(tmp_path: Path) -> None:
    some = [
        Measurement("prefill", "small", points=grid(prompt_tokens=(100, 700)), repeats=3),
        Measurement("concurrency", "small", points=grid(people=(1, 4), prompt_tokens=(64,), output_tokens=(16,)), repeats=1),
        Measurement("prefix_cache", "small", points=grid(prompt_tokens=(700,)), repeats=1),
        Measurement("preemption", "small", points=grid(people=(2,), prompt_tokens=(64,), output_tokens=(16,)), repeats=1),
    ]
    said: list[str] = []

    def run(minutes: float | None = None) -> bool:
        return asyncio.run(run_all(some, folder=tmp_path, minutes=minutes, progress=said.append, command="a test"))

    assert not run(minutes=0.0)
    assert "the same command goes on from here" in said[-1]
    assert run()
    files = {path.name.removesuffix(SUFFIX): Measured.load(path) for path in tmp_path.glob(f"*/*{SUFFIX}")}
    assert set(files) == {job.name for job in some}
    assert all(m.complete and m.provenance.command == "a test" for m in files.values())

    first = files["prefill-small-default"].frame()
    assert first.prompt_tokens.value_counts().to_dict() == {100: 3, 700: 3}
    assert first.ttft_s.min() > 0
    four = files["concurrency-small-default"].frame().set_index("people")
    assert set(four.index) == {1, 4}
    assert (four.output_tokens_per_s <= four.index / four.tpot_s * 1.1).all()
    # Full blocks only, and never the whole prompt: the last token must be computed to say what comes next.
    (cached,) = files["prefix_cache-small-default"].frame().cached_tokens
    block = 128
    assert cached == 699 // block * block
    assert files["preemption-small-default"].rows[0]["preemptions"] == 0

    before = {path: path.read_bytes() for path in tmp_path.glob(f"*/*{SUFFIX}")}
    said.clear()
    assert run()
    assert said == []  # all finished: no engine was started
    assert {path: path.read_bytes() for path in before} == before

    path = next(p for p in before if p.name.startswith("prefill"))
    path.write_text("".join(line + "\n" for line in path.read_text().split("\n")[:4]))
    assert run()
    assert Measured.load(path).frame().prompt_tokens.value_counts().to_dict() == {100: 3, 700: 3}


@pytest.mark.live
def test_an_engine_that_cannot_start_costs_only_its_own_job(tmp_path: Path) -> None:
    points = grid(prompt_tokens=(100,))
    said: list[str] = []
    bad = Measurement("prefill", "small", "odd", {"block_size": 33}, points, 1)
    good = Measurement("prefill", "small", points=points, repeats=1)
    assert not asyncio.run(run_all([bad, good], folder=tmp_path, progress=said.append))
    assert any("block_size" in line for line in said)
    assert [p.name for p in tmp_path.glob(f"*/*{SUFFIX}")] == [good.name + SUFFIX]


class Here:
    """The connection of an engine that is scripted, and says that it is live."""

    url, api_key, log = "", "", None

    async def handler(self) -> ScriptedEngine:
        return ScriptedEngine(gap_s=0.0)

    async def metrics(self) -> MetricsSnapshot:
        raise AssertionError("no metrics are asked for here")

    async def aclose(self) -> None:
        pass


def test_a_broken_recording_is_named_and_costs_no_other_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Provenance("live", machine(), "CPU", "vLLM", "0.1", "small", "2026-01-02T03:04:05+00:00", "a test")

    async def connected(*_: object, **__: object) -> Engine:
        return Engine(
            model="small",
            context_window=None,
            provenance=origin,
            tokenizer_path=str(lab_model("small")),
            connection=Here(),
        )

    monkeypatch.setattr("labkit.experiments.recording.connect", connected)
    some = [Measurement("prefill", "small", name, {}, grid(prompt_tokens=(64,)), 1) for name in ("a", "b", "c")]
    mine = recording_path(tmp_path, origin, "any").parent
    for folder, job in ((tmp_path / "another-device", some[0]), (mine, some[1])):
        folder.mkdir()
        (folder / f"{job.name}{SUFFIX}").write_text("broken\n")
    said: list[str] = []
    assert not asyncio.run(run_all(some, folder=tmp_path, progress=said.append))
    for broken in (f"another-device/{some[0].name}", f"{mine.name}/{some[1].name}"):
        assert any(f"{broken}{SUFFIX}, line 1 is no JSON" in line for line in said)
    assert [Measured.load(mine / f"{job.name}{SUFFIX}").complete for job in (some[0], some[2])] == [True, True]
    assert (mine / f"{some[1].name}{SUFFIX}").read_text() == "broken\n"
    assert asyncio.run(run_all([some[0], some[2]], folder=tmp_path, progress=said.append))


@pytest.mark.live
def test_a_shape_with_random_weights_streams_an_answer(tmp_path: Path) -> None:
    config = json.loads(SHAPE.read_text())
    config |= {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "head_dim": 32, "vocab_size": 6000}
    (tmp_path / "mini.json").write_text(json.dumps(config))
    job = Measurement("concurrency", str(tmp_path / "mini.json"), points=grid(people=(3,)), repeats=1)
    assert asyncio.run(run_all([job], folder=tmp_path / "out", progress=str))
    (path,) = (tmp_path / "out").glob(f"*/*{SUFFIX}")
    found = Measured.load(path)
    assert "random weights" in found.provenance.model
    assert found.provenance.arguments["load_format"] == "dummy"
    assert found.rows[0]["tpot_s"] > 0


def test_the_tokenizer_of_a_shape_reads_like_the_labs_and_has_a_text_for_every_token(tmp_path: Path) -> None:
    folder = dummy_model("llama-3.1-8b", tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(lab_model("small"))
    assert len(theirs) == json.loads(SHAPE.read_text())["vocab_size"]
    text = "My order 1234 came late, and it is a ⟨2000⟩ box."
    assert (
        theirs(text)["input_ids"][: len(ours(text)["input_ids"]) // 2]
        == ours(text)["input_ids"][: len(ours(text)["input_ids"]) // 2]
    )
    assert all(theirs.decode([n]) for n in range(len(theirs)) if n not in theirs.all_special_ids)
    with pytest.raises(InvalidValue, match=r"no model configuration.*llama-3\.1-70b"):
        dummy_model("llama-9", tmp_path)


def test_unknown_experiments_are_named() -> None:
    with pytest.raises(InvalidValue, match="no experiment nonsense; there are prefill"):
        jobs("cpu", ("nonsense",))
    assert {job.experiment for job in jobs("gpu", ("prefill",))} == {"prefill"}
