"""What a folded answer says of its tool calls and of its speed."""

from __future__ import annotations

import pytest

from labkit.request import Chunk, Completion, Decoder, Done, StreamIncomplete, Timing, ToolCall, ToolCallDelta, Usage


def answer(chunks, usage, timing):
    return Completion("", "", tuple(chunks), Done(usage, timing))


def test_the_pieces_of_a_tool_call_add_up_in_the_order_of_the_calls():
    pieces = [(1, "b", "g", "{"), (0, "a", "f", '{"x'), (0, "", "", '":1}'), (1, "", "", "}")]
    chunks = [Chunk("", float(i), tool_calls=(ToolCallDelta(*piece),)) for i, piece in enumerate(pieces)]
    got = answer(chunks, Usage(1, 9), Timing(0.0))
    assert got.tool_calls == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"))
    assert got.inter_chunk_latencies == (1.0, 1.0, 1.0)


def test_reasoning_that_was_not_streamed_does_not_count_as_speed():
    # 10 s of silence, then ten tokens in 0.9 s: a token every 0.1 s, whatever was thought before.
    timing = Timing(0.0, 10.0, 10.9, 10.9)
    usage = Usage(50, 910, reasoning_tokens=900)
    assert answer([Chunk("w", 10 + i / 10) for i in range(10)], usage, timing).tpot == pytest.approx(0.1)
    thought = [Chunk("", 10 + i / 1000, reasoning="t") for i in range(900)]
    assert answer(thought, usage, timing).tpot == pytest.approx(0.9 / 909), "streamed reasoning took its time"


@pytest.mark.parametrize(
    ("pieces", "what"),
    [
        ([b"data: 123456789"], "line"),
        ([b"data: 1234", b"56789\n"], "line"),
        ([b"data: 12345\n"] * 3, "event"),
        ([b"data\n"] * 13, "event"),
    ],
)
def test_a_line_and_an_event_have_bounds_that_the_error_names(pieces, what):
    decoder = Decoder(max_line=13, max_event=12)
    *before, last = pieces
    for piece in before:
        decoder.feed(piece)
    with pytest.raises(StreamIncomplete, match=f"one {what} .*1[23] characters"):
        decoder.feed(last)


def test_what_is_within_the_bounds_is_read():
    decoder = Decoder(max_line=13, max_event=12)
    sent = [event.data for piece in (b"data: 1234567\n", b"\n", b"data\n" * 12, b"\n") for event in decoder.feed(piece)]
    assert sent == ["1234567", "\n" * 11]


def test_a_retry_of_5000_digits_is_not_taken():
    decoder = Decoder()
    assert decoder.feed(b"retry: " + b"9" * 5000 + b"\ndata: x\n\n")[0].data == "x"
    assert decoder.retry_ms is None
