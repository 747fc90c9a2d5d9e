"""Two requests at once and a budget for one: what a request may cost is set aside before it is sent, so one is refused."""

import asyncio
from decimal import Decimal

from labkit import budgets, cost, engines, request

purses = budgets.Purses(":memory:")
purses.allow(budgets.SpendingLimit(Decimal("0.02"), budgets.Daily(), tenant="*"))
price = {"*": cost.self_defined("house-model", input="1", output="100")}
engine = engines.ScriptedEngine(("In ", "30 ", "days."))
ask = request.Request("How late?", tenant="shop", max_tokens=128)


async def main():
    handler = request.stack(budgets.Budgeted(purses, price), engine=engine)
    answer, refusal = await asyncio.gather(*[request.complete(handler, ask) for _ in "ab"], return_exceptions=True)
    print(answer.text, "/ up to", refusal.needed, "needed,", refusal.left, "left:", type(refusal).__name__)
    (now,) = purses.standings(budgets.Spender("shop"), request.clock.unix_now())
    print("spent", now.settled, "held", now.held, "left", now.left)


request.run_virtual(main())
