"""The labels are worked out again here from the texts and the answers alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from labkit.lab.paraphrases import KINDS, Part, meanings, pairs, topics, traffic
from labkit.request import InvalidValue

PARTS: tuple[Part, ...] = ("calibration", "test")


def entities(part: Part) -> set[str]:
    texts = [q.text for pair in pairs(part, 3000, 5) for q in (pair.cached, pair.new)]
    return {found for text in texts for found in re.findall(r"TS-\d{5}", text)}


def test_a_pair_is_the_same_question_exactly_when_it_is_a_paraphrase() -> None:
    for part in PARTS:
        found = list(pairs(part, 2000, 1))
        assert len(found) == 2000
        for pair in found:
            assert pair.same == (pair.kind == "paraphrase")
            assert pair.same == (pair.cached.answer == pair.new.answer)


def test_no_text_has_two_answers() -> None:
    """A label that contradicts another could not be right: the same words always mean the same."""
    seen: dict[str, str] = {}
    for part in PARTS:
        for pair in pairs(part, 4000, 2):
            for q in (pair.cached, pair.new):
                core = re.sub(
                    r"^(Hi\. |Hello, |Good morning\. |Hey there, )|( Thanks\.| Thank you!| Please hurry\.)$", "", q.text
                )
                assert seen.setdefault(core, q.answer) == q.answer
    assert len(seen) > 1000


def test_topics_and_order_numbers_of_the_parts_are_disjoint_and_both_parts_have_every_kind() -> None:
    assert not set(topics("calibration")) & set(topics("test"))
    assert len(topics()) == len(topics("calibration")) + len(topics("test")) >= 60
    assert not entities("calibration") & entities("test")
    for part in PARTS:
        assert {pair.kind for pair in pairs(part, 4000, 3)} == set(KINDS)


def test_half_of_the_pairs_are_near_misses_or_as_many_as_asked() -> None:
    for share in (0.0, 0.2, 0.5):
        wrong = sum(not pair.same for pair in pairs("test", 2000, 4, near_miss_share=share))
        assert wrong <= stats.binom.ppf(1 - 1e-6, 2000, share)
        assert wrong >= 0.9 * stats.binom.ppf(1e-6, 2000, share)  # a topic without near-misses gives a paraphrase


def test_the_same_seed_gives_the_same_pairs_and_traffic() -> None:
    assert list(pairs("test", 50, 9)) == list(pairs("test", 50, 9)) != list(pairs("test", 50, 10))
    assert list(traffic("test", 50, 9, tenants=("a", "b"))) == list(traffic("test", 50, 9, tenants=("a", "b")))


def test_popularity_falls_as_zipf_says() -> None:
    asked = Counter(q.meaning.key for q in traffic("test", 20_000, 3, meanings_total=50))
    expected = np.array([1 / rank for rank in range(1, 51)])
    expected *= 20_000 / expected.sum()
    counts = [asked[meaning.key] for meaning in meanings("test", 50, 3)]
    assert stats.chisquare(counts, expected).pvalue > 1e-6


def test_each_tenant_has_its_own_answer_to_the_same_words() -> None:
    by_text: dict[str, dict[str, str]] = {}
    for q in traffic("test", 5000, 1, meanings_total=30, tenants=("north", "south")):
        by_text.setdefault(q.text, {})[q.tenant] = q.answer
    shared = [answers for answers in by_text.values() if len(answers) == 2]
    assert shared
    assert all(answers["north"] != answers["south"] for answers in shared)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: pairs("test", 1, 1, near_miss_share=2), "near_miss_share is 2"),
        (lambda: traffic("test", 1, 1, tenants=()), "tenant"),
        (lambda: traffic("test", -1, 1), "n is -1"),
        *(
            (lambda ask=ask: ask("train"), "part 'train'")
            for ask in (topics, lambda p: meanings(p, 1, 1), lambda p: pairs(p, 1, 1), lambda p: traffic(p, 1, 1))
        ),
    ],
)
def test_bad_arguments_are_named_at_the_call(call: Callable[[], object], named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        call()
