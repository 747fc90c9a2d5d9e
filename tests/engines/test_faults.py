"""When an endpoint does not answer: its words, its status, when to come back, what to set, and a prompt that is too long."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from labkit.engines import OpenAIEngine
from labkit.request import ContextWindowExceeded, EngineError, InvalidRequest, InvalidValue, Request
from tests.engines.wires import JSON, SSE, USAGE, Endpoint, ask, delta, sse, usage

ERRORS = {
    "OpenAI's": ({"error": {"message": "the words", "type": "server_error", "code": None}}, None),
    "with a code": ({"error": {"message": "the words", "code": 503}}, 503),
    "with a code as text": ({"error": {"message": "the words", "code": "429"}}, 429),
    "a text": ({"error": "the words"}, None),
    "an object of kind error (older vLLM)": ({"object": "error", "message": "the words", "code": 400}, 400),
    "Anthropic's": ({"type": "error", "error": {"type": "overloaded_error", "message": "the words"}}, None),
    "Google's list": ([{"error": {"code": 400, "message": "the words", "status": "INVALID_ARGUMENT"}}], 400),
    "FastAPI's detail": ({"detail": "the words"}, None),
    "FastAPI's list of details": ({"detail": [{"loc": ["body"], "msg": "the words"}]}, None),
    "msg (Zhipu)": ({"code": 1234, "msg": "the words"}, None),
    "MiniMax": ({"choices": None, "base_resp": {"status_code": 1004, "status_msg": "the words"}}, None),
    "errors (Cloudflare)": ({"success": False, "errors": [{"code": 7000, "message": "the words"}]}, None),
    "AWS's": ({"Message": "the words"}, None),
    "in a choice (OpenRouter)": ({"choices": [{"delta": {}, "finish_reason": "error",
                                              "error": {"code": 502, "message": "the words"}}]}, 502),
    "beside half an answer": ({**delta("half"), "error": {"message": "the words"}}, None),
}  # fmt: skip
BARE = {"error": {"message": "the words", "code": 503}}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("way", ["alone", "after half an answer", "as JSON under 200", "with the usage after it"])
def test_an_error_under_200_reaches_the_caller_in_its_own_words(kind, way):
    event, status = ERRORS[kind]
    body = {
        "alone": sse(event),
        "after half an answer": sse({**delta("The first half of"), "usage": USAGE}, event),
        "as JSON under 200": json.dumps(event).encode(),
        "with the usage after it": sse(delta("The first"), event, delta(finish="stop"), usage(**USAGE)),
    }[way]
    with pytest.raises(EngineError, match="the words") as failure:
        ask(body, headers=JSON if "JSON" in way else SSE)
    assert failure.value.status == status


@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"type":"overloaded_error","message":"the words"}\n\n',
        b"event: error\ndata: the words\n\n",
        b'event: error\ndata: "the words"\n\n',
        b'event: error\ndata: ["the words"]\n\n',
    ],
)
def test_an_event_named_error_is_one_whatever_is_in_it(body):
    with pytest.raises(EngineError, match="the words"):
        ask(sse(delta("half"), done=False) + body + sse(delta(finish="stop")))


@pytest.mark.parametrize("kind", [*ERRORS, "plain"])
def test_an_error_status_keeps_the_words(kind):
    body = b"the words" if kind == "plain" else json.dumps(ERRORS[kind][0]).encode()
    with pytest.raises(EngineError, match="answered 503: the words") as failure:
        ask(body, status=503, headers=JSON)
    assert failure.value.status == 503


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, BARE, 7),
        ({"retry-after": "0.5"}, BARE, 0.5),
        ({"retry-after": "0"}, BARE, 0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, BARE, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, BARE, 0),
        ({"retry-after": "soon"}, BARE, None),
        ({"retry-after": "-3"}, BARE, None),
        ({"retry-after": "inf"}, BARE, None),
        ({"retry-after": "Wed, 99 Foo 20150 07:28:00 GMT"}, BARE, None),
        ({}, BARE, None),
        ({}, {"error": {"message": "x", "details": [{"@type": "RetryInfo", "retryDelay": "27s"}]}}, 27),
        ({}, {"error": {"message": "x", "retry_after": 4}}, 4),
    ],
)
def test_when_to_come_back_is_kept(headers, body, seconds):
    with pytest.raises(EngineError) as failure:
        ask(json.dumps(body).encode(), status=429, headers={**JSON, **headers})
    assert failure.value.retry_after_s == seconds


def test_a_date_to_come_back_at_is_told_in_seconds_from_now():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with pytest.raises(EngineError) as failure:
        ask(b"", status=429, headers={"retry-after": at})
    assert 80 < failure.value.retry_after_s <= 100


TOO_LONG = {  # who says it so: (words, window, prompt)
    "vLLM": ("This model's maximum context length is 2048 tokens. However, you requested 128 output tokens and your prompt "
             "contains at least 1921 input tokens", 2048, 1921),
    "OpenAI": ("This model's maximum context length is 128000 tokens. However, your messages resulted in 140005 tokens.",
               128000, 140005),
    "OpenRouter": ("This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens "
                   "(42832 of text input).", 32768, 42832),
    "GPT-5": ("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300010 tokens.",
              272000, 300010),
    "Anthropic": ("prompt is too long: 208310 tokens > 200000 maximum", 200000, 208310),
    "Anthropic with the output": ("input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease "
                                  "input length or `max_tokens` and try again", 200000, 199759),
    "Gemini": ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1048576, 1200000),
    "Gemini without brackets": ("The input token count 1200000 exceeds the maximum number of tokens allowed 1048576.",
                                1048576, 1200000),
    "Mistral": ("Prompt contains 40012 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
                32768, 40012),
    "SGLang": ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 4096, 5000),
    "SGLang of both": ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a "
                       "total of 5000 tokens", 4096, 5000),
    "llama.cpp": ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 4096, 5000),
    "llama-cpp-python": ("Requested tokens (5000) exceed context window of 512", 512, 5000),
    "LM Studio": ("Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with "
                  "context length of only 4096 tokens", 4096, None),
    "xAI": ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 131072, 537812),
    "Moonshot": ("Invalid request: Your request exceeded model token limit: 262144 (requested: 300000)", 262144, 300000),
    "SiliconFlow": ("number of input tokens (204703) has exceeded max_prompt_tokens (202752) limit.", 202752, 204703),
    "Bailian": ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", 129024, None),
    "Copilot": ("prompt token count of 135000 exceeds the limit of 128000", 128000, 135000),
    "Cohere": ("too many tokens: total number of tokens in the prompt cannot exceed 4081", 4081, None),
    "TGI": ("`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 100 `max_new_tokens`",
            4097, 5000),
    "with commas": ("maximum context length is 1,048,576 tokens", 1048576, None),
    "Bedrock": ("Input is too long for requested model.", None, None),
    "Groq": ("Please reduce the length of the messages or completion.", None, None),
    "MiniMax": ("invalid params, context window exceeds limit", None, None),
    "GLM": ("Prompt exceeds max length", None, None),
    "a code alone": ("", None, None),
}  # fmt: skip


@pytest.mark.parametrize("who", TOO_LONG)
@pytest.mark.parametrize("way", ["status 400", "status 413", "within the stream"])
def test_a_prompt_that_is_too_long_is_told_apart_whoever_says_it(who, way):
    said, window, prompt = TOO_LONG[who]
    body = {"error": {"message": said, "code": "context_length_exceeded" if not said else 400}}
    data, status = (sse(body), 200) if way == "within the stream" else (json.dumps(body).encode(), int(way[-3:]))
    with pytest.raises(ContextWindowExceeded) as failure:
        ask(data, status=status)
    assert f"is {window} tokens" in str(failure.value) or window is None
    assert f"at least {prompt} tokens" in str(failure.value) or prompt is None


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "temperature must be below 2"),
        (400, "max_tokens is too large: 100000. This model supports at most 16384 completion tokens"),
        (400, "messages: too many images"),
        (413, "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 7000; context length exceeded"),
        (429, "Too many tokens, please wait before trying again."),
        (401, "maximum context length is 5"),
        (500, "Input is too long for requested model."),
    ],
)
def test_other_refusals_are_no_question_of_length(status, said):
    with pytest.raises(EngineError, match="answered") as failure:
        ask(json.dumps({"error": {"message": said}}).encode(), status=status, headers=JSON)
    assert failure.value.status == status


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
         r"extra=\{'max_completion_tokens': 128\}"),
        ("Unsupported value: 'temperature' does not support 0.0 with this model.", r"extra=\{'temperature': None\}"),
        ("Unrecognized request argument supplied: `stream_options`", r"extra=\{'stream_options': None\}"),
        ("Missing required query parameter: api-version", r"\?api-version="),
    ],
)  # fmt: skip
def test_a_field_that_a_model_refuses_comes_with_what_to_set(said, remedy):
    with pytest.raises(EngineError, match=remedy):
        ask(json.dumps({"error": {"message": said}}).encode(), status=400, headers=JSON)


def test_what_to_set_works():
    def body(**extra):
        endpoint = Endpoint(sse(delta("x", finish="stop")))
        endpoint.ask(Request("hi", temperature=0.5, extra=extra))
        return endpoint.sent[0]

    assert body()["max_tokens"] == 128
    assert "top_p" not in body()
    changed = body(max_completion_tokens=50, temperature=None, stream_options=None)
    assert changed["max_completion_tokens"] == 50
    assert not {"max_tokens", "temperature", "stream_options", "top_p"} & set(changed)
    endpoint = Endpoint(sse(delta("x", finish="stop")))
    endpoint.ask(Request("hi", top_p=0.5))
    assert endpoint.sent[0]["top_p"] == 0.5


@pytest.mark.parametrize("extra", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}, {"a": "\ud83d"}, {"a": b"x"}, [1]])
def test_a_request_that_is_no_json_is_the_callers_to_mend(extra):
    with pytest.raises(InvalidRequest):
        ask(b"", Request("hi", extra=extra))


def test_a_prompt_with_half_a_letter_is_the_callers_to_mend():
    with pytest.raises(InvalidRequest, match=r"U\+D83D"):
        ask(b"", Request("hi \ud83d"))


def test_an_answer_from_elsewhere_says_where():
    with pytest.raises(EngineError, match=r"answered 308: it has moved to https://x\.test/v1/; set that"):
        ask(b"", status=308, headers={"location": "https://x.test/v1/?a=b"})
    with pytest.raises(EngineError, match="usually ends in /v1"):
        ask(b"Not Found", status=404, url="http://x.test")


LISTS = {
    "models": ('{"data": [{"id": "m", "max_model_len": 9}, {"id": "n"}]}', ("m", "n"), 9),
    "null": ('{"object": "list", "data": null}', (), None),
    "a bare list": ('[{"id": "m"}]', ("m",), None),
    "names": ('{"models": ["m", "n"]}', ("m", "n"), None),
    "no ids": ('{"data": [{"name": "m"}, null, 3, {"id": 4}, {"id": ""}]}', (), None),
    "odd windows": ('{"data": [{"id": "m", "max_model_len": "many"}]}', ("m",), None),
    "a number": ("3", (), None),
    "a page": ("<html>hello</html>", (), None),
    "nothing": ("", (), None),
    "a nest": ("[" * 5000, (), None),
}


@pytest.mark.parametrize("what", LISTS)
def test_an_odd_list_of_models_is_no_reason_to_refuse(what):
    body, models, window = LISTS[what]
    dialect = asyncio.run(Endpoint(body.encode(), headers=JSON).engine.probe())
    assert (dialect.models, dialect.context_window, dialect.vllm) == (models, window, False)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_endpoint_without_a_list_of_models_is_served(status):
    assert asyncio.run(Endpoint(b"no", status).engine.probe()).models == ()


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_one_that_refuses_is_refused(status):
    with pytest.raises(EngineError) as failure:
        asyncio.run(Endpoint(b"no", status).engine.probe())
    assert failure.value.status == status


def test_metrics_without_end_are_ended():
    def endless():
        while True:
            yield b"x 1\n" * 10_000

    with pytest.raises(EngineError, match=r"^/metrics has more than 16777216 bytes"):
        asyncio.run(Endpoint(endless()).engine.get_text("/metrics", root=True))


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_metrics_within_the_bound_are_read_whole(encoding):
    whole = b"x 1\n" * 4_000_000  # of the 2**24 bytes that are allowed
    body, headers = (gzip.compress(whole, 1), {"content-encoding": encoding}) if encoding else (whole, {})
    assert asyncio.run(Endpoint(body, headers=headers).engine.get_text("/metrics", root=True)) == whole.decode()


def test_stall_s_must_allow_some_time():
    with pytest.raises(InvalidValue, match="stall_s is 0"):
        OpenAIEngine("http://x.test/v1", stall_s=0)
