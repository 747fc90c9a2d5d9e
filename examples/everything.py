"""Six levers in one stack, saved to a file and loaded again: ledger, cache, single flight, window, loop stop, router."""

import sys

from labkit import batching, caches, cost, embeddings, engines, ledger, request, routing, stacks, streaming

prices = {"small": cost.price_of("gpt-5-nano"), "large": cost.price_of("gpt-5-mini")}
levers = (
    ledger.Booked(ledger.Ledger(":memory:"), prices),
    caches.SemanticCache(caches.Store(), embeddings.embedder(), caches.StaticThreshold(0.9)),
    caches.SingleFlight(),
    batching.CoalescingWindow(0.01),
    streaming.StopWhen(streaming.Repeating()),
    routing.Cascade(routing.RoutingPolicy("v1", ("small", "large"), (0.9,)), routing.SequenceLogprob(), logprobs=0),
)


async def desk():
    models = {name: await engines.connect(model=name) for name in prices}
    stacks.save(request.stack(*levers, engine=models), path, names=models)
    return stacks.load(path, names=models)


path = sys.argv[1] if len(sys.argv) > 1 else "stack.yaml"
with request.Synchronous(desk()) as ask:
    for question in ("How late may I return a tent?", "Until when may I return a tent?", "How late may I return a tent?"):
        answer = ask(question)
        print(answer.text, answer.done.cost, answer.done.route)
