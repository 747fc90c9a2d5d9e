"""Whose bill it is, and why today's is not yesterday's. Needs the extra "analysis"."""

from dataclasses import replace

from labkit import cost, ledger, spending

price = cost.self_defined("house-model", input="1", output="10")
call = ledger.Row(provider="lab", request_model="house-model", feature="desk", input_tokens=1_000_000, output_tokens=100_000)
books = ledger.Ledger(":memory:")
for day, calls, output in (0, 2, 100_000), (1, 3, 200_000):
    for number in range(calls):
        row = replace(call, attempt_id=f"{day}-{number}", started_unix=86_400.0 * day, output_tokens=output)
        books.append(replace(row, cost=cost.price_request(row.usage, price).total))

yesterday, today = (spending.Slice(books, 86_400 * day, 86_400 * (day + 1), prices={"*": price}) for day in (0, 1))
bill = spending.attribute(today, ["feature"])
print(bill[["feature", "requests", "fresh_input_cost", "visible_output_cost", "cost"]].astype(str).values.tolist())
print(spending.explain_change(yesterday, today).told())
