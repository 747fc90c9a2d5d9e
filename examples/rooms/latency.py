"""How long a step of an engine takes, and how many answers a second keep a promise."""

from labkit import latency, request

step = latency.LatencyModel(step_s=0.01, sequence_s=0.0, linear_s=0.0001, weights_s=0.02, pair_s=0.0, kv_s=0.000001)
print("prefill of 1,000:", round(step.step_seconds(latency.StepWork.of([(1000, 0)])), 4), "s")
print("decode of 8:", round(step.step_seconds(latency.StepWork.of([(1, 1000)] * 8)), 4), "s")
print("weights are the limit below", round(latency.break_even_tokens(step)), "tokens")

answers = [
    latency.Sample(due=0.0, timing=request.Timing(0.0, first, 2.0, 2.0, 0.0), usage=request.Usage(10, 21))
    for first in (0.2, 0.4, 1.5)
]
print("goodput:", latency.goodput(answers, latency.SLO(ttft=0.5, tpot=0.1), seconds=2.0), "answers a second")
print("median TTFT:", latency.summary(answers, seconds=2.0).percentiles["TTFT"][50], "s")
