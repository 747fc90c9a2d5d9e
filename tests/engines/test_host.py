"""Engines are shared while somebody needs them and gone when nobody does, however their users end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from labkit.engines import Engine, EngineArgumentError, EngineStartError, connect, running_engines
from labkit.engines.host import lease_engine
from labkit.engines.host.protocol import LeaseRequest
from labkit.engines.host.runtime import socket_path
from labkit.engines.provenance import gpu as gpu_here
from labkit.request import EngineError, Request, complete

from .conftest import eventually, family

pytestmark = pytest.mark.live

# What a notebook kernel is to the host: a process that leases an engine, uses it, and may be killed at any moment.
KERNEL = """
import asyncio, json, sys
from labkit.engines import connect, running_engines
from labkit.request import Request, complete
async def main(model, arguments):
    say = lambda step: print("progress", step, flush=True)
    engine = await connect("vllm", model, progress=say, linger_s=600, **arguments)
    infos = [i for i in await running_engines() if i.url == engine.url]
    print("ready", json.dumps({"url": engine.url, "pid": infos[0].pid}), flush=True)
    while True:
        await complete(engine, Request("hello", max_tokens=200, extra={"ignore_eos": True}))
asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


def start_kernel(model: Path, **arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KERNEL, str(model), json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(kernel: subprocess.Popen[str], word: str) -> str:
    assert kernel.stdout is not None
    for line in kernel.stdout:
        if word in line:
            return line
    raise AssertionError(f"the kernel ended ({kernel.wait()}) before it said {word!r}")


def engine_pids() -> set[int]:
    return {engine.pid for engine in asyncio.run(running_engines())}


def host_pid() -> int:
    return asyncio.run(running_engines())[0].host_pid


def test_a_kernel_killed_twenty_times_leaves_no_engine_behind(live: Engine, tiny_model: Path) -> None:
    moments = random.Random(2026)
    host, others = host_pid(), engine_pids()
    before = {process.pid for process in family(host)}
    scratch = {path.name for path in (Path(os.environ["LABKIT_RUNTIME_DIR"]) / "engines").iterdir()}
    seen: set[int] = set()
    processes: set[int] = set()
    for round_number in range(20):
        # An engine of its own (block size as the mark of it), killed while it starts or while it serves.
        kernel = start_kernel(tiny_model, block_size=64, max_num_seqs=8)
        wait_for(kernel, "starting the engine" if round_number % 2 else "ready {")
        seen |= engine_pids() - others
        time.sleep(moments.uniform(0.0, 1.0) if round_number % 2 else moments.uniform(0.0, 0.2))
        seen |= engine_pids() - others
        processes |= {process.pid for process in family(host)} - before
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
        eventually(lambda: engine_pids() == others, f"round {round_number}: the host has dropped the engine")
        eventually(lambda: {p.pid for p in family(host)} <= before, f"round {round_number}: its processes are gone")
    pages = [Path(f"/dev/shm/__KMP_REGISTERED_LIB_{pid}_{os.getuid()}") for pid in processes]
    eventually(lambda: not any(page.exists() for page in pages), "what OpenMP keeps in shared memory is gone too")
    assert len(seen) == 20, "every round must have had an engine of its own to lose"
    assert {path.name for path in (Path(os.environ["LABKIT_RUNTIME_DIR"]) / "engines").iterdir()} == scratch
    assert asyncio.run(complete(live, Request("still there?", max_tokens=3))).done.usage.output_tokens == 3


def test_two_processes_share_one_engine_and_it_outlives_the_first(live: Engine, tiny_model: Path) -> None:
    first, second = (start_kernel(tiny_model, block_size=96) for _ in range(2))
    try:
        one, two = (json.loads(wait_for(kernel, "ready {").removeprefix("ready ")) for kernel in (first, second))
        assert one == two
        first.kill()
        first.wait()
        leases = lambda: {e.url: e.leases for e in asyncio.run(running_engines())}.get(one["url"])  # noqa: E731
        eventually(lambda: leases() == 1, "the killed process's lease is dropped")
        assert one["pid"] in engine_pids()
    finally:
        for kernel in (first, second):
            kernel.kill()
            kernel.wait()
    eventually(lambda: one["pid"] not in engine_pids(), "the engine ends with its last user")


def test_attaching_to_a_running_engine_yields_the_same_engine(live: Engine, tiny_model: Path) -> None:
    async def attach() -> str:
        async with await connect("vllm", str(tiny_model), progress=str, scheduling_policy="priority") as again:
            return again.url

    before = engine_pids()
    assert asyncio.run(attach()) == live.url
    assert engine_pids() == before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux pins threads")
def test_no_engine_is_pinned_to_a_core_and_one_core_is_left_to_server_and_client(live: Engine, tiny_model: Path) -> None:
    server = psutil.Process(next(iter(engine_pids())))
    processes = [server, *server.children(recursive=True)]
    cores = os.sched_getaffinity(0)
    for process in processes:
        for thread in process.threads():
            assert os.sched_getaffinity(thread.id) == cores, f"{process.cmdline()} thread {thread.id}"
    if not gpu_here():
        # The host's: vLLM writes its processes' titles over their own.
        assert psutil.Process(host_pid()).environ()["OMP_NUM_THREADS"] == os.environ.get(
            "OMP_NUM_THREADS", str(max(1, len(cores) - 1))
        )


def test_an_engine_survives_the_end_of_its_neighbour_and_a_dead_one_starts_again(live: Engine, tiny_model: Path) -> None:
    async def scenario() -> None:
        before = engine_pids_now(await running_engines())
        async with await connect("vllm", str(tiny_model), progress=str, block_size=32) as neighbour:
            old = (engine_pids_now(await running_engines()) - before).pop()
            await complete(neighbour, Request("hello", max_tokens=2))
            os.killpg(old, signal.SIGKILL)
            await until(lambda pids: old not in pids)
            assert (await complete(live, Request("hello", max_tokens=2))).done.usage.output_tokens == 2
            # The handle starts its engine again, and says so.
            assert (await complete(neighbour, Request("hello", max_tokens=2))).done.usage.output_tokens == 2
            assert len(engine_pids_now(await running_engines()) - before - {old}) == 1

    asyncio.run(scenario())


def engine_pids_now(engines: list) -> set[int]:
    return {engine.pid for engine in engines}


async def until(condition: Callable[[set[int]], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition(engine_pids_now(await running_engines())):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)


def test_an_engine_that_serves_nobody_is_stopped_and_the_next_request_brings_it_back(live: Engine, tiny_model: Path) -> None:
    async def scenario() -> None:
        said: list[str] = []
        others = engine_pids_now(await running_engines())
        engine = await connect("vllm", str(tiny_model), progress=said.append, idle_s=1.0, block_size=160)
        async with engine:
            await until(lambda pids: pids == others)  # although it is leased
            answer = await complete(engine, Request("hello", max_tokens=2))
            assert answer.done.usage.output_tokens == 2
            assert any("served no request" in step and "starting it again" in step for step in said)

    asyncio.run(scenario())


def test_engines_die_with_their_host_and_the_host_with_its_last_engine(tiny_model: Path, tmp_path: Path) -> None:
    own = Path(f"/tmp/lkt-{os.getpid()}-own")
    environment = {**os.environ, "LABKIT_RUNTIME_DIR": str(own)}
    script = KERNEL.replace("linger_s=600", "linger_s=1")

    def start() -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", script, str(tiny_model), "{}"]
        kernel = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        return kernel, psutil.Process(json.loads(wait_for(kernel, "ready {").removeprefix("ready "))["pid"]).ppid()

    try:
        kernel, host = start()
        processes = family(host)
        assert processes
        os.kill(host, signal.SIGKILL)
        eventually(lambda: not any(p.is_running() and p.status() != "zombie" for p in processes), "no engine without a host")
        kernel.kill()
        kernel.wait()
        kernel, host = start()
        kernel.kill()
        kernel.wait()
        eventually(lambda: not psutil.pid_exists(host), "the host ends after its linger")
        assert not list(own.glob("*.sock")), "its address is gone with it"
    finally:
        subprocess.run(["rm", "-rf", str(own)], check=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"block_sise": 32}, "did you mean block_size"),
        ({"block_size": 33}, "multiple of 32"),
        ({"max_model_len": "long"}, "max-model-len"),
        ({"api_key": "mine"}, "random key"),
        ({"dtype": "float7"}, "dtype"),
    ],
)
def test_bad_engine_arguments_are_refused_by_name(live: Engine, tiny_model: Path, arguments: dict, says: str) -> None:
    with pytest.raises(EngineArgumentError, match=says):
        asyncio.run(connect("vllm", str(tiny_model), progress=str, **arguments))


def test_a_taken_port_is_named_with_its_fix(live: Engine, tiny_model: Path) -> None:
    port = int(live.url.split(":")[2].removesuffix("/v1"))
    with pytest.raises(EngineStartError, match=rf"port {port} is taken.*leave port out"):
        asyncio.run(connect("vllm", str(tiny_model), progress=str, port=port, block_size=32))


def test_a_model_without_weights_shows_the_engines_own_words(live: Engine, tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    before = engine_pids()
    with pytest.raises(EngineStartError) as failure:
        asyncio.run(connect("vllm", str(tmp_path), progress=str))
    assert any("Cannot find any model weights" in line for line in failure.value.log_tail)
    assert "Likely fix: the model was not found" in str(failure.value)
    assert engine_pids() == before


def test_too_small_a_kv_cache_names_the_arguments_to_change(live: Engine, tiny_model: Path) -> None:
    with pytest.raises(EngineStartError, match=r"Likely fix: the KV cache holds less than one full sequence"):
        asyncio.run(connect("vllm", str(tiny_model), progress=str, kv_cache_memory_bytes=1 << 20))


def test_a_client_that_gives_up_while_the_engine_starts_takes_it_along(live: Engine, tiny_model: Path) -> None:
    async def scenario() -> None:
        others = engine_pids_now(await running_engines())
        started = asyncio.Event()
        waiting = asyncio.create_task(lease_engine(str(tiny_model), {"block_size": 192}, progress=lambda _: started.set()))
        await started.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda pids: pids == others)

    asyncio.run(scenario())


GARBAGE = [
    b"garbage\n",
    b"\xff\x00\xfe\n",
    b"null\n",
    b'["op"]\n',
    b'{"op": "dance"}\n',
    b'{"op": ["lease"]}\n',
    b'{"op": "lease"}\n',
    b'{"op": "lease", "model": 7, "arguments": {}, "idle_s": 1}\n',
    b'{"op": "lease", "model": "m", "arguments": [], "idle_s": 1}\n',
    b'{"op": "lease", "model": "m", "arguments": {}, "idle_s": NaN}\n',
    b'{"op": "lease", "model": "\\ud800", "arguments": {}, "idle_s": 1}\n',
    b'{"op": "lease", "model": "m", "arguments": {"port": "x"}, "idle_s": 1}\n',
    b'{"op": "lease", "model": "m", "arguments": {"max_model_len": {"a": [1]}}, "idle_s": 1}\n',
    b"[" * 100_000 + b"\n",
    b"x" * 3_000_000 + b"\n",
]


def call_host() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(socket_path()))
    return connection


def test_garbage_on_the_hosts_socket_is_answered_and_harms_nobody(live: Engine) -> None:
    host, engines = host_pid(), engine_pids()
    for garbage in GARBAGE:
        with call_host() as connection, connection.makefile("rb") as answers:
            connection.sendall(garbage)
            answer = json.loads(answers.readline())
            assert answer["event"] in ("refused", "failed"), garbage[:80]
            assert answer["message"], garbage[:80]
            connection.sendall(b'{"op": "list"}\n')  # the same connection goes on
            assert {engine["pid"] for engine in json.loads(answers.readline())["engines"]} == engines, garbage[:80]
    for half in (b"", b'{"op": "lease", "mod', b"x" * 3_000_000):
        with call_host() as connection:
            connection.sendall(half)
    assert host_pid() == host
    assert engine_pids() == engines
    assert asyncio.run(complete(live, Request("still there?", max_tokens=3))).done.usage.output_tokens == 3


def test_a_connection_holds_one_lease_and_a_second_one_leaves_no_engine_behind(live: Engine, tiny_model: Path) -> None:
    before = engine_pids()
    with call_host() as connection, connection.makefile("rb") as answers:
        connection.sendall(LeaseRequest(str(tiny_model), {"scheduling_policy": "priority"}).encode())
        assert json.loads(answers.readline())["event"] == "ready"
        connection.sendall(LeaseRequest(str(tiny_model), {"block_size": 288}).encode())
        refused = json.loads(answers.readline())
        assert (refused["event"], "holds a lease" in refused["message"]) == ("refused", True)
        assert engine_pids() == before


@pytest.mark.parametrize("moment", ["importing vLLM", "starting the engine"])
def test_a_kernel_killed_during_the_first_start_takes_the_host_along(tiny_model: Path, moment: str) -> None:
    own = Path(f"/tmp/lkt-{os.getpid()}-first")
    command = [sys.executable, "-c", KERNEL, str(tiny_model), "{}"]
    environment = {**os.environ, "LABKIT_RUNTIME_DIR": str(own)}

    def hosts() -> list[int]:
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if str(own) in " ".join(process.info["cmdline"] or ())
        ]

    def addresses() -> list[Path]:
        return list(own.glob("*.sock"))

    try:
        kernel = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        wait_for(kernel, moment)
        eventually(lambda: bool(addresses()), "a host is on its way")
        kernel.kill()
        kernel.wait()
        # The linger would be 600 s.
        eventually(lambda: not addresses() and not hosts(), "the host has nobody to wait for")
        assert not list(own.glob("engines/*")), "the engine's files are gone with it"
    finally:
        subprocess.run(["rm", "-rf", str(own)], check=True)


PREPARED = """
import asyncio, sys
from labkit.engines import connect, prepare, running_host
prepare()
prepare()
async def main():
    while (host := await running_host()) is None:
        await asyncio.sleep(0.05)
    async with await connect("vllm", sys.argv[1], progress=lambda step: print("progress", step, flush=True)):
        assert await running_host() == host
    print("host", host, flush=True)
asyncio.run(main())
"""


def test_vllm_is_imported_ahead_of_the_first_engine_and_kept_for_the_next_until_told_to_stop(tiny_model: Path) -> None:
    own = Path(f"/tmp/lkt-{os.getpid()}-prep")
    environment = {**os.environ, "LABKIT_RUNTIME_DIR": str(own)}

    def run(*command: str) -> str:
        return subprocess.run(
            [sys.executable, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=300
        ).stdout

    try:
        first = run("-c", PREPARED, str(tiny_model))
        host = int(first.splitlines()[-1].removeprefix("host "))
        assert f"pid {host}" in run("-m", "labkit", "engine", "list"), "nobody has an engine, and vLLM stays imported"
        second = run("-c", PREPARED, str(tiny_model))
        assert second.splitlines()[0] == "progress starting the engine", "the next kernel waits for no import"
        assert second.splitlines()[-1] == f"host {host}"
        assert run("-m", "labkit", "engine", "stop").strip() == "0 stopped"
        assert not psutil.pid_exists(host)
    finally:
        subprocess.run(["rm", "-rf", str(own)], check=True)  # a host whose address is gone ends by itself


def test_a_closed_connection_says_so(live: Engine, tiny_model: Path) -> None:
    async def scenario() -> None:
        engine = await connect("vllm", str(tiny_model), progress=str, scheduling_policy="priority")
        await engine.aclose()
        with pytest.raises(EngineError, match="closed"):
            await complete(engine, Request("hello"))

    asyncio.run(scenario())
