"""The `labkit` command, run as a person runs it."""

import os
import subprocess
import sys
import tempfile

import pyarrow.parquet as pq
import pytest

from labkit import __version__
from labkit.cli import jupyter
from labkit.ledger import Ledger


def labkit(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "labkit", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        check=False,
        timeout=120,
    )


def test_help_lists_every_command():
    shown = labkit("--help").stdout
    for command in ("doctor", "open", "lab", "notebooks", "record", "engine", "ledger"):
        assert f" {command} " in shown


def test_the_version_is_the_packages():
    assert labkit("--version").stdout.strip() == __version__


def test_an_unknown_command_is_refused():
    done = labkit("docter")
    assert done.returncode == 2
    assert "docter" in done.stderr


def test_record_says_what_it_would_measure_and_names_what_it_does_not_know():
    gpu = labkit("record", "--list", "--where", "gpu").stdout
    assert "concurrency-llama-3.1-8b-fp8" in gpu
    assert "concurrency-llama-3.1-70b-fp8-kv-fp8" in gpu
    only = labkit("record", "prefill", "--list", "--where", "cpu", "--model", "small").stdout
    assert [line.split()[0] for line in only.splitlines()] == ["prefill-small-default"]
    for arguments, says in (
        (["nonsense"], "no experiment nonsense; there are prefill"),
        (["--where", "tpu"], "--where tpu is unknown; use cpu or gpu"),
        (["--where", "cpu", "--model", "huge"], "nothing with model 'huge'"),
    ):
        done = labkit("record", *arguments)
        assert done.returncode == 1
        assert says in done.stderr


def test_help_imports_none_of_the_heavy_packages():
    code = (
        "import sys; from labkit.cli.app import app\n"
        "heavy = {'vllm', 'torch', 'transformers', 'pandas', 'altair', 'openai', 'jupyterlab', 'papermill', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_of_a_room_reach_the_room():
    assert "--check" in labkit("notebooks", "build", "--help").stdout
    assert "--as" in labkit("notebooks", "run", "--help").stdout


def test_a_failed_check_of_the_notebooks_is_the_exit_status(tmp_path):
    (tmp_path / "notebooks" / "src").mkdir(parents=True)
    (tmp_path / "notebooks" / "left_over.ipynb").write_text("{}")
    done = labkit("notebooks", "build", "--check", LABKIT_ROOT=str(tmp_path))
    assert done.returncode == 1
    assert "left_over.ipynb" in done.stdout


def test_an_error_is_one_line_without_a_traceback(tmp_path):
    done = labkit("ledger", "export", str(tmp_path / "no.sqlite"), str(tmp_path / "out.parquet"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: no ledger at {tmp_path / 'no.sqlite'}")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_that_is_no_ledger_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("not a ledger, but long enough to be taken for one" * 50)
    done = labkit("ledger", "export", str(tmp_path / "notes.txt"), str(tmp_path / "out.parquet"))
    assert done.returncode == 1
    assert "notes.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ledger_is_exported(tmp_path):
    with Ledger(tmp_path / "book.sqlite"):
        pass
    done = labkit("ledger", "export", str(tmp_path / "book.sqlite"), str(tmp_path / "out.parquet"))
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    assert done.stdout.startswith("0 attempts")


def test_no_engine_runs_for_a_user_who_started_none():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are too long for Unix sockets
        listed = labkit("engine", "list", LABKIT_RUNTIME_DIR=folder)
        stopped = labkit("engine", "stop", LABKIT_RUNTIME_DIR=folder)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.strip() == "no engine is running"
    assert stopped.stdout.strip() == "0 stopped"


def test_the_lab_opens_on_chapter_00_and_passes_options_on(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "src").mkdir(parents=True)
    monkeypatch.setenv("LABKIT_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="labkit notebooks build"):
        jupyter.command([])
    (tmp_path / "notebooks" / jupyter.FIRST).write_text("{}")
    made = jupyter.command(["--port", "9000"])
    assert f"--ServerApp.root_dir={tmp_path}" in made
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in made
    assert made[-2:] == ["--port", "9000"]
