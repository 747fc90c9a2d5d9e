"""Train one of the lab's models from a seed.

Only the answers carry a loss: prompts are full of random names that nothing could predict. Muon trains the matrices, as it
needs about half of AdamW's examples at this size; AdamW trains embeddings and norms. The learning rate rises over 50 steps,
is held until 60 % of the steps, and then falls linearly to 2 %. Long policy prompts come in after the first third, when the
model understands short ones.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from labkit.lab.evaluate import accuracy
from labkit.lab.models import CONTEXT_WINDOW, model_spec
from labkit.lab.tasks import Deck, Example, draw_policy, examples, families, policy_example
from labkit.lab.tokenizer import END, END_THINK, SPECIAL, THINK, answer_text, prompt_text, save_tokenizer, train_tokenizer
from labkit.request import Message

# How often each family is drawn, relative to the others: families that take longer to learn come more often.
_MIX = {"intent": 1.0, "faq": 1.0, "extract": 3.0, "normalise": 2.0, "total": 3.0, "policy": 4.0, "summary": 3.0}
_DESK_SENTENCE = "You work at the support desk of Trailhead Supply."
TOKENS_PER_BATCH = 4096
_EXAMPLES_PER_ROUND = 3_000
# Share of copying examples: random tokens to repeat and, for a model that reasons, as many recitals of a policy's numbers.
# They come alone at first and then among the rest. Each of their tokens teaches the model to copy, as names, order numbers
# and rules need; with the tasks alone it learns that late.
_COPY_SHARE = 0.16
_LONG_SHARE = 0.03

Row = tuple[list[int], list[int]]  # token ids of prompt and answer, and the places of those that are taught


def long_example(rng: random.Random) -> Example:
    """A policy case under a long policy or, one time in five, an easy task whose instructions come after a long policy."""
    deck = Deck("train", random.Random(rng.random()))
    system, told, answer, steps = policy_example(deck, rng.randrange(2, 13), rng.randrange(10, 110))
    if rng.random() < 0.2:
        easy = next(examples("train", rng.choice(["intent", "faq", "extract"]), 1, seed=rng.randrange(10**9)))
        policy = system.split("days. ", 1)[1]
        system = f"{system.split(' Decide')[0]} {policy}{easy.messages[0].content.removeprefix(_DESK_SENTENCE)}"
        told, answer, steps = easy.messages[1].content, easy.answer, ""
    return Example("long", "policy", "hard", (Message("system", system), Message("user", told)), answer, steps)


def _random_tokens(tokenizer: Any, rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(len(SPECIAL), len(tokenizer)) for _ in range(n)]


def _copy_row(tokenizer: Any, rng: random.Random) -> Row:
    """A prompt of random tokens, and the same tokens as its answer."""
    user, assistant, end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>", END])
    told = _random_tokens(tokenizer, rng, rng.randrange(8, 40))
    ids = [user, *told, end, assistant, *told, end]
    return ids, list(range(len(told) + 3, len(ids)))


def recital(rng: random.Random) -> Example:
    """Look up every number of a policy, in another order: the first step of deciding a case, many times over."""
    deck = Deck("train", random.Random(rng.random()))
    policy = draw_policy(deck, rng.randrange(2, 13), rng.choice((0, 0, 2, 8)))
    asked = rng.sample(sorted(policy.days), len(policy.days))
    return Example(
        "recital",
        "policy",
        "hard",
        (Message("system", policy.text), Message("user", "Recite " + ", ".join(asked) + ".")),
        "; ".join(f"window {noun} {policy.days[noun]} days" for noun in asked),
    )


def rows_of(tokenizer: Any, found: Sequence[Example], reasons: bool) -> list[Row]:
    """Prompts with their answers as rows, those that fit the context window.

    The answer is taught: what stands behind the last mark of an assistant's turn.
    """
    if not found:
        return []  # transformers' tokenizers take no empty batch
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    texts = [prompt_text(e) + answer_text(e, reasons) for e in found]
    rows = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        start = len(ids) - ids[::-1].index(assistant)
        taught = list(range(start, len(ids)))
        if len(ids) <= CONTEXT_WINDOW:
            rows.append((ids, taught))
    return rows


def _batches(tokenizer: Any, reasons: bool, rng: random.Random, long_share: float, copy_share: float) -> list[list[Row]]:
    """One round of examples, in batches."""
    names = list(_MIX)
    # A model that does not reason cannot learn the hard families. It sees enough of them to guess in the right form.
    held_back = {name: 1.0 if reasons or name in families("easy") else 0.2 for name in names}
    picked = rng.choices(names, [_MIX[name] * held_back[name] for name in names], k=_EXAMPLES_PER_ROUND)
    found: list[Example] = []
    if copy_share < 1:
        found += [e for name in names for e in examples("train", name, picked.count(name), seed=rng.randrange(10**9))]
        found += [long_example(rng) for _ in range(int(_EXAMPLES_PER_ROUND * long_share))]
    recitals = int(_EXAMPLES_PER_ROUND * copy_share / 2) if reasons else 0
    found += [recital(rng) for _ in range(recitals)]
    rows = rows_of(tokenizer, found, reasons)
    rows += [_copy_row(tokenizer, rng) for _ in range(int(_EXAMPLES_PER_ROUND * copy_share) - recitals)]
    return batched(rows, rng)


def cut_short(tokenizer: Any, row: Row, rng: random.Random) -> Row:
    """`row` with its thinking cut off at a random place, as an engine cuts it at a budget; only the answer behind is taught.

    A row without thinking comes back as it is.
    """
    ids, _ = row
    think, end_think = tokenizer.convert_tokens_to_ids([THINK, END_THINK])
    if end_think not in ids:
        return row
    start, stop = ids.index(think) + 1, ids.index(end_think)
    kept = [*ids[: rng.randint(start, stop)], *ids[stop:]]
    return kept, list(range(kept.index(end_think) + 1, len(kept)))


def answer_only(tokenizer: Any, row: Row) -> Row:
    """`row` with less taught: of the thinking, only how it begins. A row without thinking comes back as it is.

    What a style changes is few tokens, and their loss is lost among a hundred steps that the base model writes already.
    """
    ids, taught = row
    end_think = tokenizer.convert_tokens_to_ids(END_THINK)
    if end_think not in ids:
        return row
    return ids, [taught[0], *range(ids.index(end_think) + 1, len(ids))]


def batched(rows: list[Row], rng: random.Random, tokens: int = TOKENS_PER_BATCH) -> list[list[Row]]:
    """`rows` as batches of `tokens` at most, padding included, of similar length and in random order."""
    rng.shuffle(rows)
    rows.sort(key=lambda row: len(row[0]) // 8)
    batches: list[list[Row]] = []
    current: list[Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row[0]))
        if current and (len(current) + 1) * longest > tokens:
            batches.append(current)
            current, longest = [], len(row[0])
        current.append(row)
    rng.shuffle(batches)
    return batches


def in_halves(device: str) -> torch.autocast:
    """A context in which matrices are multiplied in bf16, where the device can; a CPU that cannot takes 30 times as long."""
    able = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=able)


def answer_loss(model: Any, rows: Sequence[Row], device: str) -> tuple[torch.Tensor, int]:
    """The mean loss of the taught tokens of a batch, in nats, and how many tokens the batch has, padding included."""
    longest = max(len(ids) for ids, _ in rows)
    batch = torch.zeros(len(rows), longest, dtype=torch.long)
    before = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, (ids, taught) in enumerate(rows):
        batch[i, : len(ids)] = torch.tensor(ids)
        before[i, torch.tensor(taught) - 1] = True
    targets = torch.roll(batch, -1, 1)[before].to(device)
    with in_halves(device):
        hidden = model.model(input_ids=batch.to(device), use_cache=False).last_hidden_state[before.to(device)]
        logits = model.lm_head(hidden)
    return torch.nn.functional.cross_entropy(logits.float(), targets), batch.numel()


def _rounds(
    tokenizer: Any, reasons: bool, rng: random.Random, progress: Callable[[], float], fresh: bool, copy_first: float
) -> Iterator[list[Row]]:
    while True:
        copy_share = 1.0 if progress() < copy_first else _COPY_SHARE
        batches = _batches(tokenizer, reasons, rng, 0.0 if fresh and progress() < 0.35 else _LONG_SHARE, copy_share)
        while batches:
            yield batches.pop()


def look_back(model: LlamaForCausalLM) -> None:
    """Start the first layer's heads so that they look one, two and three tokens back: all but the last head, at most three.

    Looking something up in a prompt takes two layers: one tells each token what stands before it, and the next searches for
    that (Olsson et al., "In-context learning and induction heads", 2022). The second layer has nothing to learn from until
    the first one works, and by chance that takes thousands of steps: the model began to copy at step 400 with these heads,
    and at step 2,000 without them.

    Every embedding gets the same first coordinate. Queries and keys made of it alone differ by position only. Keys are
    turned by n positions of the rotary embedding, so they match the query n tokens later: the score is a sum of cosines that
    is largest there.
    """
    size, layer = model.config.head_dim, model.model.layers[0].self_attn
    # Only the 8 pairs of coordinates that turn fastest: slow ones hardly tell one position from the next.
    fast = 8
    angles = model.config.rope_parameters["rope_theta"] ** (-2 * torch.arange(fast) / size)
    with torch.no_grad():
        # 0.5 is large beside the other coordinates (0.3 together), so it is nearly the same for all tokens after the norm.
        model.model.embed_tokens.weight[:, 0] = 0.5
        for head, back in enumerate((1, 2, 3)[: model.config.num_attention_heads - 1]):
            queries = layer.q_proj.weight[head * size : (head + 1) * size]
            keys = layer.k_proj.weight[head * size : (head + 1) * size]
            queries[:, 0] = keys[:, 0] = 0
            queries[:fast, 0] = 0.6
            keys[:fast, 0] = 0.6 * torch.cos(angles * back)
            keys[size // 2 : size // 2 + fast, 0] = 0.6 * torch.sin(angles * back)


def train(
    name: str,
    out: Path,
    steps: int | None = None,
    seed: int = 0,
    device: str = "",
    start: Path | None = None,
    copy_first: float = 0.15,
) -> Path:
    """Train the lab model `name` for `steps` steps (by default the model's own number), save it in `out` and return `out`.

    `start` is a folder of weights to go on from, at half the learning rate. `copy_first` is the share of the steps, at the
    beginning, in which the model only copies random tokens and, if it reasons, recites the numbers of policies. `device` is
    a torch device; by default a GPU where there is one. `out/train.jsonl` logs loss, tokens, seconds and, at the end,
    accuracy on the dev split. Raises `InvalidValue` for an unknown `name`.
    """
    spec = model_spec(name)
    steps = spec.steps if steps is None else steps
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = out.parent / "tokenizer.json"
    if not vocabulary.exists():
        train_tokenizer(vocabulary)
    tokenizer = save_tokenizer(vocabulary, out, spec.reasons)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=(len(tokenizer) + 63) // 64 * 64,
            max_position_embeddings=CONTEXT_WINDOW,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **spec.config(),
        )
    )
    look_back(model)
    if start is not None:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    model.to(device).train()
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=spec.peak_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=spec.peak_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    step = tokens = 0
    average = float("nan")
    started = time.monotonic()
    rounds = _rounds(tokenizer, spec.reasons, rng, lambda: step / steps, start is None, copy_first)
    peak = spec.peak_lr if start is None else spec.peak_lr / 2
    with (out / "train.jsonl").open("w" if start is None else "a") as log:

        def note(**facts: Any) -> None:
            log.write(json.dumps(facts) + "\n")
            log.flush()

        note(
            model=name,
            seed=seed,
            steps=steps,
            start=start and start.name,
            copy_first=copy_first,
            parameters=sum(p.numel() for p in model.parameters()),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
            torch=torch.__version__,
        )
        while step < steps:
            rows = next(rounds)
            done = step / steps
            rate = peak * min(1.0, (step + 1) / 50) * (1.0 if done < 0.6 else max(0.02, (1 - done) / 0.4))
            for group in (g for optimizer in optimizers for g in optimizer.param_groups):
                group["lr"] = rate
            loss, size = answer_loss(model, rows, device)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            tokens += size
            average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
            if step % 100 == 0:
                note(step=step, loss=round(average, 4), tokens=tokens, seconds=round(time.monotonic() - started))
            if step % 400 == 0:
                model.save_pretrained(out)
        # Save before measuring, so that a failure while measuring does not lose the weights.
        model.to(torch.bfloat16).save_pretrained(out)
        note(step=step, dev_accuracy=accuracy(model.float(), tokenizer, "dev", 50))
    return out
