"""The reader: the small model, trained further to predict prompts. It scores how predictable each word of a prompt is.

The lab's other models were taught answers only: nothing in their training tells which word of a prompt comes next, and they
give prompts less probability than a guess among all tokens would. A scorer of prompts has to have read some.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from typing import Any

from labkit.data import clone_path
from labkit.extras import extra
from labkit.lab.models import CONTEXT_WINDOW, model_path
from labkit.lab.tasks import Example, Split, examples, families
from labkit.request import Message

BETWEEN = "\n\n"
"""What stands between two messages in the text that the reader reads."""
PEAK_LR, _TOKENS_PER_BATCH, _PER_ROUND = 2e-3, 2048, 2_000
_FOLDER = clone_path("models") / "reader"


def reader_path() -> Path:
    """The folder with the reader's weights, config and tokenizer; `connect(str(reader_path()))` serves it.

    Raises `FileNotFoundError` when the weights are not there.
    """
    if not (_FOLDER / "model.safetensors").exists():
        raise FileNotFoundError(
            f"no weights in {_FOLDER}; restore them from the repository or run `labkit lab train-reader`"
        )
    return _FOLDER


def reading(messages: tuple[Message, ...], question_first: bool) -> str:
    """The messages' texts as the reader reads them: in their order, or with the last one, the question, in front."""
    texts = [message.content for message in messages]
    return BETWEEN.join([texts[-1], *texts[:-1]] if question_first else texts)


def prompts(split: Split, n: int, rng: random.Random) -> list[Example]:
    """`n` examples of all families, one in twelve with a long policy."""
    from labkit.lab.train import long_example

    names = rng.choices(families(), k=n)
    found = [e for name in families() for e in examples(split, name, names.count(name), seed=rng.randrange(10**9))]
    if split == "train":  # long examples are drawn from that split only
        found += [long_example(rng) for _ in range(n // 12)]
    return found


def train_reader(out: Path = _FOLDER, steps: int = 400, seed: int = 0, device: str = "") -> Path:
    """Train `small` on the prompts of the train split for `steps` steps, save it in `out` and return `out`.

    Each text is read in both orders, so that a question can be read before what it asks about. `out/train.jsonl` logs seed,
    losses (nats a token), times and, at the end, the loss on dev prompts in both orders, beside that of `small`.
    """
    with extra("models"):
        import torch
        from transformers import AutoTokenizer, LlamaForCausalLM

        from labkit.lab.train import in_halves

    torch.manual_seed(seed)
    rng = random.Random(seed)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    small = model_path("small")
    tokenizer = AutoTokenizer.from_pretrained(small)
    model = LlamaForCausalLM.from_pretrained(small, dtype=torch.float32).to(device).train()
    before = {order: _loss(model, tokenizer, order) for order in (False, True)}
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=PEAK_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        copyfile(small / name, out / name)
    average, tokens, started = float("nan"), 0, time.monotonic()
    rounds = _batches(tokenizer, rng)
    with (out / "train.jsonl").open("w") as log:

        def note(**facts: Any) -> None:
            log.write(json.dumps(facts) + "\n")
            log.flush()

        note(
            model="reader",
            start="small",
            seed=seed,
            steps=steps,
            parameters=sum(p.numel() for p in model.parameters()),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
            torch=torch.__version__,
        )
        for step in range(1, steps + 1):
            rows = next(rounds)
            batch = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
            for i, ids in enumerate(rows):
                batch[i, : len(ids)] = torch.tensor(ids)
            batch = batch.to(device)
            real = batch[:, 1:] != tokenizer.pad_token_id
            done = step / steps
            for group in (g for optimizer in optimizers for g in optimizer.param_groups):
                group["lr"] = PEAK_LR * min(1.0, step / 50) * (1.0 if done < 0.5 else max(0.02, (1 - done) / 0.5))
            with in_halves(device):
                logits = model(input_ids=batch[:, :-1], use_cache=False).logits[real]
            loss = torch.nn.functional.cross_entropy(logits.float(), batch[:, 1:][real])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            tokens += batch.numel()
            average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
            if step % 100 == 0:
                note(step=step, loss=round(average, 4), tokens=tokens, seconds=round(time.monotonic() - started))
        model.to(torch.bfloat16).save_pretrained(out)
        model.float().eval()
        for order, name in ((False, "in order"), (True, "question first")):
            note(dev=name, nats_a_token=_loss(model, tokenizer, order), small=before[order])
    return out


def _batches(tokenizer: Any, rng: random.Random) -> Iterator[list[list[int]]]:
    """Batches of similar length, so that little of a batch is padding, in random order, without end."""
    while True:
        texts = [reading(e.messages, rng.random() < 0.5) for e in prompts("train", _PER_ROUND, rng)]
        rows = [ids[:CONTEXT_WINDOW] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        rng.shuffle(rows)
        rows.sort(key=lambda ids: len(ids) // 8)
        found: list[list[list[int]]] = [[]]
        for ids in rows:
            if found[-1] and (len(found[-1]) + 1) * max(len(ids), len(found[-1][-1])) > _TOKENS_PER_BATCH:
                found.append([])
            found[-1].append(ids)
        rng.shuffle(found)
        yield from found


def _loss(model: Any, tokenizer: Any, question_first: bool) -> float:
    """Nats a token on dev prompts."""
    import torch

    total = count = 0.0
    with torch.no_grad():
        for example in prompts("dev", 140, random.Random(1)):
            text = reading(example.messages, question_first)
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]], device=model.device)
            logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            total, count = total - float(logprobs.sum()), count + len(logprobs)
    return round(total / count, 4)
