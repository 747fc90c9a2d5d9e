"""A vLLM reasoning parser for models that may write `<think>…</think>` before their answer; loaded by vLLM as a plug-in.

vLLM's own parsers for these marks treat an output without marks as reasoning; this one treats it as the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.reasoning import ReasoningParserManager
from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser, DeltaMessage

NAME = "think_marks"


@ReasoningParserManager.register_module(NAME)
class ThinkMarksParser(BaseThinkingReasoningParser):  # type: ignore[misc]
    """Treats the text between the marks as reasoning, and all other text as the answer."""

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
        """The part of a delta that is reasoning and the part that is answer.

        A slow client gets several tokens in one delta. Then the closing mark may be among the delta's ids but not in its
        text, because the text leaves special tokens out. vLLM's parser looks for the mark in the text and would cut one
        letter off; so this method splits such a delta itself.
        """
        thinking = self.start_token_id in previous_token_ids or self.start_token_id in delta_token_ids
        closes = self.end_token_id in delta_token_ids and self.end_token_id not in previous_token_ids
        if thinking and closes and self.end_token not in delta_text:
            return self._split(delta_text, delta_token_ids)
        message = super().extract_reasoning_streaming(
            previous_text, current_text, delta_text, previous_token_ids, current_token_ids, delta_token_ids
        )
        # When a delta keeps the texts of both marks, vLLM's parser leaves the opening mark in the reasoning.
        if message is not None and message.reasoning and self.start_token_id in delta_token_ids:
            message.reasoning = message.reasoning.removeprefix(self.start_token)
        return message

    def _split(self, delta_text: str, delta_token_ids: Sequence[int]) -> DeltaMessage | None:
        """Split a delta at a closing mark that is not in its text: the tokens behind the mark are the answer."""
        behind = list(delta_token_ids)[list(delta_token_ids).index(self.end_token_id) + 1 :]
        said = self.model_tokenizer.decode(behind, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answer = said.rstrip("\ufffd")  # a letter whose last bytes are still to come is not in the delta's text
        thought = delta_text.removesuffix(answer)
        return DeltaMessage(reasoning=thought or None, content=answer or None) if delta_text else None
