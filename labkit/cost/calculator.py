"""The cost of a month of traffic: the scenario, its forecast, and how much each setting changes it.

Per month and model, calls = users · requests/user/day · days · (1 + retries + shadow). Each call has `input_tokens` (a share
of them cached) and `output_tokens` (a share of them reasoning). A share of the calls goes through batch processing where the
provider offers it. For an API, C = C_in + C_out. For self-hosted machines, C = C_infra, and the peak determines the number
of machines.
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

# name: (lowest, highest, unit). The bounds of sensible values, used for checks and for the sliders.
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
    """The settings of the calculator.

    `BOUNDS` has the range and unit of each number. `models` are list prices by "provider/model", and `host` is a key of
    `hosts()`. Bad values raise `InvalidValue` naming the field and its range.
    """

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
        # A comma separates the models in a URL, so a name with a comma would be read back as two.
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
        """The settings that differ from the defaults, as a URL query."""
        default = Scenario()
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)]
        return urlencode([(name, ",".join(value) if isinstance(value, tuple) else str(value)) for name, value in pairs])

    @classmethod
    def from_mapping(cls, given: Mapping[str, object]) -> Scenario:
        """Settings from parsed JSON or a parsed query; strings are read as numbers where the field is a number.

        Raises `InvalidValue` for unknown settings and bad values.
        """
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
        """Settings from the text of `to_json`; raises `InvalidValue` for anything else."""
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidValue(f"these settings are not JSON ({error}); save them again from the calculator") from None
        if not isinstance(given, dict):
            raise InvalidValue("these settings are JSON, but not an object; save them again from the calculator")
        return cls.from_mapping(given)

    @classmethod
    def from_query(cls, query: str) -> Scenario:
        """Settings from a URL query, with or without its leading '?'; raises `InvalidValue` for anything else."""
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
    """One row of the calculator: the month of a model, by kind of token, or of machines, as infrastructure.

    Money is in USD per month; `requests` is the number that users made in the month.
    """

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
        """USD per 1,000 requests of users, None for no requests; retries are in the cost but not in the count."""
        return None if not self.requests else 1000 * self.total / self.requests

    def parts(self) -> dict[str, Decimal]:
        """USD per month by kind of token, and `infrastructure` last."""
        return {**{kind: getattr(self.tokens, kind) for kind in TOKEN_KINDS}, "infrastructure": self.infrastructure}


def request_usage(scenario: Scenario) -> Usage:
    """The tokens of one call of the scenario; shares are rounded to whole tokens."""
    return Usage(
        input_tokens=scenario.input_tokens,
        output_tokens=scenario.output_tokens,
        cached_tokens=round(scenario.input_tokens * scenario.cached_share),
        reasoning_tokens=round(scenario.output_tokens * scenario.reasoning_share),
    )


def api_month(scenario: Scenario, price: Price) -> MonthlyCost:
    """A month of the scenario at an API's list price.

    Where the price depends on the hour, traffic is spread evenly over the day. Where no batch price is listed, all calls are
    at the standard price, and the `note` says so.
    """
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
    """A month of the scenario on self-hosted machines, as many as the peak needs, rented day and night.

    C_infra = machines · USD per hour · 24 · days, with machines = ⌈mean output tokens/s · peak factor / rate⌉, at least one.
    Only output tokens count against `host_tokens_per_second`. This is the output rate measured with this traffic's own
    prompt lengths, so it already includes the time for prefill. Raises `UnknownPrice` for an unknown host.
    """
    machine = host(scenario.host)
    a_day = Decimal(scenario.users) * Decimal(str(scenario.requests_per_user))
    asked = a_day * scenario.days
    attempts = 1 + Decimal(str(scenario.retry_rate)) + Decimal(str(scenario.shadow_share))
    peak_a_day = a_day * attempts * scenario.output_tokens * Decimal(str(scenario.peak_factor))
    # Both rates are per day: tokens per second would be a rounded decimal, and its last digit could add one machine.
    count = machines_for(peak_a_day, 86_400 * Decimal(str(scenario.host_tokens_per_second)))
    cost = count * machine.usd_per_hour * 24 * scenario.days
    return MonthlyCost(f"self-hosted/{machine.key}", Cost(), cost, asked, f"{count} × {machine.name}, {machine.as_of}")


def month(scenario: Scenario) -> tuple[MonthlyCost, ...]:
    """The month of the scenario at the price of each of its models, and last on its machine."""
    return (*(api_month(scenario, price_named(name)) for name in scenario.models), hosted_month(scenario))


def price_named(name: str) -> Price:
    """The list price of "provider/model" or of a model alone; raises `UnknownPrice` as `price_of` does."""
    provider, slash, model = name.partition("/")
    return price_of(model, provider) if slash else price_of(name)


@dataclass(frozen=True, slots=True)
class Swing:
    """The change of a cost when one setting alone moves from `low` to `high`."""

    name: str
    low: float
    high: float
    cost_low: Decimal
    cost_high: Decimal

    @property
    def width(self) -> Decimal:
        """The distance between the two costs, in USD per month."""
        return abs(self.cost_high - self.cost_low)


# Left out: `reasoning_share`, because reasoning is billed as output and so only moves money between kinds; and `days` and
# `peak_factor`, because the calendar and the traffic set them.
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

    Every setting moves by the same part `by` of the way that it has. Down, that is the way to 0: to (1 - by) times its
    value. Up, a quantity or a rate has no end, and moves as far as it moved down: to (1 + by) times its value. A share ends
    at 1, and moves by that part of what is left, to s + by (1 - s): so a lever that nobody has pulled yet (a share of 0) has
    a swing, and one that is pulled to its end has little left to give. All are kept within `BOUNDS`. `cost` is any function
    from a scenario to money. Raises `InvalidValue` for an unknown setting, and for a `by` that is not above 0 and up to 1.
    """
    if not 0 < by <= 1:
        raise InvalidValue(f"by is {by}; move settings by a share above 0 and up to 1")
    swings = []
    for name in names:
        low_bound, high_bound = _bounds(name)
        value = getattr(scenario, name)
        up = by * (1 - value) if name.endswith("_share") else by * value
        low, high = max(low_bound, value - by * value), min(high_bound, value + up)
        if name in _WHOLE:
            low, high = round(low), round(high)
        swings.append(
            Swing(name, low, high, cost(replace(scenario, **{name: low})), cost(replace(scenario, **{name: high})))
        )
    return tuple(sorted(swings, key=lambda swing: swing.width, reverse=True))


def elasticity(scenario: Scenario, cost: Callable[[Scenario], Decimal], name: str, by: float = 0.01) -> float:
    """The percentage by which the cost changes per percent of the setting `name`; 1 for a cost proportional to it.

    (Δcost / cost) / (Δvalue / value) over a difference of ±`by` of the value, kept within the setting's bounds. Raises
    `InvalidValue` for an unknown setting, for a setting or a cost of 0, and for a step that does not change the setting.
    """
    lowest, highest = _bounds(name)
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


def _bounds(name: str) -> tuple[float, float]:
    if name not in BOUNDS:
        raise InvalidValue(f"the calculator has no number {name!r} to move; it has {', '.join(BOUNDS)}")
    return BOUNDS[name][:2]
