"""Tokenizers behind one interface."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from labkit.lab import model_path
from labkit.request import InvalidValue, Message
from labkit.tokens import TokenizerUnavailable, available, tokenizer

LAB, TEKKEN = tokenizer("lab"), tokenizer("mistral-tekken")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a tokenizer opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_at_least_three_families_open_without_a_network(no_network: None) -> None:
    opened = [tokenizer(name) for name in available()]
    assert len({t.family for t in opened}) >= 3
    for t in opened:
        assert t.count("Where is my order TS-48213?") > 3


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_byte_level_tokenizers_give_the_text_back(text: str) -> None:
    assert TEKKEN.decode(TEKKEN.encode(text)) == text
    assert LAB.decode(LAB.encode(text)) == text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@settings(deadline=None)
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(LAB.pieces(text)) == text
    assert "".join(TEKKEN.pieces(text)) == text


def test_digits_stand_alone_in_the_labs_tokenizer() -> None:
    assert LAB.pieces("48213") == list("48213")


def test_a_conversation_is_counted_as_transformers_renders_it() -> None:
    messages = [Message("system", "You work at the support desk."), Message("user", "Where is TS-48213?")]
    peer = AutoTokenizer.from_pretrained(model_path("large"))
    chat = [{"role": m.role, "content": m.content} for m in messages]
    rendered = peer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=True)
    assert LAB.count_chat(messages) == len(rendered["input_ids"])


def test_a_tokenizer_without_a_template_says_so() -> None:
    with pytest.raises(TokenizerUnavailable, match="template"):
        TEKKEN.count_chat([Message("user", "hi")])


def test_tiktoken_without_its_files_says_what_to_do_and_downloads_nothing(
    no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerUnavailable, match="TIKTOKEN_CACHE_DIR"):
        tokenizer("tiktoken/o200k_base")
    with pytest.raises(InvalidValue, match="o200k_base"):
        tokenizer("tiktoken/no_such_encoding")


def test_an_unknown_name_lists_what_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TokenizerUnavailable, match="mistral-tekken"):
        tokenizer("mistral-tekke")
