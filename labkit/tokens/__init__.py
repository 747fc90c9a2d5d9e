"""Tokenizers behind one interface: what a text is cut into, and how many pieces are billed.

`available()` names the tokenizers that work on this machine without a network; `tokenizer(name)` opens one: the lab's own
("lab"), any transformers tokenizer by folder or hub id, or a tiktoken encoding ("tiktoken/o200k_base") whose file is
already here.
"""

from labkit.tokens.tokenizers import Tokenizer, TokenizerUnavailable, available, tokenizer

__all__ = ["Tokenizer", "TokenizerUnavailable", "available", "tokenizer"]
