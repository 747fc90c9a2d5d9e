"""A routing policy as data, separate from the code that follows it, so that it can be reviewed and compared as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Self

from labkit.request import InvalidValue, Request
from labkit.routing.checks import is_share, numbers, several, texts

Sticky = Literal["", "workflow", "user"]


@dataclass(frozen=True, slots=True)
class Floor:
    """Requests of this `feature`, or with this `permission`, go to `model` or a larger one, whatever it costs."""

    model: str
    feature: str = ""
    permission: str = ""

    def __post_init__(self) -> None:
        if bool(self.feature) == bool(self.permission):
            raise InvalidValue(
                f"a floor at {self.model!r} names feature {self.feature!r} and permission {self.permission!r}; name one"
            )

    def holds(self, request: Request) -> bool:
        """Whether `request` falls under this floor."""
        return request.feature == self.feature if self.feature else self.permission in request.permissions


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """Which models there are, when a request goes up to a larger one, and which limits no saving may override.

    - `models`: names, cheapest first. Requests are passed on with `Request.model` set to the name.
    - `thresholds`: one for each model but the last, 0 to 1. A request whose score is at or above it stays with that model;
      below, it goes up.
    - `fallbacks`: for a model, the models to try in this order when its engine fails. Those below a floor are left out.
    - `floors`: the smallest model allowed for a feature or a permission; where several floors hold, the highest counts.
    - `budgets`: per tenant, in the currency of the books. When the budget is spent, the tenant gets the cheapest model that
      the floors allow, without going up and without fallbacks. Tenants not named have no limit.
    - `sticky`: requests of one tenant that share this attribute ("workflow" or "user") form a session. Each request of a
      session starts at the largest model that was chosen in it so far, so a session goes up and never down. Two exceptions:
      once the budget is spent the cheapest model answers, and models that answered as fallbacks do not count.

    Raises `InvalidValue` for a policy that could not be followed.
    """

    version: str
    models: tuple[str, ...]
    thresholds: tuple[float, ...]
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floors: tuple[Floor, ...] = ()
    budgets: Mapping[str, Decimal] = field(default_factory=dict)
    sticky: Sticky = ""

    def __post_init__(self) -> None:
        for name in ("fallbacks", "budgets"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidValue(f"{name} are {getattr(self, name)!r:.80}; give a mapping")
        others = {model: texts(them, f"the fallbacks of {model!r}") for model, them in self.fallbacks.items()}
        object.__setattr__(self, "models", texts(self.models, "the models of a policy"))
        object.__setattr__(self, "thresholds", numbers(self.thresholds, "thresholds"))
        object.__setattr__(self, "fallbacks", others)
        object.__setattr__(self, "floors", several(self.floors, Floor, "a policy's floors"))
        object.__setattr__(self, "budgets", dict(self.budgets))
        self._check_models()
        self._check_floors()
        for tenant, budget in self.budgets.items():
            if not isinstance(budget, Decimal) or not budget.is_finite() or budget < 0:
                raise InvalidValue(f"the budget of {tenant!r} is {budget!r}; use a Decimal of 0 or more")
        if self.sticky not in ("", "workflow", "user"):
            raise InvalidValue(f'sticky is {self.sticky!r}; use "workflow", "user" or "" for no sessions')

    def _check_models(self) -> None:
        if not isinstance(self.version, str) or not self.version:
            raise InvalidValue("a policy needs a version, to tell in the records which one decided")
        if not self.models or len(set(self.models)) < len(self.models) or not all(self.models):
            raise InvalidValue(f"models are {self.models}; name each once, cheapest first, at least one")
        if len(self.thresholds) != len(self.models) - 1:
            raise InvalidValue(
                f"{len(self.thresholds)} thresholds for {len(self.models)} models; give one for each model but the last"
            )
        for threshold in self.thresholds:
            if not is_share(threshold):
                raise InvalidValue(f"threshold {threshold} is not a probability; use a value from 0 to 1")
        for model, others in self.fallbacks.items():
            self._known(model, "fallbacks are given for")
            for other in others:
                self._known(other, f"the fallback of {model!r} is")
            if model in others or len(set(others)) < len(others):
                raise InvalidValue(f"the fallbacks of {model!r} are {others}; name other models, each once")

    def _check_floors(self) -> None:
        seen: dict[tuple[str, str], str] = {}
        for floor in self.floors:
            self._known(floor.model, "a floor is set at")
            earlier = seen.setdefault((floor.feature, floor.permission), floor.model)
            if earlier != floor.model:
                what = f"feature {floor.feature!r}" if floor.feature else f"permission {floor.permission!r}"
                raise InvalidValue(f"two floors contradict each other: {what} is at {earlier!r} and at {floor.model!r}")

    def _known(self, model: str, what: str) -> None:
        if model not in self.models:
            raise InvalidValue(f"{what} {model!r}, which is not among the models {', '.join(self.models)}")

    def allowed(self, request: Request) -> tuple[str, ...]:
        """The models that `request` may go to, cheapest first: those at or above every floor that holds."""
        least = max((self.models.index(floor.model) for floor in self.floors if floor.holds(request)), default=0)
        return self.models[least:]

    def threshold(self, model: str) -> float:
        """The lowest score with which a request stays with `model`; 0 for the last model, which has no larger one."""
        at = self.models.index(model)
        return self.thresholds[at] if at < len(self.thresholds) else 0.0

    def session(self, request: Request) -> tuple[str, str] | None:
        """The session of `request`, as (tenant, value of the `sticky` attribute); None where it belongs to no session."""
        mark = getattr(request, self.sticky) if self.sticky else ""
        return (request.tenant, mark) if mark else None

    def to_json(self) -> str:
        """The policy as JSON text with sorted keys, so that versions can be compared line by line."""
        budgets = {tenant: str(budget) for tenant, budget in self.budgets.items()}
        return json.dumps({**asdict(self), "budgets": budgets}, indent=2, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The policy that `text` holds.

        Raises `InvalidValue` for an unknown or missing key and for a value of the wrong kind, so that a misspelt floor is
        not silently dropped.
        """
        try:
            data: dict[str, Any] = json.loads(text, object_pairs_hook=_unique)
            names = {f.name for f in fields(cls)}
            if set(data) - names:
                raise InvalidValue(
                    f"a policy has no {', '.join(sorted(set(data) - names))}; its keys are {', '.join(sorted(names))}"
                )
            data["version"] = _text(data["version"])
            data["models"] = tuple(map(_text, data["models"]))
            data["thresholds"] = tuple(map(float, data["thresholds"]))
            data["fallbacks"] = {key: tuple(map(_text, value)) for key, value in data.get("fallbacks", {}).items()}
            data["floors"] = tuple(Floor(**floor) for floor in data.get("floors", ()))
            data["budgets"] = {key: Decimal(_text(value)) for key, value in data.get("budgets", {}).items()}
            return cls(**data)
        except InvalidValue:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
            raise InvalidValue(f"this is no policy: {error!r}; compare it with what to_json writes") from error

    def changes(self, new: RoutingPolicy) -> tuple[str, ...]:
        """What `new` changes against this policy, one phrase per change; empty for equal policies."""
        old = self
        told: list[str] = []
        if old.version != new.version:
            told.append(f"version {old.version} becomes {new.version}")
        if old.models != new.models:
            told.append(f"models {' < '.join(old.models)} become {' < '.join(new.models)}")
        told += _changes("threshold of", _thresholds(old), _thresholds(new))
        told += _changes("fallbacks of", _words(old.fallbacks), _words(new.fallbacks))
        told += _changes("floor of", _floors(old), _floors(new))
        told += _changes("budget of tenant", old.budgets, new.budgets)
        if old.sticky != new.sticky:
            told.append(f"sessions by {old.sticky or 'nothing'} become sessions by {new.sticky or 'nothing'}")
        return tuple(told)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is given twice among {', '.join(key for key, _ in pairs)}")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} should be a string")
    return value


def _changes(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    told = [f"{what} {key} is dropped (was {old[key]})" for key in old if key not in new]
    told += [f"{what} {key} is new: {new[key]}" for key in new if key not in old]
    return told + [f"{what} {key} goes from {old[key]} to {new[key]}" for key in old if key in new and old[key] != new[key]]


def _thresholds(policy: RoutingPolicy) -> dict[str, float]:
    return dict(zip(policy.models, policy.thresholds, strict=False))


def _words(fallbacks: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {model: ", ".join(others) for model, others in fallbacks.items() if others}


def _floors(policy: RoutingPolicy) -> dict[str, str]:
    return {f"feature {f.feature}" if f.feature else f"permission {f.permission}": f.model for f in policy.floors}
