"""Embedding texts that come one at a time, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from labkit.batching.dynamic import Batcher
from labkit.embeddings import Vectors
from labkit.request import clock


def embed_batcher(
    encode: Callable[[Sequence[str]], Vectors],
    *,
    max_size: int = 32,
    max_wait_s: float = 0.005,
    queue_limit: int = 1024,
) -> Batcher[str, Vectors]:
    """A batcher over an embedder's `encode`: `await batcher.submit(text)` is its vector; equal texts are encoded once.

    On the wall clock `encode` works in a thread, so that the loop goes on; on a virtual one in the loop, in no time.
    """

    async def run(texts: Sequence[str]) -> Sequence[Vectors]:
        virtual = isinstance(asyncio.get_running_loop(), clock.VirtualLoop)
        return list(encode(texts) if virtual else await asyncio.to_thread(encode, texts))

    return Batcher(run, max_size=max_size, max_wait_s=max_wait_s, queue_limit=queue_limit, identity=str)
