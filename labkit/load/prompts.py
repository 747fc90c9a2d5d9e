"""Requests of exact lengths, with prompts that no cache has seen."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from labkit.request import InvalidValue, Message, Request

# (prompt tokens, output tokens) → a request of exactly these lengths.
MakeRequest = Callable[[int, int], Request]


class ExactLengths:
    """Makes requests of exactly so many prompt and output tokens for the model whose tokenizer is at `tokenizer_path`.

    Prompts are random words of the tokenizer's own, another beginning each time, so that no prefix is shared beyond the chat
    template's; the count includes the template. Answers go on to their length whatever the model would say.
    Raises `InvalidValue` for a prompt shorter than the template, and for a tokenizer without a chat template.
    """

    def __init__(self, tokenizer_path: str, seed: int = 0) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
        if not self._tokenizer.chat_template:
            raise InvalidValue(f"the tokenizer at {tokenizer_path} has no chat template, so no prompt's length is known")
        self._rng = random.Random(seed)
        self._words = self._whole_words()
        self._empty = len(self._ids(""))

    def __call__(self, prompt_tokens: int, output_tokens: int) -> Request:
        """A request of these lengths."""
        wanted = prompt_tokens - self._empty
        if wanted < 1:
            raise InvalidValue(f"{prompt_tokens} prompt tokens cannot hold the chat template's {self._empty} and a word")
        for _ in range(50):
            text = "".join(self._rng.choice(self._words) for _ in range(wanted)).lstrip()
            if len(self._ids(text)) == prompt_tokens:
                # Special tokens have no text unless asked for, and a chunk without text is no first token.
                extra = {"ignore_eos": True, "skip_special_tokens": False}
                return Request((Message("user", text),), max_tokens=output_tokens, extra=extra)
        raise InvalidValue(f"found no text of exactly {prompt_tokens} tokens; this tokenizer merges across words")

    def _ids(self, text: str) -> list[int]:
        chat = [{"role": "user", "content": text}]
        ids: Any = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return list(ids)

    def _whole_words(self) -> list[str]:
        """Single tokens that begin with a space and stay themselves beside any other."""
        special = set(self._tokenizer.all_special_ids)
        candidates = (self._tokenizer.decode([i]) for i in range(len(self._tokenizer)) if i not in special)
        words = [word for word in candidates if word.startswith(" ") and word[1:].isalpha() and word.isascii()]
        alone = [w for w in words if len(self._tokenizer(w, add_special_tokens=False)["input_ids"]) == 1]
        if len(alone) < 20:
            raise InvalidValue("this tokenizer has too few whole words to make prompts of exact lengths")
        return list(itertools.islice(alone, 2000))
