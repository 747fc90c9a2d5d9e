"""One ledger as a bill and as metrics, with the same sum."""

from decimal import Decimal

from labkit import exports, ledger

books = ledger.Ledger(":memory:")
began = {"provider": "house", "request_model": "small", "started_unix": 1_772_442_000.0}
books.append(ledger.Row(**began, tenant="shop", cost=Decimal("0.25"), input_tokens=900, output_tokens=100))
books.append(ledger.Row(**began, tenant="shop", outcome="failed"))

bill = exports.focus_rows(books)
print("broken rules of FOCUS:", exports.check_focus(bill))
for row in bill:
    print(row["BillingPeriodStart"].date(), row["ConsumedQuantity"], row["ConsumedUnit"], row["x_Cost"], row["x_Unpriced"])
scraped = exports.totals_of_exposition(exports.exposition(exports.LedgerMetrics(books)))
print("differences:", exports.reconcile(books, {"focus": exports.totals_of_focus(bill), "prometheus": scraped}))
