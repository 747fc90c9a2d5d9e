from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from labkit.request import Chunk, Done, InvalidValue, StreamIncomplete, Timing, TokenLogprob, Usage
from labkit.streaming import KEEP_ALIVE, Decoder, SentEvent, encode, frame, to_event

MARKS = st.lists(st.integers(0, 500), max_size=10)


def decode(data, marks=()):
    places = sorted({0, len(data), *(mark % (len(data) + 1) for mark in marks)})
    decoder = Decoder()
    return [m for a, b in pairwise(places) for m in decoder.feed(data[a:b])], decoder


# The examples of the WHATWG's section 9.2.6, with what it says about each.
@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [SentEvent("YHOO\n+2\n10")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [SentEvent("first event", id="1"), SentEvent("second event", id=""), SentEvent(" third event", id="")],
        ),
        ("data\n\ndata\ndata\n\ndata:", [SentEvent(""), SentEvent("\n")]),
        ("data:test\n\ndata: test\n\n", [SentEvent("test"), SentEvent("test")]),
        ("event: add\ndata: 73857293\n\nevent: x\n\ndata: y\n\n", [SentEvent("73857293", "add"), SentEvent("y")]),
        ("id: 7\n\ndata: a\n\nid: 8\0\ndata: b\n\n", [SentEvent("a", id="7"), SentEvent("b", id="7")]),
        ("\ufeffdata: bom\n\n", [SentEvent("bom")]),
        ("data: \ufeffinner\n\n", [SentEvent("\ufeffinner")]),
        ("data: a\n\n\ufeffdata: every one\n\n", [SentEvent("a"), SentEvent("every one")]),  # beyond the standard
        ("Data: no\nretry: x\nretry: 1²\nunknown: y\ndata: z\n\n", [SentEvent("z")]),
        ("data: cut", []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_streams_are_read_as_the_standard_says(stream, messages, end):
    data = stream.replace("\n", end).encode()
    assert decode(data)[0] == messages
    assert decode(data, range(len(data)))[0] == messages, "byte by byte"


LINES = st.lists(
    st.sampled_from(
        ["data: a", "data:é", "data", "id: 1", "id", "event: x", ":c", "retry: 12", "", "", "odd", "data: \u2028"]
    )
)


@given(LINES, st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1), MARKS)
def test_messages_do_not_depend_on_how_the_bytes_are_cut_or_the_lines_are_ended(lines, ends, marks):
    plain = "".join(line + "\n" for line in lines)
    mixed = "".join(line + ends[i % len(ends)] for i, line in enumerate(lines))
    whole, decoder = decode(plain.encode())
    # CR, then an empty line ended by LF, is one line end to everybody
    if "\r\n" not in mixed.replace("\r\n", "") and not any(
        lines[i + 1 : i + 2] == [""] and ends[i % len(ends)] == "\r" and ends[(i + 1) % len(ends)] == "\n"
        for i in range(len(lines))
    ):
        assert decode(mixed.encode(), marks)[0] == whole
    assert decode(mixed.encode(), marks)[0] == decode(mixed.encode())[0]
    assert decoder.retry_ms == (12 if "retry: 12" in lines else None)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text(st.sampled_from("abc-é1"), max_size=5)


@given(st.lists(st.tuples(TEXT, NAME, NAME), max_size=5), MARKS)
def test_what_is_framed_is_read_back(events, marks):
    data = KEEP_ALIVE.join(frame(text, event=name, id=id) for text, name, id in events)
    expected = [
        SentEvent(text.replace("\r\n", "\n").replace("\r", "\n"), name or "message", id) for text, name, id in events
    ]
    assert decode(data, marks)[0] == expected


@given(st.lists(st.tuples(st.text(st.sampled_from("ab :é\n"), min_size=1, max_size=10), NAME, NAME), max_size=5))
def test_openais_decoder_reads_the_same(events):
    data = b"".join(frame(text, event=name, id=id) for text, name, id in events)
    ours = [(m.data, m.event, m.id) for m in decode(data)[0]]
    theirs = [(m.data, m.event or "message", m.id or "") for m in SSEDecoder().iter_bytes(iter([data]))]
    assert ours == theirs


def test_bytes_that_are_no_utf8_become_replacement_characters_and_nothing_is_lost_after():
    assert decode(b"data: a\xffb\n\ndata: c\n\n")[0] == [SentEvent("a\ufffdb"), SentEvent("c")]


def test_a_stream_s_events_come_back_as_they_were():
    chunk = Chunk("hé\nllo", 1.5, 2, "why", (TokenLogprob("t", -0.1, (("a", -1.0),)),), Usage(3, 2))
    done = Done(Usage(3, 2, 1), Timing(0.5, 1.0, 1.5, 2.0, 3.0), "length", "m", ("a", "b"), Decimal("0.0100"), "EUR", "id-1")
    data = encode(chunk, "s:1") + KEEP_ALIVE + encode(done, "s:2")
    messages, decoder = decode(data)
    assert [m.event for m in messages] == ["chunk", "done"]
    assert [to_event(m) for m in messages] == [chunk, done]
    assert str(to_event(messages[1]).cost) == "0.0100", "money stays exact"
    assert decoder.last_event_id == "s:2"
    assert to_event(SentEvent("{}", "ping")) is None
    with pytest.raises(StreamIncomplete, match="no done"):
        to_event(SentEvent('{"usage": 1}', "done"))


HALVES = st.text(st.sampled_from("a\n\ud83d\ude00\u2028é😀"), max_size=6)


@given(HALVES, HALVES)
def test_half_an_emoji_is_sent_on_and_comes_back(text, reasoning):
    chunk = Chunk(text, 1.0, reasoning=reasoning)
    (message,), _ = decode(encode(chunk, "s:1"))
    joined = [part.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for part in (text, reasoning)]
    assert to_event(message) == Chunk(joined[0], 1.0, reasoning=joined[1]), "halves that meet are whole"


def test_a_frame_joins_the_halves_that_meet_and_marks_those_that_do_not():
    messages, _ = decode(frame("ok \ud83d\ude00 \ud83d no") + frame("b", event="\ude00"))
    assert messages == [SentEvent("ok 😀 \ufffd no"), SentEvent("b", "\ufffd")]


@pytest.mark.parametrize(
    "data",
    ["", "nul", "null", "[]", "3", '"text"', "{}", "[" * 100_000, '{"text": 1, "at": 0, "tokens": 1}']
    + [f'{{"text": "", "at": {at}, "tokens": {tokens}}}' for at, tokens in (("1" + "0" * 400, 1), ("null", 1), ("{}", 1))]
    + ['{"text": "", "at": 0, "tokens": 1, "usage": [1]}', '{"text": "", "at": 0, "tokens": 1, "logprobs": 7}'],
)
@pytest.mark.parametrize("name", ["chunk", "done"])
def test_data_that_is_not_what_its_name_says_is_one_error_of_the_lab_s(data, name):
    with pytest.raises(StreamIncomplete, match=f"event 's:3' is no {name}"):
        to_event(SentEvent(data, name, "s:3"))


@pytest.mark.parametrize("wrong", [{"event": "a\nb"}, {"id": "a\rb"}, {"id": "\0"}, {"retry_ms": -1}])
def test_what_the_grammar_cannot_carry_is_refused(wrong):
    with pytest.raises(InvalidValue):
        frame("x", **wrong)


def test_a_reader_that_came_back_starts_from_the_id_it_had():
    decoder = Decoder(last_event_id="s:4")
    assert decoder.feed(b"data: x\n\n") == [SentEvent("x", id="s:4")]
    decoder.feed(b"id: s:5\n")
    assert decoder.last_event_id == "s:4", "the id of an event that has not been sent is not yet the last one"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "s:5"
