"""Caches for results computed on the way to an answer: embeddings, retrieved passages, tool results.

One rule for all: a result is kept under everything it depends on, in the scope of those who may see it. It is kept by the
same `Store` as whole answers, so lifetimes, invalidation (by key, tag, tenant or epoch; dry run first) and accounts work in
the same way. Errors are never kept. Callers who ask a search or a tool for the same result at the same time wait for one
computation. A tool that changes the world is not cached: `writing_tool` runs it every time and removes the results that it
made stale.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.caches.entry import Entry
from labkit.caches.rules import CacheControl, Scope, digest
from labkit.caches.store import Store
from labkit.embeddings import Embedder, Vectors, is_unit
from labkit.request import InvalidRequest, InvalidValue, clock

EMBEDDING, RETRIEVAL, TOOL = "embedding", "retrieval", "tool"
Tool = Callable[[Scope, Mapping[str, Any]], Awaitable[Any]]
"""A tool: takes the scope it is called for and its arguments (JSON), and returns JSON."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that a search found: its id, its words, and how well it fits (higher is better)."""

    id: str
    text: str
    score: float


Search = Callable[[Scope, str, int], Awaitable[Sequence[Passage]]]
"""A search: takes the scope it is made for, the query, and the largest number of passages."""


class CachedEmbedder:
    """An `Embedder` that computes each text once and keeps its vector in `store`.

    The missing vectors of a batch are computed together. `scope` says whose texts these are. With one scope for all tenants,
    a tenant could learn from response times what others have embedded. Vectors never expire (the model's name is part of
    their key); they make room for other entries by their worth. `now` gives the time in seconds since 1970.
    """

    def __init__(self, embedder: Embedder, store: Store, scope: Scope, *, now: Callable[[], float]) -> None:
        self._embedder, self._store, self._scope, self._now = embedder, store, scope, now

    @property
    def name(self) -> str:
        """The wrapped embedder's own name, because the vectors are the same."""
        return self._embedder.name

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._embedder.dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text, shape (len(texts), dimension), float32; only texts without a stored vector are computed.

        Raises `InvalidValue` for a lone string.
        """
        if isinstance(texts, str):
            raise InvalidValue(f"encode wants a list of texts, not the one text {texts!r:.60}; write [text]")
        now, wanted = self._now(), CacheControl(ttl_s=None)
        found: dict[str, Vectors] = {}
        ticket = self._store.ticket(self._scope)
        for text in dict.fromkeys(texts):
            kept = self._store.get(self._scope, self._key(text), now, wanted, layer=EMBEDDING).entry
            if kept is not None and len(kept.value) == 4 * self.dimension:
                vector = np.frombuffer(kept.value, "<f4").astype(np.float32)
                if is_unit(vector):  # otherwise it is damaged, and is computed again
                    found[text] = vector
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for text, vector in zip(missing, self._embedder.encode(missing) if missing else (), strict=True):
            found[text] = vector
            entry = Entry(self._scope, self._key(text), vector.astype("<f4").tobytes(), now, EMBEDDING)
            self._store.put(entry, ticket)
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, self.dimension), np.float32)

    def _key(self, text: str) -> str:
        return digest(self.name, str(self.dimension), text)


def cached_search(
    search: Search, store: Store, *, version: Callable[[], str], control: CacheControl | None = None
) -> Search:
    """`search` with its results cached by query, scope, number of passages and `version` of the corpus.

    The version is read before the search begins and is part of the key: after a change of the corpus, every query is
    searched again. Permissions are part of the scope, so a user with fewer permissions never sees a passage that was found
    for a user with more.
    """
    memo = Memo(store, RETRIEVAL, control)

    async def find(scope: Scope, query: str, n: int) -> list[Passage]:
        async def compute() -> Any:
            return [[p.id, p.text, p.score] for p in await search(scope, query, n)]

        return [Passage(*p) for p in await memo.result(scope, digest(version(), query, str(n)), compute)]

    return find


def reading_tool(tool: Tool, store: Store, name: str, *, control: Callable[[Mapping[str, Any]], CacheControl]) -> Tool:
    """A tool that only reads, with its results cached by name, arguments and scope, as `control(arguments)` says.

    There is no default lifetime: only the tool's owner knows how long "order 17 is on its way" holds. Arguments are compared
    as JSON with sorted names. A call raises `InvalidRequest` if its arguments are not JSON.
    """
    memo = Memo(store, TOOL, None)

    async def call(scope: Scope, arguments: Mapping[str, Any]) -> Any:
        try:
            key = digest(name, json.dumps(arguments, sort_keys=True, separators=(",", ":"), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"the arguments of the tool {name!r} are no JSON: {error}") from error
        return await memo.result(scope, key, lambda: tool(scope, arguments), control(arguments))

    return call


def writing_tool(tool: Tool, store: Store, *, stale: Callable[[Mapping[str, Any]], Collection[str]]) -> Tool:
    """A tool that changes something: it runs every time, and the tags in `stale(arguments)` are invalidated.

    Results with these tags are removed for the caller's tenant only. They are removed before the tool runs and again after
    it, even if it failed: a result read while it ran may show the state before the change. Raises `CacheError` if they
    cannot be removed.
    """

    async def call(scope: Scope, arguments: Mapping[str, Any]) -> Any:
        def take_out() -> None:
            for tag in tags:
                store.delete(tag=tag, tenant=scope.tenant, dry_run=False)

        tags = sorted(stale(arguments))
        take_out()
        try:
            return await tool(scope, arguments)
        finally:
            take_out()

    return call


class Memo:
    """A cache for the JSON results of any computation, in one layer of a store."""

    def __init__(self, store: Store, layer: str, control: CacheControl | None) -> None:
        self._store, self._layer, self._control = store, layer, control or CacheControl()
        self._under_way: dict[Hashable, _Shared] = {}

    async def result(
        self,
        scope: Scope,
        key: str,
        compute: Callable[[], Awaitable[Any]],
        control: CacheControl | None = None,
        cost: float = 1.0,
    ) -> Any:
        """The result of `compute`, or the one it gave before for an equal `scope` under `key`.

        Errors are passed on and not kept. `cost` is what computing the result costs, in the unit that all entries of the
        store share. Raises `InvalidValue` for a result that is not JSON.
        """
        wanted = control or self._control
        now = clock.unix_now()
        kept = self._store.get(scope, key, now, wanted, layer=self._layer).entry
        if kept is not None:
            return json.loads(kept.value)
        ticket = self._store.ticket(scope)

        async def work() -> bytes:
            value = await compute()
            try:
                data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
            except (TypeError, ValueError) as error:
                raise InvalidValue(f"a result for the layer {self._layer!r} is no JSON: {error}") from error
            if wanted.no_store:
                self._store.refuse(self._layer, "no-store")
            else:
                entry = Entry(scope, key, data, now, self._layer, wanted.ttl_s, wanted.facts, wanted.tags, cost)
                self._store.put(entry, ticket, now=clock.unix_now())
            return data

        if wanted.no_cache or wanted.no_store:
            return json.loads(await work())
        # The ticket is part of the mark: after an invalidation, nobody waits for a computation that began before it.
        mark = (asyncio.get_running_loop(), scope, key, ticket, tuple(sorted(wanted.facts.items())))
        shared = self._under_way.get(mark)
        if shared is None:
            shared = self._under_way[mark] = _Shared(asyncio.create_task(work()))
            shared.task.add_done_callback(lambda _: self._under_way.pop(mark, None))
        return json.loads(await shared.wait())


class _Shared:
    """One computation for several waiting callers; it is cancelled when the last of them has left."""

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self._waiting = 0

    async def wait(self) -> bytes:
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if self._waiting == 0 and not self.task.done():
                self.task.cancel()
