"""Traces, against the statistics published beside them; and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from labkit.load.traces import TraceRequest, as_load, read_trace, scaled
from labkit.request import InvalidRequest, Request

TRACES = Path(os.environ.get("LABKIT_TRACES", Path(__file__).resolve().parents[3] / "shared" / "traces"))


@pytest.mark.parametrize(
    ("name", "rows", "span", "cv", "inputs", "outputs"),
    [
        ("azure2023_code.csv.gz", 5_291, 1_698.9, 13.61, 2_033.8, 27.4),
        ("azure2023_conv.csv.gz", 11_619, 1_993.7, 1.08, 1_263.5, 206.4),
        ("mooncake_conversation.jsonl.gz", 7_220, 2_223.0, 2.96, 12_525.3, 348.4),
        ("mooncake_synthetic.jsonl.gz", 2_395, 630.9, 1.00, 12_645.9, 187.7),
    ],
)
def test_the_traces_are_what_their_readme_says(
    name: str, rows: int, span: float, cv: float, inputs: float, outputs: float
) -> None:
    if not (TRACES / name).exists():
        pytest.skip(f"no trace at {TRACES / name}: set LABKIT_TRACES to the folder that holds it")
    trace = read_trace(TRACES / name)
    gaps = np.diff([r.at for r in trace])
    assert len(trace) == rows
    assert trace[-1].at == pytest.approx(span, abs=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.006)
    assert np.mean([r.input_tokens for r in trace]) == pytest.approx(inputs, abs=0.06)
    assert np.mean([r.output_tokens for r in trace]) == pytest.approx(outputs, abs=0.06)


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.9805900,396,0\n"


def test_both_formats_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AZURE)
    azure = read_trace(tmp_path / "a.csv")
    assert [(round(r.at, 4), r.input_tokens, r.output_tokens) for r in azure] == [(0.0, 374, 44), (2.3, 396, 0)]
    (tmp_path / "m.jsonl").write_text('{"timestamp": 500, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n')
    assert read_trace(tmp_path / "m.jsonl") == (TraceRequest(0.0, 600, 5, (1, 2)),)


def test_a_scaled_trace_has_the_rate_and_fits_the_engine() -> None:
    trace = [TraceRequest(float(t), 100 * t + 10, 5 * t) for t in (0, 1, 4, 10)]
    small = scaled(trace, rate=6.0, max_input=50, max_output=30, length_factor=0.1)
    assert [r.at for r in small] == pytest.approx([0, 0.05, 0.2, 0.5])
    assert [(r.input_tokens, r.output_tokens) for r in small] == [(1, 1), (11, 1), (41, 2), (50, 5)]
    asked = list(as_load(small, lambda i, o: Request(f"{i}", max_tokens=o)))
    assert [(at, r.messages[0].content) for at, r in asked][2] == (pytest.approx(0.2), "41")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
        (AZURE.replace("396", "many"), "request 2 of the trace"),
        (AZURE.replace("18:15:48", "18:15:40"), "request 2: at .* before the one ahead"),
        (AZURE.replace("374", "0"), "request 1: 0 tokens in"),
        ("a,b\n1,2\n", "request 1 of the trace"),
    ],
)
def test_a_file_that_is_no_trace_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        read_trace(tmp_path / "t.csv")


def test_scaling_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="length_factor 0"):
        scaled([TraceRequest(0, 1, 1)], rate=1, max_input=1, max_output=1, length_factor=0)
    with pytest.raises(InvalidRequest, match="cannot read"):
        read_trace(Path("nowhere.csv"))
