"""The engine arguments that decide what a step holds, under vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit.request import ContextWindowExceeded, InvalidRequest, InvalidValue

Policy = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of vLLM's scheduler and KV cache.

    `num_blocks` is the number that vLLM logs as its GPU (or CPU) blocks; one of them is a placeholder that no request gets.
    `block_size` and `max_num_batched_tokens` (a step's budget) are in tokens, `max_num_seqs` in sequences. `max_model_len`
    is in tokens, prompt and answer together; None for as much as the KV cache (and, without chunked prefill, one step)
    holds. `long_prefill_token_threshold` caps the tokens of a prefill in a step while others wait or run; 0 for no cap.
    `policy` "priority" serves requests of lower `priority` first. Raises `InvalidValue` for settings that cannot work.
    """

    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    policy: Policy = "fcfs"

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_seqs", "max_num_batched_tokens"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"{name} is {getattr(self, name)}; an engine needs at least 1")
        if self.num_blocks < 2:
            raise InvalidValue(f"num_blocks is {self.num_blocks}; vLLM keeps one block back, so give at least 2")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InvalidValue(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, less than max_num_seqs ({self.max_num_seqs}): "
                "a step could not give each running sequence its token"
            )
        if self.long_prefill_token_threshold < 0:
            raise InvalidValue(f"long_prefill_token_threshold is {self.long_prefill_token_threshold}; use 0 for no cap")
        if self.policy not in ("fcfs", "priority"):
            raise InvalidValue(f"policy {self.policy!r} is unknown; use 'fcfs' or 'priority'")
        if self.max_model_len is not None and not 2 <= self.max_model_len <= self._room:
            raise InvalidValue(
                f"max_model_len is {self.max_model_len}, but the engine holds 2 to {self._room} tokens of one request "
                f"({self.num_blocks} blocks of {self.block_size}, one kept back"
                + ("" if self.enable_chunked_prefill else f"; {self.max_num_batched_tokens} tokens a step, not chunked")
                + ")"
            )

    @property
    def context_window(self) -> int:
        """Tokens one request may have, prompt and answer together."""
        return self._room if self.max_model_len is None else self.max_model_len

    def check_fits(self, prompt_tokens: int, max_tokens: int) -> None:
        """Raise `ContextWindowExceeded` for a request that could never be served, `InvalidRequest` for an empty prompt."""
        if prompt_tokens < 1:
            raise InvalidRequest("the prompt has no tokens; an engine needs at least one to start from")
        if prompt_tokens + max_tokens > self.context_window:
            raise ContextWindowExceeded(
                f"{prompt_tokens} prompt tokens and up to {max_tokens} output tokens exceed the context window of "
                f"{self.context_window}; shorten the prompt, lower max_tokens or give the engine more blocks"
            )

    @property
    def _room(self) -> int:
        cache = (self.num_blocks - 1) * self.block_size
        # Without chunks, a preempted request must return whole in one step: its prompt and the tokens that it had written.
        return cache if self.enable_chunked_prefill else min(cache, self.max_num_batched_tokens)
