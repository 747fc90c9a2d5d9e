"""The same load twice: on the engine, and in the model that was fitted to it; and by how much they differ."""

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

# What vLLM's server takes where nothing is said (vllm/engine/arg_utils.py: the defaults of its CPU platform).
_MAX_NUM_SEQS = 128
_MAX_NUM_BATCHED_TOKENS = 2048


async def settings_of(engine: Engine) -> EngineSettings:
    """The modelled engine's settings for a live vLLM: its own account of its KV cache, and the arguments it was given.

    Raises `EngineError` for an engine without metrics, `InvalidValue` for one that does not say how many blocks it has.
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
    """What the modelled engine makes of the requests of `run`, each sent when it was sent there.

    Only requests that ended count: what a cancelled one would have asked is not known. Raises `InvalidValue` for a run in
    which none did.
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
    """(sent, prompt tokens, output tokens) of the requests of `run` that ended, in the order they were sent."""
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
    """One metric of one load, as measured and as forecast; seconds, or tokens per second."""

    load: str
    metric: str
    measured: float
    forecast: float

    @property
    def error(self) -> float:
        """Relative error, forecast / measured − 1."""
        return self.forecast / self.measured - 1


def compare(load: str, run: Run, model: LatencyModel, settings: EngineSettings) -> tuple[Compared, ...]:
    """TTFT and TPOT (median and p95 of the requests) and output tokens per second of `run`, beside their forecast."""
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
    """By metric, over the loads compared: median and 95th percentile of the absolute relative error, and the worst load."""
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
