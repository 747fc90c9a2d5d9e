"""The experiments by name, and which of them are recorded on a CPU and on a GPU.

A *job* is an experiment on one engine: a model, engine arguments, and points. Jobs that need the same engine stand together,
so that it starts only once: on a GPU, most of the time goes into starting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from labkit.engines import Engine
from labkit.experiments import sweeps
from labkit.experiments.measured import recording_name
from labkit.experiments.sweeps import Row
from labkit.load import MakeRequest
from labkit.request import InvalidValue

Measure = Callable[..., Awaitable[Row]]
Where = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A measurement with a name and the question that it answers."""

    name: str
    question: str
    measure: Measure

    async def __call__(self, engine: Engine, make: MakeRequest, point: Mapping[str, int]) -> Row:
        """Measure one point."""
        return await self.measure(engine, make, **point)


EXPERIMENTS: Mapping[str, Experiment] = {
    one.name: one
    for one in (
        Experiment("prefill", "How long does a prompt of this length wait for its first token?", sweeps.prefill),
        Experiment("concurrency", "How do TPOT and throughput change with company and with context?", sweeps.concurrency),
        Experiment("prefix_cache", "What does a prompt cost that the engine has read before?", sweeps.prefix_cache),
        Experiment("preemption", "What happens when the KV cache is too small for all?", sweeps.preemption),
        Experiment("speculation", "What do n-gram drafts do to TPOT?", sweeps.speculation),
    )
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One experiment on one engine.

    `model` is a name that `connect` takes, or a shape (a known name or a .json file), which runs with random weights.
    `arguments` are the engine's, and `variant` names them in a word. Each point is measured `repeats` times: all points
    once, then all points again.
    """

    experiment: str
    model: str
    variant: str = "default"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[Mapping[str, int], ...] = ()
    repeats: int = 3

    @property
    def name(self) -> str:
        """The name of its recording's file, without the ending."""
        return recording_name(self.experiment, self.model, self.variant)


def grid(**axes: tuple[int, ...]) -> tuple[Mapping[str, int], ...]:
    """Every combination of the axes' values."""
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


_NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}


def _cpu() -> list[Measurement]:
    company = grid(people=(1, 2, 4, 8, 16, 32), prompt_tokens=(64, 600), output_tokens=(48,))
    speculated = grid(people=(1, 8), prompt_tokens=(200,), output_tokens=(96,))
    found = []
    for model in ("small", "large"):
        found += [
            Measurement("prefill", model, points=grid(prompt_tokens=(150, 300, 600, 900, 1200, 1800)), repeats=7),
            Measurement("concurrency", model, points=company, repeats=5),
            Measurement("prefix_cache", model, points=grid(prompt_tokens=(256, 600, 1200, 1800)), repeats=7),
            Measurement("speculation", model, points=speculated),
        ]
    large = "large"
    return [
        *found,
        Measurement("concurrency", large, "kv-fp8", {"kv_cache_dtype": "fp8"}, company, 5),
        Measurement(
            "preemption",
            large,
            "20-blocks",
            {"num_gpu_blocks_override": 20, "block_size": 32, "max_model_len": 512},
            grid(people=(1, 2, 4, 8), prompt_tokens=(64,), output_tokens=(150,)),
        ),
        Measurement("speculation", large, "ngram", {"speculative_config": _NGRAM}, speculated),
    ]


def _gpu() -> list[Measurement]:
    # Only one engine runs at a time, so it may take the whole GPU. The lab's default leaves room for a second engine.
    context = {"max_model_len": 8192, "gpu_memory_utilization": 0.92}
    company = grid(people=(1, 4, 16, 64, 256), prompt_tokens=(128, 2048), output_tokens=(128,))
    speculated = grid(people=(1, 16), prompt_tokens=(512,), output_tokens=(128,))
    prompts = grid(prompt_tokens=(256, 1024, 2048, 4096, 8000))
    eight, seventy = "llama-3.1-8b", "llama-3.1-70b"
    fp8 = {**context, "quantization": "fp8"}
    return [
        Measurement("concurrency", eight, "bf16", context, company, 2),
        Measurement("prefill", eight, "bf16", context, prompts),
        Measurement("prefix_cache", eight, "bf16", context, prompts),
        Measurement("speculation", eight, "bf16", context, speculated, 2),
        Measurement("concurrency", eight, "fp8", fp8, company, 2),
        Measurement("prefill", eight, "fp8", fp8, prompts),
        Measurement("concurrency", eight, "kv-fp8", {**context, "kv_cache_dtype": "fp8"}, company, 2),
        Measurement(
            "preemption",
            eight,
            "2048-blocks",
            {**context, "num_gpu_blocks_override": 2048, "block_size": 16},
            grid(people=(4, 16, 64), prompt_tokens=(512,), output_tokens=(512,)),
            2,
        ),
        Measurement("speculation", eight, "ngram", {**context, "speculative_config": _NGRAM}, speculated, 2),
        # In BF16 the weights of the 70B shape fill an H200, so it is recorded in FP8 only.
        Measurement("concurrency", seventy, "fp8", fp8, company, 2),
        Measurement("prefill", seventy, "fp8", fp8, prompts),
        Measurement("prefix_cache", seventy, "fp8", fp8, prompts),
        Measurement("concurrency", seventy, "fp8-kv-fp8", {**fp8, "kv_cache_dtype": "fp8"}, company, 2),
    ]


def jobs(where: Where, names: tuple[str, ...] = ()) -> tuple[Measurement, ...]:
    """The jobs recorded on a CPU or on a GPU: all, or those of the experiments in `names`.

    Raises `InvalidValue` for a name that is no experiment.
    """
    unknown = sorted(set(names) - set(EXPERIMENTS))
    if unknown:
        raise InvalidValue(f"no experiment {', '.join(unknown)}; there are {', '.join(EXPERIMENTS)}")
    every = _cpu() if where == "cpu" else _gpu()
    return tuple(job for job in every if not names or job.experiment in names)
