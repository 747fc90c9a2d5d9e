"""A vLLM reasoning parser for models that may write `<think>…</think>` before their answer; loaded by vLLM as a plug-in.

vLLM's own parsers for these marks take an answer without them for reasoning; here it is what it looks like, an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.reasoning import ReasoningParserManager
from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser, DeltaMessage

NAME = "think_marks"


@ReasoningParserManager.register_module(NAME)
class ThinkMarksParser(BaseThinkingReasoningParser):  # type: ignore[misc]
    """Text between the marks is reasoning, all else is the answer."""

    @property
    def start_token(self) -> str:
        """The mark that opens reasoning."""
        return "<think>"

    @property
    def end_token(self) -> str:
        """The mark that closes reasoning."""
        return "</think>"

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """(reasoning, answer) of a whole output."""
        if self.start_token not in model_output and self.end_token not in model_output:
            return None, model_output
        reasoning, answer = super().extract_reasoning(model_output, request)
        return reasoning, answer

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> DeltaMessage | None:
        """The part of a delta that is reasoning and the part that is answer."""
        message = super().extract_reasoning_streaming(
            previous_text, current_text, delta_text, previous_token_ids, current_token_ids, delta_token_ids
        )
        # A slow client gets several tokens in one delta; vLLM's parser then leaves the opening mark in the reasoning.
        if message is not None and message.reasoning and self.start_token_id in delta_token_ids:
            message.reasoning = message.reasoning.removeprefix(self.start_token)
        return message
