"""Requests of exact lengths, with prompts that no prefix cache holds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from labkit.extras import extra
from labkit.request import InvalidValue, Message, Request

# (prompt tokens, output tokens) → a request of exactly these lengths.
MakeRequest = Callable[[int, int], Request]


class ExactLengths:
    """Makes requests with exact numbers of prompt and output tokens, for the model whose tokenizer is at `tokenizer_path`.

    A prompt is made of random words of the tokenizer and begins differently each time, so that prompts share no prefix but
    that of the chat template. Its number of tokens includes the template. Answers go on to their full length, because the
    end-of-sequence token is ignored. Raises `InvalidValue` for a tokenizer without a chat template or with too few whole
    words, for a prompt shorter than the template and one word, and where no text of the exact length is found.
    """

    def __init__(self, tokenizer_path: str, seed: int = 0) -> None:
        with extra("models"):
            from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
        if not self._tokenizer.chat_template:
            raise InvalidValue(f"the tokenizer at {tokenizer_path} has no chat template, so no prompt's length is known")
        self._rng = random.Random(seed)
        self._words = self._whole_words()
        self._empty = len(self._ids(""))

    def __call__(self, prompt_tokens: int, output_tokens: int) -> Request:
        """A request of these lengths in tokens."""
        wanted = prompt_tokens - self._empty
        if wanted < 1:
            raise InvalidValue(f"{prompt_tokens} prompt tokens cannot hold the chat template's {self._empty} and a word")
        for _ in range(50):
            text = "".join(self._rng.choice(self._words) for _ in range(wanted)).lstrip()
            if len(self._ids(text)) == prompt_tokens:
                # Special tokens have no text by default, and a chunk without text does not count as a first token.
                extra = {"ignore_eos": True, "skip_special_tokens": False}
                return Request((Message("user", text),), max_tokens=output_tokens, extra=extra)
        raise InvalidValue(f"found no text of exactly {prompt_tokens} tokens; this tokenizer merges across words")

    def _ids(self, text: str) -> list[int]:
        chat = [{"role": "user", "content": text}]
        ids: Any = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return list(ids)

    def _whole_words(self) -> list[str]:
        """ASCII words that begin with a space and, taken alone, are one token; the first 2,000 of the vocabulary."""
        special = set(self._tokenizer.all_special_ids)
        candidates = (self._tokenizer.decode([i]) for i in range(len(self._tokenizer)) if i not in special)
        words = [word for word in candidates if word.startswith(" ") and word[1:].isalpha() and word.isascii()]
        alone = [w for w in words if len(self._tokenizer(w, add_special_tokens=False)["input_ids"]) == 1]
        if len(alone) < 20:
            raise InvalidValue("this tokenizer has too few whole words to make prompts of exact lengths")
        return list(itertools.islice(alone, 2000))
