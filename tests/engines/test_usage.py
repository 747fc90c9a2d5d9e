"""Token usage in every shape that endpoints write it, against genai-prices' own extraction and providers' documents."""

from __future__ import annotations

import logging
import re

import pytest
from genai_prices import data_snapshot

from labkit.engines.usage import Count
from labkit.request import Usage
from tests.engines.wires import ask, delta, sse, usage

# ── against genai-prices, for every provider whose responses it reads ────────────────────────────────────────────────

_AMOUNTS = (  # the first that one of a field's destinations names
    ("cache_write_5m_tokens", 150), ("cache_write_1h_tokens", 50), ("cache_read_tokens", 300), ("cache_write_tokens", 200),
    ("output_reasoning_tokens", 50), ("input_tokens", 1000), ("output_tokens", 400),
)  # fmt: skip


def responses():
    """(name, whole response, its usage, what genai-prices reads) for every distinct way it reads tokens."""
    seen = set()
    for provider in data_snapshot.get_snapshot().providers:
        for extractor in provider.extractors or ():
            fields = [m for m in extractor.mappings if isinstance(m.path, str) or all(isinstance(p, str) for p in m.path)]
            known = {m.dest for m in extractor.mappings}
            signature = (str(extractor.root), str(extractor.mappings))
            if not {"input_tokens", "output_tokens"} <= known or signature in seen:
                continue
            seen.add(signature)
            given: dict = {}
            for mapping in fields:
                path = [mapping.path] if isinstance(mapping.path, str) else list(mapping.path)
                destinations = {m.dest for m in fields if m.path == mapping.path}
                amount = next((n for name, n in _AMOUNTS if name in destinations), None)
                if amount is not None:
                    at = given
                    for key in path[:-1]:
                        at = at.setdefault(key, {})
                    at[path[-1]] = amount
            root = [extractor.root] if isinstance(extractor.root, str) else list(extractor.root)
            whole: dict = {root[-1]: given}
            for key in reversed(root[:-1]):
                whole = {key: whole}
            try:
                read = extractor.extract({"model": "m", **whole})[1]
            except ValueError:  # it wants audio or images, which are no chat's
                continue
            want = Usage(
                read.input_tokens or 0,
                read.output_tokens or 0,
                read.cache_read_tokens or 0,
                read.cache_write_tokens or 0,
                read.output_reasoning_tokens or 0,
            )
            yield pytest.param(provider.id, whole.get("usage", given), want, id=f"{provider.id}-{extractor.api_flavor}")


RESPONSES = list(responses())


def test_genai_prices_reads_many_shapes():
    assert len(RESPONSES) >= 25


@pytest.mark.parametrize(("provider", "given", "want"), RESPONSES)
def test_every_shape_is_read_as_genai_prices_reads_it(provider, given, want):
    count = Count(pytest.fail, beside=provider in ("x-ai", "perplexity"))
    count.take(given)
    assert count.settle(0)[0] == want


# ── beyond it ────────────────────────────────────────────────────────────────────────────────────────────────────────

P = {"prompt_tokens": 1000, "completion_tokens": 400}
CASES = {
    "reasoning beside the completion (xAI)": (
        {**P, "total_tokens": 1450, "completion_tokens_details": {"reasoning_tokens": 50}}, Usage(1000, 450, 0, 0, 50)),
    "reasoning within it": (
        {**P, "total_tokens": 1400, "completion_tokens_details": {"reasoning_tokens": 50}}, Usage(1000, 400, 0, 0, 50)),
    "more reasoning than completion, beside it": (
        {"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 113,
         "completion_tokens_details": {"reasoning_tokens": 94}}, Usage(10, 103, 0, 0, 94)),
    "thoughts that only the total knows of": ({**P, "total_tokens": 2000}, Usage(1000, 1000, 0, 0, 600)),
    "DeepSeek's hits and misses": (
        {**P, "total_tokens": 1400, "prompt_cache_hit_tokens": 896, "prompt_cache_miss_tokens": 104},
        Usage(1000, 400, 896)),
    "hits and misses alone": (
        {"completion_tokens": 400, "prompt_cache_hit_tokens": 896, "prompt_cache_miss_tokens": 104}, Usage(1000, 400, 896)),
    "OpenAI's cache writes (from GPT-5.6 on)": (
        {**P, "total_tokens": 1400, "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 200}},
        Usage(1000, 400, 300, 200)),
    "vLLM, and what it put into its own cache": (
        {**P, "total_tokens": 1400, "prompt_tokens_details": {"cached_tokens": 300, "created_cache_tokens": 640}},
        Usage(1000, 400, 300)),
    "LiteLLM's double names": (
        {**P, "total_tokens": 1400, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 200,
         "prompt_tokens_details": {"cached_tokens": 300, "cache_creation_tokens": 200}}, Usage(1000, 400, 300, 200)),
    "a proxy that leaves the cache out of the prompt, as its total shows": (
        {**P, "total_tokens": 1900, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 200},
        Usage(1500, 400, 300, 200)),
    "Anthropic's names with a total": (
        {"input_tokens": 1000, "output_tokens": 400, "total_tokens": 1400, "cache_read_input_tokens": 300},
        Usage(1300, 400, 300)),
    "Anthropic's input beside OpenAI's": (
        {**P, "total_tokens": 1400, "input_tokens": 700, "output_tokens": 400, "cache_read_input_tokens": 300},
        Usage(1000, 400, 300)),
    "a proxy's zeros beside the numbers": (
        {**P, "total_tokens": 1400, "input_tokens": 0, "output_tokens": 0, "input_tokens_details": None,
         "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 300}, Usage(1000, 400, 300)),
    "Bailian's cache writes": (
        {**P, "total_tokens": 1400, "prompt_tokens_details": {"cached_tokens": 300, "cache_creation_input_tokens": 200,
         "cache_creation": {"ephemeral_5m_input_tokens": 200}}}, Usage(1000, 400, 300, 200)),
    "Gemini in snake case": (
        {"prompt_token_count": 1000, "candidates_token_count": 350, "thoughts_token_count": 50,
         "total_token_count": 1400, "cached_content_token_count": 300}, Usage(1000, 400, 300, 0, 50)),
    "no prompt, but a total": ({"completion_tokens": 400, "total_tokens": 1400}, Usage(1000, 400)),
    "no completion, but a total": ({"prompt_tokens": 1000, "total_tokens": 1400}, Usage(1000, 400)),
    "whole numbers as text and as reals": (
        {"prompt_tokens": "1000", "completion_tokens": 400.0, "total_tokens": 1400}, Usage(1000, 400)),
    "nulls": (
        {**P, "total_tokens": None, "prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}},
        Usage(1000, 400)),
    "text tokens and predictions, which are said elsewhere": (
        {**P, "total_tokens": 1400, "prompt_tokens_details": {"text_tokens": 1000, "audio_tokens": 0},
         "completion_tokens_details": {"accepted_prediction_tokens": 9, "rejected_prediction_tokens": 8}},
        Usage(1000, 400)),
    "money and times, which are no tokens": (
        {**P, "total_tokens": 1400, "cost": 0.00123, "queue_time": 0.01, "is_byok": False, "service_tier": "default"},
        Usage(1000, 400)),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_a_shape_is_read_whole(what):
    given, want = CASES[what]
    count = Count(pytest.fail)
    count.take(given)
    assert count.settle(7) == (want, "")


WRONG = {
    "the parts do not add up": ({**P, "total_tokens": 1200}, Usage(1000, 400), "contradicts itself.*1000.*400.*1200"),
    "Bedrock without its cache's fields": (
        {"inputTokens": 4674, "outputTokens": 328, "totalTokens": 5746}, Usage(4674, 328), "not the total of 5746"),
    "more cached than read": (
        {**P, "prompt_tokens_details": {"cached_tokens": 2000}}, Usage(1000, 400), "2000 cached.*1000"),
    "more reasoning than output, and no total": (
        {**P, "completion_tokens_details": {"reasoning_tokens": 900}}, Usage(1000, 400), "900 reasoning.*400"),
    "two names that disagree": (
        {**P, "cached_tokens": 100, "prompt_cache_hit_tokens": 200}, Usage(1000, 400, 200), "cached tokens are"),
    "hits and misses that are not the prompt": (
        {**P, "prompt_cache_hit_tokens": 200, "prompt_cache_miss_tokens": 100}, Usage(1000, 400, 200), "200 cached and 100"),
    "a negative count": ({**P, "completion_tokens": -1}, Usage(1000, 7), "completion_tokens is -1"),
    "half a token": ({**P, "completion_tokens": 1.5}, Usage(1000, 7), "completion_tokens is 1.5"),
    "a flag": ({**P, "prompt_tokens": True}, Usage(0, 400), "prompt_tokens is True"),
    "more than there is": ({**P, "prompt_tokens": 10**30}, Usage(0, 400), "prompt_tokens is"),
    "5000 digits": ({**P, "prompt_tokens": 10**5000}, Usage(0, 400), "prompt_tokens is a huge number"),
    "words": ({**P, "prompt_tokens": "many"}, Usage(0, 400), "prompt_tokens is 'many'"),
    "a list": ([1], Usage(0, 7), "the usage is a list"),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage(0, 7), "no input.*counted from"),
    "a total alone": ({"total_tokens": 1400}, Usage(0, 7), "only a total of 1400"),
    "no input": ({"prompt_tokens": 0, "completion_tokens": 400, "total_tokens": 400}, Usage(0, 400), "no input tokens"),
    "audio": ({**P, "prompt_tokens_details": {"audio_tokens": 30}}, Usage(1000, 400), "priced apart.*audio_tokens 30"),
    "Gemini's images": (
        {"promptTokenCount": 1000, "candidatesTokenCount": 400, "totalTokenCount": 1400,
         "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 700}, {"modality": "IMAGE", "tokenCount": 300}]},
        Usage(1000, 400), "priced apart.*image.token_count 300"),
    "searches": (
        {"input_tokens": 1000, "output_tokens": 400, "server_tool_use": {"web_search_requests": 2}},
        Usage(1000, 400), "priced apart.*web_search_requests 2"),
    "xAI's sources": ({**P, "total_tokens": 1400, "num_sources_used": 3}, Usage(1000, 400), "num_sources_used 3"),
    "citations": (
        {**P, "total_tokens": 1400, "citation_tokens": 20, "reasoning_tokens": 900, "num_search_queries": 18},
        Usage(1000, 1320, 0, 0, 900), "citation_tokens 20.*num_search_queries 18"),
    "cache writes for an hour": (
        {"input_tokens": 1000, "output_tokens": 400, "cache_creation_input_tokens": 200,
         "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50}},
        Usage(1200, 400, 0, 200), "priced apart.*1h_input_tokens 50"),
    "seconds of audio": ({**P, "prompt_audio_seconds": 12}, Usage(1000, 400), "prompt_audio_seconds 12"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_usage_is_said_and_the_rest_is_kept(what):
    given, want, said = WRONG[what]
    count = Count(lambda name: None)
    count.take(given)
    got, note = count.settle(7)
    assert got == want
    assert re.search(said, note), note


# ── where it stands, and when ────────────────────────────────────────────────────────────────────────────────────────

U = {"prompt_tokens": 1000, "completion_tokens": 400, "total_tokens": 1400}
IN_CHOICE = delta(finish="stop")
IN_CHOICE["choices"][0]["usage"] = U
PLACES = {
    "after the last choice": [delta(finish="stop"), usage(**U)],
    "with the last choice": [{**delta(finish="stop"), "usage": U}],
    "in the last choice (Moonshot)": [IN_CHOICE],
    "under x_groq": [{**delta(finish="stop"), "x_groq": {"id": "r", "usage": U}}],
    "as usageMetadata": [{**delta(finish="stop"), "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 400}}],
    "as Cohere's meta": [
        {**delta(finish="stop"), "meta": {"billed_units": {"input_tokens": 1000, "output_tokens": 400},
                                          "tokens": {"input_tokens": 1070, "output_tokens": 400}}}],
    "as Bedrock's metrics": [
        {**delta(finish="stop"), "amazon-bedrock-invocationMetrics": {"inputTokenCount": 1000, "outputTokenCount": 400}}],
    "with the first chunk only": [{**delta("", role="assistant"), "usage": U}, delta(finish="stop")],
    "with every chunk": [
        {**delta("a"), "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}},
        {**delta("b", finish="stop"), "usage": U}, usage(**U)],
    "null until the end": [{**delta("a"), "usage": None}, {**delta(finish="stop"), "usage": {}}, usage(**U)],
    "the input first, the output last (a gateway to Anthropic)": [
        {**delta(""), "usage": {"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001}},
        {**delta(finish="stop"), "usage": {"prompt_tokens": 0, "completion_tokens": 400, "total_tokens": 400}}],
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_usage_is_found_wherever_an_endpoint_puts_it(place):
    done = ask(sse(delta("x"), *PLACES[place])).done
    assert (done.usage, done.usage_note) == (Usage(1000, 400), "")


def test_an_endpoint_that_counts_no_tokens_gives_its_answer_with_a_note():
    answer = ask(sse(delta("hel"), delta("lo", finish="stop")))
    assert (answer.text, answer.done.usage) == ("hello", Usage(0, 2))
    assert "no token usage" in answer.done.usage_note


@pytest.mark.parametrize(
    ("host", "output"),
    [
        ("x.ai", 5), ("api.x.ai", 5), ("API.X.AI", 5), ("perplexity.ai", 5), ("api.perplexity.ai", 5),
        ("phoenix.ai", 3), ("notperplexity.ai", 3), ("x.ai.test", 3), ("ai", 3),
    ],
)  # fmt: skip
def test_reasoning_is_added_for_the_providers_own_hosts_only(host, output):
    counts = usage(prompt_tokens=10, completion_tokens=3, completion_tokens_details={"reasoning_tokens": 2})
    answer = ask(sse(delta("hi", "stop"), counts), url=f"https://{host}/v1")
    assert answer.done.usage == Usage(10, output, reasoning_tokens=2)


@pytest.mark.parametrize("within", [lambda a: {"a": a}, lambda a: [{"modality": "x", "a": a}], lambda a: [[a]]])
def test_a_usage_however_deep_is_read(within):
    deep = 1
    for _ in range(3000):  # deeper than Python calls itself; how deep JSON may be depends on Python's version
        deep = within(deep)
    count = Count(pytest.fail)
    count.take({**U, "details": deep})
    assert count.settle(7) == (Usage(1000, 400), "")


def test_a_count_that_falls_is_told():
    first, second = ({"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n} for n in (40, 3))
    done = ask(sse({**delta("x"), "usage": first}, {**delta(finish="stop"), "usage": second})).done
    assert "fell from 40 to 3" in done.usage_note


def test_a_running_count_rides_on_the_chunks():
    events = [
        {**delta(str(n)), "usage": {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n}} for n in (1, 3, 4)
    ]
    answer = ask(sse(*events, delta(finish="stop")))
    assert [chunk.usage for chunk in answer.chunks] == [Usage(9, 1), Usage(9, 3), Usage(9, 4)]
    assert [chunk.tokens for chunk in answer.chunks] == [1, 2, 1]


def test_a_field_that_looks_like_tokens_and_is_not_known_is_told_once_and_not_counted(caplog):
    odd = {**U, "hologram_tokens": 5, "prompt_tokens_details": {"vibe_tokens": 6, "cached_tokens": 0}, "mood": 7}
    with caplog.at_level(logging.WARNING, "labkit.engines"):
        done = ask(sse(*({**delta("x"), "usage": odd} for _ in range(3)), delta(finish="stop"))).done
    assert done.usage == Usage(1000, 400)
    assert [record.args[1] for record in caplog.records] == ["hologram_tokens", "prompt_tokens_details.vibe_tokens"]
