"""The FOCUS export, and a check whose rules are those of the specification, one sentence each."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import exports
from labkit.exports import MANDATORY, ExportError, check_focus, focus_rows
from labkit.ledger import Row
from tests.exports.ledgers import STARTED, attempts, ledger_of

ATTEMPT = Row(
    provider="lab", request_model="small", tenant="north", feature="search", cost=Decimal("0.00123"), input_tokens=1000,
    cached_tokens=400, output_tokens=50, usage_source="reported", sent=5.0, done=7.5, started_unix=STARTED,
)  # fmt: skip
# A row of somebody else's bill, with unit prices, written from the specification's column texts.
BILL = {
    "BilledCost": "0.5", "BillingAccountId": "a-1", "BillingAccountName": "Shop", "BillingCurrency": "USD",
    "BillingPeriodStart": "2026-03-01T00:00:00Z", "BillingPeriodEnd": "2026-04-01T00:00:00Z", "ChargeCategory": "Usage",
    "ChargeClass": "", "ChargeDescription": "input", "ChargeFrequency": "Usage-Based",
    "ChargePeriodStart": "2026-03-02T09:00:00Z", "ChargePeriodEnd": "2026-03-02T10:00:00Z", "ConsumedQuantity": "1000000",
    "ConsumedUnit": "Tokens", "ContractedCost": "0.5", "ContractedUnitPrice": "0.0000005", "EffectiveCost": "0.5",
    "HostProviderName": "Host", "InvoiceIssuerName": "Maker", "ListCost": "1", "ListUnitPrice": "0.000001",
    "PricingCategory": "Standard", "PricingQuantity": "1000000", "PricingUnit": "Tokens", "ProviderName": "Maker",
    "PublisherName": "Maker", "ServiceCategory": "AI and Machine Learning", "ServiceName": "Models",
    "ServiceProviderName": "Maker", "SkuId": "s", "SkuMeter": "input", "SkuPriceId": "s",
}  # fmt: skip


def test_an_attempt_as_a_charge():
    (row,) = focus_rows(ledger_of([ATTEMPT]))
    assert check_focus([row]) == []
    assert {row[name] for name in ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")} == {Decimal("0.00123")}
    assert (row["ConsumedQuantity"], row["PricingUnit"]) == (1050, "Tokens")
    assert (row["SkuId"], row["SkuPriceId"], row["SkuMeter"]) == ("lab/small", "lab/small", "Tokens")
    # Sent at 09:00:00.25 for 2.5 s: it ended at 09:00:02.75.
    assert row["ChargePeriodStart"] == datetime(2026, 3, 2, 9, 0, 0, tzinfo=UTC)
    assert row["ChargePeriodEnd"] == datetime(2026, 3, 2, 9, 0, 3, tzinfo=UTC)
    assert row["BillingPeriodStart"] == datetime(2026, 3, 1, tzinfo=UTC)
    assert row["BillingPeriodEnd"] == datetime(2026, 4, 1, tzinfo=UTC)
    assert (row["SubAccountId"], row["x_Feature"], row["ChargeCategory"]) == ("north", "search", "Usage")
    kinds = [row[f"x_{kind}Tokens"] for kind in ("FreshInput", "CachedInput", "CacheWrite", "VisibleOutput", "Reasoning")]
    assert kinds == [600, 400, 0, 50, 0]


def test_what_nobody_priced_is_seen_and_what_a_cache_served_is_free():
    unpriced = Row(provider="lab", outcome="failed", started_unix=STARTED)
    served = Row(provider="lab", cost=Decimal(0), started_unix=STARTED, route=("response-cache",))
    bad, free = focus_rows(ledger_of([unpriced, served]))
    assert check_focus([bad, free]) == []
    assert (bad["x_Unpriced"], bad["x_Cost"], bad["ChargeDescription"][:9]) == (True, None, "Unpriced:")
    assert (free["x_Unpriced"], free["x_Cost"], free["x_Route"]) == (False, 0, '["response-cache"]')
    assert {row["ChargeCategory"] for row in (bad, free)} == {"Usage"}  # no row for what was saved


@settings(max_examples=30, deadline=None)
@given(st.lists(attempts(), min_size=1, max_size=10))
def test_the_export_of_any_ledger_breaks_no_rule(rows):
    assert check_focus(focus_rows(ledger_of(rows))) == []


def test_a_csv_breaks_no_rule_either(tmp_path):
    rows = focus_rows(ledger_of([ATTEMPT, Row(provider="lab", started_unix=STARTED, tenant='a,"b"\nc')]))
    exports.write_focus_csv(rows, tmp_path / "bill.csv")
    read = exports.read_focus_csv(tmp_path / "bill.csv")
    assert check_focus(read) == []
    assert [row["SubAccountId"] for row in read] == ["north", 'a,"b"\nc']
    assert read[0]["BilledCost"] == "0.00123"


def test_a_parquet_file_has_exact_types_and_its_version(tmp_path):
    exports.write_focus_parquet(focus_rows(ledger_of([ATTEMPT])), tmp_path / "bill.parquet")
    schema = pq.read_schema(tmp_path / "bill.parquet")
    assert schema.field("BilledCost").type == pa.decimal128(38, 18)
    assert schema.field("ChargePeriodStart").type == pa.timestamp("ms", tz="UTC")
    assert schema.metadata[b"FocusVersion"] == b"1.3"


def test_a_time_that_is_not_known_is_not_guessed():
    ledger = ledger_of([Row(provider="lab", attempt_id="x1", cost=Decimal(1))])
    with pytest.raises(ExportError, match=r"x1 has no time.*undated=datetime"):
        focus_rows(ledger)
    with pytest.raises(ExportError, match="no time zone"):
        focus_rows(ledger, undated=datetime(2026, 3, 1))
    (row,) = focus_rows(ledger, undated=datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert row["BillingPeriodEnd"] == row["ChargePeriodEnd"] == datetime(2027, 1, 1, tzinfo=UTC)
    assert check_focus([row]) == []


def test_somebody_elses_bill_breaks_no_rule():
    assert check_focus([BILL]) == []


@pytest.mark.parametrize("name", MANDATORY)
def test_each_mandatory_column_is_missed(name):
    found = check_focus([{key: value for key, value in BILL.items() if key != name}])
    assert f"{name} is missing; FOCUS 1.3 requires the column" in [str(each) for each in found]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"BilledCost": ""}, "row 1: BilledCost is null"),
        ({"BilledCost": "NaN"}, "BilledCost is 'NaN', which is no decimal number"),
        ({"BilledCost": "1,5"}, "BilledCost is '1,5', which is no decimal number"),
        ({"BillingCurrency": "usd"}, "BillingCurrency is 'usd'"),
        ({"ChargeCategory": "Savings"}, "ChargeCategory is 'Savings'"),
        ({"ChargeClass": "Retry"}, "ChargeClass is 'Retry'"),
        ({"ChargeFrequency": "Hourly"}, "ChargeFrequency is 'Hourly'"),
        ({"PricingCategory": "On-Demand"}, "PricingCategory is 'On-Demand'"),
        ({"ServiceCategory": "LLM"}, "ServiceCategory is 'LLM'"),
        ({"ChargePeriodEnd": "2026-03-02T09:00:00Z"}, "ChargePeriodEnd is not after the start"),
        ({"ChargePeriodEnd": "2026-03-02T10:00:00.5Z"}, "FOCUS writes times as"),
        ({"ChargePeriodEnd": "2026-13-02T10:00:00Z"}, "FOCUS writes times as"),
        ({"ConsumedQuantity": ""}, "ConsumedQuantity is null in a charge of category Usage"),
        ({"PricingQuantity": ""}, "PricingQuantity is null in a charge of category Usage"),
        ({"PricingUnit": ""}, "PricingUnit must be null where PricingQuantity is, and only there"),
        ({"ConsumedUnit": ""}, "ConsumedUnit must be null where ConsumedQuantity is, and only there"),
        ({"ProviderName": ""}, "ProviderName is null"),
        ({"ChargeFrequency": ""}, "ChargeFrequency is null"),
        ({"ChargeCategory": "Purchase"}, "ChargeFrequency of a purchase cannot be Usage-Based"),
        ({"CommitmentDiscountStatus": "Unused"}, "ConsumedQuantity is set in a charge that used nothing"),
        ({"SkuPriceId": ""}, "SkuPriceId is null in a charge of category Usage"),
        ({"SkuId": "", "ChargeClass": "Correction"}, "SkuMeter must be null where SkuId is"),
        # New in 1.3, or said there for the first time:
        ({"SkuPriceId": "", "ChargeClass": "Correction"}, "PricingQuantity must be null where SkuPriceId is"),
        ({"SkuPriceId": "", "ChargeClass": "Correction"}, "ConsumedQuantity must be null where SkuPriceId is"),
        ({"SkuPriceId": "", "ChargeClass": "Correction"}, "ListUnitPrice must be null where SkuPriceId is"),
        ({"ContractedUnitPrice": ""}, "ContractedUnitPrice is null, though SkuPriceId says that there is a price"),
        ({"ListCost": "7", "ChargeClass": "Correction"}, "ListCost is 7, but ListUnitPrice × PricingQuantity is"),
        ({"ChargeCategory": "Tax"}, "PricingQuantity must be null for a tax"),
        ({"ChargeCategory": "Credit"}, "ConsumedQuantity is set in a charge that used nothing"),
        ({"ChargeCategory": "Credit", "ListUnitPrice": ""}, "ListCost of a credit must be the BilledCost"),
        ({"ListUnitPrice": "-1"}, "ListUnitPrice is negative"),
        ({"ListCost": "2"}, "ListCost is 2, but ListUnitPrice × PricingQuantity is 1.000000"),
        ({"ContractedCost": "0.6"}, "ContractedCost is 0.6, but ContractedUnitPrice × PricingQuantity"),
        ({"my_column": "1"}, "my_column is no column name of FOCUS"),
        ({"x_Unpriced": "true", "x_Cost": ""}, "is an amount, though nobody priced the attempt"),
        ({"x_Unpriced": "false", "x_Cost": ""}, "x_Cost must be null where x_Unpriced is true, and only there"),
    ],
)
def test_each_broken_rule_is_told(changes, told):
    assert any(told in str(each) for each in check_focus([{**BILL, **changes}]))


def test_a_correction_may_leave_quantities_open_and_a_host_may_be_unknown():
    without = dict.fromkeys(("ConsumedQuantity", "ConsumedUnit", "PricingQuantity", "PricingUnit", "HostProviderName"), "")
    assert check_focus([{**BILL, **without, "ChargeClass": "Correction", "ListCost": "7"}]) == []


def test_a_price_that_is_a_binary_float_is_close_enough():
    price = {"ListUnitPrice": "3.0000000000000004e-07", "ListCost": "0.3", "PricingQuantity": "1000000.0"}
    changed = {**BILL, **price, "ContractedUnitPrice": "5e-07"}
    assert check_focus([changed]) == []
    (found,) = check_focus([{**changed, "ListCost": "0.3000001"}])
    assert found.column == "ListCost"


def test_own_columns_stand_last():
    (found,) = check_focus([{"x_Mine": "1", **BILL}])
    assert str(found) == "x_Mine stands before a column of FOCUS; put columns of your own last"


@pytest.mark.parametrize("began", [-1e18, 253_402_300_799.0, 1e18])
def test_a_time_that_no_calendar_has_is_told(began):
    with pytest.raises(ExportError, match=r"x1 began .* no dates of a bill"):
        focus_rows(ledger_of([Row(provider="lab", attempt_id="x1", started_unix=began)]))


@pytest.mark.parametrize("text", ["BilledCost,x_Cost\n1,2\n1\n", "BilledCost,x_Cost\n1,2,3\n", 'BilledCost,x_Cost\n1,"2\n'])
def test_a_cut_file_is_told_by_its_line(tmp_path, text):
    (tmp_path / "cut.csv").write_text(text)
    with pytest.raises(ExportError, match=r"cut\.csv, line \d: \d fields|cannot read .*cut\.csv as CSV"):
        exports.read_focus_csv(tmp_path / "cut.csv")


def test_files_that_cannot_be_written_or_read(tmp_path):
    with pytest.raises(ExportError, match="choose a writable folder"):
        exports.write_focus_csv([], tmp_path / "none" / "bill.csv")
    with pytest.raises(ExportError, match="give a FOCUS file"):
        exports.read_focus_csv(tmp_path / "none.csv")
    with pytest.raises(ExportError, match="no FOCUS rows of a ledger"):
        exports.totals_of_focus([BILL])
    assert list(tmp_path.iterdir()) == []
