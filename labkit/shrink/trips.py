"""The same requests sent each way, on a live engine: what it read, and what its prefix cache served, by its own count.

Each way has a cache of its own (vLLM's `cache_salt`), so that none finds what another one wrote. "no cache" gives each
request one of its own, so that nothing is found: the control.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from labkit.caches import PrefixCache
from labkit.request import Handler, InvalidValue, Request, Usage, clock, complete
from labkit.shrink.behind import BehindPrefix, Once
from labkit.shrink.shrinker import Shrinker
from labkit.tokens import Tokenizer

UNTOUCHED, NO_CACHE, EACH, BEHIND, ONCE = "untouched", "no cache", "each", "behind", "once"


@dataclass(frozen=True, slots=True)
class Trip:
    """One request sent one way: what it used, what its cache should have served (None: not predicted), and TTFT in s.

    `ttft_s` is None for an answer that began without text. `shrink_s`: what shortening took, in s.
    """

    way: str
    number: int
    usage: Usage
    predicted: int | None
    ttft_s: float | None
    shrink_s: float


def five_ways(shrinker: Shrinker, messages: int = 1, characters: int = 0) -> dict[str, Shrinker | None]:
    """The ways to send a prompt: whole without a cache and with one, and with `shrinker` in three places.

    Over all of it, behind its prefix, or over its prefix once. The prefix is `messages` and `characters` long, as in
    `BehindPrefix`.
    """
    return {
        NO_CACHE: None,
        UNTOUCHED: None,
        EACH: shrinker,
        BEHIND: BehindPrefix(shrinker, messages, characters),
        ONCE: Once(shrinker, messages, characters),
    }


async def both_ways(
    handler: Handler,
    requests: Sequence[Request],
    ways: Mapping[str, Shrinker | None],
    tokenizer: Tokenizer | None = None,
    block_size: int = 128,
) -> list[Trip]:
    """Send `requests` (two or more, one after the other) to `handler` in each of the `ways`, in turns.

    With the engine's own `tokenizer` (it must have a chat template) and `block_size`, the cached tokens are predicted by
    vLLM's rules from the tokens of the prompts (`labkit.caches.PrefixCache`), for a memory that holds them all, and for
    requests that do not go on from an answer. The engine must serve nobody else. Raises `InvalidValue` for fewer than two
    requests, of which none could find anything.
    """
    if len(requests) < 2:
        raise InvalidValue(f"{len(requests)} requests find nothing in a cache; send two or more that share a prefix")
    run = uuid.uuid4().hex[:8]
    room = 2 + sum(sum(len(m.content) for m in request.messages) + 64 for request in requests) // block_size
    caches = {way: PrefixCache(room + len(requests), block_size) for way in ways}
    found: list[Trip] = []
    for number, request in enumerate(requests):
        for way, shrinker in ways.items():
            begun = clock.now()
            shrunk = request if shrinker is None else replace(request, messages=(await shrinker.shrink(request)).after)
            took = clock.now() - begun
            salt = f"{run} {way} {number}" if way == NO_CACHE else f"{run} {way}"
            predicted = None
            if tokenizer is not None and tokenizer.render is not None:
                ids = tokenizer.encode(tokenizer.render(shrunk.messages))
                predicted = caches[way].serve(ids, salt=salt)
            done = (await complete(handler, replace(shrunk, extra={**request.extra, "cache_salt": salt}))).done
            found.append(Trip(way, number, done.usage, predicted, done.timing.ttft, took))
    return found
