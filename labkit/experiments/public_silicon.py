"""Public measurements of vLLM on H100 and H200 GPUs, and what the latency model says of the same runs.

The points were measured by others and published in NVIDIA's aiconfigurator-core (`data/recordings/public-silicon`). A point
is a closed loop: so many people, each with one request under way. TTFT is from the send to the first token; TPOT is
(E2E − TTFT) / (output tokens − 1). The file does not say whether they are means or medians; the model's figures are means,
which fit better.

The load is InferenceX's: ten requests a person, all people at once at the start, each prompt and answer 80 to 100 % of its
nominal length (README of github.com/SemiAnalysisAI/InferenceX). The others' files do not say theirs, so it is taken for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labkit.engines import RecordingError
from labkit.engines.modelled import EngineSettings, simulate_closed
from labkit.experiments.measured import Measured, recordings
from labkit.extras import extra
from labkit.latency import Hardware, LatencyModel, Reached, catalogue, datasheet_model, kv_tokens, shape

EACH = 10  # requests a person
SHORTEST = 0.8  # of the nominal length
STEP_TOKENS = 8192  # max_num_batched_tokens: InferenceX's, and vLLM's default when it serves on such GPUs
BLOCK = 16
METRICS = ("TTFT", "TPOT", "output tokens/s")


@dataclass(frozen=True, slots=True)
class SiliconPace:
    """What people got: mean TTFT and TPOT in seconds, and output tokens per second of them all."""

    ttft_s: float
    tpot_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class SiliconPoint:
    """One published measurement: `people` at a time ask `gpus` GPUs in tensor parallel.

    `prompt_tokens` and `output_tokens` are nominal lengths. `weights` and `kv` are the precisions of the model and its KV
    cache. `measured` is what was published; its tokens per second follow from the two times by Little's law.
    """

    model: str
    gpu: Hardware
    gpus: int
    weights: str
    kv: str
    people: int
    prompt_tokens: int
    output_tokens: int
    measured: SiliconPace

    def latency(self, reached: Reached) -> LatencyModel:
        """The model of a step on these GPUs, of which so much is `reached`."""
        return datasheet_model(
            shape(self.model), self.gpu, weights=self.weights, kv=self.kv, machines=self.gpus, reached=reached
        )

    def predicted(self, reached: Reached, seed: int = 0, shortest: float = SHORTEST) -> SiliconPace:
        """What the modelled engine gives the same people, with vLLM's scheduler and as much KV cache as fits the GPUs.

        Lengths are drawn evenly from the share `shortest` of the nominal ones up to all of them.
        """
        rng, number = np.random.default_rng(seed), EACH * self.people
        prompts, answers = (
            rng.integers(round(shortest * length), length + 1, number) for length in (self.prompt_tokens, self.output_tokens)
        )
        cache = kv_tokens(shape(self.model), self.gpu, weights=self.weights, kv=self.kv, machines=self.gpus)
        settings = EngineSettings(
            num_blocks=cache // BLOCK + 1,
            block_size=BLOCK,
            max_num_seqs=self.people,
            max_num_batched_tokens=STEP_TOKENS,
            enable_prefix_caching=False,
        )
        run = simulate_closed(prompts, answers, self.people, self.latency(reached), settings)
        return served(self.people, self.output_tokens, float(run.ttft.mean()), float(run.tpot.mean()))


@dataclass(frozen=True, slots=True)
class SiliconError:
    """Relative errors of one metric, predicted / measured − 1, over `points` points.

    `median`, `mean` (what others call MAPE) and `p90` are of their sizes. `signed` is the median with its sign: above 0, the
    model says more than was measured.
    """

    metric: str
    median: float
    mean: float
    p90: float
    signed: float
    points: int


def served(people: int, output_tokens: int, ttft_s: float, tpot_s: float) -> SiliconPace:
    """The two times, and the tokens per second that follow: each of `people` gets an answer per E2E (Little's law)."""
    return SiliconPace(ttft_s, tpot_s, people * output_tokens / (ttft_s + (output_tokens - 1) * tpot_s))


def silicon() -> tuple[Measured, ...]:
    """The recordings of public measurements, with who measured them; raises `RecordingError` where the clone has none."""
    found = recordings("silicon")
    if not found:
        raise RecordingError("data/recordings/public-silicon has no recording; take it from the repository again")
    return found


def silicon_points(measured: Sequence[Measured] | None = None) -> tuple[SiliconPoint, ...]:
    """All points of these recordings, or of all of `silicon()`."""
    by_name = {machine.name: machine for machine in catalogue().values()}
    return tuple(
        SiliconPoint(
            one.provenance.model,
            by_name[one.provenance.device],
            int(row["gpus"]),
            one.variant,
            str(one.provenance.arguments.get("kv_cache_dtype", "bf16")),
            int(row["people"]),
            int(row["prompt_tokens"]),
            int(row["output_tokens"]),
            served(int(row["people"]), int(row["output_tokens"]), row["ttft_s"], row["tpot_s"]),
        )
        for one in (silicon() if measured is None else measured)
        for row in one.rows
    )


def silicon_errors(points: Sequence[SiliconPoint], predictions: Sequence[SiliconPace]) -> tuple[SiliconError, ...]:
    """The errors of `predictions` on `points`, one entry per metric of `METRICS`."""
    found = []
    for metric, field in zip(METRICS, ("ttft_s", "tpot_s", "tokens_per_s"), strict=True):
        pairs = zip(points, predictions, strict=True)
        errors = np.array([getattr(said, field) / getattr(point.measured, field) - 1 for point, said in pairs])
        sizes = np.abs(errors)
        median, p90, signed = float(np.median(sizes)), float(np.percentile(sizes, 90)), float(np.median(errors))
        found.append(SiliconError(metric, median, float(sizes.mean()), p90, signed, len(points)))
    return tuple(found)


def silicon_says(reached: Reached, gpu: str) -> str:
    """A sentence on how far this model of a GPU (a key of the catalogue) is from public points on one or two of them.

    Only points of up to 16 people and 1,024 output tokens are asked, which takes about a second. Raises `RecordingError`
    where no point is of such a GPU.
    """
    points = [
        p
        for p in silicon_points()
        if (p.gpu.key, p.model) in {("h100", "qwen3-32b"), ("h100", "llama-3.1-70b"), ("h200", "llama-3.1-70b")}
        and (p.gpu.key, p.gpus <= 2, p.people <= 16, p.output_tokens <= 1024) == (gpu, True, True, True)
    ]
    if not points:
        raise RecordingError(f"no public point is of one or two {gpu!r}; there are some of h100 and h200")
    ttft, tpot, _ = silicon_errors(points, [point.predicted(reached) for point in points])
    way = {True: "too long", False: "too short"}
    return (
        f"Beside {ttft.points} public measurements of vLLM on {points[0].gpu.name} (chapter 02), this model's TPOT is "
        f"{100 * tpot.median:.0f} % off in the median ({way[tpot.signed > 0]}), its TTFT {100 * ttft.median:.0f} % "
        f"({way[ttft.signed > 0]})."
    )


def fit_reached(points: Sequence[SiliconPoint], start: Reached) -> Reached:
    """What vLLM reaches on these points, by least squares of the logarithms of TTFT and TPOT; a point takes about 5 s.

    Fitted are the seven constants of `start` but `step_s`, which these points cannot tell from `layer_s`. A soft L1 loss
    limits what a few points far off can do.
    """
    with extra("analysis"):
        from scipy.optimize import least_squares

    names = ("mfu", "mbu", "sequence_s", "request_s", "layer_s", "hop_s", "link")
    measured = np.log([(point.measured.ttft_s, point.measured.tpot_s) for point in points])

    def reached(logs: np.ndarray) -> Reached:
        return Reached(step_s=0.0, **dict(zip(names, map(float, np.exp(logs)), strict=True)))

    def residuals(logs: np.ndarray) -> np.ndarray:
        said = [point.predicted(reached(logs)) for point in points]
        return np.asarray((np.log([(one.ttft_s, one.tpot_s) for one in said]) - measured).ravel())

    first = np.log([getattr(start, name) for name in names])
    highest = [0.0 if name in ("mfu", "mbu") else np.inf for name in names]
    # Steps of 1 %: whose step a request still catches changes in jumps, so smaller ones would see no slope.
    found = least_squares(
        residuals, first, bounds=(-np.inf, highest), loss="soft_l1", f_scale=0.1, max_nfev=15, diff_step=1e-2
    )
    return reached(found.x)
