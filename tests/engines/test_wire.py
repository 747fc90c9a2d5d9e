"""Bytes to answers: encodings, the grammar of events, ends and errors, beside what the bare openai client makes of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import httpx
import openai
import pytest

from labkit.request import EngineError, StreamIncomplete, Usage
from tests.engines.wires import JSON, SSE, USAGE, Body, ask, delta, sse, usage

HELLO = sse(delta("Hel"), delta("lo"), delta(finish="stop"), usage(**USAGE))


def lines(end: bytes) -> bytes:
    return HELLO.replace(b"\n", end)


def raw_deflate(data: bytes) -> bytes:
    z = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return z.compress(data) + z.flush()


SPREAD = b"".join(
    b"".join(b"data: " + line + b"\n" for line in json.dumps(event, indent=1).encode().split(b"\n")) + b"\n"
    for event in (delta("Hel"), delta("lo"), delta(finish="stop"), usage(**USAGE))
)
WHOLE = {
    "plain": (HELLO, {}),
    "CR LF": (lines(b"\r\n"), {}),
    "CR": (lines(b"\r"), {}),
    "a BOM": (b"\xef\xbb\xbf" + HELLO, {}),
    "a BOM with every event": (HELLO.replace(b"data: ", b"\xef\xbb\xbfdata: "), {}),  # a new .NET StreamWriter for each
    "no blank after the colon": (HELLO.replace(b"data: ", b"data:"), {}),
    "several data lines": (SPREAD + b"data: [DONE]\n\n", {}),
    "comments and other fields": (b": ping\n\nretry: 3\n\n" + HELLO.replace(b"data: {", b": c\nid: 7\nodd: x\ndata: {"), {}),
    "names of events": (HELLO.replace(b"data: {", b"event: completion\ndata: {"), {}),
    "no [DONE]": (HELLO.replace(b"data: [DONE]\n\n", b""), {}),
    "the last event without its empty line": (HELLO.replace(b"\n\ndata: [DONE]\n\n", b"\n"), {}),
    "the last event without its line end": (HELLO.replace(b"\n\ndata: [DONE]\n\n", b""), {}),
    "a cut event after the end": (HELLO.replace(b"data: [DONE]\n\n", b'data: {"choi'), {}),
    "[done]": (HELLO.replace(b"[DONE]", b"[done]"), {}),
    "[DONE] as JSON": (HELLO.replace(b"[DONE]", b'"[DONE]"'), {}),
    "what is not JSON after the end": (HELLO.replace(b"[DONE]", b"bye"), {}),
    "no object after the end": (HELLO.replace(b"[DONE]", b'["bye"]'), {}),
    "an odd event before a finish_reason": (HELLO.replace(b"data: ", b'data: {"took": 3}\n\ndata: '), {}),
    "a ping, and no finish_reason": (sse(delta("Hel"), {"type": "ping"}, delta("lo"), usage(**USAGE)), {}),
    "more after [DONE]": (HELLO + b"data: {oops\n\n", {}),
    "gzip": (gzip.compress(HELLO), {"content-encoding": "gzip"}),
    "gzip in two members": (gzip.compress(HELLO[:99]) + gzip.compress(HELLO[99:]), {"content-encoding": "x-gzip"}),
    "deflate": (zlib.compress(HELLO), {"content-encoding": "deflate"}),
    "deflate without its header": (raw_deflate(HELLO), {"content-encoding": "Deflate"}),
    "identity": (HELLO, {"content-encoding": "identity"}),
    "none, as servers say that do not want to be compressed": (HELLO, {"content-encoding": "none"}),
    "a charset for an encoding": (HELLO, {"content-encoding": "UTF-8"}),
    "gzip in pieces": (gzip.compress(HELLO), {"content-encoding": "gzip,aws-chunked"}),
    "nulls": (sse({**delta("Hel"), "error": None, "usage": None}, {"choices": None}, delta("lo", refusal=None),
                  {"choices": []}, {"choices": [None]}, delta(finish="stop"), usage(**USAGE)), {}),
    "an empty error with every event": (
        sse({**delta("Hel"), "error": {"code": "", "message": ""}}, {**delta("lo"), "error": {}}, delta(finish="stop"),
            usage(**USAGE)), {}),
    "events before the first": (b'event: ping\ndata: {"type": "ping"}\n\ndata: null\n\ndata:\n\n' + HELLO, {}),
    "a wrong Content-Type": (HELLO, {"content-type": "application/json"}),
}  # fmt: skip
OPENAI_TOO = set(WHOLE) - {
    "the last event without its empty line",
    "the last event without its line end",
    "a cut event after the end",
    "a BOM", "a BOM with every event", "[done]", "[DONE] as JSON", "what is not JSON after the end",
    "no object after the end", "gzip in pieces", "events before the first", "nulls", "no [DONE]",
    "an empty error with every event", "gzip in two members", "comments and other fields",
}  # fmt: skip


@pytest.mark.parametrize("cut", [None, 1, 7])
@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_answer_is_read_whole_however_its_bytes_come(what, cut):
    body, headers = WHOLE[what]
    pieces = [body] if cut is None else [body[i : i + cut] for i in range(0, len(body), cut)]
    answer = ask(pieces, headers={**SSE, **headers})
    assert (answer.text, answer.done.finish_reason, answer.done.usage) == ("Hello", "stop", Usage(10, 3))
    assert answer.done.usage_note == ""


@pytest.mark.parametrize("what", sorted(OPENAI_TOO))
def test_the_bare_openai_client_reads_the_same(what):
    body, headers = WHOLE[what]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers={**SSE, **headers}, stream=Body([body])))

    async def run() -> str:
        async with openai.AsyncOpenAI(
            base_url="http://x.test/v1", api_key="k", max_retries=0, http_client=httpx.AsyncClient(transport=transport)
        ) as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert asyncio.run(run()) == ask(body, headers={**SSE, **headers}).text == "Hello"


HALF = sse(delta("Hel"), done=False)
BROKEN = {
    "cut": (HALF, {}, "after 1 chunks"),
    "cut within an event": (HALF + b'data: {"choices": [{"delta": {"content": "lo"', {}, "after 1 chunks"),
    "nothing": (b"", {}, "sent nothing"),
    "[DONE] and nothing else": (b"data: [DONE]\n\n", {}, "no answer before it"),
    "usage and [DONE] and nothing else": (sse(usage(**USAGE)), {}, "no answer before it"),
    "half, an error in its own words, and [DONE]": (
        sse(delta("Hel"), {"exception": "out of memory"}), {}, "after 1 chunks, no finish_reason.*out of memory"),
    "half, and an error in its own words": (
        sse({**delta("Hel"), "usage": USAGE}, {"title": "out of memory", "status": 503}, done=False), {},
        "after 1 chunks .amid them.*out of memory"),
    "not JSON": (HALF + b"data: {oops\n\n" + HELLO, {}, "not JSON after 1 chunks"),
    "a page": (b"<html><body>Please log in</body></html>", {"content-type": "text/html"}, "text/html.*Please log in"),
    "another API's stream": (
        b'event: message_start\ndata: {"type": "message_start"}\n\n', {}, "no chat completion.*message_start"),
    "lines of JSON (Ollama's own API)": (b'{"a": 1}\n{"b": 2}\n', {}, "not JSON"),
    "a cut gzip": (gzip.compress(HALF)[:-12], {"content-encoding": "gzip"}, "not whole|no chat completion|sent nothing"),
    "a damaged gzip": (b"\x1f\x8bnonsense" * 9, {"content-encoding": "gzip"}, "compressed bytes are damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_whole_answer_says_what_it_is(what):
    body, headers, said = BROKEN[what]
    with pytest.raises(StreamIncomplete, match=said):
        ask(body, headers={**SSE, **headers})


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "compress"])
def test_an_encoding_that_was_not_asked_for_is_refused_by_name(encoding):
    with pytest.raises(EngineError, match=rf"'{encoding}'.*gzip, deflate"):
        ask(b"\x00\x01", headers={**SSE, "content-encoding": encoding})


def test_an_answer_is_whole_though_its_connection_breaks_after_the_end():
    def pieces():
        yield sse(delta("Hello"), delta(finish="stop"), usage(**USAGE), done=False)
        raise httpx.ReadError("reset")

    answer = ask(pieces())
    assert (answer.text, answer.done.usage) == ("Hello", Usage(10, 3))


def test_a_stall_after_the_end_is_no_stall():
    def pieces():
        yield sse(delta("Hello"), delta(finish="stop"), done=False)
        raise httpx.ReadTimeout("slow")

    answer = ask(pieces())
    assert answer.text == "Hello"
    assert "no token usage" in answer.done.usage_note


def test_a_connection_that_breaks_within_the_answer_is_not_whole():
    def pieces():
        yield HALF
        raise httpx.ReadError("reset")

    with pytest.raises(StreamIncomplete, match="broke after 1 chunks"):
        ask(pieces())


def test_undecodable_bytes_are_marked_and_lose_nothing_else():
    assert ask(HELLO.replace(b"Hel", b"H\xffl")).text == "H\ufffdllo"


ODD = {
    "choices": ({"choices": {"a": 1}}, "choices that are a dict"),
    "a choice": ({"choices": [3]}, "a choice that is a int"),
    "a delta": ({"choices": [{"delta": [1]}]}, "a delta that is a list"),
    "content": ({"choices": [{"delta": {"content": 3}}]}, "content that is a int"),
    "a part": ({"choices": [{"delta": {"content": [3]}}]}, "part of content that is a int"),
    "reasoning": ({"choices": [{"delta": {"reasoning": 3}}]}, "reasoning that is a int"),
    "a refusal": ({"choices": [{"delta": {"refusal": 3}}]}, "refusal that is a int"),
    "tool calls": ({"choices": [{"delta": {"tool_calls": 3}}]}, "tool_calls that are a int"),
    "a list": ([1], "a JSON list"),
    "a number": (3, "a JSON int"),
    "a text": ("x", "a JSON str"),
}


@pytest.mark.parametrize("what", ODD)
def test_what_stands_where_an_object_is_usual_is_named(what):
    event, said = ODD[what]
    with pytest.raises(StreamIncomplete, match=said):
        ask(sse(delta("x"), event))


def test_ids_models_and_reasons_that_are_numbers_do_not_cost_the_answer():
    done = ask(sse({**delta("x"), "id": 7, "model": 4.5}, {**delta(finish="stop"), "id": None, "model": ["m"]})).done
    assert (done.response_id, done.model, done.finish_reason) == ("7", "4.5", "stop")


def test_a_json_body_in_pieces_is_read_at_its_end():
    body = json.dumps(
        {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": USAGE}, indent=2
    ).encode()
    assert (
        ask([b"\xef", b"\xbb", b"\xbf\n ", *(body[i : i + 5] for i in range(0, len(body), 5))], headers=JSON).text == "Hello"
    )
