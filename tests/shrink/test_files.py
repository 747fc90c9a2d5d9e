"""Levers for histories, examples and chunks are written to a file and read from it as they were."""

from __future__ import annotations

from labkit.embeddings import embedder
from labkit.engines import ScriptedEngine
from labkit.request import stack
from labkit.shrink import (
    NOTHING,
    ByNearness,
    Chunks,
    Diverse,
    FewShot,
    Nearest,
    Protect,
    RollingSummary,
    Sentences,
    Shot,
    ShotsInPrompt,
    TokenBudget,
    Window,
    by_score,
)
from labkit.stacks import from_data, to_data

SMALL, LARGE = ScriptedEngine(model="small"), ScriptedEngine(model="large")
NAMES = {"small": SMALL, "large": LARGE}


def test_levers_come_back_as_they_were() -> None:
    minilm = embedder()
    handler = stack(
        Window(3, True, NOTHING),
        TokenBudget(100, marks=2, protect=Protect(("TS-[0-9]+",), instructions=("Be kind.",))),
        RollingSummary(LARGE, 2, 1, "How does it stand?", ("So far: {summary}.", "Noted."), protect=NOTHING),
        FewShot((Shot("a", "b"), Shot("c", "d")), k=1, pick=Diverse(minilm, 0.7), order="nearest last"),
        ShotsInPrompt(4, tokens=50, pick=Nearest(minilm)),
        Chunks(200, by_score),
        Chunks(100, ByNearness(minilm)),
        Sentences(minilm, 40, 0.2, "<policy>", "</policy>"),
        engine=SMALL,
    )
    data = to_data(handler, NAMES)
    again = from_data(data, NAMES)
    assert str(again) == str(handler)
    assert again == handler
    assert to_data(again, NAMES) == data
    assert list(data["shared"]) == ["sentenceembedder-1"]
