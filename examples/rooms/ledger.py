"""Every attempt is a row, the failed ones too, and each row has its price."""

from labkit import cost, engines, ledger, request

books = ledger.Ledger(":memory:")
levers = [ledger.Booked(books, {"*": cost.self_defined("house-model", input="1", output="10")})]


async def main():
    for engine in engines.ScriptedEngine(("In ", "30 ", "days.")), engines.ScriptedEngine(fail_at=1):
        try:
            await request.complete(request.stack(*levers, engine=engine), request.Request("How late?", tenant="shop"))
        except request.EngineError as error:
            print("failed:", error)


request.run_virtual(main())
for row in books.rows():
    print(row.tenant, row.outcome, row.input_tokens, row.output_tokens, row.cost)
