"""A month of traffic as money: the scenario, its forecast and what moves it.

The formula, per month and model: calls = users · requests/user/day · days · (1 + retries + shadow), each call of
`input_tokens` (a share of them cached) and `output_tokens` (a share of them reasoning); a share of the calls goes through
batch where the provider offers it. C = C_in + C_out for an API; C = C_infra for a machine of one's own, where the number
of machines follows from the peak.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from labkit.cost.bill import Cost, price_request
from labkit.cost.catalogue import price_of
from labkit.cost.hosting import host, machines_for
from labkit.cost.prices import Price
from labkit.request import TOKEN_KINDS, InvalidValue, Usage

# name: (lowest, highest, unit). Bounds of what makes sense, and of the sliders.
BOUNDS: dict[str, tuple[float, float, str]] = {
    "users": (0, 1e9, "daily active users"),
    "requests_per_user": (0, 1000, "requests per user and day"),
    "input_tokens": (0, 2_000_000, "tokens per request"),
    "cached_share": (0, 1, "share of input"),
    "output_tokens": (0, 200_000, "tokens per request"),
    "reasoning_share": (0, 1, "share of output"),
    "retry_rate": (0, 10, "extra attempts per request"),
    "shadow_share": (0, 10, "shadow calls per request"),
    "batch_share": (0, 1, "share of calls"),
    "peak_factor": (1, 100, "peak rate / mean rate"),
    "days": (1, 31, "days per month"),
    "host_tokens_per_second": (1, 1e7, "output tokens/s of one machine at full load"),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """The settings of the calculator; bad values raise `InvalidValue` naming the field and its range."""

    users: int = 100_000
    requests_per_user: float = 4.0
    input_tokens: int = 1_200
    cached_share: float = 0.0
    output_tokens: int = 250
    reasoning_share: float = 0.0
    retry_rate: float = 0.02
    shadow_share: float = 0.0
    batch_share: float = 0.0
    peak_factor: float = 3.0
    days: int = 30
    models: tuple[str, ...] = ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash")
    host: str = "h100"
    host_tokens_per_second: float = 2_500.0

    def __post_init__(self) -> None:
        for name, (low, high, unit) in BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if name in _WHOLE else (int, float)):
                raise InvalidValue(_out_of_range(name, value))
            if not low <= value <= high:
                raise InvalidValue(f"{name} is {value}; it must lie from {low:g} to {high:g} ({unit})")
        models: object = self.models
        # A comma parts the models in a URL, so a name with one would come back as two.
        if not isinstance(models, list | tuple) or not all(isinstance(m, str) and m and "," not in m for m in models):
            raise InvalidValue(f"models is {models!r}; give names without commas, as ('provider/model', …)")
        if not models:
            raise InvalidValue("models is empty; name at least one, as ('provider/model', …)")
        if not isinstance(self.host, str):
            raise InvalidValue(f"host is {self.host!r}; give a key of labkit.cost.hosts()")
        object.__setattr__(self, "models", tuple(models))

    def to_json(self) -> str:
        """The settings as a JSON object."""
        return json.dumps(asdict(self), indent=1)

    def to_query(self) -> str:
        """The settings as a URL query, only those that differ from the defaults."""
        default = Scenario()
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)]
        return urlencode([(name, ",".join(value) if isinstance(value, tuple) else str(value)) for name, value in pairs])

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> Scenario:
        """Settings from parsed JSON or a parsed query; strings are read as numbers where the field is one."""
        values: dict[str, object] = {}
        known = {f.name for f in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise InvalidValue(f"the calculator has no setting {name!r}; it has {', '.join(sorted(known))}")
            if name == "models":
                if not isinstance(value, str | list | tuple):
                    raise InvalidValue(f"models is {value!r}; give a list of 'provider/model'")
                values[name] = tuple(value.split(",") if isinstance(value, str) else value)
            elif name in BOUNDS and isinstance(value, str):
                try:
                    values[name] = int(value) if name in _WHOLE else float(value)
                except ValueError:
                    raise InvalidValue(_out_of_range(name, value)) from None
            else:
                values[name] = value
        return cls(**values)  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """Settings from `to_json`'s text."""
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidValue(f"these settings are not JSON ({error}); save them again from the calculator") from None
        if not isinstance(given, dict):
            raise InvalidValue("these settings are JSON, but not an object; save them again from the calculator")
        return cls.from_mapping(given)

    @classmethod
    def from_query(cls, query: str) -> Scenario:
        """Settings from a URL query (with or without its leading '?')."""
        return cls.from_mapping(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))

    def save(self, path: Path) -> None:
        """Write the settings to a JSON file."""
        path.write_text(self.to_json() + "\n")


_WHOLE = ("users", "input_tokens", "output_tokens", "days")


def _out_of_range(name: str, value: object) -> str:
    low, high, unit = BOUNDS[name]
    kind = "whole number" if name in _WHOLE else "number"
    return f"{name} is {value!r:.60}; give a {kind} from {low:g} to {high:g} ({unit})"


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """One row of the calculator: a model's month by token kind, or a machine's month as infrastructure."""

    name: str
    tokens: Cost
    infrastructure: Decimal
    requests: Decimal
    note: str

    @property
    def total(self) -> Decimal:
        """C = C_in + C_out + C_infra, in USD per month."""
        return self.tokens.total + self.infrastructure

    @property
    def per_thousand_requests(self) -> Decimal | None:
        """USD per 1,000 requests that users made (retries are in the cost, not in the count)."""
        return None if not self.requests else 1000 * self.total / self.requests

    def parts(self) -> dict[str, Decimal]:
        """USD per month by kind, `infrastructure` last."""
        return {**{kind: getattr(self.tokens, kind) for kind in TOKEN_KINDS}, "infrastructure": self.infrastructure}


def request_usage(scenario: Scenario) -> Usage:
    """Tokens of one call of the scenario, shares rounded to whole tokens."""
    return Usage(
        input_tokens=scenario.input_tokens,
        output_tokens=scenario.output_tokens,
        cached_tokens=round(scenario.input_tokens * scenario.cached_share),
        reasoning_tokens=round(scenario.output_tokens * scenario.reasoning_share),
    )


def api_month(scenario: Scenario, price: Price) -> MonthlyCost:
    """A month of the scenario at an API's list price, spread evenly over the day where the price depends on the hour."""
    price = price.over_the_day()
    asked = Decimal(scenario.users) * Decimal(str(scenario.requests_per_user)) * scenario.days
    calls = asked * (1 + Decimal(str(scenario.retry_rate)) + Decimal(str(scenario.shadow_share)))
    usage = request_usage(scenario)
    share = Decimal(str(scenario.batch_share)) if price.batch is not None else Decimal(0)
    cost = price_request(usage, price) * (calls * (1 - share))
    if share:
        cost += price_request(usage, price, batch=True) * (calls * share)
    note = f"{price.source}, {price.as_of}"
    if scenario.batch_share and price.batch is None:
        note += "; no batch price listed, all calls at the standard price"
    return MonthlyCost(f"{price.provider}/{price.model}", cost, Decimal(0), asked, note)


def hosted_month(scenario: Scenario) -> MonthlyCost:
    """A month of the scenario on machines of one's own, as many as the peak needs, rented all day and night.

    C_infra = machines · USD per hour · 24 · days, with machines = ⌈mean output tokens/s · peak factor / rate⌉. Only output
    tokens count against `host_tokens_per_second`: it is the output rate measured at this traffic's own prompt lengths, so
    prefill is in it.
    """
    machine = host(scenario.host)
    a_day = Decimal(scenario.users) * Decimal(str(scenario.requests_per_user))
    asked = a_day * scenario.days
    attempts = 1 + Decimal(str(scenario.retry_rate)) + Decimal(str(scenario.shadow_share))
    peak_a_day = a_day * attempts * scenario.output_tokens * Decimal(str(scenario.peak_factor))
    # Tokens a day over tokens a day: a second is no exact decimal part of a day, and the ceiling would see its last digit.
    count = machines_for(peak_a_day, 86_400 * Decimal(str(scenario.host_tokens_per_second)))
    cost = count * machine.usd_per_hour * 24 * scenario.days
    return MonthlyCost(f"self-hosted/{machine.key}", Cost(), cost, asked, f"{count} × {machine.name}, {machine.as_of}")


def month(scenario: Scenario) -> tuple[MonthlyCost, ...]:
    """The scenario at each of its models' prices and on its machine."""
    return (*(api_month(scenario, price_named(name)) for name in scenario.models), hosted_month(scenario))


def price_named(name: str) -> Price:
    """The list price of "provider/model"."""
    provider, slash, model = name.partition("/")
    return price_of(model, provider) if slash else price_of(name)


@dataclass(frozen=True, slots=True)
class Swing:
    """What a setting does to a cost when it alone moves from `low` to `high`."""

    name: str
    low: float
    high: float
    cost_low: Decimal
    cost_high: Decimal

    @property
    def width(self) -> Decimal:
        """How far the cost moves, in USD per month."""
        return abs(self.cost_high - self.cost_low)


# Not here: `reasoning_share`, which is billed as output and so moves money between kinds without changing the total; `days`
# and `peak_factor`, which are facts of the calendar and of the machines.
TORNADO = (
    "users",
    "requests_per_user",
    "input_tokens",
    "cached_share",
    "output_tokens",
    "retry_rate",
    "shadow_share",
    "batch_share",
)


def tornado(
    scenario: Scenario,
    cost: Callable[[Scenario], Decimal],
    names: tuple[str, ...] = TORNADO,
    by: float = 0.25,
) -> tuple[Swing, ...]:
    """One-at-a-time sensitivity, widest swing first.

    Quantities move by ±`by` of their value; shares and rates move by ±`by` in absolute terms. All are kept within bounds.
    """
    if not 0 < by <= 1:
        raise InvalidValue(f"by is {by}; move settings by a share above 0 and up to 1")
    swings = []
    for name in names:
        low_bound, high_bound, _ = BOUNDS[name]
        value = getattr(scenario, name)
        step = by if name.endswith(("_share", "_rate")) else by * value
        low, high = max(low_bound, value - step), min(high_bound, value + step)
        if name in _WHOLE:
            low, high = round(low), round(high)
        swings.append(
            Swing(name, low, high, cost(replace(scenario, **{name: low})), cost(replace(scenario, **{name: high})))
        )
    return tuple(sorted(swings, key=lambda swing: swing.width, reverse=True))


def elasticity(scenario: Scenario, cost: Callable[[Scenario], Decimal], name: str, by: float = 0.01) -> float:
    """Percent the cost moves per percent of `name` (1 for a cost proportional to it).

    (Δcost / cost) / (Δvalue / value) over a difference of ±`by` of the value, cut off at the setting's bounds.
    """
    if name not in BOUNDS:
        raise InvalidValue(f"the calculator has no number {name!r} to move; it has {', '.join(BOUNDS)}")
    lowest, highest, _ = BOUNDS[name]
    value = getattr(scenario, name)
    base = cost(scenario)
    if not value or not base:
        raise InvalidValue(f"elasticity needs a setting and a cost above 0; {name} is {value} and the cost {base}")
    low, high = max(lowest, value * (1 - by)), min(highest, value * (1 + by))
    if name in _WHOLE:
        low, high = round(low), round(high)
    if low == high:
        raise InvalidValue(f"{name}={value} does not move by {by:.0%}; use a larger step")
    change = (cost(replace(scenario, **{name: high})) - cost(replace(scenario, **{name: low}))) / base
    moved: float = (high - low) / value
    return float(change) / moved
