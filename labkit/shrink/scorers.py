"""Who says how predictable a text is: a language model that gives each of its tokens a probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from labkit.extras import extra
from labkit.request import EngineError, EngineUnreachable, InvalidValue

if TYPE_CHECKING:
    import httpx

    from labkit.engines import Engine


@dataclass(frozen=True, slots=True)
class Scored:
    """Tokens of a text: `spans` are their characters (start, end), `logprobs` their natural-log probabilities.

    A token that nothing stands before has -inf: nobody could expect it.
    """

    spans: tuple[tuple[int, int], ...]
    logprobs: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.spans) != len(self.logprobs):
            raise InvalidValue(f"{len(self.spans)} tokens have {len(self.logprobs)} probabilities; give one for each")


class Scorer(Protocol):
    """A language model that reads."""

    async def score(self, text: str, before: str = "") -> Scored:
        """The tokens of `text`, each with its probability after all that stands before it, `before` included."""


@dataclass(frozen=True)
class LiveScorer:
    """A model that vLLM serves: it reads the text and gives `prompt_logprobs`, one output token being paid for each window.

    Texts longer than the model's window are read in windows of `window` tokens that overlap by half.
    """

    engine: Engine
    window: int = 2000

    def __post_init__(self) -> None:
        _check_window(self.window)

    async def score(self, text: str, before: str = "") -> Scored:
        """As `Scorer.score`. Raises `EngineUnreachable` or `EngineError` where the engine does not give probabilities."""
        if not self.engine.url or self.engine.tokenizer_path is None:
            raise EngineUnreachable(
                f"{self.engine.model} is no live vLLM with a tokenizer on this machine, so it cannot score; connect to one"
            )
        import httpx

        context, _ = _encoded(self.engine.tokenizer_path, before)
        tokens, spans = _encoded(self.engine.tokenizer_path, text)
        found: list[float] = []
        key = {"Authorization": f"Bearer {self.engine.api_key}"} if self.engine.api_key else {}
        # Reading the certificates takes longer than a short answer does, and an engine on this machine has none.
        secure = self.engine.url.startswith("https:")
        async with httpx.AsyncClient(timeout=60, headers=key, trust_env=False, verify=secure) as client:
            for head, new in _windows(context, tokens, self.window):
                found += await self._logprobs(client, head, new)
        return Scored(spans, tuple(found))

    async def _logprobs(self, client: httpx.AsyncClient, head: list[int], new: list[int]) -> list[float]:
        import httpx

        body = {"model": self.engine.model, "prompt": head + new, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        try:
            answer = await client.post(f"{self.engine.url}/completions", json=body)
        except httpx.HTTPError as error:
            raise EngineUnreachable(f"{self.engine.model} could not be asked for probabilities: {error!r:.200}") from error
        if answer.status_code != 200:
            raise EngineError(f"{self.engine.model} gives no prompt_logprobs: {answer.status_code} {answer.text:.200}")
        try:
            rows = answer.json()["choices"][0]["prompt_logprobs"][len(head) :]
            return [
                float(row[str(token)]["logprob"]) if row else float("-inf") for token, row in zip(new, rows, strict=True)
            ]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self.engine.model} answered without prompt_logprobs for each token: {answer.text:.200}"
            ) from error


@dataclass(frozen=True)
class TransformersScorer:
    """A model in a folder, run by transformers on this machine's processors (extra "models")."""

    folder: str
    window: int = 2000

    def __post_init__(self) -> None:
        _check_window(self.window)

    async def score(self, text: str, before: str = "") -> Scored:
        """As `Scorer.score`. Raises `OSError` where the folder holds no model."""
        context, _ = _encoded(self.folder, before)
        tokens, spans = _encoded(self.folder, text)
        found: list[float] = []
        for head, new in _windows(context, tokens, self.window):
            found += _read(self.folder, head, new)
        return Scored(spans, tuple(found))


def _check_window(window: int) -> None:
    if window < 8:
        raise InvalidValue(f"window is {window} tokens; give the scorer 8 or more, at most its context window")


def _windows(context: Sequence[int], tokens: Sequence[int], window: int) -> Iterator[tuple[list[int], list[int]]]:
    """Pieces of `tokens` in order, each after what is read before it: `context`, and the tokens before the piece."""
    context = context[-(window // 4) :] if context else ()
    at = 0
    while at < len(tokens):
        earlier = tokens[max(0, at - window // 2) : at]
        head = [*context, *earlier]
        new = list(tokens[at : at + window - len(head)])
        yield head, new
        at += len(new)


def _read(folder: str, head: list[int], new: list[int]) -> list[float]:
    with extra("models"):
        import torch

    ids = torch.tensor([head + new])
    begin = max(1, len(head))
    with torch.no_grad():
        logits = _model(folder)(ids).logits[0, begin - 1 : -1].float()
    chosen = ids[0, begin:, None]
    found: list[float] = (logits.gather(1, chosen)[:, 0] - logits.logsumexp(-1)).tolist()
    return found if head else [float("-inf"), *found]


def _encoded(where: str, text: str) -> tuple[list[int], tuple[tuple[int, int], ...]]:
    encoding = _tokenizer(where).encode(text, add_special_tokens=False)
    return list(encoding.ids), tuple(encoding.offsets)


@cache
def _tokenizer(where: str) -> Any:
    with extra("models"):
        from tokenizers import Tokenizer

    file = Path(where) / "tokenizer.json"
    return Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(where)


@cache
def _model(folder: str) -> Any:
    with extra("models"):
        import torch
        from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
