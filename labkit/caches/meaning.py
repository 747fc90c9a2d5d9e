"""The running state of a semantic cache: vectors of the stored questions, checks of each entry, counts of the audit."""

from __future__ import annotations

import base64
import json
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.caches.acceptance import Observation
from labkit.caches.entry import Entry
from labkit.caches.match import Asked, Audit
from labkit.caches.rules import Scope
from labkit.caches.store import Store
from labkit.embeddings import Vectors, is_unit
from labkit.request import InvalidValue

if TYPE_CHECKING:
    from labkit.caches.index import Index

LAYER = "semantic"
VERDICTS = "semantic-verdicts"
_REMEMBERED = 50  # observations kept for each entry
Place = tuple[Scope, str]


class Meaning:
    """The state that a semantic cache over `store` keeps in memory. Threads may share it.

    It is rebuilt from the store and follows what the store takes in. `name` and `dimension` are the embedder's. `seed` makes
    the choice of hits to verify repeatable.
    """

    def __init__(self, store: Store, name: str, dimension: int, seed: int | None) -> None:
        from labkit.caches.index import Index  # FAISS takes long to import

        self.index: Index = Index(dimension)
        self._store, self._name, self._dimension = store, name, dimension
        self._texts: dict[Place, str] = {}
        self._seen: dict[Place, list[Observation]] = {}
        self._mark = (-1, 0)
        self._swept = 0
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._given = self._checked = self._wrong = 0

    def value(self, asked: Asked, vector: Vectors) -> bytes:
        """The value to store beside an answer, so that the answer can be found by meaning: question, context and vector."""
        found = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return _dump({"embedder": self._name, "context": asked.context, "text": asked.text, "vector": found})

    def text(self, place: Place) -> str | None:
        """The question whose answer is stored at `place`; None if it is not known."""
        return self._texts.get(place)

    def seen(self, place: Place) -> list[Observation]:
        """The earlier checks of the answer that is stored at `place`."""
        return self._seen.get(place, [])

    def drop(self, asked: Asked, key: str) -> None:
        """Forget the vector of an answer that is no longer in the store."""
        self.index.remove(asked.partition, key)

    def learn(self, about: Entry, score: float, right: bool, *, checking: bool) -> Entry:
        """Take in a comparison of an old answer with a fresh one, and return the entry that keeps it in the store.

        `checking`: the old answer would have been given, so the comparison counts in the audit.
        """
        place = about.scope, about.key
        with self._lock:
            if checking:
                self._checked += 1
                self._wrong += not right
            seen = [*self._seen.get(place, []), Observation(score, right)][-_REMEMBERED:]
            self._seen[place] = seen
        # Stored beside the entry and under its rules, so that whatever invalidates the answer also removes its checks.
        return Entry(
            about.scope, about.key, _dump([[o.score, o.right] for o in seen]), about.created, VERDICTS, about.lifetime,
            about.facts, about.tags, about.cost,
        )  # fmt: skip

    def gave(self) -> None:
        """Count a hit that is given unchecked."""
        with self._lock:
            self._given += 1

    def chosen(self, share: float) -> bool:
        """Draw whether this hit is one of the `share` of hits to verify with the engine."""
        with self._lock:
            return self._dice.random() < share

    def audit(self, confidence: float) -> Audit:
        """The audit of the hits so far."""
        with self._lock:
            return Audit(self._given, self._checked, self._wrong, confidence)

    def follow(self) -> None:
        """Take in what this process or another has stored since the last call."""
        with self._lock:
            entries, self._mark = self._store.follow((LAYER, VERDICTS), self._mark)
            for entry in entries:
                try:
                    self._take(entry)
                except (ValueError, KeyError, TypeError, InvalidValue):
                    continue  # this code did not write it; it is never found, so it is a miss
            self._swept += sum(entry.layer == LAYER for entry in entries)
            if self._swept > 256 + len(self.index) // 2:
                self._sweep()

    def _take(self, entry: Entry) -> None:
        value: Any = json.loads(entry.value)
        place = entry.scope, entry.key
        if entry.layer == VERDICTS:
            self._seen[place] = [Observation(float(score), bool(right)) for score, right in value]
            return
        vector = np.frombuffer(base64.b64decode(value["vector"]), "<f4").astype(np.float32)
        if value["embedder"] == self._name and vector.shape == (self._dimension,) and is_unit(vector):
            self.index.add((entry.scope, str(value["context"])), entry.key, vector)
            self._texts[place] = str(value["text"])

    def _sweep(self) -> None:
        """Drop vectors and checks of entries that have left the store, so that they do not pile up."""
        live = {(entry.scope, entry.key) for entry in self._store.entries(layer=LAYER)}
        for partition, key in self.index.places():
            if (partition[0], key) not in live:  # type: ignore[index]
                self.index.remove(partition, key)
        self._seen = {place: seen for place, seen in self._seen.items() if place in live}
        self._texts = {place: text for place, text in self._texts.items() if place in live}
        self._swept = 0


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
