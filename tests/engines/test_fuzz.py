"""Whatever an endpoint sends, a caller gets an answer or one error of the lab's, in bounded memory."""

from __future__ import annotations

import copy
import json
import zlib

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labkit.request import Completion, ContextWindowExceeded, EngineError, Request
from labkit.streaming import encode
from tests.engines.wires import JSON, SSE, USAGE, Endpoint, ask, delta, sse, usage


def settings_for(examples):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PLAIN = [
    delta("", role="assistant"),
    delta("Hello", reasoning_content="hm"),
    {**delta(" world"), "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}},
    {**delta(None, tool_calls=[CALL]), "error": None},
    delta(None, refusal="no"),
    delta(finish="stop"),
    usage(**USAGE, completion_tokens_details={"reasoning_tokens": 2}),
]
for one in PLAIN[1:3]:
    one["choices"][0]["logprobs"] = {
        "content": [{"token": "H", "logprob": -0.1, "top_logprobs": [{"token": "H", "logprob": 0}]}]
    }

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["error", "stop", "\ud83d", -1, 10**400, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["error", "message", "code", "choices", "usage", "delta", "content", "text", "type", "prompt_tokens", "index"]
    ), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(value, path=()):
    """The paths of everything within `value`."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def replaced(events, path, value):
    if not path:
        return value
    events = copy.deepcopy(events)
    at = events
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return events


PLACES = [path for path in places(PLAIN) if path]


def outcome(body, request=None, **options):
    """An answer that can be written down, or an error of the lab's; anything else is raised."""
    try:
        answer = ask(body, request or Request("hi", logprobs=1), **options)
    except (EngineError, ContextWindowExceeded) as error:
        return repr(str(error).encode())
    assert isinstance(answer, Completion)
    answer.text.encode()
    answer.reasoning.encode()
    json.dumps([answer.done.finish_reason, answer.done.model, answer.done.response_id]).encode()
    for chunk in answer.chunks:
        encode(chunk, "1")
    encode(answer.done, "1")
    assert answer.done.usage.output_tokens < 10**13
    return answer


@settings_for(400)
@given(st.sampled_from(PLACES), ODD)
@example((1, "choices", 0, "delta", "content"), {"type": 1})
@example((6, "usage"), [1])
def test_any_json_in_any_place_is_an_answer_or_one_error(path, value):
    outcome(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in replaced(PLAIN, path, value)))


@settings_for(100)
@given(ODD, st.sampled_from([200, 400, 401, 404, 429, 500]), st.sampled_from([JSON, SSE]))
@example("\ud83d", 400, JSON)
@example({"error": {"code": "\ud83d"}}, 200, JSON)
def test_any_json_as_the_whole_body_is_an_answer_or_one_error(value, status, headers):
    body = json.dumps(value, ensure_ascii=True).encode()
    outcome(body, status=status, headers={**headers, "retry-after": body[:20].decode("ascii", "replace")})
    outcome(b"event: error\ndata: " + body + b"\n\n", status=status)


WHOLE = sse(*PLAIN)


@settings_for(200)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 40), st.binary(max_size=4)), min_size=1, max_size=4),
    st.lists(st.integers(1, 60), max_size=10),
)
def test_damaged_bytes_are_an_answer_or_one_error(damages, cuts):
    data = WHOLE
    for place, length, put in damages:
        data = data[:place] + put + data[place + length :]
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    outcome([*pieces, data[at:]])


@settings_for(100)
@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "br", "zstd", "gzip, gzip"]))
def test_random_bytes_are_one_error(data, encoding):
    assert not isinstance(outcome(data, headers={**SSE, "content-encoding": encoding}), Completion)


@settings_for(60)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_a_damaged_compressed_body_is_an_answer_or_one_error(seed, flips):
    data = bytearray(zlib.compress(WHOLE))
    for i in range(flips):
        data[(seed * (i + 7)) % len(data)] ^= 1 << (seed % 8)
    outcome(bytes(data), headers={**SSE, "content-encoding": "deflate"})


def endless(piece: bytes):
    while True:
        yield piece


def gzip_bomb():
    z = zlib.compressobj(wbits=31)
    while True:
        data = z.compress(bytes(2**24))
        if data:
            yield data


HUGE = {
    "a line": (endless(b"data: " + b"x" * 65000), 200, {}),
    "a data line that never ends its event": (endless(b"data: " + b"x" * 65000 + b"\n"), 200, {}),
    "empty data lines": (endless(b"data\n" * 10000), 200, {}),
    "comments": (endless(b": still here\n\n" * 1000), 200, {}),
    "empty deltas": (endless(sse(delta(""), done=False) * 100), 200, {}),
    "chunks of text": (endless(sse(delta("x"), done=False) * 100), 200, {}),
    "chunks of reasoning": (endless(sse(delta(None, reasoning_content="x"), done=False) * 100), 200, {}),
    "tool calls": (endless(sse(delta(None, tool_calls=[{"function": {"name": "f"}}]), done=False) * 100), 200, {}),
    "usage fields": (endless(sse(usage(**{f"odd_{i}_tokens": 1 for i in range(50)}), done=False) * 10), 200, {}),
    "a JSON body": (endless(b'{"a":[' + b"[]," * 10000), 200, JSON),
    "nested JSON": (endless(b"[" * 65000), 200, JSON),
    "a nested event": (iter([b"data: " + b"[" * 1_000_000 + b"\n\n"]), 200, {}),
    "small lists": (iter([b"data: {" + b'"a":[' + b"[]," * 1_000_000 + b"[]]}\n\n"]), 200, {}),
    "an error's body": (endless(b"x" * 65000), 500, {}),
    "a gzip bomb": (gzip_bomb(), 200, {"content-encoding": "gzip"}),
    "a gzip bomb as an error": (gzip_bomb(), 500, {"content-encoding": "gzip"}),
    "line ends": (endless(b"\n" * 65000), 200, {}),
    "blanks": (endless(b" " * 65000), 200, {}),
    "ids": (endless(b"id: " + b"x" * 1000 + b"\n\n"), 200, {}),
}  # fmt: skip


@pytest.mark.parametrize("what", HUGE)
def test_what_never_ends_is_ended_in_bounded_memory(what):
    pieces, status, headers = HUGE[what]
    endpoint = Endpoint(pieces, status=status, headers={**SSE, **headers})
    before = psutil.Process().memory_info().rss
    with pytest.raises(EngineError) as failure:
        endpoint.ask(Request("hi", max_tokens=5))
    assert endpoint.body.peak - before < 150 * 2**20
    if status == 200 and "nested" not in what and "small" not in what:
        assert "bound" in str(failure.value), "the error names the bound"


@pytest.mark.parametrize("size", [40, 65_000])
def test_the_work_is_linear_in_the_bytes(size):
    """Counted, not timed: a line in many pieces is put together once, so no piece is copied again for each that follows."""
    from labkit.request import Decoder

    decoder = Decoder()
    for _ in range(2**20 // size):
        decoder.feed(b"x" * size)
    assert sum(map(len, decoder._begun)) == decoder._begun_size
    assert len(decoder._begun) == 2**20 // size
