"""What sets questions apart, by hand, and over the lab's labelled pairs of both parts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.caches.contrast import differences
from labkit.lab.paraphrases import pairs


@pytest.mark.parametrize(
    ("kind", "cached", "new"),
    [
        ("literal", "Where is order 1234?", "Where is order 1243?"),
        ("literal", "Refund 20 euros", "Refund 20 and 20 euros"),
        ("literal", "Is TS-100 late?", "Is it late?"),
        ("name", "Is the tent in Oslo?", "Is the tent in Bergen?"),
        ("negation", "Can I return it?", "Can’t I return it?"),
        ("negation", "Do you ship abroad?", "Do you never ship abroad?"),
        ("opposite", "When does the shop open?", "When does the shop close?"),
        ("unit", "It weighs 4 kg", "It weighs 4 pounds"),
        ("qualifier", "Can I order by phone?", "Can I order by phone only?"),
        ("exchange", "How do I wash the blue tent now?", "How do I wash the blue rope now?"),
    ],
)
def test_each_kind_is_found_and_both_sides_are_named(kind: str, cached: str, new: str) -> None:
    for one, other in ((cached, new), (new, cached)):
        found = {d.kind: d for d in differences(one, other)}
        assert kind in found, f"{found}"
        assert found[kind].cached != found[kind].new  # type: ignore[index]


@pytest.mark.parametrize(
    ("cached", "new"),
    [
        ("Hello, can I return it? Thanks!", "Could I return it?"),
        ("I could not find your opening hours.", "Tell me your opening hours."),
        ("Is Mira's tent in Oslo?", "Oslo: is the tent of Mira there?"),
        ("Where is order TS-1234 now?", "order ts-1234: where is it?"),
        ("Can I not return it?", "Can't I return it?"),
    ],
)
def test_other_words_for_the_same_pass(cached: str, new: str) -> None:
    assert differences(cached, new) == ()


@given(st.text(max_size=80))
def test_a_question_never_differs_from_itself(text: str) -> None:
    assert differences(text, text) == ()


@given(st.text(alphabet="aAnN' 1.?otx", max_size=30), st.text(alphabet="aAnN' 1.?otx", max_size=30))
def test_which_of_the_two_was_cached_does_not_matter(a: str, b: str) -> None:
    assert Counter(d.kind for d in differences(a, b)) == Counter(d.kind for d in differences(b, a))


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_on_labelled_pairs_what_is_plain_to_see_is_caught_and_most_paraphrases_pass(part) -> None:
    caught: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for pair in pairs(part, 2000, seed=3):
        total[pair.kind] += 1
        caught[pair.kind] += bool(differences(pair.cached.text, pair.new.text))
    for kind in ("identifier", "number", "name", "place", "day", "unit", "negation"):
        assert total[kind]
        assert caught[kind] == total[kind], kind
    assert caught["paraphrase"] < 0.15 * total["paraphrase"]
