"""A dry run: what a request would cost as it is and as a stack's shrinkers would send it, with nothing sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from labkit.caches import provider
from labkit.cost import MTOK, Cost, Price
from labkit.request import Handler, InvalidValue, Message, Placed, Request, placed
from labkit.shrink.prefix import FREE, Own
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk
from labkit.tokens import Tokenizer, tokenizer

_NO_CACHE = provider.CacheRules("no cache", 2**62, 1.0, "nothing is cached", "")


@dataclass(frozen=True, slots=True)
class Bill:
    """`tokens` of input, `cached` of them found where the prefix is kept, and the `cost` on average over hits and misses."""

    tokens: int
    cached: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class DryRun:
    """The bill `before` and `after`, and what was removed. `own` is what the shrinkers themselves cost; it is in `saved`."""

    shrunk: Shrunk
    before: Bill
    after: Bill
    own: Decimal
    currency: str

    @property
    def saved(self) -> Decimal:
        """Money that a call saves; below 0 where the shorter prompt costs more."""
        return self.before.cost.total - self.after.cost.total - self.own

    def explain(self, limit: int = 60) -> str:
        """The two bills, and one line for each cut; `limit` as in `Shrunk.explain`."""
        lines = [
            f"{name}: {bill.tokens:,} input tokens, {bill.cached:,} from the cache, {bill.cost.total:.9f} {self.currency}"
            for name, bill in (("as it is", self.before), ("shortened", self.after))
        ]
        if self.own:
            lines.append(f"the shrinkers' own cost: {self.own:.9f} {self.currency}")
        fewer = self.after.tokens < self.before.tokens
        lines.append(
            f"saves {self.saved:.9f} {self.currency} a call"
            if self.saved >= 0
            else f"costs {-self.saved:.9f} {self.currency} a call more{', with fewer tokens' if fewer else ''}"
        )
        return "\n".join((*lines, self.shrunk.explain(limit)))


async def dry_run(
    request: Request,
    through: Handler | Sequence[Shrinker],
    price: Price,
    *,
    output_tokens: int,
    counted: Tokenizer | None = None,
    earlier: Request | None = None,
    rules: provider.CacheRules | None = None,
    hits: float = 1.0,
    own: Own = FREE,
) -> DryRun:
    """What `through` (a stack, or shrinkers in their order) would make of `request`, and both bills. Nothing is sent.

    `counted` is the tokenizer of the model that will answer, by default the lab's; without a chat template, the contents
    alone are counted. `earlier` is another request of the same stream, sent before: it is shortened, too, and what the two
    have in common from the first token on is what a cache by `rules` can serve, for the share `hits` of the calls. Where
    `rules.at_ends`, that is the whole messages they have in common. Without `earlier` nothing is found. Shrinkers may ask a
    model of their own; `own` says what that costs.

    Raises `InvalidValue` for a stack in which a chooser stands above a shrinker, and what the shrinkers raise.
    """
    rules = rules or _NO_CACHE
    if not 0 <= hits <= 1 or output_tokens < 0:
        raise InvalidValue(f"hits is {hits} and output_tokens {output_tokens}; give a share from 0 to 1, and tokens from 0")
    words = counted or tokenizer("lab")
    shrinkers = _shrinkers(through)
    sent_before = None if earlier is None else (await _through(shrinkers, earlier)).after
    shrunk = await _through(shrinkers, request)
    listed = rules.price(price)

    def bill(messages: Sequence[Message], others: Sequence[Message] | None) -> Bill:
        ids = _ids(words, messages)
        found = rules.cached(_common(words, ids, messages, others, rules.at_ends)) if others is not None else 0
        rates = listed.rates_for(len(ids))
        share = Decimal(repr(hits))
        missed = found * (1 - share)
        cost = Cost(
            fresh_input=(len(ids) - found + (0 if rules.charged else missed)) * rates.fresh_input / MTOK,
            cached_input=found * share * rates.cached_input / MTOK,
            cache_write=(missed if rules.charged else 0) * rates.cache_write / MTOK,
            visible_output=output_tokens * rates.visible_output / MTOK,
        )
        return Bill(len(ids), found, cost)

    before = bill(shrunk.before, None if earlier is None else earlier.messages)
    return DryRun(shrunk, before, bill(shrunk.after, sent_before), own.of(before.tokens), price.currency)


def _shrinkers(through: Handler | Sequence[Shrinker]) -> tuple[Shrinker, ...]:
    if isinstance(through, Sequence):
        return tuple(through)
    found: list[Shrinker] = []
    handler: object = through
    while isinstance(handler, Placed):
        if isinstance(handler.lever, Shrinker):
            found.append(handler.lever)
        if isinstance(handler.inner, Mapping):
            below = [each.lever for inner in handler.inner.values() for each in placed(inner)]
            if any(isinstance(lever, Shrinker) for lever in below):
                raise InvalidValue(
                    f"{handler.lever!r:.60} chooses among models, and a shrinker stands below it; ask the dry run of the "
                    "stack of one model"
                )
            break
        handler = handler.inner
    return tuple(found)


async def _through(shrinkers: Sequence[Shrinker], request: Request) -> Shrunk:
    shrunk = Shrunk.of(request.messages)
    for shrinker in shrinkers:
        shrunk = shrunk.then(await shrinker.shrink(replace(request, messages=shrunk.after)))
    return shrunk


def _ids(words: Tokenizer, messages: Sequence[Message]) -> list[int]:
    if words.render is not None:
        return words.encode(words.render(messages))
    return [token for message in messages for token in words.encode(message.content)]


def _common(
    words: Tokenizer, ids: Sequence[int], messages: Sequence[Message], others: Sequence[Message], at_ends: bool
) -> int:
    """How many leading tokens two prompts share; with `at_ends`, as far as whole messages go."""
    if at_ends:
        same = _leading(messages, others)
        return _leading(ids, _ids(words, messages[:same])) if same else 0
    return _leading(ids, _ids(words, others))


def _leading(one: Sequence[object], other: Sequence[object]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
