"""The `labkit` command, run as a person runs it."""

import os
import subprocess
import sys
import tempfile

import pyarrow.parquet as pq
import pytest

from labkit import __version__
from labkit.cli import app, jupyter
from labkit.ledger import Ledger
from labkit.workbook import notebooks_dir, run
from labkit.workbook.book import PROFILES
from labkit.workbook.chapters import chapter, chapters
from labkit.workbook.prediction import standing
from labkit.workbook.run import KINDS
from labkit.workbook.store import JOURNAL, Journal


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
    for command in (
        "doctor",
        "open",
        "calculator",
        "dashboard",
        "lab",
        "notebooks",
        "progress",
        "record",
        "engine",
        "ledger",
    ):
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
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert says in done.stderr


BOGUS = {
    "notebooks run 99_bogus": "error: no notebook 99_bogus; there are 00_start_here, ",
    "notebooks build 00_start_here 99_bogus": "error: no notebook 99_bogus; there are 00_start_here, ",
    "record bogus": "error: no experiment bogus; there are prefill, ",
    "lab train bogus": "error: the lab trains no model 'bogus'; it has small, large",
    "lab eval small bogus": "error: the lab trains no model 'bogus'; it has small, large",
    "lab generate --family bogus": "error: family 'bogus' is unknown; use one of intent, ",
}
TOLD = """
import atexit, sys
from labkit.cli import main
heavy = {"vllm", "torch", "transformers", "pandas", "altair", "scipy", "jupyterlab", "jupytext", "papermill", "nbformat"}
atexit.register(lambda: print(sorted(heavy & set(sys.modules))))
main()
"""


@pytest.mark.parametrize("command", BOGUS)
def test_a_name_that_does_not_exist_is_refused_before_anything_heavy_is_imported(command):
    done = subprocess.run(
        [sys.executable, "-c", TOLD, *command.split()], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(BOGUS[command])
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.strip() == "[]"


def test_the_kinds_and_profiles_of_a_run_are_those_of_the_room():
    assert tuple(kind.value for kind in app.Kind) == KINDS
    assert tuple(profile.value for profile in app.Profile) == PROFILES


def test_options_of_a_run_reach_the_room(monkeypatch):
    got = []
    monkeypatch.setattr(run, "main", lambda arguments: got.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["labkit", *["notebooks", "run", "--as", "both", "00_start_here"]])
    with pytest.raises(SystemExit) as refused:
        app.main()
    assert refused.value.code == 2
    assert got == []
    for words, arguments in (
        ("", ["--as=learner", "--profile=ci", "--engine=auto", "--out=build/notebooks"]),
        (
            "00_start_here --as proved --profile gpu --engine replay --out x 01_cost_anatomy",
            ["00_start_here", "01_cost_anatomy", "--as=proved", "--profile=gpu", "--engine=replay", "--out=x"],
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["labkit", "notebooks", "run", *words.split()])
        with pytest.raises(SystemExit) as done:
            app.main()
        assert done.value.code == 0
        assert got.pop() == arguments


def test_progress_is_what_the_journal_says(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    first, second, *_ = chapter("00").exercises
    journal.append("check", first.id, ok=True, blank=False)
    journal.append("check", second.id, ok=False, blank=False)
    shown = labkit("progress", LABKIT_STATE=str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    title, header, *rows = shown.stdout.splitlines()
    assert title == "Your progress"
    assert header.split()[:2] == ["chapter", "exercises"]
    assert [row[:2] for row in rows] == [one.number for one in chapters()]
    number = len(chapter("00").exercises)
    assert f"■{'□' * (number - 1)} 1/{number}" in rows[0]
    assert not any("■" in row for row in rows[1:])


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
    assert "--LabApp.default_url=/lab/tree/mine/00_start_here.ipynb" in made
    assert made[-2:] == ["--port", "9000"]


def test_the_calculator_is_served_to_this_machine_only():
    made = jupyter.calculator_command(["--port=9000"])
    assert made[1:3] == ["-m", "voila"]
    assert "--Voila.ip=127.0.0.1" in made
    assert made[-1] == "--port=9000"
    assert (notebooks_dir() / jupyter.CALCULATOR).is_file()


def test_the_dashboard_is_served_to_this_machine_only_whatever_is_asked(tmp_path, monkeypatch):
    run = []
    monkeypatch.setattr(jupyter, "_until_stopped", lambda *call: run.append(call) or 0)
    Ledger(tmp_path / "books.db").close()
    assert jupyter.open_dashboard(tmp_path / "books.db", ["--port=9000", "--Voila.ip=0.0.0.0"]) == 0
    ((line, folder, environment),) = run
    assert line[1:3] == ["-m", "voila"]
    assert line[-1] == "--Voila.ip=127.0.0.1"
    assert "--port=9000" in line
    assert (folder / line[3]).is_file()
    assert environment["LABKIT_LEDGER"] == str(tmp_path / "books.db")


def test_the_dashboard_is_not_opened_on_what_is_no_ledger(tmp_path):
    missing = labkit("dashboard", str(tmp_path / "none.db"))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert f"no ledger at {tmp_path / 'none.db'}" in missing.stderr
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "x.db").write_text("a text")
    other = labkit("dashboard", str(tmp_path / "x.db"))
    assert other.returncode == 1
    assert "it is not an SQLite file" in other.stderr


def test_a_chapters_predictions_can_be_opened_again(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    id = chapter("03").predictions[0]
    journal.append("commit", id, value=50.0, unit="%")
    journal.append("reveal", id, actual=40.0)
    done = labkit("progress", "--reset", "03", LABKIT_STATE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "chapter 03: 3 predictions are open again" in done.stdout
    assert not standing(journal, id).revealed
    assert [e["kind"] for e in journal.entries(item=id)] == ["commit", "reveal", "reset"]
    refused = labkit("progress", "--reset", "77", LABKIT_STATE=str(tmp_path))
    assert refused.returncode != 0
    assert "77" in refused.stderr


def test_audit_writes_its_report_and_names_what_is_wrong(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("at,engine,in,out\n" + "".join(f"{1772442000 + i},gpt-4o,1000,100\n" for i in range(50)))
    columns = [part for pair in ("time=at", "model=engine", "input=in", "output=out") for part in ("--map", pair)]
    out = tmp_path / "report.html"
    done = labkit("audit", str(log), *columns, "--out", str(out), "--month-calls", "1000000")
    assert done.returncode == 0, done.stderr
    assert "50 calls, 3,500 USD a month" in done.stdout  # 1,000 × 2.50 + 100 × 10 per million, a million times
    assert "<h2>The plan</h2>" in out.read_text()
    for arguments, says in (
        ([str(log)], "--map"),
        ([str(tmp_path / "none")], "cannot read the log"),
        ([str(log), "--map", "model"], "write it as --map model=COLUMN"),
        ([str(log), *columns, "--out", str(log)], "would overwrite the log"),
        ([str(log), *columns, "--out", str(tmp_path)], "choose another with --out"),
    ):
        wrong = labkit("audit", *arguments)
        assert (wrong.returncode, wrong.stderr.startswith("error: ")) == (2, True)
        assert says in wrong.stderr
