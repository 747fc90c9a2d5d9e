"""What each chapter's lever does to the month: one value each, which makes a new `Month` from one.

Each holds what was measured, as shares and factors, so that it can be made in any month: in today's, or in what earlier
ones left of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from labkit.caches import provider
from labkit.portal.month import Calls, Fee, Month, exact
from labkit.request import InvalidValue


class Change(Protocol):
    """What makes a new month from one."""

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        ...


@dataclass(frozen=True, slots=True)
class Prefix:
    """Of a feature's input, the share `cached` is read from a provider's cache and the share `written` is written to it.

    What an earlier change had cached is counted as input again first: this one says all of it.
    """

    feature: str
    cached: float
    written: float = 0.0

    def __post_init__(self) -> None:
        _share("cached", self.cached)
        _share("written", self.written)
        _share("cached + written", self.cached + self.written)

    def made(self, month: Month) -> Month:
        """The month with this change made."""

        def new(one: Calls) -> Calls:
            parts = {
                "fresh_input": one.read * (1 - self.cached - self.written),
                "cached_input": one.read * self.cached,
                "cache_write": one.read * self.written,
            }
            return replace(one, tokens={**one.tokens, **parts})

        return _each(month, self.feature, new)


@dataclass(frozen=True, slots=True)
class Answered:
    """A cache answers the share `hits` of a feature's calls, at `usd_per_call` for each that it is asked, hit or not."""

    feature: str
    hits: float
    usd_per_call: float = 0.0

    def __post_init__(self) -> None:
        _share("hits", self.hits)
        _from_zero("usd_per_call", self.usd_per_call)

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        left = _each(month, self.feature, lambda one: replace(one, calls=one.calls * (1 - self.hits)))
        cost = exact(self.usd_per_call * month.asked(self.feature))
        return replace(left, extras=(*left.extras, Fee(self.feature, "looking in the caches", cost)))


@dataclass(frozen=True, slots=True)
class Sent:
    """What a router sends to one model: calls for each question, and what that model reads and writes beside the large one.

    `visible`, `reasoning` and `fresh` are factors on the tokens of an average call of the large model: 0 reasoning for a
    model that does not think, `fresh` (input that no cache has) above 1 where what is sent there has longer questions.
    """

    calls: float
    visible: float = 1.0
    reasoning: float = 1.0
    fresh: float = 1.0

    def __post_init__(self) -> None:
        for name in ("calls", "visible", "reasoning", "fresh"):
            _from_zero(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Routed:
    """A router or a cascade sends a feature's questions to other models, each with its `Sent`.

    The calls of a cascade add up to more than 1: whoever goes up was asked below first.
    """

    feature: str
    to: Mapping[str, Sent]

    def __post_init__(self) -> None:
        if not self.to or not any(part.calls for part in self.to.values()):
            raise InvalidValue(f"to is {self.to!r}; name a model that gets some of the calls")

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        found: list[Calls] = []
        for one in month.calls:
            if one.feature != self.feature:
                found.append(one)
                continue
            for model, part in self.to.items():
                tokens = {
                    **one.tokens,
                    "visible_output": one.tokens.get("visible_output", 0.0) * part.visible,
                    "reasoning": one.tokens.get("reasoning", 0.0) * part.reasoning,
                    "fresh_input": one.tokens.get("fresh_input", 0.0) * part.fresh,
                }
                found.append(replace(one, model=model, calls=one.calls * part.calls, tokens=tokens))
        return replace(month, calls=tuple(found))


@dataclass(frozen=True, slots=True)
class Shortened:
    """A feature's calls write the share `visible` of their visible output and the share `reasoning` of their thinking.

    `again`: the share of the calls that is made a second time, because the answer was cut; each reads its prompt again, and
    `visible` and `reasoning` are then means over all calls, the second ones too. `told`: further input tokens of each call
    that no cache has, such as an instruction on length or a schema.
    """

    feature: str
    visible: float = 1.0
    reasoning: float = 1.0
    again: float = 0.0
    told: float = 0.0

    def __post_init__(self) -> None:
        for name in ("visible", "reasoning", "again", "told"):
            _from_zero(name, getattr(self, name))

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        kept = {"visible_output": self.visible, "reasoning": self.reasoning}

        def new(one: Calls) -> Calls:
            tokens = {kind: count * kept.get(kind, 1.0) for kind, count in one.tokens.items()}
            if self.told:
                tokens["fresh_input"] = tokens.get("fresh_input", 0.0) + self.told
            return replace(one, calls=one.calls * (1 + self.again), tokens=tokens)

        return _each(month, self.feature, new)


@dataclass(frozen=True, slots=True)
class Compressed:
    """A feature's prompts are compressed: of a prefix of `prefix` tokens `left` are sent, of the rest the share `behind`.

    `stable`: the prefix is the same in every call, so that a cache finds it as often as before; else each call has another,
    and nothing is found. `terms`: the provider's terms for cached prefixes, by name in `labkit.caches.provider.RULES`; below
    their minimum, a prefix that was cached is not any more. Where no call reads a cache yet, all of it stays fresh input.
    `usd_per_call`: what the compressor itself costs for each call.
    """

    feature: str
    prefix: float
    left: float
    terms: str
    behind: float = 1.0
    stable: bool = True
    usd_per_call: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prefix", "left", "behind", "usd_per_call"):
            _from_zero(name, getattr(self, name))
        if self.terms not in provider.RULES:
            raise InvalidValue(f"terms is {self.terms!r}; use one of {', '.join(provider.RULES)}")

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        rules = provider.RULES[self.terms]
        could, can = rules.cached(round(self.prefix)), rules.cached(round(self.left))

        def new(one: Calls) -> Calls:
            cached, written = one.tokens.get("cached_input", 0.0), one.tokens.get("cache_write", 0.0)
            whole = self.left + max(0.0, one.read - self.prefix) * self.behind
            if self.stable:
                cached, written = (kind / could * can if could else 0.0 for kind in (cached, written))
            else:  # what was found or written before is written again by each call, where the provider charges for that
                cached, written = 0.0, can if rules.charged and cached + written else 0.0
            fresh = max(0.0, whole - cached - written)
            return replace(one, tokens={**one.tokens, "fresh_input": fresh, "cached_input": cached, "cache_write": written})

        changed = _each(month, self.feature, new)
        cost = exact(self.usd_per_call * month.asked(self.feature))
        return (
            replace(changed, extras=(*changed.extras, Fee(self.feature, "compressing prompts", cost))) if cost else changed
        )


@dataclass(frozen=True, slots=True)
class Retried:
    """For each of a feature's questions, further attempts cost as much as `now` calls, where they cost as much as `was`.

    An attempt that read and wrote less than a whole call counts for less than one. What is asked for the first time stays.
    """

    feature: str
    was: float
    now: float

    def __post_init__(self) -> None:
        for name in ("was", "now"):
            _from_zero(name, getattr(self, name))

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        times = (1 + self.now) / (1 + self.was)
        return _each(month, self.feature, lambda one: replace(one, calls=one.calls * times))


@dataclass(frozen=True, slots=True)
class Batched:
    """The share `share` of a feature's calls goes through the provider's batch API."""

    feature: str
    share: float = 1.0

    def __post_init__(self) -> None:
        _share("share", self.share)

    def made(self, month: Month) -> Month:
        """The month with this change made."""
        found: list[Calls] = []
        for one in month.calls:
            if one.feature != self.feature or one.batch:
                found.append(one)
                continue
            parts = [(1 - self.share, False), (self.share, True)]
            found += [replace(one, calls=one.calls * share, batch=batch) for share, batch in parts if share]
        return replace(month, calls=tuple(found))


@dataclass(frozen=True, slots=True)
class TakenIn:
    """A feature's calls move to GPUs that another feature, `host_of`, rents anyway and leaves idle for part of the day.

    `extra_gpus`: those that have to be rented beside them.
    """

    feature: str
    host_of: str
    extra_gpus: float = 0.0

    def __post_init__(self) -> None:
        _from_zero("extra_gpus", self.extra_gpus)

    def made(self, month: Month) -> Month:
        """The month with this change made. Raises `InvalidValue` where `host_of` rents nothing."""
        theirs = next((one for one in month.machines if one.feature == self.host_of), None)
        if theirs is None:
            raise InvalidValue(f"{self.host_of!r} rents no machines in this month; name a feature that does")
        calls = tuple(one for one in month.calls if one.feature != self.feature)
        more = (replace(theirs, feature=self.feature, gpus=self.extra_gpus),)
        return replace(month, calls=calls, machines=(*month.machines, *more))


@dataclass(frozen=True, slots=True)
class Rented:
    """A feature needs `times` as many GPUs as before."""

    feature: str
    times: float

    def __post_init__(self) -> None:
        _from_zero("times", self.times)

    def made(self, month: Month) -> Month:
        """The month with this change made. Raises `InvalidValue` where the feature rents nothing."""
        if all(one.feature != self.feature for one in month.machines):
            raise InvalidValue(f"{self.feature!r} rents no machines in this month")
        machines = tuple(
            replace(one, gpus=one.gpus * self.times) if one.feature == self.feature else one for one in month.machines
        )
        return replace(month, machines=machines)


@dataclass(frozen=True, slots=True)
class Stays:
    """Nothing changes: what was measured does not pay for this portal, or there is no lever yet."""

    feature: str

    def made(self, month: Month) -> Month:
        """The same month."""
        return month


def _each(month: Month, feature: str, new: Callable[[Calls], Calls]) -> Month:
    if feature not in month.features:
        raise InvalidValue(f"the month has no feature {feature!r}; it has {', '.join(month.features)}")
    return replace(month, calls=tuple(new(one) if one.feature == feature else one for one in month.calls))


def _share(name: str, value: float) -> None:
    if not (math.isfinite(value) and -1e-9 <= value <= 1 + 1e-9):
        raise InvalidValue(f"{name} is {value}; give a share from 0 to 1")


def _from_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidValue(f"{name} is {value}; give a number from 0")
