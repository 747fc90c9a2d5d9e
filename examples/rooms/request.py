"""A lever of one's own around an engine, and a deadline, on a clock on which a minute takes no time."""

from dataclasses import replace

from labkit import engines, request


class Short(request.Lever):
    def over(self, inner):
        return lambda asked: inner(replace(asked, max_tokens=2))


async def main():
    engine = engines.ScriptedEngine(("It ", "is ", "open ", "today."), gap_s=20.0)
    answer = await request.complete(request.stack(Short(), engine=engine), request.Request("Are you open?"))
    print(answer.text, answer.done.timing.e2e)
    try:
        await request.complete(engine, request.within(request.Request("Are you open?"), 70.0))
    except request.DeadlineExceeded as late:
        print("late:", late.partial)


request.run_virtual(main())
