"""The numbers that quiz questions state are what the package computes."""

from labkit.kvcache import plan
from labkit.latency import hardware
from labkit.workbook.chapters import chapter


def test_chapter_08_states_what_the_planner_says_of_eight_bits():
    question = chapter("08").quiz("08.q3").question
    assert "Llama 3.1 8B on one H100, 20 tokens/s" in question
    for tokens in (8_000, 500):
        bf16, fp8 = (plan("llama-3.1-8b", hardware("h100"), tokens, kv=kv, tokens_per_s=20) for kv in ("bf16", "fp8"))
        assert f"{100 * (fp8.sessions / bf16.sessions - 1):.0f} % more" in question
        assert f"of {tokens:,} tokens" in question
