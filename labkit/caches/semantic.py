"""The semantic cache: a question that was asked before in other words may be answered from the store.

**What is compared.** Only the last user message, as a vector. Everything else that shapes an answer (the system prompt,
earlier turns, sampling, tools, model) must be equal to the letter. It is the *context*, and together with the `Scope` it
names a partition. Vectors are searched within one partition only, so an answer of another tenant, permission set or model is
never found.

**When an old answer is given.** The cache asks the store for the nearest entries; the store refuses stale, invalidated and
damaged ones. `contrast.differences` then refuses entries whose question asks something else (a negation, another number or
name). Of the rest, `Acceptance` decides by score and by earlier checks of the entry.

**How errors are measured.** Whenever the engine answers although an entry was near that no difference sets apart, the
entry's answer is compared with the fresh one. So the cache learns from its misses. And the share `verify` of the hits is not
given: the engine is asked, at its price, and the two answers are compared. From these hits alone comes `audit`, a bound on
the share of wrong hits that assumes nothing about the score. When the audit *shows* that the share of wrong hits is above
`stop_above`, the cache stops giving answers by meaning. It stays stopped: the counts are never reset, so make a new
`SemanticCache`.

**What is kept.** Each answer once, by the rules and under the key of the response cache. This lever is a response cache as
well: a question asked word for word is answered without an embedding. Beside the answer, in a layer of its own, lie the
question's words, its context and its vector, with the embedder's name, so that vectors of different models are never
compared. The index is rebuilt from the store, so `kill -9` at any moment leaves everything that was stored intact.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field

from labkit.caches import streams
from labkit.caches.acceptance import Acceptance
from labkit.caches.contrast import Difference, differences
from labkit.caches.entry import CacheError, Lookup, Miss
from labkit.caches.match import Asked, Audit, Candidate, Match, asked_of
from labkit.caches.meaning import LAYER, Meaning
from labkit.caches.policy import CachePolicy
from labkit.caches.repeats import LAYER as ANSWERS
from labkit.caches.repeats import Plan, asked_anew, repeating
from labkit.caches.response import check
from labkit.caches.rules import CacheControl
from labkit.caches.store import Store
from labkit.embeddings import Embedder, Vectors, unit
from labkit.request import Completion, Event, Handler, InvalidValue, Lever, Request, books_in, clock, hops, served

_GONE: frozenset[Miss | None] = frozenset({"absent", "scope", "expired", "facts", "epoch", "clock", "corrupt"})
Agree = Callable[[str, str], bool]
Contrast = Callable[[str, str], Sequence[Difference]]


def same_text(cached: str, fresh: str) -> bool:
    """Whether two answers are the same word for word; white space and letter case may differ."""
    return cached.split() == fresh.split() or cached.casefold().split() == fresh.casefold().split()


@dataclass(frozen=True)
class SemanticCache(Lever):
    """Answers from `store` if the question was asked before in the same scope and context, in the same or similar words.

    A question asked word for word is answered as by `ResponseCache`. Otherwise `embedder` finds questions in similar words:
    `acceptance` decides by scores, `contrast` by words, and `agree` says whether an old and a fresh answer are the same.
    `verify` is the share of hits for which the engine is asked instead, to check them. `stop_above` is a limit for the share
    of wrong hits: once the audit shows that it is exceeded, no more answers are given by meaning (None: no limit).
    `candidates` is how many entries are looked at, nearest first; `seed` makes the choice of hits to verify repeatable.
    Raises `InvalidValue` for shares outside 0 to 1, for `stop_above` without `verify`, for fewer than one candidate, and for
    a store or policy of the wrong type.

    A hit's `Done` has zero usage and cost 0; its time to first token includes the embedding. A request whose last message is
    not a user's question is answered word for word only. If anything of the cache fails, the engine answers, and the `Done`
    says so in `faults`.

    Use this object itself to ask for `audit()`, `stopped` and `look()`. If it stands in several stacks, they share all that
    it has seen and counted.
    """

    store: Store
    embedder: Embedder
    acceptance: Acceptance
    _: KW_ONLY
    policy: CachePolicy = field(default_factory=CachePolicy)
    contrast: Contrast = differences
    agree: Agree = same_text
    verify: float = 0.05
    stop_above: float | None = None
    candidates: int = 4
    seed: int | None = None
    _meaning: Meaning = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check(self.store, self.policy)
        if not 0 <= self.verify <= 1 or (self.stop_above is not None and not 0 <= self.stop_above <= 1):
            raise InvalidValue(f"verify is {self.verify} and stop_above {self.stop_above}; both are shares from 0 to 1")
        if self.stop_above is not None and self.verify == 0:
            raise InvalidValue("stop_above needs verify above 0: what is never checked never stops it")
        if self.candidates < 1:
            raise InvalidValue(f"candidates is {self.candidates}; look at one at least")
        meaning = Meaning(self.store, self.embedder.name, self.embedder.dimension, self.seed)
        object.__setattr__(self, "_meaning", meaning)

    def over(self, inner: Handler) -> Handler:
        """`inner` with the cache in front of it."""
        beneath = books_in(inner)

        async def ask(request: Request, plan: Plan) -> AsyncGenerator[Event, None]:
            search = await self._search(request, plan)
            given = plan.aside.attempt(lambda: self._give(search, plan))
            if given is not None:
                events = served(plan.aside.beside(streams.played(given)), request, beneath)
            else:
                events = asked_anew(inner, request, plan, lambda answer: self._keep(search, answer, plan))
            async with aclosing(events) as stream:
                async for event in stream:
                    yield event

        return repeating(self.store, self.policy, inner, hops.SEMANTIC_CACHE, ask)

    def audit(self, confidence: float = 0.95) -> Audit:
        """The audit of the hits so far."""
        return self._meaning.audit(confidence)

    @property
    def stopped(self) -> bool:
        """Whether the audit has shown that more hits are wrong than `stop_above` allows."""
        return self.stop_above is not None and self.audit().at_least > self.stop_above

    def asked(self, request: Request) -> Asked | None:
        """What `request` asks, and in which context; None if its last message is not a user's or holds no words."""
        return asked_of(request, self.policy)

    def encode(self, text: str) -> Vectors:
        """The vector of one question, shape (dimension,), of length one. Raises `BadVector` if the embedder gives none."""
        vector: Vectors = unit(self.embedder.encode([text]), self.embedder.dimension, self.embedder.name)[0]
        return vector

    def look(self, asked: Asked, vector: Vectors, now: float, control: CacheControl | None = None) -> Match:
        """The answers near `asked` that are valid at `now` (seconds since 1970), and which one may be given.

        `vector` is that of the question, shape (dimension,), of length one. Raises `CacheError` if the store cannot be read.
        """
        meaning = self._meaning
        meaning.follow()
        found: list[Candidate] = []
        skipped = 0
        while len(found) < self.candidates:
            near = meaning.index.nearest(asked.partition, vector, self.candidates + skipped)
            fresh = near[len(found) + skipped :]
            if not fresh:
                break
            for key, score in fresh:
                looked = self.store.get(asked.scope, key, now, control, layer=ANSWERS, count=False)
                if looked.trouble is not None:
                    raise looked.trouble
                text = meaning.text((asked.scope, key))
                if looked.entry is None or text is None:
                    if looked.reason in _GONE:
                        meaning.drop(asked, key)
                    else:
                        skipped += 1
                    continue
                candidate = self._candidate(asked, looked, text, looked.entry.value, score)
                found.append(candidate)
                if candidate.accepted:
                    return Match(asked, tuple(found), candidate)
        return Match(asked, tuple(found[: self.candidates]))

    def keep(self, asked: Asked, vector: Vectors, answer: Completion, plan: Plan) -> None:
        """Store a whole answer so that it is found by its words and by its meaning. Raises what `Plan.keep` raises."""
        plan.keep(answer, [(LAYER, self._meaning.value(asked, vector))])

    def _candidate(self, asked: Asked, looked: Lookup, text: str, kept: bytes, score: float) -> Candidate:
        assert looked.entry is not None
        apart = () if text == asked.text else tuple(self.contrast(text, asked.text))
        decision = self.acceptance.decide(score, self._meaning.seen((asked.scope, looked.entry.key)))
        return Candidate(looked, text, streams.text_of(kept), score, apart, decision)

    async def _search(self, request: Request, plan: Plan) -> _Search:
        """Find the entries near the question, and decide about them; errors go to `plan.aside`."""
        asked = plan.aside.attempt(lambda: self.asked(request))
        search = _Search(asked)
        if asked is None:
            return search
        try:
            search.vector = vector = await clock.off_loop(lambda: self.encode(asked.text))
        except Exception as error:  # noqa: BLE001 - whatever the embedder raises, the engine can still answer
            plan.aside.errors.append(error)
            self._missed("unavailable", plan)
            return search
        if plan.control.no_cache:
            self._missed("no-cache", plan)
            return search
        match = plan.aside.attempt(lambda: self.look(asked, vector, plan.unix, plan.control))
        if match is None:
            self._missed("unavailable", plan)
            return search
        search.match = match
        stopped = plan.aside.attempt(lambda: self.stopped)
        if match.hit is None:
            self._missed(_reason(match), plan)
        elif stopped is not False:
            self._missed("stopped" if stopped else "unavailable", plan)
        elif self._meaning.chosen(self.verify):
            search.checking = True
            self._missed("verified", plan)
        else:
            search.hit = match.hit
        return search

    def _missed(self, reason: Miss, plan: Plan) -> None:
        plan.aside.attempt(lambda: self.store.miss(LAYER, reason))

    def _give(self, search: _Search, plan: Plan) -> list[Event] | None:
        """The events of the answer to be given; None if no answer is to be given."""
        if search.hit is None or search.hit.found.entry is None:
            return None
        events = streams.replay(search.hit.found.entry.value, hops.SEMANTIC_CACHE, plan.sent, plan.unix)
        self.store.use(search.hit.found, LAYER)
        self._meaning.gave()
        return events

    def _keep(self, search: _Search, answer: Completion, plan: Plan) -> None:
        """Store a fresh answer, and learn from it about the nearest entry."""
        plan.aside.attempt(lambda: self._learn(search, answer, plan))
        if search.asked is None or search.vector is None:
            plan.keep(answer)
        else:
            self.keep(search.asked, search.vector, answer, plan)

    def _learn(self, search: _Search, answer: Completion, plan: Plan) -> None:
        nearest = None if search.match is None else search.match.nearest
        if nearest is None or nearest.found.entry is None or not streams.may_be_kept(answer.done):
            return
        right = bool(self.agree(nearest.answer, answer.text))
        verdict = self._meaning.learn(nearest.found.entry, nearest.score, right, checking=search.checking)
        if self.store.put(verdict, plan.looked.ticket, now=clock.unix_now()) == "unavailable":
            raise self.store.trouble or CacheError(f"{self.store!r} could not keep what was learned")


@dataclass(slots=True)
class _Search:
    """The result of a search by meaning.

    `hit` is the candidate to be given. `checking`: there was a hit, but the engine is asked in order to check it.
    """

    asked: Asked | None
    vector: Vectors | None = None
    match: Match | None = None
    hit: Candidate | None = None
    checking: bool = False


def _reason(match: Match) -> Miss:
    """Why none of the candidates was accepted."""
    if not match.candidates:
        return "absent"
    return "contrast" if match.candidates[0].differences else "unlike"
