"""Train a LoRA adapter of one of the lab's models from a seed (Hu et al., "LoRA: Low-Rank Adaptation", 2021).

The base model's weights stay as they are. Each of its matrices gets two thin ones, whose product is added to it, and only
these learn: with AdamW, a learning rate that rises over 50 steps, is held for a while and then falls to 2 %.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from labkit.lab.evaluate import accuracy, load
from labkit.lab.mixtures import ANSWER_ONLY, CUT_SHORT, drawn
from labkit.lab.models import adapter_spec
from labkit.lab.train import Row, answer_loss, answer_only, batched, cut_short, rows_of

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_EXAMPLES_PER_ROUND = 1_500
_TOKENS_PER_BATCH = 2_048


def _batches(name: str, tokenizer: Any, rng: random.Random) -> Iterator[list[Row]]:
    while True:
        rows = rows_of(tokenizer, drawn(name, _EXAMPLES_PER_ROUND, rng), reasons=True)
        rows = [cut_short(tokenizer, row, rng) if rng.random() < CUT_SHORT[name] else row for row in rows]
        rows = [answer_only(tokenizer, row) if rng.random() < ANSWER_ONLY[name] else row for row in rows]
        yield from batched(rows, rng, _TOKENS_PER_BATCH)


def train_adapter(name: str, out: Path, steps: int | None = None, seed: int = 0, start: Path | None = None) -> Path:
    """Train the adapter `name` for `steps` steps (by default its own number), save it in `out` and return `out`.

    `start` is a folder with an adapter to go on from; the log then goes on too.

    `out` gets PEFT's files, weights in bf16, and `train.jsonl`, which logs loss, tokens, seconds and, at the end, accuracy
    on the dev split's families. Raises `InvalidValue` for an unknown `name`.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    spec = adapter_spec(name)
    steps = spec.steps if steps is None else steps
    torch.manual_seed(seed)
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    base, tokenizer = load(spec.model)
    if start is None:
        adapted = get_peft_model(base, LoraConfig(r=spec.rank, lora_alpha=spec.rank, target_modules=TARGETS))
    else:
        adapted = PeftModel.from_pretrained(base, start, is_trainable=True).float()
    adapted.train()
    thin = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(thin, lr=spec.peak_lr, betas=(0.9, 0.95), weight_decay=0.0)
    batches = _batches(name, tokenizer, rng)
    tokens, average, started = 0, float("nan"), time.monotonic()
    with (out / "train.jsonl").open("w" if start is None else "a") as log:

        def note(**facts: Any) -> None:
            log.write(json.dumps(facts) + "\n")
            log.flush()

        note(
            adapter=name,
            model=spec.model,
            seed=seed,
            steps=steps,
            start=start and start.name,
            rank=spec.rank,
            parameters=sum(p.numel() for p in thin),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
            torch=torch.__version__,
        )
        for step in range(1, steps + 1):
            done = (step - 1) / steps
            rate = (
                spec.peak_lr * min(1.0, step / 50) * (1.0 if done < spec.hold else max(0.02, (1 - done) / (1 - spec.hold)))
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, size = answer_loss(adapted.get_base_model(), next(batches), "cpu")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(thin, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += size
            average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
            if step % 25 == 0:
                note(step=step, loss=round(average, 4), tokens=tokens, seconds=round(time.monotonic() - started))
            if step % 200 == 0 or step == steps:
                _save(adapted, out, spec.model)
        adapted.eval()
        note(step=steps, dev_accuracy=accuracy(adapted, tokenizer, "dev", 50))
    return out


def _save(adapted: Any, out: Path, model: str) -> None:
    """Write the adapter in bf16, with the base model's name in place of its folder on this machine."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = {name: w.detach().to(torch.bfloat16).contiguous() for name, w in get_peft_model_state_dict(adapted).items()}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = adapted.peft_config["default"]
    facts = {**config.to_dict(), "base_model_name_or_path": model, "inference_mode": True}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in sorted(facts.items())}
    (out / "adapter_config.json").write_text(json.dumps(plain, indent=1, default=str) + "\n")
