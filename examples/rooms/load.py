"""A minute of users at two a second, on a machine that is modelled: waiting in an instant."""

from itertools import takewhile

from labkit import latency, load, request
from labkit.engines.modelled import EngineSettings, ModelledEngine

step = latency.LatencyModel(step_s=0.01, sequence_s=0.0, linear_s=0.0001, weights_s=0.02, pair_s=0.0, kv_s=0.0)
due = list(takewhile(lambda at: at < 60, load.poisson(rate=2.0, seed=1)))


async def main():
    engine = ModelledEngine(step, EngineSettings(num_blocks=1000, max_num_seqs=4), tokenize=lambda _: range(500))
    run = await load.open_loop(engine, [(at, request.Request("500 tokens", max_tokens=50)) for at in due])
    seen = latency.summary(run.samples, run.seconds)
    print(len(due), "due,", seen.requests - seen.failed, "answered,", seen.failed, "failed")
    print({name: round(values[50], 3) for name, values in seen.percentiles.items()})


request.run_virtual(main())
