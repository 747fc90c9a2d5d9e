"""A cache over a model: an answer that was given before costs nothing."""

from labkit import caches, cost, engines, ledger, request

books = ledger.Ledger(":memory:")
levers = ledger.Booked(books, {"*": cost.price_of("gpt-5-mini")}), caches.ResponseCache(caches.Store())


async def desk():
    return request.stack(*levers, engine=await engines.connect(model="small"))


with request.Synchronous(desk()) as ask:
    for _ in range(2):
        answer = ask("How late may I return a tent?")
        print(answer.text, answer.done.cost, answer.done.route)
print(ledger.spend(books, ["labkit.route"]))
