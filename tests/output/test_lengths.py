"""What a sample of answers says of a cap, against other ways to work it out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from labkit.ledger import Row
from labkit.output import AnswerLengths
from labkit.output.lengths import _ranks
from labkit.request import InvalidValue

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=25)


@given(LENGTHS, st.integers(0, 31))
def test_without_cut_answers_it_is_the_share_of_the_sample(ended: list[int], cap: int) -> None:
    assert AnswerLengths(tuple(ended)).longer(cap) == pytest.approx(sum(length > cap for length in ended) / len(ended))


def redistributed(ended: list[int], cut: list[int], cap: int) -> float:
    """Efron's way to Kaplan and Meier's estimate (1967): the weight of a cut answer goes to those that are longer."""
    answers = sorted([(length, 0) for length in ended] + [(length, 1) for length in cut])
    weight = [1 / len(answers)] * len(answers)
    beyond = 0.0
    for i, (_, was_cut) in enumerate(answers):
        if was_cut:
            longer = len(answers) - i - 1
            for j in range(i + 1, len(answers)):
                weight[j] += weight[i] / longer
            beyond += 0.0 if longer else weight[i]
            weight[i] = 0.0
    return sum(w for w, (length, _) in zip(weight, answers, strict=True) if length > cap) + beyond


@given(LENGTHS, st.lists(st.integers(0, 30), max_size=10), st.integers(0, 31))
def test_with_cut_answers_it_is_kaplan_and_meiers_estimate(ended: list[int], cut: list[int], cap: int) -> None:
    assert AnswerLengths(tuple(ended), tuple(cut)).longer(cap) == pytest.approx(redistributed(ended, cut, cap))


@pytest.mark.parametrize("n", [1, 5, 40, 300])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_ranks_of_the_interval_are_those_of_the_binomial(n: int, share: float) -> None:
    low, high = _ranks(n, share, 0.95)
    assert 0 <= low <= high <= n + 1
    if low:
        assert binom.cdf(low - 1, n, share) <= 0.025 < binom.cdf(low, n, share)
    if high <= n:
        assert binom.sf(high - 1, n, share) <= 0.025 < binom.sf(high - 2, n, share)


def test_the_interval_holds_the_true_percentile_as_often_as_it_says() -> None:
    rng = random.Random(1)
    truth = 90  # of whole numbers from 1 to 100, all as likely
    found = [AnswerLengths(tuple(rng.randint(1, 100) for _ in range(150))).percentile(0.9) for _ in range(400)]
    assert sum(p.low <= truth <= (p.high or 101) for p in found) >= 0.95 * 400 - 10
    assert sum(p.high is None for p in found) == 0
    assert sum(p.tokens for p in found) / 400 == pytest.approx(90, abs=1)


def test_answers_that_were_cut_make_no_percentile_too_low() -> None:
    rng = random.Random(2)
    true = [rng.randint(1, 100) for _ in range(2000)]
    limits = [rng.choice((40, 200)) for _ in true]
    sample = AnswerLengths(
        tuple(t for t, limit in zip(true, limits, strict=True) if t <= limit),
        tuple(limit for t, limit in zip(true, limits, strict=True) if t > limit),
    )
    assert sample.percentile(0.9).tokens == pytest.approx(90, abs=3)
    assert AnswerLengths(sample.ended).percentile(0.9).high < 90  # with the cut ones left out: 86, and sure of it
    share = sample.truncated(80)
    assert share.low <= 0.2 <= share.high


def test_what_nobody_can_know_is_said() -> None:
    with pytest.raises(InvalidValue, match=r"3 of 5 answers were cut \(the longest that ended has 9 tokens\)"):
        AnswerLengths((5, 9), (16, 16, 16)).percentile(0.9)
    assert AnswerLengths((5, 6, 7)).percentile(0.9).high is None
    for wrong in ((), ((1, -2),), ((1.5,),), ((True,),)):
        with pytest.raises(InvalidValue):
            AnswerLengths(*wrong or ((),))
    with pytest.raises(InvalidValue, match="between 0 and 1"):
        AnswerLengths((1, 2)).percentile(1.0)


def test_a_ledger_gives_the_lengths_of_the_answers_that_were_computed() -> None:
    def row(tokens: int | None, reason: str = "stop", **more: object) -> Row:
        settings = {"usage_source": "reported", "feature": "chat", **more}
        return Row(provider="lab", output_tokens=tokens, finish_reasons=(reason,), **settings)  # type: ignore[arg-type]

    rows = [
        row(7), row(9, "length"), row(8, "repetition"), row(3, "tool_calls"), row(2, "refusal"), row(None),
        row(4, outcome="failed"), row(5, usage_source="counted"), row(6, route=("response-cache",)),
        row(1, feature="search"),
    ]  # fmt: skip
    assert AnswerLengths.of_rows(rows, "chat") == AnswerLengths((3, 7), (8, 9))
    assert AnswerLengths.of_rows(rows).ended == (1, 3, 7)
