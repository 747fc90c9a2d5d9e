"""`python -m labkit.lab`: generate, train and evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from labkit.data import clone_path
from labkit.extras import extra
from labkit.lab.models import ADAPTERS, MODELS, adapter_spec, model_spec, trained
from labkit.lab.tasks import examples, families

app = typer.Typer(help="The lab's own data and models.", no_args_is_help=True, add_completion=False)
_MODELS = clone_path("models")


@app.command()
def generate(
    split: Annotated[str, typer.Option(help="train, dev or test")] = "test",
    family: Annotated[str, typer.Option(help="one family; all when left out")] = "",
    n: Annotated[int, typer.Option(help="examples a family")] = 10,
    seed: int = 0,
) -> None:
    """Print examples as JSON lines."""
    for name in [family] if family else families():
        for e in examples(split, name, n, seed):  # type: ignore[arg-type]  # examples() says which splits there are
            messages = [{"role": m.role, "content": m.content} for m in e.messages]
            row = {"id": e.id, "family": e.family, "messages": messages, "steps": e.steps, "answer": e.answer}
            print(json.dumps(row, ensure_ascii=False))


@app.command()
def train(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(MODELS)}")],
    out: Annotated[Path | None, typer.Option(help="folder for the model; data/models/NAME when left out")] = None,
    steps: Annotated[int | None, typer.Option(help="optimizer steps; the model's own number when left out")] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="torch device; a GPU where there is one")] = "",
    start: Annotated[Path | None, typer.Option(help="folder of weights to go on from, at half the learning rate")] = None,
    copy_first: Annotated[float, typer.Option(help="share of the steps, at the start, that only copies and recites")] = 0.15,
) -> None:
    """Train one model from a seed; the log goes to OUT/train.jsonl."""
    model_spec(name)  # an unknown name is refused before torch is imported
    with extra("models"):
        from labkit.lab.train import train as run

    print(run(name, out or _MODELS / name, steps, seed, device, start, copy_first))


@app.command()
def train_reader(
    out: Annotated[Path, typer.Option(help="folder for the model")] = _MODELS / "reader",
    steps: Annotated[int, typer.Option(help="optimizer steps")] = 400,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="torch device; a GPU where there is one")] = "",
) -> None:
    """Train the small model further to predict prompts, so that it can score them; the log goes to OUT/train.jsonl."""
    with extra("models"):
        from labkit.lab.reader import train_reader as run

    print(run(out, steps, seed, device))


@app.command()
def train_adapter(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(ADAPTERS)}")],
    out: Annotated[Path | None, typer.Option(help="folder; data/models/adapters/NAME when left out")] = None,
    steps: Annotated[int | None, typer.Option(help="optimizer steps; the adapter's own number when left out")] = None,
    seed: int = 0,
    start: Annotated[Path | None, typer.Option(help="folder of an adapter to go on from")] = None,
) -> None:
    """Train one LoRA adapter from a seed; the log goes to OUT/train.jsonl."""
    adapter_spec(name)  # an unknown name is refused before torch is imported
    with extra("models"):
        from labkit.lab.train_adapter import train_adapter as run

        print(run(name, out or _MODELS / "adapters" / name, steps, seed, start))


@app.command(name="eval")
def evaluate(
    names: Annotated[
        list[str] | None, typer.Argument(help="models or adapters; all that have weights when left out")
    ] = None,
    n: Annotated[int | None, typer.Option(help="test examples a family: 200; with --adapters, a part: 50")] = None,
    long_n: Annotated[int, typer.Option(help="long policy cases a length bucket")] = 40,
    seed: int = 0,
    adapters: Annotated[bool, typer.Option("--adapters", help="measure the adapters in place of the models")] = False,
    write: Annotated[bool, typer.Option(help="write the report to data/models and the model card's tables")] = False,
) -> None:
    """Measure accuracy by family, by prompt length, and calibration, on the test split; adapters by what they learned."""
    for name in names or ():
        (adapter_spec if adapters else model_spec)(name)  # an unknown name is refused before torch is imported
    with extra("models"):
        from labkit.lab.evaluate import card_tables, write_card
        from labkit.lab.evaluate import evaluate as run
        from labkit.lab.evaluate_adapters import adapter_tables, evaluate_adapters, write_adapters

    if adapters:
        found = evaluate_adapters(names or trained(), n or 50, seed)
        print(adapter_tables(found))
        if write:
            write_adapters(found, _MODELS)
        return
    report = run(names or list(MODELS), n or 200, long_n, seed)
    print(card_tables(report))
    if write:
        write_card(report, _MODELS)


if __name__ == "__main__":
    app()
