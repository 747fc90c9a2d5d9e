"""How alike questions are, and a cache that goes by it. Needs the extra "semantic"."""

from labkit import caches, embeddings, engines, request

questions = ["How late may I return a tent?", "How late can I return a tent?", "How late may I return a stove?"]
model = embeddings.embedder()
vectors = model.encode(questions)
print("alike:", (vectors @ vectors[0]).round(2))


async def main():
    cache = caches.SemanticCache(caches.Store(), model, caches.StaticThreshold(0.9), verify=0)
    desk = request.stack(cache, engine=engines.ScriptedEngine(("In ", "30 ", "days.")))
    for question in questions:
        answer = await request.complete(desk, request.Request(question))
        print(question, answer.text, answer.done.route)


request.run_virtual(main())
