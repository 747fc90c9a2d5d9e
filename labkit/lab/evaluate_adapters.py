"""Measure the lab's adapters on the test split, beside their base model: right answers, styles obeyed, tokens.

Answers are greedy and come from transformers in fp32 arithmetic, with the adapter's matrices added to the base's.
"""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from labkit.lab.evaluate import Answered, answer, load, put_between, share, wilson
from labkit.lab.house import house_example
from labkit.lab.models import ADAPTERS, adapter_path, adapter_spec
from labkit.lab.styles import FORMS_WITH_STEPS, STYLED_FAMILIES, Form, Styled, graded, obeys, styled
from labkit.lab.tasks import Example, examples, families, grade
from labkit.lab.telegraph import terse
from labkit.lab.threads import thread
from labkit.lab.tokenizer import END_THINK, THINK, prompt_text
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Part:
    """One row of an adapter's table: what is asked, how it is graded, and how the prompt is rendered."""

    name: str
    asked: tuple[Example, ...]
    right: Callable[[Example, str], bool] = grade
    prompt: Callable[[Example], str] = prompt_text


def adapted(name: str, folder: Path | None = None) -> tuple[Any, Any]:
    """The base model with an adapter's matrices added to its own, in fp32, and its tokenizer, as transformers objects.

    The adapter comes from `folder`, or from where the lab keeps it.
    """
    from peft import PeftModel

    base, tokenizer = load(adapter_spec(name).model)
    return PeftModel.from_pretrained(base, folder or adapter_path(name)).merge_and_unload(), tokenizer


def answerer(name: str, folder: Path | None = None) -> tuple[Any, Any]:
    """A model of the lab, or an adapter with the model below it, and the tokenizer, as transformers objects, in fp32.

    The weights come from `folder`, or from where the lab keeps them. Raises `InvalidValue` for an unknown name.
    """
    return adapted(name, folder) if name in ADAPTERS else load(name, folder)


def cut_prompt(example: Example, share_kept: float) -> str:
    """The prompt of `example` with the first `share_kept` of its steps thought, and the thinking ended there."""
    return f"{prompt_text(example)}{THINK}{example.steps[: round(share_kept * len(example.steps))]}{END_THINK}"


def parts(name: str, n: int, seed: int = 0) -> Iterator[Part]:
    """What an adapter is measured by: `2 * n` test examples of each family as it is, then `n` a part."""
    for family in families():
        yield Part(family, tuple(examples("test", family, 2 * n, seed)))
    for subject in _SUBJECTS[adapter_spec(name).name]:
        yield from subject(n, seed)


def _house(n: int, seed: int) -> Iterator[Part]:
    for said, given in (("the house's cases, policy in the prompt", True), ("the house's cases, no policy", False)):
        yield Part(said, tuple(house_example("test", i, given, seed) for i in range(n)))


def _styles(n: int, seed: int) -> Iterator[Part]:
    plain, hard = _mixed(STYLED_FAMILIES, n, seed), _mixed(families("hard"), n, seed)
    yield Part("brief", tuple(styled(e, "brief") for e in plain), graded)
    yield Part("detailed", tuple(styled(e, "detailed") for e in plain), graded)
    for low, high in ((3, 6), (7, 14), (15, 30)):
        asked = tuple(styled(e, max_words=low + i % (high - low + 1)) for i, e in enumerate(plain))
        yield Part(f"at most {low}–{high} words", asked, graded)
    yield Part("json, easy families", tuple(styled(e, form="json") for e in plain if not e.steps), graded)
    for form in _HARD_FORMS:
        yield Part(f"{form}, hard families", tuple(styled(e, form=form) for e in hard), graded)
    for kept in (0.0, 0.5, 1.0):
        said = f"hard families, thinking cut after {100 * kept:.0f} % of the steps"
        yield Part(said, tuple(hard), prompt=partial(cut_prompt, share_kept=kept))


def _context(n: int, seed: int) -> Iterator[Part]:
    every = _mixed(families(), n, seed)
    for dropped in (0.3, 0.6):
        asked = tuple(terse(e, dropped, random.Random(f"terse/{seed}/{e.id}")) for e in every)
        yield Part(f"{100 * dropped:.0f} % of unimportant words dropped", asked)
    for turns, chatter in ((3, 0.0), (8, 0.0), (15, 0.0), (15, 0.4)):
        threads = [thread("test", i, turns=turns, chatter=chatter, seed=seed) for i in range(n)]
        said = f"conversation of {turns} turns" + (", 40 % small talk" if chatter else "")
        yield Part(said, tuple(t.example for t in threads))
        if turns == 15 and not chatter:
            yield Part("the last 3 of 15 turns, from an interim summary", tuple(t.since(12) for t in threads))


_HARD_FORMS: tuple[Form, ...] = ("json", *FORMS_WITH_STEPS)
_SUBJECTS = {"desk": (_styles,), "context": (_context,), "house": (_house,)}


def _mixed(names: Sequence[str], n: int, seed: int) -> list[Example]:
    """`n` test examples, of each of `names` in turn."""
    each = [list(examples("test", family, -(-n // len(names)), seed)) for family in names]
    return [e for row in zip(*each, strict=True) for e in row][:n]


def evaluate_adapters(
    names: Sequence[str], n: int = 50, seed: int = 0, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """The figures of the card's part on adapters, as a dictionary that JSON can carry.

    For each adapter and each part: right answers of the adapter and, but for the seven families, of the base model, with
    Wilson intervals, how many obeyed the style asked for, and mean numbers of tokens. The families get `2 * n` examples, the
    other parts `n`. `say` hears of each part. Raises `InvalidValue` when `n` is below 1.
    """
    if n < 1:
        raise InvalidValue(f"n={n}: evaluate on at least one example each")
    report: dict[str, Any] = {}
    for name in names:
        weights = adapter_path(name) / "adapter_model.safetensors"
        log = [json.loads(line) for line in (weights.parent / "train.jsonl").read_text().splitlines()]
        found: dict[str, dict[str, Any]] = {}
        models = {"base": load(adapter_spec(name).model), "adapter": adapted(name)}
        for part in parts(name, n, seed):
            found[part.name] = {}
            for which, (model, tokenizer) in models.items():
                if which == "base" and part.name in families():
                    continue  # these figures are in eval.json
                answered = answer(model, tokenizer, part.asked, 50, part.right, part.prompt)
                found[part.name][which] = _figures(answered)
                say(f"{name}, {part.name}, {which}: {found[part.name][which]}")
        report[name] = {
            "made": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "split": "test",
            "seed": seed,
            "n": n,
            "model": adapter_spec(name).model,
            "parameters": log[0]["parameters"],
            "bytes": weights.stat().st_size,
            "steps": log[0]["steps"],
            "training_tokens": max(line.get("tokens", 0) for line in log),
            "training_seconds": max(line.get("seconds", 0) for line in log),
            "parts": found,
        }
    return report


def _figures(answered: Sequence[Answered]) -> dict[str, Any]:
    figures = share(answered)
    figures["mean_prompt_tokens"] = round(sum(a.prompt_tokens for a in answered) / len(answered), 1)
    asked = [(a.example, a.text) for a in answered if isinstance(a.example, Styled)]
    if asked:
        obeyed = sum(obeys(example, text) for example, text in asked if isinstance(example, Styled))
        low, high = wilson(obeyed, len(asked))
        figures |= {"obeyed": round(obeyed / len(asked), 4), "obeyed_low": round(low, 4), "obeyed_high": round(high, 4)}
    return figures


def adapter_tables(report: dict[str, Any]) -> str:
    """The card's tables of the adapters, in Markdown, from `evaluate_adapters`' report."""
    lines = []
    for name, found in report.items():
        lines += [
            f"**`{name}`** for `{found['model']}`: {found['parameters']:,} parameters, {found['bytes'] / 2**20:.2f} MiB; "
            f"{found['steps']:,} steps, {found['training_tokens']:,} tokens, {found['training_seconds']:,} s of training. "
            f"Test split, seed {found['seed']}: {2 * found['n']} examples a family, {found['n']} or fewer in further rows; "
            f"right answers with 95 % Wilson intervals. Made {found['made']} on {found['machine']}, torch {found['torch']}.",
            "",
            f"| asked of `{name}` | right, base | right, adapter | style obeyed | prompt tokens | output tokens |",
            "|---|---|---|---|---|---|",
        ]
        for part, both in found["parts"].items():
            adapter = both["adapter"]
            right = [
                f"{100 * c['accuracy']:.0f} % ({100 * c['low']:.0f}–{100 * c['high']:.0f})" if c else "above"
                for c in (both.get("base"), adapter)
            ]
            obeyed = f"{100 * adapter['obeyed']:.0f} %" if "obeyed" in adapter else ""
            tokens = f"{adapter['mean_prompt_tokens']:.0f} | {adapter['mean_output_tokens']:.0f}"
            lines.append(f"| {part} | {right[0]} | {right[1]} | {obeyed} | {tokens} |")
        lines.append("")
    return "\n".join(lines)


def write_adapters(report: dict[str, Any], folder: Path) -> None:
    """Write `folder/eval_adapters.json` and put the tables between their marks in `folder/README.md`.

    Adapters that are in the file but not in `report` stay as they are. Raises `InvalidValue` when the card lacks the marks.
    """
    file = folder / "eval_adapters.json"
    known = {**(json.loads(file.read_text()) if file.exists() else {}), **report}
    known = {name: known[name] for name in ADAPTERS if name in known}
    put_between(folder / "README.md", "adapters", lambda: adapter_tables(known))
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
