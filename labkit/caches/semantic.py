"""The semantic cache: a question asked before in other words may be answered from the store.

**What is compared.** Only the last user message, as a vector. All else that shapes an answer (the system prompt, the turns
before, sampling, tools, model) must be equal to the letter: it is the *context*, and with the `Scope` it names a partition.
Vectors are searched within one partition only, so an answer of another tenant, permission set or model is not found at all.

**When an old answer is given.** The nearest entries are asked of the store, which refuses what is stale, invalidated or
damaged. `contrast.differences` then refuses those that say something else (a negation, another number or name). Of the
rest, `Acceptance` decides by score and by what has been seen of that entry.

**How it stays honest.** Whenever the engine answers although an entry was near, that entry's answer is compared with the
fresh one: so every miss teaches. And of the hits that would be given, the share `verify` is asked anew instead, at the
engine's price: from these alone comes `audit`, a bound on the share of wrong hits that assumes nothing about the score.
When the audit *shows* that the bound is broken, the cache stops giving answers until it has been emptied or replaced.

The vectors lie in the store with the entries, under the embedder's name: vectors of another model are never compared, and
kill -9 at any moment leaves what was stored whole, for the index is rebuilt from the store.
"""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labkit.caches import streams
from labkit.caches.acceptance import Acceptance, Decision, Observation, lower_bound, upper_bound
from labkit.caches.contrast import Difference, differences
from labkit.caches.entry import Entry, Miss, Ticket
from labkit.caches.index import Index
from labkit.caches.response import Control, worth
from labkit.caches.rules import CacheControl, Scope, digest, fingerprint, scope_of
from labkit.caches.store import Store
from labkit.embeddings import BadVector, Embedder, Vectors, is_unit, unit
from labkit.ledger import Price
from labkit.request import Chunk, Done, Event, Handler, InvalidRequest, Message, Request, clock

LAYER = "semantic"
VERDICTS = "semantic-verdicts"
_REMEMBERED = 50  # observations kept of an entry
_GONE: frozenset[Miss | None] = frozenset({"absent", "scope", "expired", "facts", "epoch", "clock", "corrupt"})
Agree = Callable[[str, str], bool]
Contrast = Callable[[str, str], Sequence[Difference]]


def same_text(cached: str, fresh: str) -> bool:
    """Whether two answers are the same, word for word, but for white space and letter case."""
    return cached.split() == fresh.split() or cached.casefold().split() == fresh.casefold().split()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the cache sees it: who may see its answer, everything around it, and its words."""

    scope: Scope
    context: str
    text: str

    @property
    def key(self) -> str:
        """What an entry made from it is called."""
        return digest(self.context, self.text)

    @property
    def partition(self) -> tuple[Scope, str]:
        """Where it is searched, and nowhere else."""
        return self.scope, self.context


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry near a question: its own words and answer, the score, what sets the two apart, and what was decided."""

    entry: Entry
    text: str
    answer: str
    score: float
    differences: tuple[Difference, ...]
    decision: Decision

    @property
    def accepted(self) -> bool:
        """Whether its answer may be given."""
        return self.decision.accept and not self.differences


@dataclass(frozen=True, slots=True)
class Match:
    """What a look-up came to: the candidates that were live, nearest first, and the one accepted, if any."""

    asked: Asked
    vector: Vectors = field(repr=False)
    candidates: tuple[Candidate, ...]
    hit: Candidate | None

    @property
    def nearest(self) -> Candidate | None:
        """The candidate to learn from where nothing was given: the hit, else the nearest that nothing sets apart."""
        return self.hit or next((c for c in self.candidates if not c.differences), None)

    def explain(self) -> str:
        """Why there was a hit or none, candidate by candidate, in words."""
        lines = [f"asked: “{self.asked.text}”"]
        for c in self.candidates:
            verdict = "given" if c is self.hit else "not given"
            against = "; ".join(map(str, c.differences)) or c.decision.why
            lines.append(f"{verdict}: “{c.text}” ({c.score:.3f}) → “{c.answer}” because {against}")
        if not self.candidates:
            lines.append("nothing stored in this scope and context is still good")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Audit:
    """What the verified hits say about the others, since the cache was opened.

    `given` hits were served unchecked; `checked` would have been, and were asked anew: `wrong` of those answers differed.
    """

    given: int
    checked: int
    wrong: int
    confidence: float = 0.95

    @property
    def at_most(self) -> float:
        """With `confidence`, the share of wrong hits is at most this, at every moment at once."""
        return upper_bound(self.wrong, self.checked, self.confidence)

    @property
    def at_least(self) -> float:
        """With `confidence`, the share of wrong hits is at least this."""
        return lower_bound(self.wrong, self.checked, self.confidence)

    def __str__(self) -> str:
        return (
            f"{self.given} hits given, {self.checked} more asked anew, {self.wrong} of those wrong: "
            f"at most {self.at_most:.1%} of hits are wrong ({self.confidence:.0%} confidence, however often one looks)"
        )


class SemanticCache:
    """Entries of a `Store` found by meaning.

    `acceptance` decides on scores, `contrast` on words, `agree` says whether an old and a fresh answer are the same.
    `verify` is the share of hits asked anew, `stop_above` the share of wrong hits that, once the audit shows it is
    exceeded, ends the giving (None: never). Raises `InvalidRequest` for shares outside 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        acceptance: Acceptance,
        *,
        contrast: Contrast = differences,
        agree: Agree = same_text,
        verify: float = 0.05,
        stop_above: float | None = None,
        candidates: int = 4,
        seed: int | None = None,
    ) -> None:
        if not 0 <= verify <= 1 or (stop_above is not None and not 0 <= stop_above <= 1):
            raise InvalidRequest(f"verify is {verify} and stop_above {stop_above}; both are shares from 0 to 1")
        if stop_above is not None and verify == 0:
            raise InvalidRequest("stop_above needs verify above 0: what is never checked never stops it")
        if candidates < 1:
            raise InvalidRequest(f"candidates is {candidates}; look at one at least")
        self.store, self.embedder, self.acceptance = store, embedder, acceptance
        self.stop_above = stop_above
        self._contrast, self._agree, self._verify, self._candidates = contrast, agree, verify, candidates
        self._dice = random.Random(seed)
        self._index = Index(embedder.dimension)
        self._seen: dict[tuple[Scope, str], list[Observation]] = {}
        self._marks = {LAYER: 0, VERDICTS: 0}
        self._swept = 0
        self._lock = threading.Lock()
        self._given = self._checked = self._wrong = 0

    def audit(self, confidence: float = 0.95) -> Audit:
        """What the verified hits say so far."""
        with self._lock:
            return Audit(self._given, self._checked, self._wrong, confidence)

    @property
    def stopped(self) -> bool:
        """Whether the audit has shown that more hits are wrong than `stop_above` allows."""
        return self.stop_above is not None and self.audit().at_least > self.stop_above

    def encode(self, text: str) -> Vectors:
        """The vector of one question, shape (dimension,), at length one. Raises `BadVector` where there is none."""
        vector: Vectors = unit(self.embedder.encode([text]), self.embedder.dimension, self.embedder.name)[0]
        return vector

    def look(self, asked: Asked, vector: Vectors, now: float, control: CacheControl | None = None) -> Match:
        """The entries near `asked` that may be seen at `now` (seconds since 1970), and which one may be given."""
        self._follow()
        found: list[Candidate] = []
        skipped = 0
        while len(found) < self._candidates:
            near = self._index.nearest(asked.partition, vector, self._candidates + skipped)
            fresh = near[len(found) + skipped :]
            if not fresh:
                break
            for key, score in fresh:
                looked = self.store.get(asked.scope, key, now, control, layer=LAYER, count=False)
                if looked.entry is None:
                    if looked.reason in _GONE:
                        self._index.remove(asked.partition, key)
                    else:
                        skipped += 1
                    continue
                candidate = self._candidate(asked, looked.entry, score)
                found.append(candidate)
                if candidate.accepted:
                    return Match(asked, vector, tuple(found), candidate)
        return Match(asked, vector, tuple(found[: self._candidates]), None)

    def keep(self, match: Match, chunks: list[Chunk], done: Done, plan: Plan) -> None:
        """Store a fresh answer to what was asked, and learn from it about the entry that was nearest."""
        fresh = "".join(chunk.text for chunk in chunks)
        whole = streams.may_be_kept(done)
        if whole and match.nearest is not None:
            self._learn(match.nearest, fresh, plan)
        if plan.control.no_store or not whole:
            self.store.refuse(LAYER, "no-store")
            return
        value = {
            "embedder": self.embedder.name,
            "context": match.asked.context,
            "text": match.asked.text,
            "vector": base64.b64encode(match.vector.astype("<f4").tobytes()).decode(),
            "stream": streams.encode(chunks, done),
        }
        control = plan.control
        entry = Entry(
            match.asked.scope, match.asked.key, streams.dump(value), plan.began, LAYER, control.ttl_s, control.facts,
            control.tags, worth(done, plan.price, match.asked.scope.model),
        )  # fmt: skip
        self.store.put(entry, plan.ticket, now=clock.unix_now())

    def give(self, candidate: Candidate, now: float, control: CacheControl) -> dict[str, Any] | None:
        """The stored stream of an accepted candidate, counted as a hit; None where it is gone by now."""
        looked = self.store.get(candidate.entry.scope, candidate.entry.key, now, control, layer=LAYER)
        if looked.entry is None:
            return None
        with self._lock:
            self._given += 1
        stream: dict[str, Any] = json.loads(looked.entry.value)["stream"]
        return stream

    def chosen_for_check(self) -> bool:
        """Whether this hit is one of the share that is asked anew."""
        with self._lock:
            return self._dice.random() < self._verify

    def _candidate(self, asked: Asked, entry: Entry, score: float) -> Candidate:
        value = json.loads(entry.value)
        apart = () if value["text"] == asked.text else tuple(self._contrast(value["text"], asked.text))
        decision = self.acceptance.decide(score, self._seen.get((entry.scope, entry.key), ()))
        return Candidate(entry, value["text"], streams.text_of(value["stream"]), score, apart, decision)

    def _learn(self, about: Candidate, fresh: str, plan: Plan) -> None:
        right = self._agree(about.answer, fresh)
        if plan.checking:
            with self._lock:
                self._checked += 1
                self._wrong += not right
        place = about.entry.scope, about.entry.key
        with self._lock:
            seen = [*self._seen.get(place, []), Observation(about.score, right)][-_REMEMBERED:]
            self._seen[place] = seen
        # Beside the entry, under its rules: whatever invalidates the answer forgets what was seen of it.
        verdict = Entry(
            about.entry.scope, about.entry.key, streams.dump([[o.score, o.right] for o in seen]), about.entry.created,
            VERDICTS, about.entry.lifetime, about.entry.facts, about.entry.tags, about.entry.cost,
        )  # fmt: skip
        self.store.put(verdict, plan.ticket, now=clock.unix_now())

    def _follow(self) -> None:
        """Take in what has been stored since, by this process or another."""
        with self._lock:
            entries, self._marks[LAYER] = self.store.follow(LAYER, self._marks[LAYER])
            for entry in entries:
                self._take(entry)
            verdicts, self._marks[VERDICTS] = self.store.follow(VERDICTS, self._marks[VERDICTS])
            for verdict in verdicts:
                self._seen[verdict.scope, verdict.key] = [Observation(s, r) for s, r in json.loads(verdict.value)]
            self._swept += len(entries)
            if self._swept > 256 + len(self._index) // 2:
                self._sweep()

    def _take(self, entry: Entry) -> None:
        try:
            value = json.loads(entry.value)
            vector = np.frombuffer(base64.b64decode(value["vector"]), "<f4").astype(np.float32)
            name, context = value["embedder"], value["context"]
        except (ValueError, KeyError, TypeError):
            return  # not written by this code: a miss
        if name == self.embedder.name and vector.shape == (self.embedder.dimension,) and is_unit(vector):
            self._index.add((entry.scope, context), entry.key, vector)

    def _sweep(self) -> None:
        """Drop vectors and observations of entries that the store has given up, so that they do not pile up."""
        live = {(entry.scope, entry.key) for entry in self.store.entries(layer=LAYER)}
        for partition, key in self._index.places():
            if (partition[0], key) not in live:  # type: ignore[index]
                self._index.remove(partition, key)
        self._seen = {place: seen for place, seen in self._seen.items() if place in live}
        self._swept = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided for a request before the engine was asked; `checking`: a hit is being verified."""

    control: CacheControl
    ticket: Ticket
    began: float
    price: Price | None
    checking: bool


def asked_of(request: Request, *, system_version: str = "", per_user: bool = False) -> Asked | None:
    """What `request` asks and in which context; None where its last message is not a user's, with words in it."""
    last = request.messages[-1]
    if last.role != "user" or not last.content.strip():
        return None
    around = replace(request, messages=(*request.messages[:-1], Message("user", "")))
    scope = scope_of(request, system_version=system_version, per_user=per_user)
    return Asked(scope, fingerprint(around, system_version=system_version), last.content)


def semantic_cache(
    inner: Handler,
    cache: SemanticCache,
    *,
    control: Control | None = None,
    price: Price | None = None,
    currency: str = "USD",
    system_version: str = "",
    per_user: bool = False,
) -> Handler:
    """Answer from `cache` what was asked before in the same scope and context, in words close enough; else ask `inner`.

    `control`, `price`, `currency`, `system_version` and `per_user` are those of `response_cache`, which belongs around this
    lever: what is asked word for word needs no vector. A hit's `Done` has zero usage, cost 0 and "semantic-cache" on its
    route; its time to first token holds the embedding. A request that is not a user's question, or that wants a random
    sample, goes to `inner` and leaves no trace. A store in trouble costs hits, never answers.
    """
    chosen = control or CacheControl()
    store = cache.store

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        sent, sent_unix = clock.now(), clock.unix_now()
        wanted = chosen(request) if callable(chosen) else chosen
        asked = asked_of(request, system_version=system_version, per_user=per_user)
        if asked is None or streams.wants_a_sample(request) or (wanted.no_cache and wanted.no_store):
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield event
            return

        ticket = store.ticket(asked.scope)  # before the look: what is invalidated from here on is not stored again
        try:
            vector = await clock.off_loop(lambda: cache.encode(asked.text))
        except BadVector:  # an embedder in trouble costs hits, never answers
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield event
            return
        match = Match(asked, vector, (), None) if wanted.no_cache else cache.look(asked, vector, sent_unix, wanted)
        checking = False
        if match.hit is not None and not cache.stopped:
            checking = cache.chosen_for_check()
            given = None if checking else cache.give(match.hit, clock.unix_now(), wanted)
            if given is not None:
                for event in streams.replay(given, streams.SEMANTIC, currency, sent, sent_unix):
                    yield event
                return
            if checking:
                store.miss(LAYER, "verified")
        else:
            store.miss(LAYER, _reason(match, wanted))

        plan = Plan(wanted, ticket, clock.unix_now(), price, checking)
        answers = streams.taken_down(inner, request, lambda chunks, done: cache.keep(match, chunks, done, plan))
        async with aclosing(answers) as events:
            async for event in events:
                yield event

    return handle


def _reason(match: Match, wanted: CacheControl) -> Miss:
    if wanted.no_cache:
        return "no-cache"
    if not match.candidates:
        return "absent"
    return "contrast" if match.candidates[0].differences else "unlike"
