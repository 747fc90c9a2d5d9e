"""A named experiment, here on a modelled engine; on a live one `labkit record` keeps its rows with where they came from."""

from labkit import experiments, latency, request
from labkit.engines.modelled import EngineSettings, ModelledEngine

step = latency.LatencyModel(step_s=0.01, sequence_s=0.001, linear_s=0.0001, weights_s=0.02, pair_s=0.0, kv_s=0.0)


async def main():
    engine = ModelledEngine(step, EngineSettings(num_blocks=1000), tokenize=lambda _: range(64))
    for people in (1, 8):
        row = await experiments.concurrency(engine, lambda _, out: request.Request("64", max_tokens=out), people=people)
        print(people, "at once:", round(row["output_tokens_per_s"]), "tokens a second,", round(row["tpot_s"], 3), "s each")


print(experiments.EXPERIMENTS["concurrency"].question)
request.run_virtual(main())
