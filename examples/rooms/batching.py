"""Ten texts in a few calls, and four requests in an engine's steps: one batch after the other, or joining as they come."""

import asyncio

from labkit import batching, request

calls = []


async def lengths(texts):
    calls.append(len(texts))
    return [len(text) for text in texts]


def step(prefill, decode):
    return 0.1 + 0.001 * (prefill + decode)


async def main():
    async with batching.Batcher(lengths, max_size=4, max_wait_s=0.01) as batcher:
        print(await asyncio.gather(*[batcher.submit("x" * n) for n in range(10)]), "in calls of", calls)


request.run_virtual(main())
jobs = [batching.Job(0.0, 10, 100), batching.Job(0.0, 10, 10), batching.Job(0.5, 10, 10), batching.Job(0.5, 10, 10)]
for policy in (batching.static, batching.continuous):
    done = batching.run_schedule(jobs, policy, batching.Limits(2, 64), step)
    print(policy.__name__, round(done.finish, 1), "s")
