"""The modelled scheduler beside a real engine, step by step, and the log that makes the comparison possible.

Run as a script, this file is the engine's side: it serves the scenarios named in a JSON file.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labkit.engines import connect
from labkit.engines.host.environment import host_environment
from labkit.engines.host.scheduler import SCHEDULER, scheduler
from labkit.engines.host.step_log import CONFIG_KEY, LoggedStep, observer, read_step_log
from labkit.engines.modelled.scheduler import ContinuousBatching, Step
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings
from labkit.request import InvalidValue, Message, Request, complete

BLOCK = 32  # vLLM's attention on a CPU takes multiples of 32


@dataclass(frozen=True)
class Arrival:
    """A request that is added before step `at`."""

    at: int
    prompt: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True)
class Scenario:
    """One engine's settings, and the requests that it gets."""

    name: str
    settings: EngineSettings
    arrivals: tuple[Arrival, ...] = field(default=())


def words(length: int, seed: int) -> tuple[int, ...]:
    """A prompt of ordinary tokens that starts like no other seed's."""
    return tuple(10 + (seed * 97 + i * (seed + 3)) % 1400 for i in range(length))


MORE_REQUESTS_THAN_PLACES = Scenario(
    "continuous",
    EngineSettings(64, BLOCK, max_num_seqs=3, max_num_batched_tokens=512, max_model_len=512, enable_prefix_caching=False),
    tuple(Arrival(at, words(12 + 23 * n, n), 3 + 5 * (n % 4)) for n, at in enumerate((0, 0, 0, 0, 0, 2, 9, 9, 40))),
)
LONG_PROMPTS_IN_CHUNKS = Scenario(
    "chunked",
    EngineSettings(64, BLOCK, max_num_seqs=4, max_num_batched_tokens=48, max_model_len=512),
    (
        Arrival(0, words(16, 1), 24),
        Arrival(1, words(300, 2), 6),
        Arrival(2, words(129, 3), 4),
        Arrival(3, words(31, 4), 9),
        # Prefixes of what was served: none of a block's content, some, and all of it (an exact multiple of the block).
        Arrival(14, words(300, 2)[:200] + words(60, 9), 5),
        Arrival(15, words(129, 3)[:128], 5),
        Arrival(16, words(129, 3)[:20], 5),
        Arrival(70, words(300, 2), 3),
    ),
)
TOO_SMALL_A_CACHE = Scenario(
    "preemption",
    EngineSettings(17, BLOCK, max_num_seqs=8, max_num_batched_tokens=256, max_model_len=512),
    tuple(
        Arrival(at, words(64, 0)[: 32 * (n % 3)] + words(40, n), 60 + 30 * (n % 3))
        for n, at in enumerate((0, 0, 0, 0, 1, 3, 30, 31))
    ),
)
SCENARIOS = (MORE_REQUESTS_THAN_PLACES, LONG_PROMPTS_IN_CHUNKS, TOO_SMALL_A_CACHE)


def modelled_turns(scenario: Scenario) -> Iterator[tuple[ContinuousBatching, Step | None]]:
    """The modelled scheduler in the scenario, at each turn: once the step is made up, and before it is done."""
    batching = ContinuousBatching(scenario.settings)
    turn, pending = 0, list(enumerate(scenario.arrivals))
    while pending or batching.num_running or batching.num_waiting:
        while pending and pending[0][1].at <= turn:
            number, arrival = pending.pop(0)
            batching.add(Sequence(f"r{number}", arrival.prompt, arrival.output_tokens, float(turn)))
        turn += 1
        step = batching.schedule(float(turn))
        yield batching, step
        if step is not None:
            batching.complete(step)


def modelled_steps(scenario: Scenario) -> list[LoggedStep]:
    """What the modelled scheduler does with the scenario, as the log of a live engine would have it."""
    steps = []
    for batching, step in modelled_turns(scenario):
        if step is not None:
            shares = tuple((share.id, share.new, share.context) for share in step.scheduled)
            steps.append(LoggedStep(shares, tuple(sorted(step.preempted)), batching.blocks.num_free))
    return steps


@pytest.fixture(scope="module")
def live_steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[LoggedStep]]:
    """The log of a real engine for each scenario; one process serves them one after another."""
    pytest.importorskip("vllm")
    from labkit.lab.models import model_path

    folder = tmp_path_factory.mktemp("steps")
    job = {"model": str(model_path("small")), "scenarios": [asdict(scenario) for scenario in SCENARIOS]}
    (folder / "job.json").write_text(json.dumps(job))
    environment = {**host_environment(), "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1"}
    with (folder / "engine.log").open("w") as log:
        done = subprocess.run([sys.executable, __file__, str(folder)], stdout=log, stderr=log, env=environment, timeout=280)
    assert done.returncode == 0, (folder / "engine.log").read_text()[-4000:]
    return {scenario.name: read_step_log(folder / f"{scenario.name}.jsonl") for scenario in SCENARIOS}


@pytest.mark.live
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_modelled_scheduler_takes_exactly_the_steps_of_a_real_engine(
    scenario: Scenario, live_steps: dict[str, list[LoggedStep]]
) -> None:
    modelled = modelled_steps(scenario)
    for number, (ours, theirs) in enumerate(zip(modelled, live_steps[scenario.name], strict=False)):
        assert ours == theirs, f"step {number}"
    assert len(modelled) == len(live_steps[scenario.name])


def test_the_scenarios_show_what_they_are_for() -> None:
    waited, chunked, squeezed = (modelled_steps(scenario) for scenario in SCENARIOS)
    assert max(len(step.tokens) for step in waited) == 3 < len(MORE_REQUESTS_THAN_PLACES.arrivals)
    assert sum(any(1 < new < 48 and context for _, new, context in step.tokens) for step in chunked) > 5
    first = {id: context for step in reversed(chunked) for id, _, context in step.tokens}
    assert (first["r4"], first["r5"], first["r6"], first["r7"]) == (192, 96, 0, 288), "prefix hits, in whole blocks"
    assert sum(len(step.preempted) for step in squeezed) > 2
    assert min(step.free_blocks for step in squeezed) == 0


@pytest.mark.live
@pytest.mark.timeout(300)
def test_a_live_server_writes_its_steps_where_connect_says(runtime: Path, tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"

    async def serve() -> None:
        arguments = {"scheduler_cls": SCHEDULER, "additional_config": {CONFIG_KEY: str(log)}, "max_model_len": 512}
        async with await connect("vllm", "small", linger_s=0, **arguments) as engine:
            request = Request((Message("user", "A tent?"),), max_tokens=5, extra={"ignore_eos": True})
            assert (await complete(engine, request)).done.usage.output_tokens == 5

    asyncio.run(serve())
    steps = read_step_log(log)
    assert [new for step in steps for _, new, _ in step.tokens][1:] == [1, 1, 1, 1], "the prompt, then four more tokens"


def test_a_log_goes_where_the_engine_or_else_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LABKIT_STEP_LOG", raising=False)
    config: Any = type("Config", (), {"additional_config": {}})()
    assert observer(config) is None
    monkeypatch.setenv("LABKIT_STEP_LOG", str(tmp_path / "here"))
    for additional, name in (({}, "here"), ({CONFIG_KEY: str(tmp_path / "there")}, "there")):
        config.additional_config = additional
        log = observer(config)
        assert log is not None
        assert log.path == tmp_path / name
        log.close()


def test_a_scheduler_that_tells_nobody_is_refused_with_the_ways_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_STEP_LOG", raising=False)
    config: Any = type("Config", (), {"additional_config": {}})()
    with pytest.raises(
        InvalidValue, match=r"\{'labkit_step_log': path\} or set LABKIT_STEP_LOG .*\{'labkit_blocks': \{\}\}"
    ):
        scheduler(config)


def test_a_log_is_read_while_it_is_written_and_a_strange_file_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"tokens":[["r0",7,0]],"preempted":[],"free_blocks":3}\n{"tokens":[["r0"')
    assert read_step_log(log) == [LoggedStep((("r0", 7, 0),), (), 3)]
    log.write_text('{"hello": 1}\n')
    with pytest.raises(InvalidValue, match="line 1 is no step"):
        read_step_log(log)


def watched_llm(model: str, settings: dict[str, Any], told: dict[str, Any]) -> Any:
    """A real engine with the settings of a scenario, its scheduler watched; `told` is its additional_config."""
    from vllm import LLM

    rest = dict(settings)
    return LLM(
        model,
        enforce_eager=True,
        async_scheduling=False,  # what the model has, and a CPU; on a GPU it must be said
        kv_cache_memory_bytes=32 << 20,
        num_gpu_blocks_override=rest.pop("num_blocks"),
        scheduling_policy=rest.pop("policy"),
        scheduler_cls=SCHEDULER,
        additional_config=told,
        disable_log_stats=True,
        **rest,
    )


def play(engine: Any, arrivals: list[dict[str, Any]], pause_s: float = 0.0) -> None:
    """Take a real engine through a scenario: each request is added at its step."""
    from vllm import SamplingParams, TokensPrompt

    turn, pending = 0, list(enumerate(arrivals))
    while pending or engine.has_unfinished_requests():
        while pending and pending[0][1]["at"] <= turn:
            number, arrival = pending.pop(0)
            parameters = SamplingParams(max_tokens=arrival["output_tokens"], ignore_eos=True, temperature=0)
            engine.add_request(f"r{number}", TokensPrompt(prompt_token_ids=arrival["prompt"]), parameters)
        turn += 1
        engine.step()
        time.sleep(pause_s)


def _serve(folder: Path) -> None:
    """The engine's side: one LLM per scenario."""
    import gc

    job = json.loads((folder / "job.json").read_text())
    for scenario in job["scenarios"]:
        told = {CONFIG_KEY: str(folder / f"{scenario['name']}.jsonl")}
        llm = watched_llm(job["model"], scenario["settings"], told)
        play(llm.llm_engine, scenario["arrivals"])
        # Two engines cannot live in one process: their parallel state is global.
        del llm
        gc.collect()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
