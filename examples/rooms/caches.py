"""A question asked again is answered for nothing, but never to another tenant; and what a prefix cache would have served."""

from labkit import caches, engines, request

store = caches.Store()


async def main():
    engine = engines.ScriptedEngine(("In ", "30 ", "days."))
    desk = request.stack(caches.SingleFlight(), caches.ResponseCache(store), engine=engine)
    for tenant in ("north", "north", "south"):
        answer = await request.complete(desk, request.Request("How late may I return a tent?", tenant=tenant))
        print(tenant, answer.text, answer.done.usage.output_tokens, answer.done.route)
    print(len(engine.asked), "asked,", store.stats().hits, "served")


request.run_virtual(main())
print(caches.block_hits([("system", "a"), ("system", "b"), ("system", "a", "c")]).ratio)
