"""The modelled block manager beside a real engine's blocks, block by block, in every frame that the engine sends.

Run as a script, this file is the engine's side.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from labkit.engines.host.block_frames import CONFIG_KEY, SOCKET_NAME
from labkit.engines.host.environment import host_environment
from labkit.kvcache import BlockFrame
from tests.engines.modelled.test_step_log import TOO_SMALL_A_CACHE as SCENARIO
from tests.engines.modelled.test_step_log import modelled_turns, play, watched_llm

State = tuple[dict[str, tuple[int, tuple[int, ...]]], list[int], int]


def modelled_states() -> list[State]:
    """After each step is made up: tokens and block ids by request, the free blocks that can be found, and how many wait."""
    states: list[State] = []
    for batching, step in modelled_turns(SCENARIO):
        assert step is not None, "the scenario keeps the engine busy, so steps can be counted"
        held = {s.id: (s.computed, tuple(block.id for block in s.blocks)) for s in batching.running}
        findable = [block.id for block in batching.blocks.free_queue if block.hash is not None]
        states.append((held, findable, batching.num_waiting))
    return states


@pytest.mark.live
@pytest.mark.timeout(300)
def test_the_modelled_blocks_are_those_of_a_real_engine(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from labkit.lab.models import model_path

    job = {"model": str(model_path("small")), "scenario": asdict(SCENARIO)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    environment = {**host_environment(), "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1"}
    with (tmp_path / "engine.log").open("w") as log:
        command = [sys.executable, "-m", "tests.engines.modelled.test_block_frames", str(tmp_path)]
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, timeout=280)
    assert done.returncode == 0, (tmp_path / "engine.log").read_text()[-4000:]
    frames = [BlockFrame.parse(line) for line in (tmp_path / "frames").read_bytes().splitlines()]
    states = modelled_states()
    assert frames[-1].steps == len(states) + 1, "after the last step, one that tells of it"
    assert frames[-1].idle
    assert len(frames) > len(states) / 2
    for frame in frames[:-1]:
        held, findable, waiting = states[frame.steps - 1]
        assert {h.id: (h.tokens, h.blocks) for h in frame.holders} == held, f"step {frame.steps}"
        assert list(frame.findable) == findable, f"step {frame.steps}"
        assert frame.num_waiting == waiting, f"step {frame.steps}"
    assert frames[-1].preemptions > 2
    assert max(len(frame.shared) for frame in frames) > 0


def _serve(folder: Path) -> None:
    """The engine's side: one LLM that is watched from a thread of its own process, each request added at its step."""
    import socket

    job = json.loads((folder / "job.json").read_text())
    with tempfile.TemporaryDirectory(prefix="lkb-", dir="/tmp") as place:
        llm = watched_llm(job["model"], job["scenario"]["settings"], {CONFIG_KEY: {"fps": 60, "path": place}})
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(f"{place}/{SOCKET_NAME}")
        ended = threading.Event()

        def watch() -> None:
            with (folder / "frames").open("wb") as file:
                data = b""
                while not (ended.is_set() and b'"holders":[],"waiting":[]' in data.rsplit(b"\n", 2)[-2]):
                    more = connection.recv(1 << 20)
                    data += more
                    file.write(more)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        play(llm.llm_engine, job["scenario"]["arrivals"], pause_s=0.02)  # its steps take less than a frame's turn
        ended.set()
        llm.llm_engine.step()  # the last one finished in the step before: the core tells its workers in one of no tokens
        watching.join(30)
        assert not watching.is_alive()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
