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
        """The part of a delta that is reasoning and the part that is answer.

        A slow client gets several tokens in one delta. Then the closing mark may be among the delta's ids and not in its
        text, which leaves special tokens out; and vLLM's parser, which looks for it in the text, would cut one letter off.
        """
        thinking = self.start_token_id in previous_token_ids or self.start_token_id in delta_token_ids
        closes = self.end_token_id in delta_token_ids and self.end_token_id not in previous_token_ids
        if thinking and closes and self.end_token not in delta_text:
            return self._split(delta_text, delta_token_ids)
        message = super().extract_reasoning_streaming(
            previous_text, current_text, delta_text, previous_token_ids, current_token_ids, delta_token_ids
        )
        # With both marks' texts kept, it leaves the opening one in the reasoning.
        if message is not None and message.reasoning and self.start_token_id in delta_token_ids:
            message.reasoning = message.reasoning.removeprefix(self.start_token)
        return message

    def _split(self, delta_text: str, delta_token_ids: Sequence[int]) -> DeltaMessage | None:
        """A delta around a closing mark that is not in its text: the answer is what the tokens behind the mark say."""
        behind = list(delta_token_ids)[list(delta_token_ids).index(self.end_token_id) + 1 :]
        said = self.model_tokenizer.decode(behind, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answer = said.rstrip("\ufffd")  # a letter whose last bytes are still to come is not in the delta either
        thought = delta_text.removesuffix(answer)
        return DeltaMessage(reasoning=thought or None, content=answer or None) if delta_text else None
