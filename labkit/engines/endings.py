"""Why an answer ended: each word that endpoints use for it, and the lab's word. No other module decides what is whole."""

from __future__ import annotations

_WORDS = {
    "stop": "stop eos eos_token end_turn stop_sequence complete completed end finished normal",
    "length": "length max_tokens max_output_tokens max_completion_tokens model_length max_length token_limit"
    " model_context_window_exceeded",
    "repetition": "repetition",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "refusal": "refusal",
    "content_filter": "content_filter content_filtered guardrail_intervened safety recitation sensitive blocklist"
    " prohibited_content spii language image_safety",
}
_FAILED = frozenset(
    {
        "abort", "aborted", "cancelled", "canceled", "engine_overloaded", "error", "error_limit", "error_toxic",
        "insufficient_system_resource", "malformed_function_call", "network_error", "timeout", "unexpected_tool_call",
        "unknown_error",
    }
)  # fmt: skip
_NONE = frozenset(("", "null", "none", "finish_reason_unspecified"))
_MEANING = {word: reason for reason, words in _WORDS.items() for word in words.split()}


def ended(reason: object) -> str:
    """The lab's word for `reason`, "" where the answer has not ended, "failed" where the endpoint gave it up.

    A word that is not in the table is passed on as it is: the answer is whole, and nobody mistakes the word for a "stop".
    """
    if isinstance(reason, bool) or not isinstance(reason, str | int | float):
        return ""
    word = str(reason).strip()[:60]
    low = word.lower()
    if low in _NONE or reason == 0:
        return ""
    return "failed" if low in _FAILED else _MEANING.get(low, word)
