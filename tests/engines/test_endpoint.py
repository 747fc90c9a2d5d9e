"""The handler over an OpenAI-compatible endpoint: what it sends, what it makes of the answer, how it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import openai
import pytest

from labkit.engines import Dialect, Engine, OpenAIEngine
from labkit.request import (
    Chunk,
    ContextWindowExceeded,
    Done,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidValue,
    Message,
    Request,
    StreamIncomplete,
    Usage,
    complete,
    within,
)

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
Script = Callable[[dict, asyncio.StreamWriter], Awaitable[None]]


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str, **fields: object) -> bytes:
    return event(id="r1", model="m", choices=[{"index": 0, "delta": {"content": text}, **fields}])


USAGE = event(id="r1", model="m", choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2})
END = b"data: [DONE]\n\n"


@asynccontextmanager
async def server(script: Script) -> AsyncIterator[str]:
    """A server that reads one request a connection and then does what `script` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0]) if "content-length" in head else 0
        body = json.loads(await reader.readexactly(length)) if length else {}
        try:
            await script(body, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    finally:
        listening.close()


def sends(*pieces: bytes) -> Script:
    async def script(_: dict, writer: asyncio.StreamWriter) -> None:
        writer.write(HEADERS)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)

    return script


def answers(status: str, body: dict) -> Script:
    async def script(_: dict, writer: asyncio.StreamWriter) -> None:
        data = json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

    return script


def ask(script: Script, request: Request | None = None, **options: object):
    async def run():
        async with server(script) as url:
            engine = OpenAIEngine(url, "key", "m", **options)
            try:
                return await complete(engine, request or Request("hi"))
            finally:
                await engine.aclose()

    return asyncio.run(run())


def test_a_stream_becomes_chunks_and_one_done() -> None:
    answer = ask(sends(delta("", finish_reason=None), delta("Hel"), delta("lo", finish_reason="stop"), USAGE, END))
    assert answer.text == "Hello"
    assert [chunk.text for chunk in answer.chunks] == ["Hel", "lo"]
    assert answer.done.usage == Usage(7, 2)
    assert (answer.done.finish_reason, answer.done.model, answer.done.response_id) == ("stop", "m", "r1")
    timing = answer.done.timing
    assert timing.first_token == answer.chunks[0].at
    assert timing.last_token == answer.chunks[1].at
    assert timing.sent < timing.first_token < timing.last_token <= timing.done


def test_the_cut_of_the_bytes_does_not_matter() -> None:
    # U+2028 is a line break to str.splitlines but not to server-sent events; é and 語 span bytes.
    whole = delta("é語\u2028x") + USAGE + END
    assert ask(sends(*(whole[i : i + 1] for i in range(len(whole))))).text == "é語\u2028x"


def test_cached_and_reasoning_tokens_are_read_from_the_usage() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    thinking = event(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}}])
    answer = ask(sends(thinking, delta("yes"), event(choices=[], usage=usage), END))
    assert answer.done.usage == Usage(10, 5, cached_tokens=4, reasoning_tokens=3)
    assert (answer.reasoning, answer.text) == ("hm", "yes")
    assert answer.done.timing.first_token == answer.chunks[0].at


@pytest.mark.parametrize("vllm", [True, False])
def test_only_vllm_is_asked_for_running_usage(vllm: bool) -> None:
    bodies: list[dict] = []

    async def script(body: dict, writer: asyncio.StreamWriter) -> None:
        bodies.append(body)
        await sends(delta("x"), USAGE, END)(body, writer)

    request = Request(
        (Message("system", "s"), Message("user", "u")),
        max_tokens=9,
        temperature=0.5,
        seed=3,
        stop=("END",),
        logprobs=2,
        response_format={"type": "json_object"},
        priority=-1,
        extra={"min_tokens": 4},
    )
    ask(script, request, dialect=Dialect(vllm=vllm))
    (body,) = bodies
    assert body.pop("stream_options") == {"include_usage": True, **({"continuous_usage_stats": True} if vllm else {})}
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 9,
        "temperature": 0.5,
        **({"top_p": 1.0} if vllm else {}),
        "stream": True,
        "seed": 3,
        "stop": ["END"],
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_object"},
        "priority": -1,
        "min_tokens": 4,
    }


def test_an_address_without_a_server_is_named() -> None:
    with pytest.raises(EngineUnreachable, match=r"http://127\.0\.0\.1:9/v1.*LABKIT_BASE_URL"):
        asyncio.run(complete(OpenAIEngine("http://127.0.0.1:9/v1", model="m"), Request("hi")))


def test_something_that_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidValue, match="should look like"):
        OpenAIEngine("localhost:8000")


@pytest.mark.parametrize("sent", [(), (HEADERS,), (HEADERS, delta("Hel"))])
def test_an_engine_that_stops_sending_has_stalled(sent: tuple[bytes, ...]) -> None:
    async def script(_: dict, writer: asyncio.StreamWriter) -> None:
        for piece in sent:
            writer.write(piece)
        await writer.drain()
        await asyncio.sleep(30)

    with pytest.raises(EngineStalled, match=r"sent nothing for 0\.2 s"):
        ask(script, stall_s=0.2)


def test_an_engine_slower_than_the_stall_limit_in_all_but_not_at_a_time_has_not_stalled() -> None:
    async def script(_: dict, writer: asyncio.StreamWriter) -> None:
        writer.write(HEADERS)
        for _i in range(6):
            writer.write(delta("x"))
            await writer.drain()
            await asyncio.sleep(0.15)
        writer.write(USAGE + END)

    assert ask(script, stall_s=0.6).text == "xxxxxx"


@pytest.mark.parametrize("status", ["500 Oops", "429 Slow Down", "401 Who"])
def test_an_http_error_keeps_its_status_and_message(status: str) -> None:
    with pytest.raises(EngineError, match="the reason") as failure:
        ask(answers(status, {"error": {"message": "the reason"}}))
    assert failure.value.status == int(status[:3])


def test_a_stream_that_ends_early_is_not_an_answer() -> None:
    with pytest.raises(StreamIncomplete, match="after 1 chunks"):
        ask(sends(delta("Hel")))


def test_a_connection_that_breaks_within_the_body_is_not_an_answer() -> None:
    async def script(_: dict, writer: asyncio.StreamWriter) -> None:
        data = delta("Hel")
        writer.write(HEADERS.replace(b"Connection: close", b"Content-Length: 9999") + data)

    with pytest.raises(StreamIncomplete, match="after 1 chunks"):
        ask(script)


def test_an_error_within_the_stream_is_raised() -> None:
    with pytest.raises(EngineError, match="engine died") as failure:
        ask(sends(delta("Hel"), event(error={"message": "engine died", "code": 500})))
    assert failure.value.status == 500


def test_rubbish_in_the_stream_is_not_an_answer() -> None:
    with pytest.raises(StreamIncomplete, match="not JSON"):
        ask(sends(b"data: {oops\n\n", END))


def test_openais_own_context_error_carries_both_numbers() -> None:
    message = (
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 140005 tokens. "
        "Please reduce the length of the messages."
    )
    with pytest.raises(ContextWindowExceeded, match=r"140005.*128000"):
        ask(answers("400 Bad Request", {"error": {"message": message, "code": "context_length_exceeded"}}))


def test_one_handler_serves_several_event_loops() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9/v1", model="m")
    for _ in range(2):
        with pytest.raises(EngineUnreachable):
            asyncio.run(complete(engine, Request("hi")))


# ── on a live engine ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.live
def test_text_usage_and_logprobs_are_those_the_openai_client_gets(live: Engine) -> None:
    request = Request("What is the return policy?", max_tokens=24, logprobs=3, stop=("zzzz",), seed=5)

    async def ours():
        return await complete(live, request)

    async def theirs():
        async with openai.AsyncOpenAI(base_url=live.url, api_key=live.api_key, max_retries=0) as client:
            return await client.chat.completions.create(
                model=live.model,
                messages=[{"role": "user", "content": "What is the return policy?"}],
                max_tokens=24,
                temperature=0,
                logprobs=True,
                top_logprobs=3,
                seed=5,
            )

    answer, peer = asyncio.run(ours()), asyncio.run(theirs())
    choice = peer.choices[0]
    assert answer.text == choice.message.content
    assert answer.done.usage.input_tokens == peer.usage.prompt_tokens
    assert answer.done.usage.output_tokens == peer.usage.completion_tokens == sum(c.tokens for c in answer.chunks)
    assert answer.done.finish_reason == choice.finish_reason
    assert [lp.token for lp in answer.logprobs] == [lp.token for lp in choice.logprobs.content]
    assert [lp.logprob for lp in answer.logprobs] == pytest.approx([lp.logprob for lp in choice.logprobs.content], abs=0.05)
    assert all(len(lp.top) == 3 for lp in answer.logprobs)


async def idle(engine: Engine) -> None:
    """Return when the engine runs no request."""
    while (await engine.metrics()).requests_running:  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.01)


@pytest.mark.live
def test_every_count_that_our_own_engine_sends_is_known(live: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        engine = OpenAIEngine(live.url, live.api_key, model=live.model)
        for words in ("What is the return policy?", "What is the return policy? " * 30):
            assert (await complete(engine, Request(words, max_tokens=4, logprobs=1))).done.usage is not None
        await engine.aclose()

    asyncio.run(scenario())
    assert "is not read" not in caplog.text


@pytest.mark.live
def test_closing_the_stream_stops_the_generation(live: Engine) -> None:
    async def scenario() -> None:
        before = await live.metrics()
        seen = 0
        async with aclosing(live(Request("Tell me everything", max_tokens=1900, extra={"ignore_eos": True}))) as events:
            async for item in events:
                assert isinstance(item, Chunk)
                seen += 1
                if seen == 5:
                    assert (await live.metrics()).requests_running == 1
                    assert item.usage is not None
                    assert item.usage.output_tokens >= 5
                    break
        await idle(live)
        stopped = await live.metrics()
        generated = (stopped - before).generation_tokens
        assert generated is not None
        assert 5 <= generated < 1900
        await asyncio.sleep(0.3)
        assert (await live.metrics()).generation_tokens == stopped.generation_tokens

    asyncio.run(scenario())


@pytest.mark.live
def test_a_deadline_cancels_down_to_the_engine(live: Engine) -> None:
    async def scenario() -> None:
        request = Request("Tell me everything", max_tokens=1900, extra={"ignore_eos": True})
        with pytest.raises(TimeoutError):
            await complete(live, within(request, 0.3))
        await idle(live)

    asyncio.run(scenario())


@pytest.mark.live
@pytest.mark.parametrize(("words", "max_tokens"), [(3000, 10), (1, 5000)])
def test_a_prompt_over_the_window_is_refused_before_anything_is_generated(live: Engine, words: int, max_tokens: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(live.tokenizer_path)
    content = "tent " * words
    length = len(tokenizer.apply_chat_template([{"role": "user", "content": content}], return_dict=True)["input_ids"])

    async def scenario() -> None:
        before = await live.metrics()
        with pytest.raises(
            ContextWindowExceeded, match=rf"{length} tokens.*{max_tokens} more.*{live.context_window} tokens"
        ):
            await complete(live, Request(content, max_tokens=max_tokens))
        assert (await live.metrics() - before).generation_tokens == 0

    asyncio.run(scenario())


@pytest.mark.live
def test_an_answer_is_cut_where_the_window_ends(live: Engine) -> None:
    request = Request("tent", max_tokens=live.context_window, extra={"ignore_eos": True})
    done = asyncio.run(complete(live, request)).done
    assert done.usage.input_tokens + done.usage.output_tokens == live.context_window
    assert done.finish_reason == "length"


@pytest.mark.live
def test_a_json_schema_is_obeyed(live: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"intent": {"enum": ["refund", "size"]}, "sure": {"type": "boolean"}},
        "required": ["intent", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = asyncio.run(complete(live, Request("Classify", max_tokens=60, response_format=form)))
    value = json.loads(answer.text)
    assert set(value) == {"intent", "sure"}
    assert value["intent"] in ("refund", "size")
    assert isinstance(value["sure"], bool)


@pytest.mark.live
def test_a_repeated_prompt_is_billed_as_cached_in_full_blocks(live: Engine) -> None:
    async def scenario() -> tuple[Done, Done, int]:
        block = int((await live.metrics()).cache_config["block_size"])
        request = Request("The tent keeps you dry and warm in the rain. " * 40, max_tokens=2)
        return (await complete(live, request)).done, (await complete(live, request)).done, block

    cold, warm, block = asyncio.run(scenario())
    assert cold.usage.cached_tokens == 0
    # All full blocks, except that at least one token must be computed to get a first logit.
    assert warm.usage.cached_tokens == (warm.usage.input_tokens - 1) // block * block > 0


@pytest.mark.live
def test_stop_sampling_seed_and_extra_fields_reach_the_engine(live: Engine) -> None:
    async def text(**fields: object) -> str:
        return (await complete(live, Request("hello", max_tokens=16, **fields))).text

    async def scenario() -> None:
        greedy = await text()
        one, again, two = [await text(seed=seed, temperature=1.5) for seed in (1, 1, 2)]
        assert one == again != two
        stop = greedy[3:6]
        assert await text(stop=(stop,)) == greedy[: greedy.index(stop)]
        assert (await complete(live, Request("hello", max_tokens=9, extra={"min_tokens": 9}))).done.usage.output_tokens == 9
        assert await text(priority=3) == greedy

    asyncio.run(scenario())


@pytest.mark.live
def test_a_model_the_engine_does_not_serve_is_refused_by_name(live: Engine) -> None:
    with pytest.raises(EngineError, match="nonesuch") as failure:
        asyncio.run(complete(live, Request("hello", model="nonesuch")))
    assert failure.value.status == 404
