"""Tokenizers behind one interface: the tokens of a text, and how many of them are billed.

`available()` names the tokenizers that work on this machine without a network. `tokenizer(name)` opens one: the lab's own
("lab"), any transformers tokenizer by folder or hub id, or a tiktoken encoding ("tiktoken/o200k_base") whose file is already
on this machine. A `Tokenizer` has `encode(text)`, `decode(ids)`, `count(text)`, `pieces(text)` for colouring, and, if it
comes with a chat template, `count_chat(messages)`.
"""

from labkit.tokens.tokenizers import Tokenizer, TokenizerUnavailable, available, tokenizer

__all__ = ["Tokenizer", "TokenizerUnavailable", "available", "tokenizer"]
