"""A request as the scheduler sees it: its tokens, how far they are computed, and the KV blocks that hold them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from labkit.engines.modelled.blocks import Block
from labkit.request import InvalidValue


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine.

    `output_tokens` is how many tokens it will write: a modelled engine knows that beforehand. `arrival` is in seconds;
    `priority` is as in vLLM, lower first. Sequences with different `salt` share no prefix. Raises `InvalidValue` without a
    prompt token or an output token.
    """

    id: str
    prompt: Tokens[int]
    output_tokens: int
    arrival: float = 0.0
    priority: int = 0
    salt: str = ""
    tokens: array[int] = field(init=False)
    computed: int = field(init=False, default=0)
    blocks: list[Block] = field(init=False, default_factory=list)
    hashed_blocks: int = field(init=False, default=0)
    cached_tokens: int = field(init=False, default=0)
    preemptions: int = field(init=False, default=0)
    _hashes: list[bytes] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if not self.prompt or self.output_tokens < 1:
            raise InvalidValue(
                f"sequence {self.id} has {len(self.prompt)} prompt and {self.output_tokens} output tokens; "
                "it needs at least one of each"
            )
        self.tokens = array("q", self.prompt)

    @property
    def generated(self) -> int:
        """Tokens written so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def finished(self) -> bool:
        """Whether it has written all it will."""
        return self.generated >= self.output_tokens

    @property
    def remaining(self) -> int:
        """Tokens that have no keys and values yet: 1 for a sequence that is writing."""
        return len(self.tokens) - self.computed

    def block_hash(self, index: int, block_size: int) -> bytes:
        """Hash of the full block `index`: of its tokens, of every token before them, and of the salt."""
        while len(self._hashes) <= index:
            start = len(self._hashes) * block_size
            parent = self._hashes[-1] if self._hashes else self.salt.encode()
            self._hashes.append(hashlib.sha256(parent + self.tokens[start : start + block_size].tobytes()).digest())
        return self._hashes[index]
