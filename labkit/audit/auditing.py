"""`audit_logs`: every finding in one pass over one or several logs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from labkit.audit.advice import Advice, Finder, PlanLine, plan_of
from labkit.audit.bill import Bill, LogSpan, SpendingGroup
from labkit.audit.money import Prices
from labkit.audit.prefixes import Prefixes
from labkit.audit.repeats import Alike, Encode, Repeated
from labkit.audit.waste import Redundant, Tails, Wasted
from labkit.audit.what_if import Patient, Routed
from labkit.cost import TOKEN_KINDS, Cost, Price, self_defined
from labkit.logs import BadLine, LogStream
from labkit.request import InvalidValue

MONTH_S = 30 * 24 * 3600
TOP = 10


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What only people know, and a log does not say.

    `mapped`: see `LogStream`. `prices` win over the catalogue's, by the model's name in the log ("" prices calls that name
    none). `month_calls`: calls in a month; without it the log's time is stretched to 30 days. `patient`: the features that
    can wait a day. `cheaper`: the model to route short calls to. `threshold` and `encode`: the similarity from which a
    semantic cache may answer, and the embedder it holds for. `show_prompts` puts the most repeated questions in the report.
    `processes`: see `LogStream`.
    Raises `InvalidValue` for a number of calls below 1.
    """

    mapped: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    month_calls: int | None = None
    patient: tuple[str, ...] = ()
    cheaper: str = ""
    threshold: float | None = None
    encode: Encode | None = None
    show_prompts: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        if self.month_calls is not None and self.month_calls < 1:
            raise InvalidValue(f"month_calls is {self.month_calls}; give the calls of a month, at least 1")
        if self.processes < 1:
            raise InvalidValue(f"processes is {self.processes}; use 1 for none beside this one, or more")


@dataclass(frozen=True, slots=True)
class FileRead:
    """What became of one file: its calls, and how many lines are none, with the first of each kind.

    `bad` could not be read, `copies` tell of a call that was told of before. `alike` say the same as a line before, but have
    no id: they count as calls. `others` are spans that are no calls, `no_zone` dates taken as UTC.
    """

    name: str
    kind: str
    calls: int
    bad: int
    first_bad: tuple[BadLine, ...]
    copies: int
    first_copies: tuple[BadLine, ...]
    alike: int
    first_alike: tuple[BadLine, ...]
    others: int
    no_zone: int


@dataclass(frozen=True, slots=True)
class Audited:
    """All that an audit found. Money is USD for the time of the log; times `scale` it is a month's.

    `span` is that time, and `seconds` how long it is, None where the log has fewer than two times; `stretched` says in words
    where `scale` comes from.
    `told` is what the log itself says was paid, by currency. `unpriced` are models without a price: name, calls and tokens,
    which are in no sum. `without_usage` counts calls without token counts, `lines_without` are the first: file and
    line. `plan` is what to do, in order.
    """

    files: tuple[FileRead, ...]
    calls: int
    without_usage: int
    lines_without: tuple[tuple[str, int], ...]
    span: LogSpan | None
    seconds: float | None
    scale: Decimal
    stretched: str
    cost: Cost
    tokens: tuple[int, ...]
    models: tuple[SpendingGroup, ...]
    features: tuple[SpendingGroup, ...]
    tenants: tuple[SpendingGroup, ...]
    unpriced: tuple[tuple[str, int, int], ...]
    told: Mapping[str, Decimal]
    sources: str
    advice: tuple[Advice, ...]
    plan: tuple[PlanLine, ...]
    shown: tuple[tuple[int, str], ...] = ()

    def to_json(self) -> str:
        """All of it as JSON; money as text, so that no digit is lost."""
        return json.dumps(_plain(self), indent=1, ensure_ascii=False)


def audit_logs(paths: Sequence[str | os.PathLike[str]], settings: AuditSettings | None = None) -> Audited:
    """Read the logs at `paths` once and say where their money goes, and what would save how much of it.

    A call that two files tell of (equal id, attempt and tokens) counts once. Raises `InvalidValue` for no path, and as
    `LogStream` does.
    """
    chosen = settings or AuditSettings()
    if not paths:
        raise InvalidValue("no log to audit; name at least one file")
    prices, bill = Prices(chosen.prices), Bill()
    repeated = Repeated(chosen.show_prompts)
    finders: list[Finder] = [
        Prefixes(prices),
        repeated,
        Alike(chosen.threshold, chosen.encode),
        Tails(),
        Wasted(),
        Routed(chosen.cheaper),
        Patient(chosen.patient),
        Redundant(),
    ]
    takers = [bill.take, *(finder.take for finder in finders)]
    seen: set[int] = set()
    files = []
    for path in paths:
        stream = LogStream(path, chosen.mapped, seen, chosen.processes)
        bill.file = stream.path.name
        for call in stream:
            one = prices.seen(call)
            for take in takers:
                take(one)
        files.append(
            FileRead(
                stream.path.name, stream.kind, stream.calls, stream.bad.count, tuple(stream.bad.first), stream.copies.count,
                tuple(stream.copies.first), stream.alike.count, tuple(stream.alike.first), stream.others, stream.no_zone,
            )
        )  # fmt: skip
    cost = bill.cost(prices)
    advice = tuple(finder.advice(prices, cost) for finder in finders)
    span = bill.span()
    lasted = None if span is None or span.last <= span.first else span.last - span.first
    scale, stretched = _month(bill.calls, lasted, chosen.month_calls)
    unpriced = tuple((name, calls, bill.unpriced_tokens[name]) for name, calls in bill.unpriced.most_common())
    shown = sorted(((n, text) for n, text in repeated.shown.values()), reverse=True)[:TOP]
    by = {what: bill.spenders(what, prices) for what in ("model", "feature", "tenant")}
    return Audited(
        tuple(files), bill.calls, bill.without_usage, tuple(bill.lines_without), span, lasted, scale, stretched, cost,
        bill.tokens(), by["model"], by["feature"], by["tenant"], unpriced, bill.told, prices.sources, advice,
        plan_of(advice, cost), tuple(shown),
    )  # fmt: skip


def read_prices(path: Path) -> dict[str, Price]:
    """One's own prices from a JSON file: {"model": {"input": "2.5", "output": "10", "cached": "0.25"}}, USD per million.

    Raises `InvalidValue` for a file that is not of this form.
    """
    form = '{"model": {"input": "2.5", "output": "10", "cached": "0.25", "cache_write": "3"}}'
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return {model: self_defined(model, **one, source=path.name) for model, one in given.items()}
    except OSError as error:
        raise InvalidValue(f"cannot read the prices {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidValue(
            f"{path.name} holds no prices ({error}); write JSON like {form}, in USD per million tokens"
        ) from None


def _month(calls: int, seconds: float | None, month_calls: int | None) -> tuple[Decimal, str]:
    """By what the log's money is multiplied to be a month's, and where that comes from, in words."""
    if month_calls is not None:
        return Decimal(month_calls) / max(1, calls), f"{month_calls:,} calls a month, as given"
    if not seconds:
        return Decimal(1), "the log tells no time: the money is that of the log, not of a month (give --month-calls)"
    told = f"the log's {seconds / 3600:.3g} h stretched to 30 days"
    short = "; a log of less than a week knows nothing of the days that it lacks" if seconds < 7 * 86400 else ""
    return Decimal(MONTH_S) / Decimal(repr(seconds)), told + short


def _plain(value: Any) -> Any:
    if isinstance(value, Cost):
        return {**{kind: str(getattr(value, kind)) for kind in TOKEN_KINDS}, "total": str(value.total)}
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
