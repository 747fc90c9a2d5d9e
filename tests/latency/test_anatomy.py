"""Latencies from timestamps, against worked numbers and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.latency.anatomy import SLO, Sample, goodput, percentile, summary
from labkit.request import InvalidValue, Timing, Usage


def sample(due: float = 0.0, sent: float = 0.0, first: float = 0.2, done: float = 1.2, tokens: int = 11) -> Sample:
    return Sample(due, Timing(sent, first, done, done), Usage(5, tokens), ((first, 1), (0.5, 4), (done, 6)))


def test_a_request_worked_by_hand() -> None:
    one = sample(due=-0.1, sent=0.0, first=0.2, done=1.2, tokens=11)
    assert (one.ttft, one.e2e, one.send_delay) == (0.2, 1.2, 0.1)
    assert one.ttft_from_due == pytest.approx(0.3)
    assert one.tpot == pytest.approx(0.1), "(1.2 − 0.2) / (11 − 1), whatever the chunks held"
    assert one.inter_chunk == pytest.approx((0.3, 0.7))


def test_what_means_nothing_is_none() -> None:
    failed = Sample(0.0, error="gone")
    assert (failed.ttft, failed.tpot, failed.e2e, failed.send_delay, failed.ttft_from_due) == (None,) * 5
    assert sample(tokens=1).tpot is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], q: float) -> None:
    assert percentile([*values, None], q) == pytest.approx(np.percentile(values, q), abs=1e-9)


def test_goodput_counts_who_kept_every_limit() -> None:
    samples = [sample(), sample(first=0.9), sample(done=9.0), Sample(0.0, error="gone"), sample(tokens=1)]
    slo = SLO(ttft=0.5, tpot=0.2)
    assert [slo.met(s) for s in samples] == [True, False, False, False, True]
    assert goodput(samples, slo, 4.0) == 0.5


def test_a_summary_has_rates_over_its_window() -> None:
    found = summary([sample(), sample(tokens=21), Sample(0.0, error="gone")], 2.0, points=(50,))
    assert (found.requests, found.failed, found.requests_per_s, found.output_tokens_per_s) == (3, 1, 1.0, 16.0)
    assert found.percentiles["TPOT"][50] == pytest.approx((0.1 + 0.05) / 2)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"the 95th is 95, not 0\.95|not between"):
        percentile([1.0], 950)
    with pytest.raises(InvalidValue, match="without a limit"):
        SLO()
    with pytest.raises(InvalidValue, match="no time"):
        SLO(ttft=math.nan)
    with pytest.raises(InvalidValue, match="-1"):
        goodput([], SLO(ttft=1), -1)
    with pytest.raises(InvalidValue, match="window of 0"):
        summary([], 0)
