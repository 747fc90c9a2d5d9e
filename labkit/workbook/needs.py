"""What a chapter's measurements need of an engine, and what the engine at hand has."""

from __future__ import annotations

from collections.abc import Collection

from labkit.engines import Engine, MetricMissing, has_avx512
from labkit.request import EngineError, Message, Request, complete
from labkit.workbook.exercise import ExerciseError

NEEDS = {
    "answers": "an engine that answers",
    "logprobs": "log-probabilities of the tokens it writes",
    "metrics": "the engine's own counters at /metrics",
    "tokenizer": "the model's tokenizer, for prompts of an exact length",
    "vllm": "an engine that vLLM starts on this machine, with arguments of the chapter's own",
    "8-bit KV": "a processor or GPU on which vLLM can keep keys and values in 8 bits",
}


def checked(needs: Collection[str]) -> tuple[str, ...]:
    """The needs. Raises `ExerciseError` for one that is unknown."""
    unknown = [need for need in needs if need not in NEEDS]
    if unknown:
        raise ExerciseError(f"nothing is known of the need {', '.join(unknown)}; there are {', '.join(NEEDS)}")
    return tuple(needs)


def words(needs: Collection[str]) -> str:
    """The needs as a list in a sentence."""
    *most, last = (NEEDS[need] for need in checked(needs))
    return f"{', '.join(most)} and {last}" if most else last


async def capabilities(engine: Engine) -> frozenset[str]:
    """Which of the `NEEDS` the engine meets. An endpoint is tried, with a look at its metrics and a request of one token."""
    if engine.provenance.kind == "live":
        return frozenset(need for need in NEEDS if need != "8-bit KV" or engine.provenance.driver or has_avx512())
    met = {"answers"}
    if engine.tokenizer_path is not None:
        met.add("tokenizer")
    if await _has_metrics(engine):
        met.add("metrics")
    if await _has_logprobs(engine):
        met.add("logprobs")
    return frozenset(met)


async def _has_metrics(engine: Engine) -> bool:
    try:
        await engine.metrics()
    except (EngineError, MetricMissing):
        return False
    return True


async def _has_logprobs(engine: Engine) -> bool:
    try:
        answer = await complete(engine, Request((Message("user", "Say yes."),), max_tokens=1, logprobs=1))
    except EngineError:
        return False
    return bool(answer.logprobs)
