"""How many tokens a text has: the count that budgets use unless they are given another."""

from __future__ import annotations

from functools import cache

from labkit.tokens import Tokenizer, tokenizer


def lab_tokens(text: str) -> int:
    """Tokens of `text` for the lab's own models. Raises `TokenizerUnavailable` where their files are missing."""
    return _lab().count(text)


@cache
def _lab() -> Tokenizer:
    return tokenizer("lab")
