"""An answer is capped where the lengths of others say, a schema is linted, and correct answers are priced.

Needs the extra "analysis".
"""

from labkit import engines, output, request

lengths = output.AnswerLengths((8, 9, 9, 10, 12, 12, 14, 15, 18, 60))
best = output.best_cap(lengths, output.CutCosts(token=1, cut=20))
print("cap at", lengths.percentile(0.8).tokens, "for 80 %; cheapest:", best.tokens, "at", best.cost, "an answer")


async def main():
    engine = engines.ScriptedEngine(("Yes, ", "it ", "is ", "open."), finish_reason="length")
    answer = await request.complete(request.stack(output.Cap(2, "again"), engine=engine), request.Request("Open?"))
    print(answer.text, answer.done.route, [asked.max_tokens for asked in engine.asked])


request.run_virtual(main())
print(*output.lint_schema({"type": "string"}), sep="\n")
tried = [output.Tried("text", 10, 1, tokens, right=tokens < 20) for tokens in lengths.ended]
print(output.cheapest(output.surface(tried, [10, 20, 100]))[["cap", "right", "per_correct"]].to_dict())
