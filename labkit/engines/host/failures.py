"""Why an engine did not come up, told with the likely fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.engines.errors import EngineArgumentError, EngineStartError

# Texts in the log of an engine that did not start, and the fix to suggest; the first entry that matches is used.
_FIXES = (
    (
        (
            "less than desired CPU memory",
            "No available memory for the cache blocks",
            "Cannot allocate memory",
            "out of memory",
        ),
        "too little memory: stop other engines, or pass a smaller kv_cache_memory_bytes or max_model_len",
    ),
    (
        ("larger than the available KV cache memory", "larger than the maximum number of tokens"),
        "the KV cache holds less than one full sequence: pass a larger kv_cache_memory_bytes or a smaller max_model_len",
    ),
    (("Address already in use", "is taken"), "the port is taken: leave port out to take a free one"),
    (
        (
            "is not a valid model identifier",
            "Invalid repository ID",
            "Repository Not Found",
            "couldn't connect to",
            "Cannot find any model weights",
            "does not appear to have a file named",
        ),
        "the model was not found: check the path, or that the hub can be reached",
    ),
    (("max_position_embeddings",), "max_model_len is more than the model was made for: pass a smaller one"),
    (("cannot be imported",), "vLLM is missing or broken here: run `labkit doctor`"),
)


def start_error(message: Mapping[str, Any], model: str) -> Exception:
    """The error to raise for the host's "failed" message: `EngineArgumentError` or `EngineStartError`."""
    if message["kind"] == "argument":
        return EngineArgumentError(message["message"])
    tail = tuple(message["log"])
    text = "\n".join((message["message"], *tail))
    fix = next((fix for signs, fix in _FIXES if any(sign.lower() in text.lower() for sign in signs)), "")
    lines = [f"no engine for {model}: {message['message']}"]
    if fix:
        lines.append(f"Likely fix: {fix}.")
    if tail:
        lines += ["The engine's last lines:", *(f"  {line}" for line in tail)]
    return EngineStartError("\n".join(lines), tail)
