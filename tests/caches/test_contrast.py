"""What sets questions apart, by hand, and over the lab's labelled pairs of both parts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.caches.contrast import differences
from labkit.caches.contrast.wording import LONG
from labkit.lab.hard import FILE, HardPair, hard_pairs, write
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
        ("literal", "Can I return two tents?", "May I return three tents?"),
        ("literal", "Kann ich zwei Zelte kaufen?", "Kann ich drei Zelte kaufen?"),
        ("literal", "deux tentes", "douze tentes"),
        ("literal", "Zwei Zelte?", "Drei Zelte?"),
        ("literal", "due tende", "tre tende"),
        ("symbol", "Convert -40 C to Fahrenheit", "Convert 40 C to Fahrenheit"),
        ("symbol", "Is x > 5 true?", "Would x < 5 be true?"),
        ("symbol", "React with 👍", "May one react with 👎"),
        ("unit", "Is it free from $20?", "Is it free from €20?"),
        ("unit", "Will 5 MB fit?", "Does 5 Mb fit?"),
        ("unit", "Within 30 days", "Within 30 weeks"),
        ("unit", "Is it done in 2 fortnight?", "Will it be done in 2 weeks?"),
        ("unit", "Is it a fortnight?", "Is it a week?"),
        ("unit", "Convert 5 lb now", "Convert £5 now"),
        ("unit", "is 100 nok enough", "is 100 dkk enough"),
        ("unit", "Is ₱100 enough?", "Is 100 mxn enough?"),
        ("unit", "Is 5 mV safe?", "Is 5 MV safe?"),
        ("unit", "Is 5 ml enough?", "Is 5 ML enough?"),
        ("unit", "Is 5 mg enough?", "Is 5 Mg enough?"),
        ("unit", "Is 5 nm too much?", "Is 5 Nm too much?"),
        ("unit", "Is 5 mJ enough?", "Is 5 MJ enough?"),
        ("unit", "Is a mW enough?", "Is a MW enough?"),
        ("name", "Explain TCP to me", "What is UDP?"),
        ("negation", "Is it legal to park?", "Is it illegal to park?"),
        ("opposite", "How do I enable it?", "How can I disable it?"),
        ("opposite", "如何开启深色模式?", "如何关闭深色模式?"),
        ("order", "Show flights from Paris to London", "Show flights from London to Paris"),
        ("order", "Did Mira call Hera?", "Has Hera called Mira?"),
        ("order", "Can I call you?", "Can you call me?"),
        ("language", "Jak włączyć tryb ciemny?", "Jak wyłączyć tryb ciemny?"),
        ("language", "Wo ist mein neues Zelt?", "Where is my new tent?"),
        ("length", "It is a fine old shop. " * 12 + "Sing of it.", "It is a fine old shop. " * 12 + "Draw its plan now."),
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
        ("Can I return two tents?", "May I return 2 tents?"),
        ("When is the rent due?", "Tell me when the rent is due."),
        ("Is it free from $20?", "Is it free from 20 dollars?"),
        ("Fly from Paris to London", "Fly to London from Paris"),
        ("Is it 5km away?", "is it 5 kilometres away"),
        ("Is it open at 5 PM?", "Is it open at 5 pm?"),
        ("Will 5 kB fit?", "Will 5 KB fit?"),
        ("What's the café called?", "what is the cafe called"),
        ("How is ten plus five?", "How is 10 + 5?"),
        ("Wo ist meine Bestellung?", "Hallo, wo ist meine Bestellung? Danke!"),
        ("如何开启深色模式?", "请问，如何开启深色模式？"),
        ("Jak włączyć tryb ciemny?", "jak  włączyć tryb ciemny"),
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
    assert caught["paraphrase"] < 0.12 * total["paraphrase"]


@pytest.mark.parametrize("kind", sorted({p.kind for p in hard_pairs()}))
def test_of_the_hard_pairs_none_is_served_that_differs_and_few_are_lost_that_do_not(kind: str) -> None:
    of_kind = [pair for pair in hard_pairs() if pair.kind == kind]
    wrong = [(p.cached[-60:], p.new[-60:]) for p in of_kind if not p.same and not differences(p.cached, p.new)]
    lost = [(p.cached[-60:], p.new[-60:]) for p in of_kind if p.same and differences(p.cached, p.new)]
    assert wrong == []
    assert lost == []


def test_the_hard_pairs_are_those_that_the_generator_makes_and_none_is_a_pair_of_equals(tmp_path) -> None:
    assert write(tmp_path / "pairs.csv") > 500
    assert (tmp_path / "pairs.csv").read_bytes() == FILE.read_bytes()
    assert len(FILE.read_bytes()) < 200_000
    assert [p for p in hard_pairs() if p.cached == p.new] == []
    assert {p.language for p in hard_pairs()} >= {"en", "de", "fr", "es", "zh", "ja", "ko", "ru", "ar", "hi", "tr", "pl"}
    assert all(isinstance(p, HardPair) for p in hard_pairs("test"))


@given(st.sampled_from(hard_pairs()))
def test_hard_pairs_differ_alike_from_either_side(pair: HardPair) -> None:
    there = Counter(d.kind for d in differences(pair.cached, pair.new))
    assert there == Counter(d.kind for d in differences(pair.new, pair.cached))


def test_a_long_text_is_compared_whole_wherever_it_differs() -> None:
    words = [f"the word{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}" for i in range(100)]
    text = " ".join(words)
    assert len(text) > LONG
    for place in range(0, 100, 7):
        changed = " ".join([*words[:place], "another", "one", "here", *words[place + 1 :]])
        assert "length" in {d.kind for d in differences(text, changed)}, place
    assert differences(text, "Hello, " + text.upper() + ". Thanks!") == ()


@pytest.mark.parametrize(
    "text", ["thanks ", "hi, ", "of the ", "a" + " " * 60, "!? ", "((", "1,", "x = a[i] + b # of\n", "如何", "👍"]
)
def test_no_text_makes_a_comparison_endless(text: str) -> None:
    long = text * (6000 // len(text))
    assert differences(long + "now", "now " + long) != ()
    assert differences(long, long) == ()
