"""Two days of the portal's API traffic for chapter 13, booked on the virtual clock; the second has a regression.

One call in so many of the portal's is made. The first day is an ordinary one. On the second, three things change that change
on any day: one tenant sends more, more facts are looked up by the small model, and somebody tries a model that has no price
yet. And at some hour one feature gets a new version of its prompt, with one of `CAUSES` in it. A seed decides which.

The provider is modelled: a word is a token, an answer has as many tokens as it may have, and a prefix that it saw before is
cached by OpenAI's published terms (`labkit.caches.provider`). So what a changed prompt does to the bill follows from the
prompt. Nothing here was measured on a provider. Where one call in a hundred is made, prefixes last a hundred times as long:
between two calls of the sample lie a hundred others that would have kept them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from labkit.caches import provider
from labkit.cost import Price, price_named
from labkit.ledger import Booked, Ledger
from labkit.portal import PORTAL
from labkit.request import Chunk, Done, Event, Handler, Message, Request, Timing, Usage, clock, complete, run_virtual, stack

DAY_S = 86_400
BEGIN = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
"""The first of the two days begins here, a Monday."""
LARGE, SMALL, TRIAL = "gpt-5", "gpt-5-mini", "trial-model"
FEATURES = {"intent": 0.30, "order": 0.25, "policy": 0.30, "fact": 0.15}
"""The desk's questions by what is asked, as shares."""
TENANTS = {"alpine": 0.5, "harbour": 0.3, "meadow": 0.2}
CAUSES = {
    "cache hits": "the time of day went into the prompt's first line",
    "tokens in": "900 tokens of similar cases now stand behind each question",
    "tokens out": "the prompt asks for reasons after each answer",
    "retries": "the new answers often fail their validation, and are asked for again",
}
"""What may be wrong with the new version, by the part of the bill that it should show in."""
OLD, NEW = "v7", "v8"
_CASES, _REASONS, _INVALID = 900, 90, 0.45
_MORE, _MINI = 1.25, (0.3, 0.5)  # harbour's traffic on the second day; the share of facts that the small model gets
_INSTRUCTIONS = {name: " ".join(f"{name}{n}" for n in range(PORTAL.desk.instructions)) for name in FEATURES}
_SUMMARY = [f"s{n}" for n in range(PORTAL.summaries.prompt)]


@dataclass(frozen=True)
class Planted:
    """What was planted: one of `CAUSES` in version `NEW` of a feature's prompt, live from `at` (seconds since 1970)."""

    cause: str
    feature: str
    at: float


@dataclass
class Provider:
    """The modelled provider, of which one call in `one_in` is made.

    `seen` are the prompts whose prefixes it may still hold, by what they begin with: words, when written, when last used.
    """

    one_in: int = 1
    rules: provider.CacheRules = provider.RULES[PORTAL.desk.cache_terms]
    first_s: float = 0.3
    each_s: float = 0.01
    seen: dict[str, tuple[list[str], float, float]] = field(default_factory=dict)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer to `request`: `max_tokens` tokens, of which `extra["thinking"]` are thoughts."""
        sent, started = clock.now(), clock.unix_now()
        words = [word for message in request.messages for word in message.content.split()]
        usage = Usage(len(words), 0, self._found(request.model, words, sent))
        await asyncio.sleep(self.first_s)
        first = clock.now()
        yield Chunk("An", first, tokens=1, usage=replace(usage, output_tokens=1))
        await asyncio.sleep(self.each_s * request.max_tokens)
        last = clock.now()
        thinking = min(request.max_tokens, int(request.extra.get("thinking", 0)))
        usage = replace(usage, output_tokens=request.max_tokens, reasoning_tokens=thinking)
        yield Chunk(" answer", last, usage=usage)
        yield Done(usage, Timing(sent, first, last, last, started), model=request.model)

    def _found(self, model: str, words: list[str], now: float) -> int:
        """Tokens of the prompt that are in the cache, where an earlier prompt began with them."""
        key = f"{model} {' '.join(words[:8])}"
        known, written, used = self.seen.get(key, ([], now, now))
        longest = self.one_in * (self.rules.longest_s or DAY_S)
        if now - used > self.one_in * self.rules.lifetime_s or now - written > longest:
            known = []
        shared = len(known) if words[: len(known)] == known else _shared(words, known)
        found = self.rules.cached(shared)
        kept, since = (known[:shared], written) if found else (words, now)
        self.seen[key] = (kept, since, now)
        return found


def _shared(one: list[str], other: list[str]) -> int:
    """How many words two prompts have in common at their beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def prices() -> Mapping[str, Price]:
    """The price list by which the days are booked: it does not have the model that is on trial."""
    return {LARGE: price_named(PORTAL.desk.large), SMALL: price_named(PORTAL.desk.small)}


def two_days(ledger: Ledger, seed: int, one_in: int) -> Planted:
    """Book two days of the portal's API calls, one in `one_in` of them, and say what was planted in the second."""
    rng = random.Random(f"days {seed}")
    cause, feature = rng.choice(sorted(CAUSES)), rng.choice(("intent", "order", "policy"))
    planted = Planted(cause, feature, BEGIN + DAY_S + 3600 * rng.uniform(8, 12))
    run_virtual(_both(ledger, seed, one_in, planted), epoch=BEGIN)
    return planted


async def _both(ledger: Ledger, seed: int, one_in: int, planted: Planted) -> None:
    handler = stack(Booked(ledger, prices(), "openai"), engine=Provider(one_in))
    async with asyncio.TaskGroup() as group:
        for at, request in sorted(_traffic(seed, one_in, planted), key=lambda one: one[0]):
            rng = random.Random(f"{seed} {request.idempotency_key}")
            group.create_task(_asked(handler, request, at, rng, planted))


async def _asked(handler: Handler, request: Request, at: float, rng: random.Random, planted: Planted) -> None:
    """Ask at second `at`, and again where the answer fails its validation, as one in fifty does at this portal."""
    await clock.sleep_until(at)
    fails = PORTAL.desk.retries
    if request.prompt_version == NEW and planted.cause == "retries":
        fails = _INVALID
    for attempt in (1, 2, 3):
        await complete(handler, replace(request, attempt=attempt))
        if request.shadow or request.feature == "summaries" or rng.random() >= fails:
            return


def _traffic(seed: int, one_in: int, planted: Planted) -> list[tuple[float, Request]]:
    found: list[tuple[float, Request]] = []
    for day in (0, 1):
        rng = random.Random(f"traffic {seed} {day}")
        for feature, share in FEATURES.items():
            for tenant, of_tenant in TENANTS.items():
                mean = PORTAL.users * PORTAL.desk.questions / one_in * share * of_tenant
                if day and tenant == "harbour":
                    mean *= _MORE
                for _ in range(max(1, round(rng.gauss(mean, mean**0.5)))):
                    found.append(_question(rng, day, feature, tenant, planted, len(found)))
        found += [_trial(rng, len(found) + n) for n in range(day * 12)]
        for tenant, of_tenant in TENANTS.items():
            for _ in range(round(PORTAL.users * PORTAL.summaries.a_day / one_in * of_tenant)):
                found.append(_summary(rng, day, tenant, len(found)))
    return found


def _second(rng: random.Random) -> float:
    """A second of the day, drawn by the portal's hours."""
    (hour,) = rng.choices(range(24), PORTAL.hours)
    return 3600 * (hour + rng.random())


def _question(
    rng: random.Random, day: int, feature: str, tenant: str, planted: Planted, number: int
) -> tuple[float, Request]:
    at = day * DAY_S + _second(rng)
    new = day == 1 and feature == planted.feature and BEGIN + at >= planted.at
    cause = planted.cause if new else ""
    told = _INSTRUCTIONS[feature]
    if cause == "cache hits":
        told = f"It is {datetime.fromtimestamp(BEGIN + at, UTC):%H:%M:%S} . {told}"
    small = feature == "fact" and rng.random() < _MINI[day]
    length = max(4, round(rng.gauss(PORTAL.desk.question, 15))) + (_CASES if cause == "tokens in" else 0)
    asked = " ".join(f"q{number}.{n}" for n in range(length))
    thinking = 0 if small else max(1, round(rng.lognormvariate(0, 0.6) * PORTAL.desk.thinking))
    answer = max(2, round(rng.lognormvariate(0, 0.4) * PORTAL.desk.answer))
    if cause == "tokens out":
        answer += round(_REASONS * rng.uniform(0.7, 1.3))
    return at, Request(
        (Message("system", told), Message("user", asked)),
        model=SMALL if small else LARGE, max_tokens=thinking + answer, tenant=tenant,
        user=f"{tenant}-{min(999, int(rng.paretovariate(0.6)))}", feature=feature,
        workflow=f"case-{number // 3}", prompt_version=NEW if new else OLD, idempotency_key=f"r{number}",
        extra={"thinking": thinking},
    )  # fmt: skip


def _trial(rng: random.Random, number: int) -> tuple[float, Request]:
    """A call to a model that is on trial: its answer goes to nobody, and no price list has it."""
    asked = " ".join(f"t{number}.{n}" for n in range(60))
    return DAY_S + 3600 * rng.uniform(15, 17), Request(
        (Message("user", asked),), model=TRIAL, max_tokens=40, tenant="alpine", feature="fact", prompt_version="trial",
        idempotency_key=f"t{number}", shadow=True,
    )  # fmt: skip


def _summary(rng: random.Random, day: int, tenant: str, number: int) -> tuple[float, Request]:
    """A summary of somebody's day, some time between when it is ready and midnight."""
    at = day * DAY_S + 3600 * rng.uniform(PORTAL.summaries.ready, 24)
    asked = " ".join([f"summary{number}", *_SUMMARY[1:]])
    length = max(20, round(rng.lognormvariate(0, 0.3) * PORTAL.summaries.answer))
    return at, Request(
        (Message("user", asked),), model=LARGE, max_tokens=length, tenant=tenant, feature="summaries", prompt_version="s3",
        idempotency_key=f"r{number}",
    )  # fmt: skip
