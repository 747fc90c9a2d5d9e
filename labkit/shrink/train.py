"""Train the keep/drop classifier on the lab's own ground truth: `python -m labkit.shrink.train`.

Words are taken out of prompts that the large model answers right, it is asked again, and the grader says whether the answer
is still right. The classifier gives each word a probability h of being needed, and is fitted to what happened to whole sets
of words: an answer stays right with probability Π (1 − h) over the words that went. So no word need be tried alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from labkit.data import clone_path
from labkit.extras import extra
from labkit.lab import Deck, Example, examples, families, grade, policy_example
from labkit.request import Message
from labkit.shrink.keepdrop import BUCKETS, NUMBERS, Features, KeepDropModel, features, keepdrop_card, keepdrop_model
from labkit.shrink.protect import FACTS, NOTHING
from labkit.shrink.wording import without, words

OUT = clone_path("models") / "keepdrop"
_SIZE, _HIDDEN, _UNSEEN, _RATE = 12, 48, 0.3, 2e-3


@dataclass(frozen=True, slots=True)
class Trial:
    """Words that were taken out of an example's prompt (message, number), and whether the answer was right without them."""

    split: str
    family: str
    number: int
    gone: tuple[tuple[int, int], ...]
    right: bool


def drawn(split: str, family: str, number: int) -> Example:
    """Example `number` of `family`; "long" are policy cases under a long policy."""
    if family != "long":
        # One seed an example, so that an example can be made without those before it.
        return next(examples(split, family, 1, seed=70_000 + number))  # type: ignore[arg-type]
    rng = random.Random(f"keepdrop/{split}/{number}")
    system, told, answer, steps = policy_example(Deck(split, rng), rng.randrange(3, 9), rng.randrange(6, 24))  # type: ignore[arg-type]
    messages = (Message("system", system), Message("user", told))
    return Example(f"keepdrop-{split}-{number}", "policy", "hard", messages, answer, steps, 96)


def taken_out(example: Example, gone: Iterable[tuple[int, int]]) -> Example:
    """`example` without the words `gone`."""
    gone = sorted(gone)
    made = []
    for n, message in enumerate(example.messages):
        text, at, kept = message.content, 0, []
        for start, end, _ in without(text, words(text, NOTHING), [i for m, i in gone if m == n]):
            kept.append(text[at:start])
            at = end
        made.append(replace(message, content="".join((*kept, text[at:]))))
    return replace(example, messages=tuple(made))


def _sets(example: Example, rng: random.Random, n: int, single: bool) -> Iterator[tuple[tuple[int, int], ...]]:
    """`n` sets of words to try: single words, or sets of random size, two of three without protected words."""
    known = [(m, words(message.content, NOTHING)) for m, message in enumerate(example.messages)]
    every = [(m, i) for m, found in known for i in range(len(found))]
    kept = {
        (m, i)
        for m, found in known
        for i, word in enumerate(found)
        for start, end in FACTS.spans(example.messages[m].content)
        if start < word.end and word.start < end
    }
    for _ in range(n):
        if single:
            yield (rng.choice(every),)
            continue
        pool = every if rng.random() < 1 / 3 else [each for each in every if each not in kept]
        size = round(len(pool) ** rng.uniform(0, 0.95))
        if rng.random() < 0.4:  # a run of neighbours, as a sentence is
            start = rng.randrange(len(pool))
            yield tuple(pool[start : start + size])
        else:
            yield tuple(sorted(rng.sample(pool, min(size, len(pool)))))


def tried(
    target: tuple[Any, Any], split: str, count: int, sets: int, seed: int, single: bool = False, names: Sequence[str] = ()
) -> list[Trial]:
    """What happened to `sets` sets of words of each of `count` examples of each family that the target answers right.

    `target` is a model and its tokenizer, as transformers objects.
    """
    from labkit.lab import answer

    model, tokenizer = target
    found = []
    for family in names or (*families(), "long"):
        rng = random.Random(f"{seed}/{split}/{family}")
        asked = [drawn(split, family, number) for number in range(count)]
        known = [i for i, a in enumerate(answer(model, tokenizer, asked, batch_size=64)) if a.right]
        plan = [(i, gone) for i in known for gone in _sets(asked[i], rng, sets, single)]
        plan.sort(key=lambda each: -len(asked[each[0]].messages[0].content))
        answered = answer(model, tokenizer, [taken_out(asked[i], gone) for i, gone in plan], batch_size=64)
        found += [
            Trial(split, family, i, gone, grade(asked[i], a.text)) for (i, gone), a in zip(plan, answered, strict=True)
        ]
        print(f"{split} {family}: {len(known)} of {count} right; {len(plan)} tried", flush=True)
    return found


def _seen(trial: Trial) -> tuple[Features, list[int]]:
    example = drawn(trial.split, trial.family, trial.number)
    known = {n: words(m.content, NOTHING) for n, m in enumerate(example.messages)}
    index = {pair: at for at, pair in enumerate((n, i) for n, found in known.items() for i in range(len(found)))}
    return features(example.messages, known), [index[pair] for pair in trial.gone]


def fitted(trials: Sequence[Trial], dev: Sequence[Trial], steps: int, seed: int, note: Any) -> KeepDropModel:
    """A classifier fitted to `trials`, as it was when its loss on `dev` was least; `note` is told both as they fall."""
    with extra("models"):
        import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    rows = [(*_seen(t), t.right) for t in trials]
    held = [(*_seen(t), t.right) for t in dev]
    table = torch.nn.Embedding(BUCKETS, _SIZE)
    torch.nn.init.normal_(table.weight, std=0.1)
    hidden = torch.nn.Linear(_SIZE * 7 + NUMBERS, _HIDDEN)
    out = torch.nn.Linear(_HIDDEN, 1)
    torch.nn.init.constant_(out.bias, -2.0)
    weights = [*table.parameters(), *hidden.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=_RATE, weight_decay=0.1)

    def loss_of(batch: Sequence[tuple[Features, list[int], bool]], learning: bool = False) -> Any:
        hashes = torch.from_numpy(np.concatenate([seen.hashes for seen, _, _ in batch])).long()
        numbers = torch.from_numpy(np.concatenate([seen.numbers for seen, _, _ in batch]))
        owner = torch.tensor([i for i, (seen, _, _) in enumerate(batch) for _ in range(len(seen.hashes))])
        vectors = table(hashes)
        sums = torch.zeros(len(batch), _SIZE).index_add(0, owner, vectors[:, 0])
        whole = sums / torch.bincount(owner, minlength=len(batch))[:, None]
        if learning:  # without a word or a neighbour now and then, so that none is relied on alone
            vectors = vectors * (torch.rand(vectors.shape[:2]) > _UNSEEN)[..., None]
        inputs = torch.cat([vectors.flatten(1), whole[owner], numbers], 1)
        logits = out(torch.relu(hidden(inputs)))[:, 0]
        starts = np.cumsum([0] + [len(seen.hashes) for seen, _, _ in batch])
        gone = torch.tensor([starts[i] + at for i, (_, out_of, _) in enumerate(batch) for at in out_of])
        whose = torch.tensor([i for i, (_, out_of, _) in enumerate(batch) for _ in out_of])
        stays = torch.zeros(len(batch)).index_add(0, whose, torch.nn.functional.logsigmoid(-logits[gone]))
        right = torch.tensor([r for _, _, r in batch])
        # ln P(right) is the sum of ln(1 − h); ln P(wrong) = ln(1 − e^that).
        wrong = torch.log(-torch.expm1(torch.clamp(stays, max=-1e-5)))
        return -torch.where(right, stays, wrong).mean()

    started, best, kept = time.monotonic(), float("inf"), [w.detach().clone() for w in weights]
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, 2 * (1 - step / steps) + 0.01)
        loss = loss_of(rng.sample(rows, min(128, len(rows))), learning=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 20) == 0:
            with torch.no_grad():
                on_dev = round(loss_of(held).item(), 4)
            note(step=step, loss=round(loss.item(), 4), dev_loss=on_dev, seconds=round(time.monotonic() - started))
            if on_dev < best:
                best, kept = on_dev, [w.detach().clone() for w in weights]
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
    layer, last = hidden.weight.detach().numpy().T, out.weight.detach().numpy()[0]
    return KeepDropModel(
        table.weight.detach().numpy(), layer, hidden.bias.detach().numpy(), last, float(out.bias.detach()[0])
    )


def judged(model: KeepDropModel, trials: Sequence[Trial]) -> dict[str, Any]:
    """Precision and recall of "this word can go" (p below 0.5) against what happened to single words, by family.

    `ranked` is the share of pairs of a needed word and one that could go in which the needed one has the higher p; by lot it
    would be one half.
    """
    table: dict[str, list[int]] = {}
    scores: dict[str, tuple[list[float], list[float]]] = {"all": ([], [])}
    for trial in trials:
        seen, (at,) = _seen(trial)
        needed = float(model.needed(seen)[at])
        counts = table.setdefault(trial.family, [0, 0, 0, 0])
        counts[(0 if needed < 0.5 else 2) + (0 if trial.right else 1)] += 1
        for name in (trial.family, "all"):
            scores.setdefault(name, ([], []))[trial.right].append(needed)

    def ranked(name: str) -> float | None:
        pairs = [(a > b) + (a == b) / 2 for a in scores[name][0] for b in scores[name][1]]
        return round(sum(pairs) / len(pairs), 4) if pairs else None

    def shares(counts: Sequence[int]) -> dict[str, Any]:
        good, bad, missed, refused = counts
        return {
            "words": sum(counts),
            "could_go": round((good + missed) / sum(counts), 4),
            "precision": round(good / (good + bad), 4) if good + bad else None,
            "recall": round(good / (good + missed), 4) if good + missed else None,
            "needed_words_found": round(refused / (refused + bad), 4) if refused + bad else None,
        }

    every = [sum(column) for column in zip(*table.values(), strict=True)]
    rows = {family: shares(counts) for family, counts in table.items()} | {"all": shares(every)}
    return {name: {**row, "ranked": ranked(name)} for name, row in rows.items()}


def elsewhere(model: KeepDropModel, text: str, rate: float = 0.7) -> dict[str, Any]:
    """What the classifier does to a text that it knows nothing of. Nobody grades it, so its negations are counted.

    `negations_dropped` is the share of the words not, no, nor and without among those it would drop first, with nothing
    protected, until `rate` of the words are left. A draw by lot would drop 1 − `rate` of them.
    """
    message = Message("user", text)
    found = words(text, NOTHING)
    needed = model.needed(features((message,), {0: found}))
    said = [text[w.start : w.end].lower() for w in found]
    last = np.argsort(needed, kind="stable")[: round((1 - rate) * len(found))]
    turns = [i for i, word in enumerate(said) if word in ("not", "no", "nor", "without")]
    return {
        "words": len(found),
        "mean_needed": round(float(needed.mean()), 4),
        "rate": rate,
        "negations": len(turns),
        "negations_dropped": round(len(set(turns) & set(last.tolist())) / max(1, len(turns)), 4),
    }


def tables(report: dict[str, Any]) -> str:
    """The classifier's part of the model card, in Markdown, from `card.json`."""
    other = report["elsewhere"]
    lines = [
        f"Judged by single words of the test split, each taken out alone; `{report['target']}` answered. "
        f"Made {report['made']} from {report['tried']['train']:,} tries on the train split.",
        "",
        "| family | words | could go | precision of “can go” | recall | needed words that it found | pairs ranked right |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for family, row in report["figures"].items():
        values = [row[key] for key in ("could_go", "precision", "recall", "needed_words_found", "ranked")]
        cells = ["–" if value is None else f"{value:.0%}" for value in values]
        lines.append(f"| {family} | {row['words']} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Elsewhere it guesses. Of the {other['negations']} negations in the text of a software licence it would drop "
            f"{other['negations_dropped']:.0%} to get down to {other['rate']:.0%} of the words; a draw by lot, "
            f"{1 - other['rate']:.0%}. Use it with protection, and on prompts like those it has seen.",
        ]
    )


def train(
    out: Path = OUT,
    target: str = "desk",
    folder: Path | None = None,
    count: int = 240,
    sets: int = 6,
    steps: int = 2_500,
    seed: int = 0,
    labels: Path | None = None,
) -> Path:
    """Try, fit, judge on the test split, and write weights, `card.json` and `train.jsonl` into `out`, which is returned.

    `count` train examples of each family are tried with `sets` sets of words each, and `target` answers: a model of the lab,
    or an adapter (from `folder`). `labels` is a file for what was tried: read where it exists, else written.
    """
    started = time.monotonic()
    if labels is not None and labels.exists():
        with labels.open() as lines:
            trials = [Trial(**{**row, "gone": tuple(map(tuple, row["gone"]))}) for row in map(json.loads, lines)]
    else:
        from labkit.lab import answerer

        asked = answerer(target, folder)
        trials = tried(asked, "train", count, sets, seed)
        trials += tried(asked, "dev", max(8, count // 8), sets, seed)
        trials += tried(asked, "test", max(20, count // 4), 4, seed, single=True)
        if labels is not None:
            labels.write_text("".join(json.dumps(asdict(t)) + "\n" for t in trials))
    by_split = {split: [t for t in trials if t.split == split] for split in ("train", "dev", "test")}
    out.mkdir(parents=True, exist_ok=True)
    with (out / "train.jsonl").open("w") as log:

        def note(**facts: Any) -> None:
            log.write(json.dumps(facts) + "\n")
            log.flush()

        note(
            model="keepdrop",
            target=target,
            seed=seed,
            steps=steps,
            tried={split: len(found) for split, found in by_split.items()},
            stayed_right={s: round(sum(t.right for t in f) / len(f), 4) for s, f in by_split.items() if f},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=platform.machine(),
        )
        model = fitted(by_split["train"], by_split["dev"], steps, seed, note)
        model.save(out)
        note(seconds=round(time.monotonic() - started))
    keepdrop_model.cache_clear()
    report = {
        "made": datetime.now(UTC).date().isoformat(),
        "target": target,
        "trained_on": "prompts of the lab's seven families (train split) and long policies; it knows no other text",
        "tried": {split: len(found) for split, found in by_split.items()},
        "elsewhere": elsewhere(keepdrop_model(str(out)), (clone_path().parent / "LICENSE").read_text()),
        "figures": judged(keepdrop_model(str(out)), by_split["test"]),
    }
    (out / "card.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return out


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the keep/drop classifier on the lab's ground truth.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--target", default="desk", help="who answers: a model or an adapter of the lab")
    parser.add_argument("--folder", type=Path, help="another folder for it")
    parser.add_argument("--count", type=int, default=240, help="train examples a family")
    parser.add_argument("--sets", type=int, default=6, help="sets of words tried of each")
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", type=Path, help="a file for what was tried: read where it exists, else written")
    parser.add_argument("--card", action="store_true", help="write the figures into data/models/README.md, too")
    settings = vars(parser.parse_args())
    write_card = settings.pop("card")
    out = train(**settings)
    told = tables(keepdrop_card(str(out)))
    print(told)
    if write_card:
        from labkit.lab import put_between

        put_between(clone_path("models", "README.md"), "keepdrop", lambda: told)


if __name__ == "__main__":
    main()
