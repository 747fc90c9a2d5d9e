"""Measure the lab's models on held-out examples: accuracy, calibration, reasoning tokens, and the effect of long prompts.

Answers are greedy and come from transformers in fp32 arithmetic, so that the same weights give the same figures again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Any

import torch

from labkit.lab.models import model_path
from labkit.lab.tasks import Deck, Example, Split, examples, families, grade, policy_example
from labkit.lab.tokenizer import END, END_THINK, prompt_text
from labkit.request import InvalidValue, Message

# Upper limits, in tokens, of the rows of the table by prompt length.
LENGTH_BUCKETS = (256, 512, 1024, 1900)


@dataclass(frozen=True, slots=True)
class Answered:
    """One graded answer. `logprob` is the mean natural-log probability of its tokens after the thinking."""

    example: Example
    text: str
    right: bool
    prompt_tokens: int
    output_tokens: int
    reasoning_tokens: int
    logprob: float


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of the proportion `right` / `n` (Wilson, 1927), as (low, high) from 0 to 1.

    Raises `InvalidValue` when `n` is below 1 or `right` is not from 0 to `n`.
    """
    if n < 1 or not 0 <= right <= n:
        raise InvalidValue(f"{right} right of {n} is no proportion; n must be at least 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = right + z * z / 2
    half = z * (right * (n - right) / n + z * z / 4) ** 0.5
    return max(0.0, (centre - half) / (n + z * z)), min(1.0, (centre + half) / (n + z * z))


def calibration_error(answered: Sequence[Answered], bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error (Guo et al., 2017) of exp(mean answer log-probability), and its reliability bins.

    The bins have equal width. Each that holds answers gives its mean confidence, its accuracy and its number of answers.
    """
    rows = []
    error = 0.0
    for i in range(bins):
        inside = [a for a in answered if min(int(torch.tensor(a.logprob).exp() * bins), bins - 1) == i]
        if not inside:
            continue
        confidence = sum(float(torch.tensor(a.logprob).exp()) for a in inside) / len(inside)
        accuracy = sum(a.right for a in inside) / len(inside)
        error += abs(confidence - accuracy) * len(inside) / len(answered)
        rows.append({"confidence": round(confidence, 4), "accuracy": round(accuracy, 4), "n": len(inside)})
    return error, rows


def answer(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Example],
    batch_size: int = 50,
    right: Callable[[Example, str], bool] = grade,
    prompt: Callable[[Example], str] = prompt_text,
) -> list[Answered]:
    """Answer `asked` greedily, in batches, and grade the answers with `right`; `prompt` renders what is asked.

    `model` and `tokenizer` are transformers objects.
    """
    model.eval()  # generate() itself keeps no gradients
    end, end_think = tokenizer.convert_tokens_to_ids([END, END_THINK])
    found: list[Answered] = []
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        prompts = tokenizer([prompt(e) for e in batch], add_special_tokens=False)["input_ids"]
        longest = max(map(len, prompts))
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, tokens in enumerate(prompts):
            ids[i, longest - len(tokens) :] = torch.tensor(tokens)
            mask[i, longest - len(tokens) :] = 1
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max(e.max_tokens for e in batch),
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        )
        chosen = made.sequences[:, longest:]
        logprobs = (
            torch.stack([step.float().log_softmax(-1) for step in made.logits], 1).gather(2, chosen.unsqueeze(2)).squeeze(2)
        )
        for i, example in enumerate(batch):
            tokens = chosen[i].tolist()[: example.max_tokens]
            tokens = tokens[: tokens.index(end) + 1] if end in tokens else tokens
            thought = len(tokens) - 1 - tokens[::-1].index(end_think) if end_think in tokens else -1
            text = tokenizer.decode([t for t in tokens if t != end], skip_special_tokens=False)
            spoken = logprobs[i, thought + 1 : len(tokens)]
            found.append(
                Answered(
                    example=example,
                    text=text,
                    right=right(example, text),
                    prompt_tokens=len(prompts[i]),
                    output_tokens=len(tokens),
                    reasoning_tokens=thought + 1,
                    logprob=float(spoken.mean()) if len(spoken) else float("-inf"),
                )
            )
    return found


def accuracy(model: Any, tokenizer: Any, split: Split, n: int) -> dict[str, float]:
    """Share of right answers by family, over `n` examples of each family."""
    return {
        family: sum(a.right for a in answer(model, tokenizer, list(examples(split, family, n)))) / n for family in families()
    }


def long_examples(split: Split, n: int, tokenizer: Any, seed: int = 0) -> list[Example]:
    """`n` policy cases per bucket of `LENGTH_BUCKETS`, each with a prompt longer than half its bucket's limit."""
    found = []
    for low, high in zip((128, *LENGTH_BUCKETS[:-1]), LENGTH_BUCKETS, strict=True):
        made, attempt = 0, 0
        while made < n:
            attempt += 1
            rng = Random(f"long/{split}/{seed}/{high}/{attempt}")
            system, told, right, steps = policy_example(
                Deck(split, rng), rng.randrange(3, 13), rng.randrange(high // 18, high // 10)
            )
            messages = (Message("system", system), Message("user", told))
            example = Example(f"long-{high}-{split}-{made}", "policy", "hard", messages, right, steps, 96)
            if low < len(tokenizer(prompt_text(example), add_special_tokens=False)["input_ids"]) <= high:
                found.append(example)
                made += 1
    return found


def load(name: str, folder: Path | None = None) -> tuple[Any, Any]:
    """A lab model, in fp32, and its tokenizer as transformers objects, from `folder` or from where the lab keeps it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder or model_path(name)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def share(answered: Iterable[Answered]) -> dict[str, Any]:
    """The share of right answers with its Wilson interval, and mean numbers of tokens."""
    answered = list(answered)
    right = sum(a.right for a in answered)
    low, high = wilson(right, len(answered))
    return {
        "n": len(answered),
        "accuracy": round(right / len(answered), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "mean_output_tokens": round(sum(a.output_tokens for a in answered) / len(answered), 1),
        "mean_reasoning_tokens": round(sum(a.reasoning_tokens for a in answered) / len(answered), 1),
    }


def evaluate(names: Sequence[str] = ("small", "large"), n: int = 200, long_n: int = 40, seed: int = 0) -> dict[str, Any]:
    """The figures of the model card, as a dictionary that JSON can carry.

    For each model: accuracy by family and by difficulty, and calibration, on `n` test examples of each family; and accuracy
    by prompt length, on `long_n` policy cases of each length bucket. Accuracies have Wilson intervals. Raises `InvalidValue`
    when `n` or `long_n` is below 1.
    """
    if n < 1 or long_n < 1:
        raise InvalidValue(f"n={n} and long_n={long_n}: evaluate on at least one example each")
    report: dict[str, Any] = {
        "made": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "split": "test",
        "seed": seed,
        "n_per_family": n,
        "models": {},
    }
    for name in names:
        model, tokenizer = load(name)
        answered = {f: answer(model, tokenizer, list(examples("test", f, n, seed))) for f in families()}
        long = answer(model, tokenizer, long_examples("test", long_n, tokenizer, seed), batch_size=10)
        every = [a for group in answered.values() for a in group]
        error, bins = calibration_error(every)
        report["models"][name] = {
            "parameters": model.num_parameters(),
            "families": {f: share(group) for f, group in answered.items()},
            "difficulty": {d: share(a for a in every if a.example.difficulty == d) for d in ("easy", "hard")},
            "prompt_tokens": {
                f"≤ {high}": share(a for a in long if low < a.prompt_tokens <= high)
                for low, high in zip((0, *LENGTH_BUCKETS[:-1]), LENGTH_BUCKETS, strict=True)
            },
            "calibration": {"ece": round(error, 4), "bins": bins},
        }
    return report


def card_tables(report: dict[str, Any]) -> str:
    """The model card's tables, in Markdown, from `evaluate`'s report."""
    models = report["models"]

    def table(title: str, part: str) -> list[str]:
        rows = [f"| {title} | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
        for key in next(iter(models.values()))[part]:
            cells = [models[m][part][key] for m in models]
            shown = [f"{100 * c['accuracy']:.1f} % ({100 * c['low']:.1f}–{100 * c['high']:.1f})" for c in cells]
            rows.append(f"| {key} | " + " | ".join(shown) + " |")
        return [*rows, ""]

    tokens = ["| mean output tokens (of them reasoning) | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    for family in families():
        cells = [models[m]["families"][family] for m in models]
        shown = [f"{c['mean_output_tokens']} ({c['mean_reasoning_tokens']})" for c in cells]
        tokens.append(f"| {family} | " + " | ".join(shown) + " |")
    lines = [
        f"Test split, {report['n_per_family']} examples a family, seed {report['seed']}; right answers with 95 % Wilson "
        f"intervals. Made {report['made']} on {report['machine']}, torch {report['torch']}.",
        "",
        *table("family", "families"),
        *table("difficulty", "difficulty"),
        *table("policy cases by prompt tokens", "prompt_tokens"),
        *tokens,
        "",
        *(
            f"Calibration of `{m}`: expected calibration error {100 * models[m]['calibration']['ece']:.1f} %."
            for m in models
        ),
    ]
    return "\n".join(lines)


def write_card(report: dict[str, Any], folder: Path) -> None:
    """Write `folder/eval.json` and put the tables between the marks in `folder/README.md`.

    Raises `InvalidValue` when the file lacks the marks.
    """
    (folder / "eval.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    put_between(folder / "README.md", "eval", lambda: card_tables(report))


def put_between(card: Path, mark: str, tables: Callable[[], str]) -> None:
    """Put what `tables` makes between the marks `<!-- MARK: begin -->` and `<!-- MARK: end -->` of `card`.

    Raises `InvalidValue` when the file lacks the marks.
    """
    text = card.read_text()
    start, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    if start not in text or end not in text:
        raise InvalidValue(f"{card} lacks the marks {start} and {end}; put them where the tables belong")
    head, rest = text.split(start, 1)
    card.write_text(f"{head}{start}\n{tables()}\n{end}{rest.split(end, 1)[1]}")
