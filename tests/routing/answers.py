"""What the tests of this room share: whole answers that nobody had to stream, and prices per output token."""

from __future__ import annotations

from labkit.cost import self_defined
from labkit.request import Chunk, Completion, Done, Timing, TokenLogprob, Usage


def answered(text: str, *logprobs: TokenLogprob, finish_reason: str = "stop") -> Completion:
    """A whole answer that nobody had to stream."""
    chunks = (Chunk(text, 0.0, logprobs=logprobs),)
    return Completion.of(chunks, Done(Usage(1, 1), Timing(0.0), finish_reason))


def per_token(name: str, price: str):
    """A price list of `price` for each output token."""
    return self_defined(name, "0", str(int(float(price) * 1_000_000)))
