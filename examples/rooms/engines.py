"""An engine that computes time instead of text: what a load of three would wait for, on a machine that is not here."""

import asyncio

from labkit import engines, latency, request
from labkit.engines.modelled import EngineSettings, ModelledEngine

step = latency.LatencyModel(step_s=0.01, sequence_s=0.0, linear_s=0.0001, weights_s=0.02, pair_s=0.0, kv_s=0.0)


async def main():
    engine = ModelledEngine(step, EngineSettings(num_blocks=1000), tokenize=lambda _: range(500))
    asked = request.Request("500 tokens", max_tokens=11)
    for answer in await asyncio.gather(*[request.complete(engine, asked) for _ in range(3)]):
        print(f"first token after {answer.done.timing.ttft:.3f} s, all after {answer.done.timing.e2e:.3f} s")
    print(engine.provenance.kind)
    try:
        engines.Recorded("answers.jsonl", engine.provenance)
    except engines.RecordingError as error:
        print("refused:", error)


request.run_virtual(main())
