"""The ledger as a FOCUS 1.3 dataset, the FinOps Foundation's format of bills.

One attempt is one row with `ChargeCategory` "Usage", measured in tokens. A saving is not a charge: what a cache or a router
saved is never a row here, and an answer that a cache served is a row that costs what it cost, mostly 0. Columns of our own
begin with `x_` and stand last, as FOCUS demands.

A SKU is a model at its provider. Its entry in a price list holds a price for each kind of token, so `SkuPriceId` equals
`SkuId`, the quantity counts tokens of all kinds, and there is no single unit price: `ListUnitPrice` and
`ContractedUnitPrice`, which FOCUS asks for only where one is published, are left out.

FOCUS has no way to say that a cost is not known: it forbids null there. An attempt without a price has the 0 that FOCUS
demands, and says that it is none: `x_Unpriced` is true, `x_Cost` is null, and its description begins with "Unpriced".
`totals_of_focus` counts such rows and adds nothing for them; a sum of `BilledCost` should name their number beside it.

`labkit.exports.focusrules` checks such a dataset.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from labkit.exports import names
from labkit.exports.errors import ExportError
from labkit.exports.focusrules import COSTS, FocusRow
from labkit.exports.totals import Totals, exact_sum, kinds_of
from labkit.extras import extra
from labkit.ledger import Ledger, Row
from labkit.request import TOKEN_KINDS

FieldType = Literal["text", "decimal", "time", "integer", "flag"]

_KIND_COLUMNS = {kind: "x_" + "".join(part.title() for part in kind.split("_")) + "Tokens" for kind in TOKEN_KINDS}
FIELDS: Mapping[str, FieldType] = {
    "BilledCost": "decimal", "BillingAccountId": "text", "BillingAccountName": "text", "BillingCurrency": "text",
    "BillingPeriodEnd": "time", "BillingPeriodStart": "time", "ChargeCategory": "text", "ChargeClass": "text",
    "ChargeDescription": "text", "ChargeFrequency": "text", "ChargePeriodEnd": "time", "ChargePeriodStart": "time",
    "ConsumedQuantity": "decimal", "ConsumedUnit": "text", "ContractedCost": "decimal", "EffectiveCost": "decimal",
    "HostProviderName": "text", "InvoiceId": "text", "InvoiceIssuerName": "text", "ListCost": "decimal",
    "PricingQuantity": "decimal", "PricingUnit": "text", "ProviderName": "text", "PublisherName": "text",
    "ServiceCategory": "text", "ServiceName": "text", "ServiceProviderName": "text", "ServiceSubcategory": "text",
    "SkuId": "text", "SkuMeter": "text", "SkuPriceDetails": "text", "SkuPriceId": "text", "SubAccountId": "text",
    "SubAccountName": "text",
    "x_FocusVersion": "text", "x_AttemptId": "text", "x_Attempt": "integer", "x_Cost": "decimal", "x_Unpriced": "flag",
    "x_Outcome": "text", "x_Shadow": "flag", "x_Model": "text", "x_Feature": "text", "x_Workflow": "text", "x_User": "text",
    "x_Route": "text", "x_UsageSource": "text", **dict.fromkeys(_KIND_COLUMNS.values(), "integer"),
}  # fmt: skip
"""The columns of the export, in their order, with the type of their values."""

_UNIT = "Tokens"
_ONE_SECOND = timedelta(seconds=1)
_ROW_GROUP = 50_000


def focus_rows(ledger: Ledger, *, account: str = "labkit", undated: datetime | None = None) -> list[dict[str, Any]]:
    """Every attempt of the ledger as a FOCUS row: Decimal money and quantities, times in UTC, None for null.

    `account` is the billing account, a tenant is a sub account, and a billing period is a calendar month in UTC. A charge
    period begins at the second in which the attempt was sent and ends at the first whole second after its end. `undated` is
    the moment at which to charge attempts whose time is not known; without it, such an attempt raises `ExportError`, since
    FOCUS requires a time and a guess would put money into the wrong month.
    """
    return [_charge(row, account, undated) for row in ledger.rows()]


def _charge(row: Row, account: str, undated: datetime | None) -> dict[str, Any]:
    start, end, month, next_month = _period(row, undated)
    kinds = kinds_of(row)
    tokens, cost = Decimal(sum(kinds.values())), Decimal(0) if row.cost is None else row.cost
    model = _model(row) or "a model without a name"
    told = f"{row.operation} with {model}, {row.outcome}, in tokens"
    values: dict[str, Any] = {
        **dict.fromkeys(COSTS, cost),
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingCurrency": row.currency,
        "BillingPeriodStart": month,
        "BillingPeriodEnd": next_month,
        "ChargeCategory": "Usage",
        "ChargeDescription": told if row.cost is not None else f"Unpriced: {told}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": start,
        "ChargePeriodEnd": end,
        **dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), tokens),
        **dict.fromkeys(("ConsumedUnit", "PricingUnit"), _UNIT),
        **dict.fromkeys(
            ("HostProviderName", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceProviderName"), row.provider
        ),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": row.provider,
        "ServiceSubcategory": "Generative AI",
        **dict.fromkeys(("SkuId", "SkuPriceId"), "/".join(part for part in (row.provider, _model(row)) if part)),
        "SkuMeter": _UNIT,
        "SubAccountId": row.tenant or None,
        "SubAccountName": row.tenant or None,
        "x_FocusVersion": names.FOCUS_VERSION,
        "x_AttemptId": row.attempt_id,
        "x_Attempt": row.attempt,
        "x_Cost": row.cost,
        "x_Unpriced": row.cost is None,
        "x_Outcome": row.outcome,
        "x_Shadow": row.shadow,
        "x_Model": model,
        "x_Feature": row.feature or None,
        "x_Workflow": row.workflow or None,
        "x_User": row.user or None,
        "x_Route": json.dumps(row.route, ensure_ascii=False),
        "x_UsageSource": row.usage_source,
        **{_KIND_COLUMNS[kind]: count for kind, count in kinds.items()},
    }
    return {name: values.get(name) for name in FIELDS}


def _model(row: Row) -> str:
    return row.request_model or row.response_model or ""


def _period(row: Row, undated: datetime | None) -> tuple[datetime, datetime, datetime, datetime]:
    """The charge period and the billing period: start and end of each."""
    moment = undated if row.started_unix is None else row.started_unix
    if moment is None:
        raise ExportError(
            f"attempt {row.attempt_id} has no time, and FOCUS requires one; pass undated=datetime(…, tzinfo=UTC), the "
            "moment at which such attempts are to be charged"
        )
    if undated is not None and undated.tzinfo is None:
        raise ExportError("undated has no time zone; pass a datetime with one, such as tzinfo=UTC")
    took = 0.0 if row.sent is None or row.done is None else max(0.0, row.done - row.sent)
    try:
        began = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
        start = began.astimezone(UTC).replace(microsecond=0)
        # FOCUS has whole seconds and an exclusive end, so a charge lasts at least one.
        end = start + (math.floor(took + began.microsecond / 1e6) + 1) * _ONE_SECOND
        month = start.replace(day=1, hour=0, minute=0, second=0)
        return start, end, month, (month + timedelta(days=32)).replace(day=1)
    except (OverflowError, ValueError, OSError) as error:
        raise ExportError(
            f"attempt {row.attempt_id} began {row.started_unix} s after 1970 and took {took:g} s: no dates of a bill"
        ) from error


def write_focus_csv(rows: Iterable[FocusRow], path: str | os.PathLike[str]) -> int:
    """Write FOCUS rows as CSV (UTF-8, null as an empty field) and return their number. Raises `ExportError`."""
    count = 0
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in rows:
        writer.writerow([_as_text(row.get(name)) for name in FIELDS])
        count += 1
    _put(Path(path), text.getvalue().encode("utf-8"))
    return count


def read_focus_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a FOCUS file as texts, for `check_focus` and `totals_of_focus`. Raises `ExportError`."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, [])
            rows: list[dict[str, str]] = []
            for fields in reader:
                if len(fields) != len(columns):
                    raise ExportError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields where the header has {len(columns)}; the "
                        "file is cut or damaged, so get it again"
                    )
                rows.append(dict(zip(columns, fields, strict=True)))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExportError(f"cannot read {path} as CSV: {error}; give a FOCUS file in UTF-8") from error


def write_focus_parquet(rows: Iterable[FocusRow], path: str | os.PathLike[str]) -> int:
    """Write FOCUS rows as Parquet, and return their number; the file's metadata names the version. Raises `ExportError`.

    Money and quantities are decimal128(38, 18), times are UTC timestamps. Needs the extra "analysis".
    """
    with extra("analysis"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    types = {
        "text": pa.string(), "decimal": pa.decimal128(38, 18), "time": pa.timestamp("ms", tz="UTC"), "integer": pa.int64(),
        "flag": pa.bool_(),
    }  # fmt: skip
    found = list(rows)
    schema = pa.schema([(name, types[kind]) for name, kind in FIELDS.items()])
    schema = schema.with_metadata({"FocusVersion": names.FOCUS_VERSION, "DataGenerator": "labkit"})
    columns = [pa.array([row.get(name) for row in found], types[kind]) for name, kind in FIELDS.items()]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, row_group_size=_ROW_GROUP)
    _put(Path(path), sink.getvalue())
    return len(found)


def totals_of_focus(rows: Iterable[FocusRow]) -> Totals:
    """The totals of rows that `focus_rows` made, or `read_focus_csv` read. Raises `ExportError` for other rows."""
    attempts = unpriced = 0
    tokens = dict.fromkeys(TOKEN_KINDS, 0)
    cost: dict[str, Decimal] = {}
    try:
        for row in rows:
            attempts += 1
            for kind, name in _KIND_COLUMNS.items():
                tokens[kind] += int(row[name])
            if str(row["x_Unpriced"]).lower() == "true":
                unpriced += 1
            else:
                currency = str(row["BillingCurrency"])
                cost[currency] = exact_sum(cost.get(currency, Decimal(0)), Decimal(row["BilledCost"]))
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise ExportError(f"these are no FOCUS rows of a ledger: {error!r:.200}; take those of focus_rows") from error
    return Totals(attempts, unpriced, tokens, cost)


def totals_of_parquet(path: str | os.PathLike[str]) -> Totals:
    """The totals of a file that `write_focus_parquet` wrote. Needs the extra "analysis". Raises `ExportError`."""
    with extra("analysis"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        return totals_of_focus(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise ExportError(f"cannot read {path} as Parquet: {error}") from error


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def _put(target: Path, content: bytes) -> None:
    """Write the file whole, or not at all."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.labkit-unfinished")
    try:
        try:
            unfinished.write_bytes(content)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror or error}; choose a writable folder with room") from error
