"""The numbers that quiz questions state are what the package computes."""

from decimal import Decimal
from itertools import combinations

import pytest

from labkit.kvcache import kv_size, plan
from labkit.latency import hardware
from labkit.request import Usage
from labkit.workbook.chapters import chapter, chapters
from labkit.workbook.chapters.c00 import time_per_output_token
from labkit.workbook.chapters.c01 import bill
from labkit.workbook.chapters.c03 import cached_tokens
from labkit.workbook.chapters.c04 import net_saving
from labkit.workbook.chapters.c07 import idle_share

RATES = {"input": Decimal(1), "cached": Decimal("0.1"), "cache_write": Decimal("1.25"), "output": Decimal(5)}


def test_chapter_08_states_what_the_planner_says_of_eight_bits():
    question = chapter("08").quiz("08.q3").question
    assert "Llama 3.1 8B on one H100, 20 tokens/s" in question
    for tokens in (8_000, 500):
        bf16, fp8 = (plan("llama-3.1-8b", hardware("h100"), tokens, kv=kv, tokens_per_s=20) for kv in ("bf16", "fp8"))
        assert f"{100 * (fp8.sessions / bf16.sessions - 1):.0f} % more" in question
        assert f"of {tokens:,} tokens" in question


def test_the_bank_states_what_arithmetic_and_the_package_say():
    answer = {quiz.id: quiz.answer for contents in chapters() for quiz in contents.bank}
    tpot = time_per_output_token(0.0, 0.3, float(answer["00.b1"].removesuffix(" s")), 101)
    assert tpot == pytest.approx(0.02)
    assert bill(Usage(2_000, 0), RATES) == 2 * bill(Usage(0, 200), RATES)
    assert bill(Usage(0, 500, reasoning_tokens=300), RATES) == bill(Usage(0, int(answer["01.b2"])), RATES)
    assert float(answer["01.b3"].split()[0]) == pytest.approx(1.80 / (500 * 3600 / 2 / 1e6))
    both = {len(set(few) & set(range(7))) for few in combinations(range(10), 6)}
    assert answer["02.b1"] == f"between {min(both)} and {max(both)} a second"
    assert int(answer["02.b2"]) == 900e12 / 3e12
    pays = next(n for n in range(1, 100) if 1.25 + 0.1 * (n - 1) < n)
    assert answer["03.b1"] == str(pays)
    assert answer["03.b2"] == str(cached_tokens(50, 100, 16))
    assert answer["04.b1"] == f"{100 * net_saving(0.3, 0.0, 1.0, 0.05, 0.0):.0f} %"
    assert float(answer["05.b1"]) == pytest.approx(1 + 0.3 * 10)
    assert int(answer["06.b1"]) == 600 - 6 * 50
    assert int(answer["07.b1"]) == pytest.approx(16 / 16**0.5)
    assert answer["07.b2"] == f"{100 * idle_share([10, 20, 30, 100], 4):.0f} %"
    assert answer["08.b1"] == f"{kv_size('llama-3.1-8b').token_bytes // 1024} KiB"
    assert int(answer["08.b2"]) == (0.9 * 80e9 - 16e9) // (8_000 * kv_size("llama-3.1-8b").token_bytes)
