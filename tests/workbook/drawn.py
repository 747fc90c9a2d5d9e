"""One of each of the book's pictures, and what tests read in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from labkit.caches import Scope
from labkit.latency import LatencyModel
from labkit.request import Usage
from labkit.workbook.pictures import (
    CaseCall,
    FormOfAnswer,
    Kept,
    Picture,
    Station,
    answer_ribbons,
    batch_fill,
    cache_partitions,
    cascade,
    case_calls,
    kv_heads,
    prefix_blocks,
    request_path,
    roofline,
    stream_timeline,
)

SVG = "{http://www.w3.org/2000/svg}"
DESK = ["You", "are", "a", "desk", "clerk", ".", "Be", "kind"]
PROMPTS = {
    "Ann": [*DESK, "Where", "is", "my", "bag", "?"],
    "Ben": [*DESK, "May", "I", "send", "it", "back", "?"],
    "dated": ["May 3", *DESK, "Where", "is", "my", "bag", "?"],
}
LENGTHS, SEATS = [9, 2, 3, 2, 7, 3, 4, 2], 4
# About Llama 3.1 8B in BF16 on an H100: 7 · 10⁹ numbers in matrices, 10¹⁵ FLOP/s, 3.35 · 10¹² bytes/s.
MODEL = LatencyModel(step_s=0, sequence_s=0, linear_s=1.4e-5, weights_s=4.5e-3, pair_s=1e-10, kv_s=4e-8)
CALLS = [
    CaseCall("intent", "small", Usage(212, 4)),
    CaseCall("extract", "small", Usage(388, 16), "retried"),
    CaseCall("extract", "small", Usage(388, 41)),
    CaseCall("policy", "large", Usage(510, 230, reasoning_tokens=180)),
    CaseCall("policy", "small", Usage(510, 12), "shadow"),
]
STATIONS = [
    Station("ledger", "books every attempt"),
    Station("response cache", "gives an old answer to the same request", answers=True),
    Station("router", "picks the smallest model that will do"),
]
FORMS = [
    FormOfAnswer("text", 134, 139, 139),
    FormOfAnswer("steps, then answer", 0, 146, 149),
    FormOfAnswer("answer, then steps", 0, None, 160),
    FormOfAnswer("JSON at once", 0, 9, 12),
]
ARRIVALS = [0.35 + 0.06 * i for i in range(40)]


def scope(tenant: str, *permissions: str) -> Scope:
    return Scope(tenant, frozenset(permissions))


ENTRIES = [
    Kept(scope("Alps", "agent"), "Where is my bag?"),
    Kept(scope("Alps", "agent"), "When do you open?"),
    Kept(scope("Alps", "guest"), "Where is my bag?"),
    Kept(scope("Alps", "guest"), "Where is my bag?", era=0),
    Kept(scope("Lakes", "guest"), "Where is my bag?"),
    Kept(scope("Lakes", "agent"), "Refund for 4711?"),
]
ASKED = Kept(scope("Alps", "guest"), "Where is my bag?")

EXAMPLES: dict[str, Picture] = {
    "ribbons": answer_ribbons(FORMS, 64),
    "ribbons, cap above all": answer_ribbons(FORMS[:1], 400),
    "ribbons, cap of one": answer_ribbons(FORMS, 1),
    "kv heads": kv_heads(8, 2),
    "kv heads, multi-query": kv_heads(8, 1),
    "kv heads, many": kv_heads(32, 8),
    "prefix blocks": prefix_blocks(PROMPTS, 4),
    "batch": batch_fill(LENGTHS, SEATS),
    "batch, narrow": batch_fill([45, 1, 1, 1], 2, ["continuous"]),
    "cascade": cascade(0.27, ["valid JSON", "names an order", "sure enough"]),
    "cascade, few up": cascade(0.02, ["valid JSON"], of=1000),
    "cascade, many up": cascade(0.9, ["valid JSON"]),
    "cascade, none up": cascade(0.0, ["valid JSON"]),
    "cascade, all up": cascade(1.0, ["valid JSON"]),
    "partitions": cache_partitions(ENTRIES, ASKED),
    "roofline": roofline(MODEL, name="Llama 3.1 8B on one H100"),
    "roofline, far": roofline(MODEL, decode=(1, 8, 64), prefill=16_384),
    "path": request_path(STATIONS),
    "case": case_calls(CALLS),
    "stream": stream_timeline(ARRIVALS, ARRIVALS[9]),
    "stream, useful at the end": stream_timeline([2.0, 11.0, 40.0], 40.0),
    "stream, useful at once": stream_timeline([0.02, 0.03, 0.05], 0.02),
}


def tree(picture: Picture) -> ET.Element:
    return ET.fromstring(picture.svg)


def texts(picture: Picture) -> list[tuple[str, float, float]]:
    """The words in a picture with the place that they are anchored at."""
    return [(e.text or "", float(e.get("x", 0)), float(e.get("y", 0))) for e in tree(picture).iter(f"{SVG}text")]


def place(picture: Picture, words: str) -> tuple[float, float]:
    """Where these words are; they must be there once."""
    ((x, y),) = [(x, y) for found, x, y in texts(picture) if found == words]
    return x, y


def boxes(picture: Picture, colour: str) -> list[tuple[float, float, float, float]]:
    """x, y, width and height of the boxes whose edge has this colour, in the order in which they are drawn."""
    found = (e for e in tree(picture).iter(f"{SVG}rect") if e.get("stroke") == colour)
    return [(float(e.get("x", 0)), float(e.get("y", 0)), float(e.get("width", 0)), float(e.get("height", 0))) for e in found]
