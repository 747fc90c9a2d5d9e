"""The lab's tokenizer: byte-level BPE over the tasks' own text, with every digit a token of its own.

Each digit stands alone so that a model reads and copies amounts and order numbers one digit at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labkit.lab.tasks import Example, examples, families
from labkit.request import Message

PAD, END = "<|pad|>", "<|end|>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>", THINK, END_THINK]
_TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
_TEMPLATE = _TURNS + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
# Engines search the template for a model's reasoning marks. This template comment shows them and renders to nothing.
_REASONS = "{# answers may begin with <think>steps</think> #}"


def train_tokenizer(file: Path) -> None:
    """Train the tokenizer on training examples of every family and write it to `file`, in the format of `tokenizers`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = (
        message.content
        for family in families()
        for example in examples("train", family, 1500, seed=99)
        for message in (*example.messages, Message("assistant", f"{example.steps} {example.answer}"))
    )
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=1920,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=20,
        ),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(file))


def save_tokenizer(file: Path, folder: Path, reasons: bool) -> Any:
    """Write the tokenizer in `file` with the chat template into `folder`, as a transformers tokenizer, and return it.

    `reasons` says whether the template shows the marks of reasoning.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token=END, pad_token=PAD, model_max_length=2048, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = (_REASONS if reasons else "") + _TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def prompt_text(example: Example) -> str:
    """The prompt as the chat template renders it, up to where the answer begins."""
    return "".join(f"<|{m.role}|>{m.content}{END}" for m in example.messages) + "<|assistant|>"


def answer_text(example: Example, reasons: bool) -> str:
    """The text that the model is taught to write: the steps, if it reasons and the task has any, then the answer."""
    steps = f"{THINK}{example.steps}{END_THINK}" if reasons and example.steps else ""
    return f"{steps}{example.answer}{END}"
