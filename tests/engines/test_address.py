"""Addresses and keys: what works, what is refused with a remedy, and that a key is never shown."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback

import pytest

from labkit.engines import OpenAIEngine
from labkit.engines.address import Address
from labkit.request import EngineError, InvalidValue
from tests.engines.wires import JSON, Endpoint, delta, sse

OK = sse(delta("x", finish="stop"))
KEY = "sk-proj-Zx81_secret/+="


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://x.test/v1", "http://x.test/v1/chat/completions"),
        ("http://x.test/v1/", "http://x.test/v1/chat/completions"),
        ("  http://x.test/v1//\n", "http://x.test/v1/chat/completions"),
        ("http://x.test:8080", "http://x.test:8080/chat/completions"),
        ("HTTPS://X.test/v1", "https://x.test/v1/chat/completions"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
        ("http://x.test/v1/chat/completions", "http://x.test/v1/chat/completions"),
        (
            "https://a.test/openai/deployments/d1?api-version=2024-06-01",
            "https://a.test/openai/deployments/d1/chat/completions?api-version=2024-06-01",
        ),
        ("http://x.test/v1/?a=b%20c&d", "http://x.test/v1/chat/completions?a=b+c&d="),
    ],
)
def test_an_address_leads_to_its_completions(url, asked):
    endpoint = Endpoint(OK, url=url)
    endpoint.ask()
    assert str(endpoint.asked[0].url) == asked


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "should look like"),
        ("ftp://x.test/v1", "should look like"),
        ("", "should look like"),
        (None, "NoneType"),
        ("http:///v1", "should look like"),
        ("http://:8000/v1", "names no host"),
        ("http://x.test:0/v1", "names no port"),
        ("http://x.test:99999/v1", "port"),
        ("http://x.test:80a/v1", "port"),
        ("http://[::1/v1", "malformed"),
        ("http://xn--/v1", "malformed"),
        ("http://☃.test/v1", "malformed"),
        ("http://256.256.256.256/v1", "malformed"),
        ("http://x.test/" + "p" * 70_000, "cannot be read"),
        ("http://x.test/v 1", "blank"),
        ("http://x.test/v1#top", "'#'"),
        (f"http://x.test/v1?key={KEY}", "api_key"),
        (f"http://x.test/v1?api-version=1&subscription-key={KEY}", "api_key"),
        (f"http://x.test/v1?access_token={KEY}", "api_key"),
        (f"http://u:{KEY}@x.test:99999/v1", "port"),
        (f"http://u:{KEY} @x.test/v1", "blank"),
    ],
)
def test_an_address_that_cannot_work_says_what_to_set(url, said):
    with pytest.raises(InvalidValue, match=said) as failure:
        OpenAIEngine(url)
    assert KEY not in everything(failure.value)


@pytest.mark.parametrize(
    ("url", "key", "headers"),
    [
        ("http://x.test/v1", KEY, {"authorization": f"Bearer {KEY}"}),
        ("http://x.test/v1", f" {KEY}\r\n", {"authorization": f"Bearer {KEY}"}),
        ("http://x.test/v1", "", {}),
        ("http://x.test/d?api-version=1", KEY, {"api-key": KEY}),
        ("http://x.test/d?api-version=1", "eyJ.jwt", {"authorization": "Bearer eyJ.jwt"}),
        ("http://us%40er:pa%3Ass@x.test/v1", "", {"authorization": "Basic " + base64.b64encode(b"us@er:pa:ss").decode()}),
    ],
)
def test_a_key_goes_where_the_endpoint_looks_for_it(url, key, headers):
    endpoint = Endpoint(OK, url=url, key=key)
    endpoint.ask()
    sent = endpoint.asked[0].headers
    assert {name: sent[name] for name in ("authorization", "api-key") if name in sent} == headers
    assert "@" not in str(endpoint.asked[0].url), "a user in the address would stand in httpx's log"


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True), ("LOCALHOST", True), ("127.0.0.1", True), ("127.8.9.10", True), ("127.1", True),
        ("[::1]", True), ("127.0.0.1.x.test", False), ("127.x.test", False), ("localhost.x.test", False),
        ("128.0.0.1", False),
    ],
)  # fmt: skip
def test_only_this_machine_is_asked_past_a_proxy(host, here):
    assert Address.parse(f"http://{host}:8000/v1").loopback is here


@pytest.mark.parametrize("key", ["sk\n-zzz", "sk zzz", "sk-é", "sk-\x00z", "ключ", "sk-zz\ud83d", 7, None, b"sk-zzz"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key):
    with pytest.raises(InvalidValue, match="API key") as failure:
        OpenAIEngine("http://x.test/v1", key)
    assert "zz" not in everything(failure.value)
    assert "ключ" not in everything(failure.value)


def test_two_ways_in_are_one_too_many():
    with pytest.raises(InvalidValue, match="only one"):
        OpenAIEngine("http://u:word@x.test/v1", KEY)


def everything(error: BaseException) -> str:
    """All that anybody would print of an error."""
    return "".join([*traceback.format_exception(error), repr(error), repr(vars(error)), repr(error.__cause__)])


ECHOES = {
    "in an error": (f'{{"error": {{"message": "Incorrect API key: {KEY}"}}}}'.encode(), 401, JSON),
    "in a page": (f"<p>no {KEY}</p>".encode(), 403, {}),
    "in an error under 200": (f'{{"error": "bad {KEY}"}}'.encode(), 200, JSON),
    "in an error event": (f'event: error\ndata: {{"message": "bad {KEY}"}}\n\n'.encode(), 200, {}),
    "in what is no JSON": (f"data: {{{KEY}\n\n".encode(), 200, {}),
    "in what is no answer": (f"<html>{KEY}</html>".encode(), 200, {}),
    "in the encoding": (b"x", 200, {"content-encoding": KEY}),
    "in a redirect": (b"", 307, {"location": f"http://y.test/{KEY}/v1"}),
    "in the finish reason": (sse(delta("x", finish="error", index=0)).replace(b'"error"', b'"error"'), 200, {}),
    "in a choice's error": (sse({"choices": [{"error": {"message": f"bad {KEY}"}}]}), 200, {}),
}


@pytest.mark.parametrize("where", ECHOES)
def test_a_key_that_the_endpoint_sends_back_is_not_shown(where, caplog):
    body, status, headers = ECHOES[where]
    endpoint = Endpoint(body, status, headers, key=KEY)
    with caplog.at_level(logging.DEBUG), pytest.raises(EngineError) as failure:
        endpoint.ask()
    assert KEY not in everything(failure.value)
    assert KEY not in caplog.text
    assert KEY not in repr(endpoint.engine) + repr(endpoint.engine._http.address) + str(endpoint.engine)


def test_a_field_name_with_the_key_in_it_is_not_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        Endpoint(sse({**delta("x", finish="stop"), "usage": {f"{KEY}_tokens": 3}}), key=KEY).ask()
    assert "not read" in caplog.text
    assert KEY.lower() not in caplog.text.lower()


def test_a_short_key_is_hidden_as_a_word_only():
    hide = Address.parse("http://x.test/v1", "none").hide
    assert hide("key none is wrong; nonetheless") == "key [API key] is wrong; nonetheless"


def test_an_address_where_nothing_listens_is_shown_without_its_password():
    engine = OpenAIEngine(f"http://user:{KEY.replace('/', '%2F')}@127.0.0.1:9/v1", model="m")
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9/v1") as failure:
        asyncio.run(engine.probe())
    assert "secret" not in everything(failure.value)
