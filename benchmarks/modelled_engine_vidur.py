"""Vidur's part of modelled_engine.py: a Python that has Vidur runs one trace through Vidur's event loop and times it.

Vidur's package lacks its tables of profiled kernels, so a stand-in for its predictor does our latency model's sums.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

from vidur._native.entities import ExecutionTime
from vidur.config import (
    CacheConfig,
    ClusterConfig,
    LinearRegressionExecutionTimePredictorConfig,
    MetricsConfig,
    ReplicaConfig,
    SarathiSchedulerConfig,
    SimulationConfig,
    TraceRequestGeneratorConfig,
)
from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.simulator import Simulator
from vidur.types import ExecutionTimePredictorType

JOB = json.loads(sys.argv[1])
MODEL, SETTINGS = JOB["model"], JOB["settings"]


class StandIn:
    """A predictor that computes a step's time from the step's tokens, as `LatencyModel` does."""

    def __init__(self, **_: Any) -> None:
        pass

    def get_execution_time(self, batch: Any, pipeline_stage: int) -> ExecutionTime:  # noqa: ARG002
        """The time of a step. Vidur counts in milliseconds."""
        tokens = pairs = kv_tokens = 0
        for new, total in zip(batch.num_q_tokens, batch.num_kv_tokens):  # noqa: B905 - equal by Vidur's construction
            tokens += new
            pairs += new * (total - new) + new * (new + 1) // 2
            kv_tokens += total
        seconds = (
            MODEL["step_s"]
            + MODEL["sequence_s"] * len(batch.num_q_tokens)
            + max(MODEL["linear_s"] * tokens, MODEL["weights_s"])
            + max(MODEL["pair_s"] * pairs, MODEL["kv_s"] * kv_tokens)
        )
        return ExecutionTime(1, seconds * 1000, *[0.0] * 13)


def main() -> None:
    """Run the trace once and print the result as one line of JSON."""
    ExecutionTimePredictorRegistry.unregister(ExecutionTimePredictorType.LINEAR_REGRESSION)
    ExecutionTimePredictorRegistry.register(ExecutionTimePredictorType.LINEAR_REGRESSION, StandIn)
    config = SimulationConfig(
        cluster_config=ClusterConfig(
            replica_config=ReplicaConfig(num_pipeline_stages=1, tensor_parallel_size=1),
            cache_config=CacheConfig(
                block_size=SETTINGS["block_size"], num_blocks=SETTINGS["num_blocks"] - 1, watermark_blocks_fraction=0.0
            ),
            replica_scheduler_config=SarathiSchedulerConfig(
                batch_size_cap=SETTINGS["max_num_seqs"], chunk_size=SETTINGS["max_num_batched_tokens"]
            ),
        ),
        request_generator_config=TraceRequestGeneratorConfig(
            trace_file=JOB["trace"],
            date="all",
            prefill_scale_factor=1.0,
            decode_scale_factor=1.0,
            time_scale_factor=1.0,
            max_tokens=32_768,
        ),
        execution_time_predictor_config=LinearRegressionExecutionTimePredictorConfig(),
        metrics_config=MetricsConfig(
            write_metrics=False,
            write_json_trace=False,
            enable_chrome_trace=False,
            store_plots=False,
            output_dir=JOB["output"],
        ),
    )
    simulator = Simulator(config)
    begin = time.process_time()
    simulator.run()
    spent = time.process_time() - begin
    print(json.dumps({"version": version("vidur"), "cpu_seconds": spent, "simulated_s": simulator._time}))


if __name__ == "__main__":
    main()
