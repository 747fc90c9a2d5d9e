"""The scripted engine, numbering its answers so that one is told from the next."""

from __future__ import annotations

import itertools

from labkit.engines import ScriptedEngine


def numbered(**settings: object) -> ScriptedEngine:
    """Says "a1b1c1" to the first request, a piece a second, "a2b2c2" to the second; reads 10 tokens, 4 from a cache."""
    number = itertools.count(1)

    def pieces(_: object) -> list[str]:
        answer = next(number)
        return [f"{piece}{answer}" for piece in "abc"]

    return ScriptedEngine(pieces, cached_tokens=4, **settings)  # type: ignore[arg-type]
