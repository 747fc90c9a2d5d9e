"""Compares a load on the engine with the same load on the modelled engine that was fitted to it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labkit.engines import Engine
from labkit.engines.modelled import EngineSettings, SimulatedAnswers, Trace, simulate
from labkit.latency import LatencyModel, percentile
from labkit.load.generate import Run
from labkit.request import InvalidValue

# The defaults of vLLM's server where no argument is given (vllm/engine/arg_utils.py: those of its CPU platform).
_MAX_NUM_SEQS = 128
_MAX_NUM_BATCHED_TOKENS = 2048


async def settings_of(engine: Engine) -> EngineSettings:
    """The modelled engine's settings for a live vLLM: from its KV cache metrics, and the arguments it was started with.

    Raises `EngineError` where metrics cannot be had, `MetricMissing` for an endpoint that exports none of vLLM's, and
    `InvalidValue` for an engine that does not tell its number of blocks.
    """
    config = (await engine.metrics()).cache_config
    given = engine.provenance.arguments
    try:
        blocks, size = int(config["num_gpu_blocks"]), int(config["block_size"])
    except (KeyError, ValueError):
        raise InvalidValue(f"{engine.model} does not say how many KV blocks it has; connect to a vLLM engine") from None
    return EngineSettings(
        blocks,
        size,
        int(given.get("max_num_seqs", _MAX_NUM_SEQS)),
        int(given.get("max_num_batched_tokens", _MAX_NUM_BATCHED_TOKENS)),
        engine.context_window,
        config.get("enable_prefix_caching", "True") == "True",
    )


def forecast(run: Run, model: LatencyModel, settings: EngineSettings) -> SimulatedAnswers:
    """The answers of the modelled engine to the requests of `run`, each sent at the same time as in `run`.

    Only requests that ended are simulated, because the lengths of a cancelled one are not known. Raises `InvalidValue` for a
    run in which no request ended.
    """
    done = ended(run)
    return simulate(
        Trace(
            np.array([sent - done[0][0] for sent, _, _ in done]),
            np.array([prompt for _, prompt, _ in done]),
            np.array([output for _, _, output in done]),
        ),
        model,
        settings,
    )


def ended(run: Run) -> list[tuple[float, int, int]]:
    """(sent, prompt tokens, output tokens) of the requests of `run` that ended, in the order in which they were sent."""
    found = sorted(
        (s.timing.sent, s.usage.input_tokens, s.usage.output_tokens)
        for s in run.samples
        if s.timing is not None and s.usage is not None and not s.error
    )
    if not found:
        raise InvalidValue(f"none of the {len(run.samples)} requests of this run ended: there is nothing to compare")
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one load, as measured and as forecast, both in seconds or tokens per second."""

    load: str
    metric: str
    measured: float
    forecast: float

    @property
    def error(self) -> float:
        """Relative error, forecast / measured − 1."""
        return self.forecast / self.measured - 1


def compare(load: str, run: Run, model: LatencyModel, settings: EngineSettings) -> tuple[Compared, ...]:
    """TTFT and TPOT (median and p95 over requests, s) and output tokens per second of `run`, each with its forecast.

    `load` names the load in the results. Raises `InvalidValue` for a run in which no request ended.
    """
    said = forecast(run, model, settings)
    samples = [s for s in run.samples if s.timing is not None and s.usage is not None and not s.error]
    rows = []
    for metric, measured, modelled in (
        ("TTFT", [s.ttft for s in samples], said.ttft),
        ("TPOT", [s.tpot for s in samples], said.tpot[~np.isnan(said.tpot)]),
    ):
        for q in (50, 95):
            seen = percentile(measured, q)
            if seen is not None:
                rows.append(Compared(load, f"{metric} p{q}", seen, float(np.percentile(modelled, q))))
    tokens = sum(output for _, _, output in ended(run))
    begin = min(s.timing.sent for s in samples if s.timing is not None)
    end = max(s.timing.done or 0.0 for s in samples if s.timing is not None)
    rows.append(Compared(load, "output tokens/s", tokens / (end - begin), said.output_tokens_per_s))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Absolute relative errors of one metric over all loads."""

    metric: str
    loads: int
    median: float
    p95: float
    worst: Compared


def error_table(compared: Sequence[Compared]) -> tuple[ErrorRow, ...]:
    """One row per metric over the loads: median and 95th percentile of the absolute relative error, and the worst load.

    Raises `InvalidValue` where `compared` is empty.
    """
    if not compared:
        raise InvalidValue("nothing was compared; an error table needs at least one load")
    rows = []
    for metric in dict.fromkeys(c.metric for c in compared):
        of = [c for c in compared if c.metric == metric]
        errors = [abs(c.error) for c in of]
        rows.append(
            ErrorRow(
                metric,
                len(of),
                statistics.median(errors),
                float(np.percentile(errors, 95)),
                max(of, key=lambda c: abs(c.error)),
            )
        )
    return tuple(rows)
