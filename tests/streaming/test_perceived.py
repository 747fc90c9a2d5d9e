from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import Chunk, InvalidValue
from labkit.streaming import buffered, streamed, token_arrivals, word_arrivals
from tests.streaming.engine import cut

ARRIVALS = st.lists(st.floats(0, 50), min_size=1, max_size=60).map(sorted)
RATE = st.floats(0.1, 50)


def read_step_by_step(arrivals, rate):
    """A reader that reads one unit after another and waits where there is none."""
    now, stalled = arrivals[0], 0.0
    for at in arrivals:
        if at > now:
            stalled += at - now
            now = at
        now += 1 / rate
    return arrivals[0], stalled, now


@given(ARRIVALS, RATE)
def test_reading_is_what_a_reader_who_waits_at_each_unit_does(arrivals, rate):
    reading = streamed(arrivals, rate)
    start, stalled, finish = read_step_by_step(arrivals, rate)
    assert reading.start_s == start
    assert reading.stalled_s == pytest.approx(stalled, abs=1e-9)
    assert reading.finish_s == pytest.approx(finish)


@given(ARRIVALS, RATE)
def test_streaming_never_ends_later_than_buffering_and_buffering_never_stalls(arrivals, rate):
    early, late = streamed(arrivals, rate), buffered(arrivals, rate)
    assert early.start_s <= late.start_s == arrivals[-1]
    assert early.finish_s <= late.finish_s + 1e-9
    assert late.stalled_s == pytest.approx(0, abs=1e-9)
    assert late.finish_s == pytest.approx(arrivals[-1] + len(arrivals) / rate)


def test_a_stream_faster_than_the_reader_never_stalls_and_a_slower_one_sets_the_pace():
    arrivals = [0.5 + i / 10 for i in range(40)]  # ten a second after half a second
    fast = streamed(arrivals, rate=5)
    assert (fast.start_s, fast.stalled_s, fast.finish_s) == (0.5, 0, pytest.approx(0.5 + 40 / 5))
    slow = streamed(arrivals, rate=20)
    assert slow.finish_s == pytest.approx(0.5 + 39 / 10 + 1 / 20)
    assert slow.stalled_s == pytest.approx(39 * (1 / 10 - 1 / 20))
    # buffered, the slow reader waits 3.9 s longer for a start, and that is what streaming wins at the end too
    assert buffered(arrivals, rate=5).finish_s - fast.finish_s == pytest.approx(3.9)


def test_tokens_that_nobody_reads_do_not_arrive():
    chunks = [Chunk("", 2.0, 5, reasoning="hmm"), Chunk("a", 3.0), Chunk("b c", 4.0, 2), Chunk("", 5.0)]
    assert token_arrivals(chunks, sent=1.0) == [2.0, 3.0, 3.0]


@given(st.text(st.sampled_from("ab \n"), max_size=30), st.lists(st.integers(0, 40)))
def test_there_are_as_many_words_as_in_the_text_and_each_is_there_when_it_is_whole(text, marks):
    pieces = cut(text, marks)
    arrivals = word_arrivals([Chunk(piece, float(i)) for i, piece in enumerate(pieces)], sent=0.0)
    assert len(arrivals) == len(text.split())
    for count in range(len(pieces)):
        so_far = "".join(pieces[: count + 1])
        last = count == len(pieces) - 1
        whole = len(so_far.split()) - (not last and bool(so_far) and not so_far[-1].isspace())
        assert sum(at <= count for at in arrivals) == whole


@pytest.mark.parametrize(("arrivals", "rate"), [([], 1), ([1.0], 0), ([1.0], float("inf")), ([2.0, 1.0], 1)])
def test_what_cannot_be_read_is_refused(arrivals, rate):
    with pytest.raises(InvalidValue):
        streamed(arrivals, rate)
