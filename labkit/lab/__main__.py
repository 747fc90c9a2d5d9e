"""`python -m labkit.lab`: generate, train and evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from labkit.data import clone_path
from labkit.extras import extra
from labkit.lab.models import MODELS, model_spec
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


@app.command(name="eval")
def evaluate(
    names: Annotated[list[str] | None, typer.Argument(help="models; all when left out")] = None,
    n: Annotated[int, typer.Option(help="test examples a family")] = 200,
    long_n: Annotated[int, typer.Option(help="long policy cases a length bucket")] = 40,
    seed: int = 0,
    write: Annotated[bool, typer.Option(help="write data/models/eval.json and the model card's tables")] = False,
) -> None:
    """Measure accuracy by family, by prompt length, and calibration, on the test split."""
    for name in names or ():
        model_spec(name)  # an unknown name is refused before torch is imported
    with extra("models"):
        from labkit.lab.evaluate import card_tables, write_card
        from labkit.lab.evaluate import evaluate as run

    report = run(names or list(MODELS), n, long_n, seed)
    print(card_tables(report))
    if write:
        write_card(report, _MODELS)


if __name__ == "__main__":
    app()
