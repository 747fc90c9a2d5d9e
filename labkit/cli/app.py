"""The commands. Each imports its room when it runs."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from labkit import __version__

app = typer.Typer(
    name="labkit",
    help="The Inference Cost Lab from a shell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
notebooks = typer.Typer(help="The notebooks, without JupyterLab.", no_args_is_help=True)
engine = typer.Typer(help="Live engines of this user.", no_args_is_help=True)
ledger = typer.Typer(help="Ledgers.", no_args_is_help=True)
app.add_typer(notebooks, name="notebooks")
app.add_typer(engine, name="engine")
app.add_typer(ledger, name="ledger")


class Kind(Enum):
    """What `notebooks run` makes of the exercises."""

    learner = "learner"
    solved = "solved"
    proved = "proved"


class Profile(Enum):
    """How much a notebook measures: for a check, for a learner, or with a GPU."""

    ci = "ci"
    learn = "learn"
    gpu = "gpu"


def main() -> None:
    """Run the command line. Errors that the lab raises on purpose print one line, and no traceback.

    The status is then 2 for a name or a value that cannot work, as for a wrong option, and 1 for all else.
    """
    from labkit.request import InvalidValue, LabError

    try:
        app()
    except (LabError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InvalidValue) else 1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Do not start an engine.")] = False,
) -> None:
    """Check this machine line by line: OK, or what to do. Status 1 when something must be fixed."""
    from labkit.cli.doctor import examine, render

    sys.exit(render(examine(quick=quick)))


@app.command(name="open", context_settings=_PASS_ON)
def open_(context: typer.Context) -> None:
    """Open JupyterLab on your copy of chapter 00, in mine/. Options are JupyterLab's: --no-browser, --port 9000, …."""
    from labkit.cli.jupyter import open_lab

    sys.exit(open_lab(context.args))


@app.command(context_settings=_PASS_ON)
def calculator(context: typer.Context) -> None:
    """Open the cost calculator as an app, for this machine only. Options are Voilà's own: --no-browser, --port 9000, …."""
    from labkit.cli.jupyter import open_calculator

    sys.exit(open_calculator(context.args))


@app.command(context_settings=_PASS_ON)
def dashboard(
    context: typer.Context,
    ledger_file: Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger (an SQLite file).")],
) -> None:
    """Watch a ledger's spending live, as an app for this machine only. Options are Voilà's own: --no-browser, …."""
    from labkit.cli.jupyter import open_dashboard

    sys.exit(open_dashboard(ledger_file, context.args))


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def lab(context: typer.Context) -> None:
    """The lab's own data and models: generate, train, eval (see `labkit lab --help`)."""
    from labkit.lab import commands

    commands(args=context.args, prog_name="labkit lab")


@app.command()
def progress(
    reset: Annotated[str, typer.Option(metavar="CHAPTER", help="Open a chapter's predictions again, such as 03.")] = "",
) -> None:
    """Show what you have passed, predicted and answered, chapter by chapter."""
    from labkit.workbook import progress_text, reset_chapter

    if reset:
        print(reset_chapter(reset))
    print(progress_text())


_Notebooks = Annotated[list[str] | None, typer.Argument(help="Notebooks, such as 00_start_here; all when none is named.")]


@notebooks.command()
def build(
    names: _Notebooks = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; status 1 when one differs.")] = False,
) -> None:
    """Write the notebooks from their sources, or compare them with `--check`."""
    named = _notebooks(names)
    from labkit.workbook import build_notebooks as room

    sys.exit(room([*named, *(["--check"] if check else [])]))


@notebooks.command()
def run(
    names: _Notebooks = None,
    kind: Annotated[Kind, typer.Option("--as", help="Blank exercises, solved ones, or both in one run.")] = Kind.learner,
    profile: Annotated[Profile, typer.Option(help="How much is measured.")] = Profile.ci,
    engine: Annotated[str, typer.Option(help="As for connect(); record:FILE makes a recording for a replay.")] = "auto",
    out: Annotated[Path, typer.Option(help="Where the executed notebooks and the report go.")] = Path("build/notebooks"),
) -> None:
    """Execute notebooks headless and report time and memory of each."""
    named = _notebooks(names)
    from labkit.workbook import run_notebooks as room

    sys.exit(room([*named, f"--as={kind.value}", f"--profile={profile.value}", f"--engine={engine}", f"--out={out}"]))


def _notebooks(names: list[str] | None) -> list[str]:
    """The names as given, if every one is a notebook's: the rooms that build and run them take seconds to import."""
    from labkit.request import InvalidValue
    from labkit.workbook import source_names

    there = source_names()
    unknown = [name for name in names or () if name not in there]
    if unknown:
        raise InvalidValue(f"no notebook {', '.join(unknown)}; there are {', '.join(there) or 'none'}")
    return names or []


@app.command()
def record(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments; all of them when none is named.")] = None,
    where: Annotated[str, typer.Option(help="The set for a cpu or a gpu; by default the one for what is here.")] = "",
    model: Annotated[str, typer.Option(help="Only this model of the set.")] = "",
    minutes: Annotated[float | None, typer.Option(help="Begin nothing after so long; the next call goes on.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where to write; by default data/recordings.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Only say what would be recorded.")] = False,
) -> None:
    """Run named experiments on the engine of this machine and keep the numbers with where they came from."""
    from labkit.engines import gpu
    from labkit.experiments import EXPERIMENTS, RECORDINGS, jobs
    from labkit.experiments import run_all as run_jobs
    from labkit.request import InvalidValue

    where = where or ("gpu" if gpu() else "cpu")
    if where not in ("cpu", "gpu"):
        raise InvalidValue(f"--where {where} is unknown; use cpu or gpu")
    chosen = [job for job in jobs("gpu" if where == "gpu" else "cpu", tuple(names or ())) if model in ("", job.model)]
    if show or not chosen:
        for job in chosen:
            points = len(job.points) * job.repeats
            print(f"{job.name:40} {points:4} points  {EXPERIMENTS[job.experiment].question}")
        if not chosen:
            raise InvalidValue(f"the {where} set has nothing with model {model!r}; see labkit record --list")
        return
    done = asyncio.run(
        run_jobs(chosen, folder=folder or RECORDINGS, minutes=minutes, command=" ".join(["labkit", *sys.argv[1:]]))
    )
    sys.exit(0 if done else 1)


@engine.command(name="list")
def list_() -> None:
    """The engines that run now, who holds them, and where their logs are."""
    from labkit.engines import running_engines, running_host

    engines = asyncio.run(running_engines())
    for one in engines:
        state = "ready" if one.ready else "starting"
        print(f"{one.model}  {one.url}  pid {one.pid}  {state}  used by {one.leases}  log {one.log}")
    if not engines:
        print("no engine is running")
        if host := asyncio.run(running_host()):
            print(f"vLLM is kept imported for the next one by pid {host}; `labkit engine stop` ends it now")


@engine.command()
def stop() -> None:
    """Stop every engine of this user, also those that a notebook is using, and the process that keeps vLLM imported."""
    import psutil

    from labkit.engines import running_engines, running_host

    engines, pid = asyncio.run(running_engines()), asyncio.run(running_host())
    if pid is not None:
        try:
            host = psutil.Process(pid)
            host.terminate()
            host.wait(timeout=30)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            print(
                f"error: the engine host (pid {pid}) did not end within 30 s of SIGTERM. Fix: kill -9 {pid}", file=sys.stderr
            )
            raise typer.Exit(1) from None
    print(f"{len(engines)} stopped")


@app.command()
def audit(
    logs: Annotated[list[Path], typer.Argument(help="Logs: JSON lines, JSON, CSV or a ledger, packed by gzip or not.")],
    out: Annotated[Path, typer.Option(help="The report to write, one HTML file.")] = Path("audit.html"),
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the numbers as JSON, too.")] = None,
    mapped: Annotated[list[str] | None, typer.Option("--map", metavar="NAME=COLUMN", help="What a column tells.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Your own prices (JSON), by model.")] = None,
    month_calls: Annotated[int | None, typer.Option(help="Calls in a month; else the log's time is stretched.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="A feature whose answers can wait a day.")] = None,
    cheaper: Annotated[str, typer.Option(help="The model that short calls might go to.")] = "",
    pairs: Annotated[Path | None, typer.Option(help="Labelled pairs of questions, for paraphrases (chapter 04).")] = None,
    show_prompts: Annotated[
        bool, typer.Option("--show-prompts", help="Put the most repeated questions in the report.")
    ] = False,
) -> None:
    """Say where the money of your logs goes, and which lever would save how much of it. Nothing leaves this machine."""
    from labkit.audit import AuditSettings, audit_logs, in_short, read_prices, report_html
    from labkit.logs import Pairs, read_labels, threshold
    from labkit.request import InvalidValue

    names: dict[str, str] = {}
    for one in mapped or ():
        name, equals, column = one.partition("=")
        if not (name and equals and column):
            raise InvalidValue(f"--map {one} is no pair; write it as --map model=COLUMN")
        names[name] = column
    for target in (out, json_out):
        if target is not None and any(log.exists() and target.exists() and log.samefile(target) for log in logs):
            raise InvalidValue(f"the report would overwrite the log {target}; choose another file with --out or --json")
    bound, encode = None, None
    if pairs is not None:
        labels = read_labels(pairs)
        if not isinstance(labels, Pairs):
            raise InvalidValue(f"{pairs} holds no labelled pairs; give columns score and same")
        bound = threshold(labels).number
        if bound is None:
            raise InvalidValue(threshold(labels).sentence)
        from labkit.embeddings import embedder

        encode = embedder().encode
    size = max((log.stat().st_size for log in logs if log.is_file()), default=0)
    settings = AuditSettings(
        mapped=names,
        prices=read_prices(prices) if prices else {},
        month_calls=month_calls,
        patient=tuple(patient or ()),
        cheaper=cheaper,
        threshold=bound,
        encode=encode,
        show_prompts=show_prompts,
        processes=min(4, os.cpu_count() or 1) if size > 50_000_000 else 1,
    )
    found = audit_logs(logs, settings)
    print(in_short(found))
    for target, text in ((out, report_html(found)), (json_out, found.to_json() + "\n")):
        if target is not None:
            try:
                target.write_text(text, encoding="utf-8")
            except OSError as error:
                raise InvalidValue(f"cannot write {target}: {error.strerror or error}; choose another with --out") from error
            print(f"written to {target}")


@ledger.command()
def export(
    ledger_file: Annotated[Path, typer.Argument(help="The ledger (an SQLite file).")],
    parquet: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
) -> None:
    """Write every attempt of a ledger to a Parquet file."""
    if not ledger_file.is_file():
        raise FileNotFoundError(f"no ledger at {ledger_file}; chapters keep theirs under .labkit/ in the clone")
    from labkit.ledger import Ledger

    with Ledger(ledger_file) as book:
        print(f"{book.export_parquet(parquet)} attempts written to {parquet}")
