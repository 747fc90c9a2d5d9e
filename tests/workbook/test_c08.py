"""Chapter 08's references against the package, and what its last exercise asks for, on traffic no check draws."""

import random
import statistics

import pytest

from labkit.workbook.chapters.c08 import chat_traffic, hit_share, keep_what_came_back


def test_the_eviction_policy_gains_well_above_what_the_check_asks_for():
    gains = [
        hit_share(prompts, num_blocks, 16, keep_what_came_back) / hit_share(prompts, num_blocks, 16)
        for prompts in (chat_traffic(random.Random(seed), 500, 16) for seed in range(6))
        for num_blocks in (60, 100)
    ]
    assert statistics.mean(gains) > 1.1
    assert min(gains) > 1.0


def test_an_endless_cache_finds_what_traffic_repeats_and_no_policy_finds_more():
    prompts = chat_traffic(random.Random(9), 300, 16)
    seen, repeated = set(), 0
    for prompt in prompts:
        full = (len(prompt) - 1) // 16
        leading = 0
        while leading < full and tuple(prompt[: 16 * (leading + 1)]) in seen:
            leading += 1
        repeated += 16 * leading
        seen |= {tuple(prompt[: 16 * (i + 1)]) for i in range(len(prompt) // 16)}
    endless = hit_share(prompts, 100_000, 16)
    assert endless == pytest.approx(repeated / sum(map(len, prompts)))
    for policy in (None, keep_what_came_back):
        assert hit_share(prompts, 80, 16, policy) <= endless
