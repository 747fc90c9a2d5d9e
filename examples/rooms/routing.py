"""The small model answers, and where it is not sure, the large one; and a model that fails has a stand-in."""

from labkit import engines, request, routing

policy = routing.RoutingPolicy("v1", models=("small", "large"), thresholds=(0.9,))


async def ask(chooser, small):
    models = {"small": small, "large": engines.ScriptedEngine(("The ", "large."), probability=0.99)}
    answer = await request.complete(request.stack(chooser, engine=models), request.Request("Which of you?"))
    print(answer.text, answer.done.route)


async def main():
    cascade = routing.Cascade(policy, routing.SequenceLogprob(), logprobs=0)
    for probability in (0.95, 0.6):
        await ask(cascade, engines.ScriptedEngine(("The ", "small."), probability=probability))
    await ask(routing.Fallback(("small", "large")), engines.ScriptedEngine(fail_at=0))


request.run_virtual(main())
