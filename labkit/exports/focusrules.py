"""The rules of FOCUS 1.3 for a dataset of cost and usage, and what in a dataset breaks them.

They are those of version 1.3 of the specification, with its list of changes since 1.2 (CC BY 4.0),
github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec. A rule that needs more than the dataset, such as an invoice or the
provider's price list, is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

FocusRow = Mapping[str, Any]


COSTS = ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")
"""The four columns of money; ours hold the same amount."""
_TIMES = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
_MANDATORY_NOT_NULL = (
    *COSTS, *_TIMES, "BillingAccountId", "BillingCurrency", "ChargeCategory", "InvoiceIssuerName", "ProviderName",
    "PublisherName", "ServiceCategory", "ServiceName", "ServiceProviderName",
)  # fmt: skip
MANDATORY = (
    *_MANDATORY_NOT_NULL, "BillingAccountName", "ChargeClass", "ChargeDescription", "HostProviderName", "PricingQuantity",
    "PricingUnit",
)  # fmt: skip
"""The columns that every FOCUS 1.3 dataset must have; `ProviderName` and `PublisherName` too, though 1.3 deprecates them."""
_NOT_NULL = (*_MANDATORY_NOT_NULL, "ChargeFrequency", "ServiceSubcategory")
_OF_A_SKU_PRICE = (
    "CommitmentDiscountQuantity", "ConsumedQuantity", "ContractedUnitPrice", "ListUnitPrice", "PricingCategory",
    "PricingQuantity", "SkuPriceDetails",
)  # fmt: skip
"""What has to be null where `SkuPriceId` is. 1.3 says so of each; it was implied before."""
_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
_FREQUENCIES = ("One-Time", "Recurring", "Usage-Based")
_PRICING = ("Standard", "Dynamic", "Committed", "Other")
_SERVICES = (
    "AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools",
    "Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration",
    "Mobile", "Networking", "Security", "Storage", "Web", "Other",
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COLUMN = re.compile(r"x_\w+|[A-Z][A-Za-z0-9]*")
_FLOATS = Decimal("1e-12")
"""By what part a product may miss the cost: other tools have binary floats, such as a price of 3.0000000000000004e-07."""
_WIDE = Context(prec=100, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Violation:
    """A rule of FOCUS that a dataset breaks: in `row` (from 1), or as a whole where `row` is 0."""

    row: int
    column: str
    problem: str

    def __str__(self) -> str:
        return f"{f'row {self.row}: ' if self.row else ''}{self.column} {self.problem}"


def check_focus(rows: Sequence[FocusRow]) -> list[Violation]:
    """Every rule of FOCUS 1.3 for cost and usage that the rows break, as far as one dataset can show it.

    Checked: mandatory columns, names and order of columns, nulls, types and formats, allowed values, units, periods that end
    after they begin, costs that equal price × quantity, and, of our own columns, that no unpriced attempt passes for a free
    one. Not checked: whether the invoice says the same, the values of `ServiceSubcategory`, and columns for commitments,
    capacity, contracts and split costs. Values may be Python's or, as in a CSV, texts, where an empty text is null. An empty
    dataset breaks no rule.
    """
    if not rows:
        return []
    columns = list(rows[0])
    found = [Violation(0, name, "is missing; FOCUS 1.3 requires the column") for name in MANDATORY if name not in columns]
    found += [
        Violation(0, name, "is no column name of FOCUS: use PascalCase, or x_ in front of a column of your own")
        for name in columns
        if not _COLUMN.fullmatch(name)
    ]
    own = [name.startswith("x_") for name in columns]
    if own != sorted(own):
        found.append(Violation(0, columns[own.index(True)], "stands before a column of FOCUS; put columns of your own last"))
    for number, row in enumerate(rows, 1):
        given = {name: None if value == "" else value for name, value in row.items()}
        found += [Violation(number, column, problem) for column, problem in _broken(given)]
    return found


def _broken(row: FocusRow) -> Iterator[tuple[str, str]]:
    for name in _NOT_NULL:
        if name in row and row[name] is None:
            yield name, "is null"
    number: dict[str, Decimal] = {}
    for name in (*COSTS, "ConsumedQuantity", "PricingQuantity", "ListUnitPrice", "ContractedUnitPrice"):
        if (value := row.get(name)) is not None:
            amount = _decimal(value)
            if amount is None:
                yield name, f"is {value!r:.60}, which is no decimal number"
            else:
                number[name] = amount
    moment = {name: _moment(row[name]) for name in _TIMES if row.get(name) is not None}
    for name, when in moment.items():
        if when is None:
            yield name, f"is {row[name]!r:.60}; FOCUS writes times as YYYY-MM-DDTHH:mm:ssZ"
    for what in ("Billing", "Charge"):
        begins, ends = moment.get(f"{what}PeriodStart"), moment.get(f"{what}PeriodEnd")
        if begins is not None and ends is not None and ends <= begins:
            yield f"{what}PeriodEnd", "is not after the start of the period"
    for name, allowed in (
        ("ChargeCategory", _CATEGORIES),
        ("ChargeClass", ("Correction",)),
        ("ChargeFrequency", _FREQUENCIES),
        ("PricingCategory", _PRICING),
        ("ServiceCategory", _SERVICES),
    ):
        if (value := row.get(name)) is not None and value not in allowed:
            yield name, f"is {value!r:.60}; FOCUS allows {', '.join(allowed)}"
    currency = row.get("BillingCurrency")
    if currency is not None and not re.fullmatch("[A-Z]{3}", str(currency)):
        yield "BillingCurrency", f"is {currency!r:.60}; use a code of ISO 4217, such as USD"
    yield from _broken_charge(row, number)
    yield from _broken_ours(row, number)


def _broken_charge(row: FocusRow, number: Mapping[str, Decimal]) -> Iterator[tuple[str, str]]:
    """What depends on the kind of charge, on its SKU price, and the products of price and quantity."""
    category, corrects = row.get("ChargeCategory"), row.get("ChargeClass") == "Correction"
    priced = ("ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingQuantity", "SkuId", "SkuPriceId")
    if category == "Tax":
        for name in priced:
            if row.get(name) is not None:
                yield name, "must be null for a tax"
    if category in ("Usage", "Purchase") and not corrects:
        for name in priced:
            if name in row and row[name] is None:
                yield name, f"is null in a charge of category {category}"
    if category == "Purchase" and row.get("ChargeFrequency") == "Usage-Based":
        yield "ChargeFrequency", "of a purchase cannot be Usage-Based"
    unused = row.get("CommitmentDiscountStatus") == "Unused"
    consumed = row.get("ConsumedQuantity")
    if consumed is not None and category is not None and (category != "Usage" or unused):
        yield "ConsumedQuantity", "is set in a charge that used nothing; it is for charges of category Usage"
    if "ConsumedQuantity" in row and consumed is None and category == "Usage" and not unused and not corrects:
        yield "ConsumedQuantity", "is null in a charge of category Usage"
    for quantity, unit in (("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit")):
        if {quantity, unit} <= row.keys() and (row[quantity] is None) != (row[unit] is None):
            yield unit, f"must be null where {quantity} is, and only there"
    yield from _broken_sku(row)
    yield from _broken_products(row, number)


def _broken_sku(row: FocusRow) -> Iterator[tuple[str, str]]:
    if "SkuPriceId" in row and row["SkuPriceId"] is None:
        for name in _OF_A_SKU_PRICE:
            if row.get(name) is not None:
                yield name, "must be null where SkuPriceId is"
    for name in ("ListUnitPrice", "ContractedUnitPrice"):
        if row.get("SkuPriceId") is not None and name in row and row[name] is None:
            yield name, "is null, though SkuPriceId says that there is a price"
    if row.get("SkuMeter") is not None and row.get("SkuId") is None:
        yield "SkuMeter", "must be null where SkuId is"


def _broken_products(row: FocusRow, number: Mapping[str, Decimal]) -> Iterator[tuple[str, str]]:
    for price, cost in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
        if price in number and number[price] < 0:
            yield price, "is negative"
        if {price, cost, "PricingQuantity"} <= number.keys():
            product = _WIDE.multiply(number[price], number["PricingQuantity"])
            if abs(_WIDE.subtract(product, number[cost])) > _WIDE.multiply(_FLOATS, abs(product)):
                yield cost, f"is {number[cost]}, but {price} × PricingQuantity is {product}"
        elif (
            row.get(price) is None and row.get("ChargeCategory") == "Credit" and number.get(cost) != number.get("BilledCost")
        ):
            yield cost, "of a credit must be the BilledCost"


def _broken_ours(row: FocusRow, number: Mapping[str, Decimal]) -> Iterator[tuple[str, str]]:
    if "x_Unpriced" not in row:
        return
    unpriced = str(row["x_Unpriced"]).lower() == "true"
    if unpriced != (row.get("x_Cost") is None):
        yield "x_Cost", "must be null where x_Unpriced is true, and only there"
    if unpriced and any(number.get(name) for name in COSTS):
        yield "BilledCost", "is an amount, though nobody priced the attempt"
    if unpriced and not str(row.get("ChargeDescription") or "").startswith("Unpriced"):
        yield "ChargeDescription", "must begin with Unpriced, or the attempt passes for a free one"


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    return Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.utcoffset() == timedelta(0) and not value.microsecond else None
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return None
    return None
