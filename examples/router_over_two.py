"""A router over two models: the small one answers, and when it is not sure, the large one answers."""

from labkit import cost, engines, ledger, request, routing

books = ledger.Ledger(":memory:")
prices = {"small": cost.price_of("gpt-5-nano"), "large": cost.price_of("gpt-5-mini")}
policy = routing.RoutingPolicy("v1", models=("small", "large"), thresholds=(0.9,))


async def desk():
    models = {name: await engines.connect(model=name) for name in prices}
    router = routing.Cascade(policy, routing.SequenceLogprob("total"), logprobs=0)
    return request.stack(ledger.Booked(books, prices), router, engine=models)


with request.Synchronous(desk()) as ask:
    for question in ("How late may I return a tent?", "Write a poem on tents, in Latin."):
        answer = ask(question)
        print(answer.text, answer.done.cost, answer.done.route)
print(ledger.spend(books, ["gen_ai.request.model"]))
