"""A refused attempt is made again, the request sent again is not paid for again, and a budget ends a storm of retries."""

from labkit import engines, request, resilience


async def main():
    bad_second = resilience.Mishaps((resilience.Mishap("unavailable", end_s=1.0),))
    retry = resilience.Retry(3, resilience.Backoff(2.0, 8.0, "none"), resilience.Quota(10))
    engine = engines.ScriptedEngine(("All ", "is ", "well."))
    handler = request.stack(resilience.Idempotent(), retry, bad_second, engine=engine)
    for _ in range(2):
        answer = await request.complete(handler, request.Request("Is it?", idempotency_key="once"))
        print(answer.text, answer.done.usage.output_tokens, answer.done.route, retry.counts.attempts, "attempts")


request.run_virtual(main())
for budget in (None, resilience.Ratio(0.1, per_second=0.0)):
    run = resilience.sketch(resilience.Weather(budget=budget))
    print(f"{run.weather.worst_load:.2f} of what it can carry, recovered: {run.recovered}")
cost = resilience.with_failures(1000, 200, failing=0.5, written=0.9, attempts=3)
print(f"paid / useful: {cost.multiplier:.3f}, of output alone {cost.output_multiplier:.2f}")
