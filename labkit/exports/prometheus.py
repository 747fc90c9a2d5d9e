"""The ledger as Prometheus metrics, and the increase of a counter that may have been reset.

The counters are read from the ledger, not counted in memory. So an exporter that is restarted goes on where it was, and no
dollar is counted twice or lost. Engines count in memory: their counters begin again at 0 with every start, and the
difference of two samples across a start is wrong. `increase` follows Prometheus's rule for that.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

from labkit.exports import names
from labkit.exports.errors import ExportError, TooManySeries
from labkit.exports.totals import Totals, exact_sum, kinds_of
from labkit.ledger import Ledger, Row
from labkit.request import TOKEN_KINDS, InvalidValue

if TYPE_CHECKING:
    from prometheus_client import Metric

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets, in seconds."""
_PORTION = 10_000
"""Rows that are read at once, which bounds the memory that a scrape needs."""
Key = tuple[str, ...]


class _Times:
    """One histogram: how many values fell at or under each bound, and their sum in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        reached = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip([*SECONDS, math.inf], self.counts, strict=True):
            reached += count
            found.append(("+Inf" if math.isinf(bound) else str(bound), float(reached)))
        return found


class LedgerMetrics:
    """A collector for `prometheus_client` with the metrics of all attempts in `ledger`; each scrape reads the new ones only.

    The first one reads all, which takes seconds from 100,000 attempts on. Prometheus gives up on a scrape after ten, so call
    `collect()` once before a large ledger is served.

    Labels: tenant, feature, model (the requested name, else the one that answered) and outcome. A request is counted once,
    with the labels of its first booked attempt; attempts with the same tenant and idempotency key belong to one request, and
    shadow traffic to none. `labkit_cost_usd_total` holds dollars. Attempts priced in another currency and attempts without a
    price are counted in metrics of their own, so that neither looks free. `labkit_ledger_attempts` is a gauge that has none
    of the labels.

    A scrape raises `TooManySeries` where the label values found would make more than `max_series` combinations, and
    `LedgerError` where the ledger cannot be read. Raises `InvalidValue` for a bound below 1. May be shared by threads.
    """

    def __init__(self, ledger: Ledger, *, max_series: int = 2000) -> None:
        if isinstance(max_series, bool) or not isinstance(max_series, int) or max_series < 1:
            raise InvalidValue(f"max_series is {max_series!r}; use a whole number of at least 1")
        self._ledger = ledger
        self._max = max_series
        self._lock = threading.Lock()
        self._read = 0
        self._keys: set[Key] = set()
        self._requests_seen: set[tuple[str, str]] = set()
        self._cost: dict[Key, Decimal] = {}
        self._requests: dict[Key, int] = {}
        self._attempts: dict[Key, int] = {}
        self._unpriced: dict[Key, int] = {}
        self._other: dict[Key, int] = {}
        self._tokens: dict[Key, int] = {}
        self._seconds: dict[Key, _Times] = {}
        self._ttft: dict[Key, _Times] = {}

    def collect(self) -> Iterable[Metric]:
        """The metrics as they stand; called by `prometheus_client` at a scrape."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        with self._lock:
            self._catch_up()
            counters: tuple[tuple[str, str, Mapping[Key, Decimal | int], tuple[str, ...]], ...] = (
                (names.PROM_COST, "Cost of priced attempts in US dollars", self._cost, ()),
                (names.PROM_REQUESTS, "Requests, by the labels of their first attempt", self._requests, ()),
                (names.PROM_ATTEMPTS, "Attempts, however they ended", self._attempts, ()),
                (names.PROM_TOKENS, "Tokens by kind; the kinds are disjoint", self._tokens, (names.KIND_LABEL,)),
                (names.PROM_UNPRICED, "Attempts whose cost nobody knows", self._unpriced, ()),
                (names.PROM_OTHER_CURRENCY, "Attempts priced in another currency than US dollars", self._other, ()),
            )
            found: list[Metric] = [GaugeMetricFamily(names.PROM_KEPT, "Attempts that the ledger keeps", value=self._read)]
            for name, told, values, more in counters:
                counter = CounterMetricFamily(name.removesuffix("_total"), told, labels=[*names.LABELS, *more])
                for key, value in sorted(values.items()):
                    counter.add_metric(list(key), float(value))
                found.append(counter)
            for name, told, times in (
                (names.PROM_SECONDS, "Seconds from sending an attempt to its end", self._seconds),
                (names.PROM_TTFT, "Seconds from sending an attempt to its first token", self._ttft),
            ):
                histogram = HistogramMetricFamily(name, told, labels=list(names.LABELS))
                for key, each in sorted(times.items()):
                    histogram.add_metric(list(key), each.buckets(), each.total)
                found.append(histogram)
            return found

    def _catch_up(self) -> None:
        while new := self._ledger.rows(after=self._read, limit=_PORTION):
            self._take(new)

    def _take(self, new: Sequence[Row]) -> None:
        # First all labels are checked, then all rows are counted: a refused scrape must leave the counters whole.
        keys = self._keys | {_key(row) for row in new}
        if len(keys) > self._max:
            widest = max(range(len(names.LABELS)), key=lambda place: len({key[place] for key in keys}))
            raise TooManySeries(
                f"{len(keys)} combinations of {', '.join(names.LABELS)} are more than max_series={self._max}; the label "
                f"{names.LABELS[widest]!r} has the most values: keep ids out of it, or raise max_series"
            )
        self._keys = keys
        for row in new:
            self._count(row)
        self._read += len(new)

    def _count(self, row: Row) -> None:
        key = _key(row)
        _more(self._attempts, key)
        if not row.shadow and (not row.idempotency_key or (row.tenant, row.idempotency_key) not in self._requests_seen):
            _more(self._requests, key)
            if row.idempotency_key:
                self._requests_seen.add((row.tenant, row.idempotency_key))
        if row.cost is None:
            _more(self._unpriced, key)
        elif row.currency == "USD":
            self._cost[key] = exact_sum(self._cost.get(key, Decimal(0)), row.cost)
        else:
            _more(self._other, key)
        for kind, count in kinds_of(row).items():
            _more(self._tokens, (*key, kind), count)
        if row.sent is not None and row.done is not None and row.done >= row.sent:
            self._seconds.setdefault(key, _Times()).add(row.done - row.sent)
        if row.sent is not None and row.first_token is not None and row.first_token >= row.sent:
            self._ttft.setdefault(key, _Times()).add(row.first_token - row.sent)


def exposition(metrics: LedgerMetrics) -> str:
    """The metrics in Prometheus's text format, as `/metrics` would serve them. Raises what a scrape raises."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return generate_latest(registry).decode("utf-8")


def increase(samples: Sequence[float]) -> float:
    """By how much a counter grew over `samples`, in their order, though it may have been reset between two of them.

    Prometheus's rule: a value lower than the one before means that the counter began again at 0, so the whole of the lower
    value is growth. What was counted between the last sample before a reset and the reset itself is lost, so the result is a
    lower bound then. Unlike PromQL's `increase`, this adds nothing for the edges of a window. Fewer than two samples tell of
    no growth: 0. Raises `InvalidValue` for a value that no counter can have.
    """
    for value in samples:
        if not math.isfinite(value) or value < 0:
            raise InvalidValue(f"a counter cannot be {value!r}; give finite samples of at least 0, stale markers left out")
    return math.fsum(now - before if now >= before else now for before, now in pairwise(samples))


def totals_of_exposition(text: str) -> Totals:
    """The totals that a scrape tells; its cost is in dollars only. Raises `ExportError` for text of another format."""
    from prometheus_client.parser import text_string_to_metric_families

    attempts = unpriced = 0
    tokens = dict.fromkeys(TOKEN_KINDS, 0)
    cost: list[float] = []
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == names.PROM_ATTEMPTS:
                    attempts += round(sample.value)
                elif sample.name == names.PROM_UNPRICED:
                    unpriced += round(sample.value)
                elif sample.name == names.PROM_TOKENS:
                    tokens[sample.labels[names.KIND_LABEL]] += round(sample.value)
                elif sample.name == names.PROM_COST:
                    cost.append(sample.value)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ExportError(f"this is no exposition of a ledger: {error!s:.200}; give the text of its /metrics") from error
    return Totals(attempts, unpriced, tokens, {"USD": Decimal(str(math.fsum(cost)))} if cost else {})


def _key(row: Row) -> Key:
    return (row.tenant, row.feature, row.request_model or row.response_model or "", row.outcome)


def _more(counts: dict[Key, int], key: Key, by: int = 1) -> None:
    counts[key] = counts.get(key, 0) + by
