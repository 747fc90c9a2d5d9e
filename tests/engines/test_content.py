"""What an answer is made of is carried or refused by name: tool calls, refusals, parts, choices, and letters cut in half."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from labkit.request import EngineError, InvalidRequest, Message, Request, StreamIncomplete, ToolCall
from labkit.streaming import encode
from tests.engines.wires import JSON, USAGE, Endpoint, ask, delta, sse, usage

END = (delta(finish="tool_calls"), usage(**USAGE))


def call(index=None, id=None, name=None, arguments=None, **more):
    piece = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}, **more}
    return {key: value for key, value in piece.items() if value is not None}


def calls(*pieces):
    return ask(sse(*(delta(tool_calls=list(p) if isinstance(p, tuple) else [p]) for p in pieces), *END))


A, B = ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"y":2}')
STREAMS = {
    "in pieces, by index": [
        call(0, "a", "f", ""), call(0, arguments='{"x"'), call(1, "b", "g", ""), call(0, arguments=":1}"),
        call(1, arguments='{"y":2}'),
    ],
    "two in one delta": [(call(0, "a", "f", '{"x":1}'), call(1, "b", "g", '{"y":2}'))],
    "whole, both with index 0 (Ollama)": [call(0, "a", "f", '{"x":1}'), call(0, "b", "g", '{"y":2}')],
    "without an index (Gemini)": [call(None, "a", "f", '{"x":1}'), call(None, "b", "g", '{"y":2}')],
    "without an index, in pieces": [
        call(None, "a", "f"), call(None, arguments='{"x":'), call(None, arguments="1}"), call(None, "b", "g", '{"y":2}'),
    ],
    "id and name with every piece": [
        call(0, "a", "f", '{"x"'), call(0, "a", "f", ":1}"), call(1, "b", "g", '{"y":'), call(1, "b", "g", "2}"),
    ],
    "the second call's head under the first's index (DeepSeek by a proxy)": [
        call(0, "a", "f", '{"x":1}'), call(0, "b", "g", ""), call(1, "b", arguments='{"y":2}'),
    ],
    "indexes from 1": [call(1, "a", "f", '{"x":1}'), call(2, "b", "g", '{"y":2}')],
    "arguments as an object": [call(0, "a", "f", {"x": 1}), call(1, "b", "g", {"y": 2})],
    "nulls and nothings between": [
        call(0, "a", "f", ""), (), call(0, id="", name="", arguments='{"x":1}'), call(1, "b", "g", '{"y":2}'),
    ],
}  # fmt: skip


@pytest.mark.parametrize("how", STREAMS)
def test_tool_calls_are_put_together_and_not_mixed(how):
    answer = calls(*STREAMS[how])
    assert [(c.id, c.name, json.loads(c.arguments)) for c in answer.tool_calls] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {"y": 2}),
    ]
    assert answer.done.finish_reason == "tool_calls"
    assert answer.done.timing.first_token is not None


def test_calls_without_ids_of_the_same_function_under_one_index_are_two():
    answer = calls(call(0, name="f", arguments='{"x":1}'), call(0, name="f", arguments='{"x":2}'))
    assert [c.arguments for c in answer.tool_calls] == ['{"x":1}', '{"x":2}']


PIECES = st.lists(st.tuples(st.text('abc{}"', max_size=6), st.text("xy", min_size=1, max_size=3)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(PIECES, st.lists(st.integers(0, 30), max_size=6))
def test_streamed_calls_are_those_the_openai_client_puts_together(wanted, marks):
    events = []
    for index, (arguments, name) in enumerate(wanted):
        events.append(delta(tool_calls=[call(index, f"id{index}", name, "", type="function")]))
        cuts = sorted({0, len(arguments), *(m % (len(arguments) + 1) for m in marks)})
        events += [delta(tool_calls=[call(index, arguments=arguments[a:b])]) for a, b in pairwise(cuts)]
    events.append(delta(finish="tool_calls"))
    theirs = ChatCompletionStreamState()
    for event in events:
        theirs.handle_chunk(ChatCompletionChunk(**{"created": 0, "object": "chat.completion.chunk", **event}))
    message = theirs.get_final_completion().choices[0].message
    ours = ask(sse(*events, usage(**USAGE))).tool_calls
    assert [(c.id, c.name, c.arguments) for c in ours] == [
        (c.id, c.function.name, c.function.arguments) for c in message.tool_calls
    ]


def test_the_old_function_call_is_a_tool_call():
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"x"'}, {"arguments": ":1}"}]
    answer = ask(sse(*(delta(function_call=piece) for piece in pieces), delta(finish="function_call"), usage(**USAGE)))
    assert answer.tool_calls == (ToolCall("", "f", '{"x":1}'),)
    assert answer.done.finish_reason == "tool_calls"


def test_an_answer_with_calls_that_says_stop_waits_for_tools_all_the_same():
    assert ask(sse(delta(tool_calls=[call(0, "a", "f", "{}")]), delta(finish="stop"))).done.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"type": "custom", "custom": {"name": "f", "input": "x"}}, "kind 'custom'"),
        (3, "tool call that is a int"),
        ({"function": 3}, "function is a int"),
        ({"function": {"name": ["f"]}}, "name is a list"),
        ({"function": {"arguments": 3}}, "arguments of a tool call that are a int"),
    ],
)
def test_a_call_that_cannot_be_carried_is_refused_by_name(odd, said):
    with pytest.raises(EngineError, match=said):
        calls(odd)


def test_calls_and_their_answers_go_out_as_the_api_has_them():
    endpoint = Endpoint(sse(delta("x", finish="stop")))
    endpoint.ask(
        Request(
            (
                Message("user", "weather?", name="ann"),
                Message("assistant", "", tool_calls=(A,)),
                Message("tool", "rain", tool_call_id="a"),
            )
        )
    )
    assert endpoint.sent[0]["messages"] == [
        {"role": "user", "content": "weather?", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "a"},
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]},
            "image_url, text",
        ),
        ({"role": "user", "content": None}, "not NoneType"),
        ({"role": "user", "content": "x", "tool_calls": (A,)}, "only the assistant"),
        ({"role": "user", "content": "x", "tool_call_id": "a"}, "only a tool"),
        ({"role": "assistant", "content": "x", "tool_calls": A}, "tuple of ToolCall"),
        ({"role": "assistant", "content": "x", "tool_calls": None}, "tuple of ToolCall"),
        ({"role": "assistant", "content": "x", "tool_calls": ({"id": "a"},)}, "tuple of ToolCall"),
        ({"role": "tool", "content": "x", "tool_call_id": 3}, "tool_call_id is 3"),
    ],
)
def test_a_message_that_cannot_be_carried_is_refused_by_name(fields, said):
    with pytest.raises(InvalidRequest, match=said):
        Message(**fields)


def test_a_refusal_is_text_and_the_end_says_what_it_is():
    answer = ask(sse(delta(refusal="I can"), delta(refusal="not."), delta(finish="stop"), usage(**USAGE)))
    assert (answer.text, answer.done.finish_reason) == ("I cannot.", "refusal")


def test_parts_of_text_and_thinking_are_put_together():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hel"},
        "lo",
    ]
    answer = ask(sse(delta(parts), delta([{"type": "text", "text": "!"}], finish="stop"), usage(**USAGE)))
    assert (answer.reasoning, answer.text) == ("hm", "Hello!")


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"thinking": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {
            "reasoning": None,
            "reasoning_details": [{"type": "reasoning.text", "text": "hm"}, {"type": "reasoning.encrypted"}],
        },
        {"reasoning": {"text": "hm"}},
    ],
)
def test_reasoning_is_found_under_every_name(fields):
    answer = ask(sse(delta(**fields), delta("x", finish="stop"), usage(**USAGE)))
    assert (answer.reasoning, answer.text) == ("hm", "x")


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (delta([{"type": "image_url", "image_url": {"url": "x"}}]), "kind 'image_url'"),
        (delta(audio={"data": "x"}), "holds audio"),
        (delta("", images=[{"image_url": "x"}]), "holds images"),
    ],
)
def test_what_is_no_text_is_refused_by_name(piece, said):
    with pytest.raises(EngineError, match=said):
        ask(sse(delta("x"), piece, *END))


def test_a_second_choice_is_refused_and_not_mixed_in():
    with pytest.raises(EngineError, match="choice 1 beside choice 0"):
        ask(sse(delta("Paris"), delta("Rome", index=1), delta(finish="stop")))
    with pytest.raises(EngineError, match="one answer a request"):
        ask(sse({"choices": [delta("a")["choices"][0], delta("b")["choices"][0]]}))
    with pytest.raises(InvalidRequest, match="n=2"):
        ask(b"", Request("hi", extra={"n": 2}))
    assert ask(sse(delta("x", finish="stop", index=1)), Request("hi", extra={"n": 1})).text == "x"


@pytest.mark.parametrize("words", ["ok \U0001f600 bye", "\U0001f600", "a\U0001f600\U0001f601"])
@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_letter_cut_in_half_is_whole_again(words, field):
    utf16 = words.encode("utf-16-le")
    halves = [utf16[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(utf16), 2)]
    body = b"".join(b"data: " + json.dumps(delta(**{field: half})).encode() + b"\n\n" for half in halves)
    answer = ask(body + sse(delta(finish="stop")))
    assert (answer.text or answer.reasoning) == words
    assert [encode(chunk, "1") for chunk in answer.chunks]


def test_half_a_letter_that_stays_alone_is_marked_and_can_be_written():
    body = b"".join(
        b"data: " + json.dumps(delta(text)).encode() + b"\n\n" for text in ("a\ud83d", "b", "\ude00c", "d\ud83d")
    )
    assert ask(body + sse(delta(finish="stop"))).text == "a\ufffdb\ufffdcd\ufffd"


def test_half_a_letter_in_arguments_is_whole_again():
    pieces = [delta(tool_calls=[call(0, "a", "f", '"\ud83d')]), delta(tool_calls=[call(0, arguments='\ude00"')])]
    body = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces)
    assert ask(body + sse(*END)).tool_calls == (ToolCall("a", "f", '"\U0001f600"'),)


def test_an_unstreamed_answer_is_an_answer():
    message = {"role": "assistant", "content": "Hello", "tool_calls": [call(None, "a", "f", "{}")]}
    body = {
        "id": "r1",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": USAGE,
    }
    answer = ask(json.dumps(body).encode(), headers=JSON)
    assert (answer.text, answer.tool_calls, answer.done.usage_note) == ("Hello", (ToolCall("a", "f", "{}"),), "")


REASONS = {
    "stop": "stop", "end_turn": "stop", "STOP": "stop", "eos_token": "stop", "length": "length", "MAX_TOKENS": "length",
    "repetition": "repetition",
    "model_length": "length", "tool_use": "tool_calls", "content_filter": "content_filter", "SAFETY": "content_filter",
    "refusal": "refusal", "brand_new": "brand_new", 7: "7",
}  # fmt: skip


@pytest.mark.parametrize("given_reason", REASONS)
def test_one_table_says_how_an_answer_ended(given_reason):
    assert ask(sse(delta("x"), delta(finish=given_reason), done=False)).done.finish_reason == REASONS[given_reason]


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource", "network_error", "cancelled"])
def test_an_answer_that_the_endpoint_gave_up_is_none(reason):
    with pytest.raises(EngineError, match=reason):
        ask(sse(delta("half of"), delta(finish=reason), usage(**USAGE)))


@pytest.mark.parametrize("reason", ["", None, False, "null", 0, [], {}])
def test_no_reason_is_no_end(reason):
    with pytest.raises(StreamIncomplete, match="not whole"):
        ask(sse(delta("half of"), delta(" it", finish=reason), done=False))
