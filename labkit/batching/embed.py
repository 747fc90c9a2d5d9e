"""Embedding in batches texts that arrive one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from labkit.batching.batcher import Batcher
from labkit.request import clock

if TYPE_CHECKING:
    from labkit.embeddings import Vectors


def embed_batcher(
    encode: Callable[[Sequence[str]], Vectors],
    *,
    max_size: int = 32,
    max_wait_s: float = 0.005,
    queue_limit: int = 1024,
) -> Batcher[str, Vectors]:
    """A batcher over an embedder's `encode`: `await batcher.submit(text)` returns the text's vector.

    Equal texts that wait or run at the same time are encoded once. On the wall clock `encode` runs in a thread, so that it
    does not block the event loop; on a virtual clock it runs in the loop and takes no time.
    """

    async def run(texts: Sequence[str]) -> Sequence[Vectors]:
        return list(await clock.off_loop(lambda: encode(texts)))

    return Batcher(run, max_size=max_size, max_wait_s=max_wait_s, queue_limit=queue_limit, identity=str)
