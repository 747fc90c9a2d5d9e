"""Traces, against the statistics published beside them; and files that are none."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.load.traces import TraceRequest, as_load, read_trace, scaled
from labkit.request import InvalidValue, Request

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


MOONCAKE = '{"timestamp": 500, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'


def test_both_formats_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AZURE)
    azure = read_trace(tmp_path / "a.csv")
    assert [(round(r.at, 4), r.input_tokens, r.output_tokens) for r in azure] == [(0.0, 374, 44), (2.3, 396, 0)]
    (tmp_path / "m.jsonl").write_text(MOONCAKE)
    assert read_trace(tmp_path / "m.jsonl") == (TraceRequest(0.0, 600, 5, (1, 2)),)


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:01.25993+00:00", 1.25),
        ("2024-05-12 00:00:00+00:00", "2024-05-12 00:00:02+00:00", 2),
        ("2024-05-12T00:00:00Z", "2024-05-12T00:00:02.5Z", 2.5),
        ("2024-05-12T02:00:00.1234567+0200", "2024-05-12T00:00:00.1234568Z", 1e-7),
        ("2024-05-12 05:30:00+05:30", "2024-05-11 20:00:01-04", 1),
        ("2024-05-12 00:00:00 UTC", "2024-05-12 00:00:01,5", 1.5),
        ("2024-03-31 01:59:59+01:00", "2024-03-31 03:00:00+02:00", 1),
    ],
)
def test_times_are_read_in_every_way_iso_8601_writes_a_zone(tmp_path: Path, first: str, second: str, seconds: float) -> None:
    (tmp_path / "t.csv").write_text(f'TIMESTAMP,ContextTokens,GeneratedTokens\n"{first}",9,8\n"{second}",7,6.0\n')
    rows = read_trace(tmp_path / "t.csv")
    assert [row.at for row in rows] == [0, pytest.approx(seconds, abs=4e-8)]
    assert (rows[1].input_tokens, rows[1].output_tokens) == (7, 6)


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.CSV.GZ", "trace"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode(),
        lambda text: ("\ufeff" + text).encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", ", ").encode(),
        lambda text: text.removesuffix("\n").encode(),
        lambda text: ("\n" + text + "\n\n").encode(),
        lambda text: gzip.compress(("\ufeff" + text).encode()),
    ],
    ids=["plain", "BOM", "UTF-16", "CRLF", "CR", "semicolons", "spaces", "no last line end", "blank lines", "gzip"],
)
def test_a_trace_is_known_by_what_is_in_it_however_it_was_saved(tmp_path: Path, name: str, change: Any) -> None:
    for text in (AZURE, MOONCAKE + MOONCAKE):
        if text != AZURE and change(";,") in (b";;", b";, "):
            continue  # commas are JSON's own
        (tmp_path / name).write_bytes(change(text))
        found = [(r.input_tokens, r.output_tokens) for r in read_trace(tmp_path / name)]
        assert found == ([(374, 44), (396, 0)] if text == AZURE else [(600, 5)] * 2)


@pytest.mark.parametrize("times", [(61.114, 71.614), (61, 71.5), (61, 72)])
def test_bailians_rows_tell_the_chat_and_count_seconds(tmp_path: Path, times: tuple[float, float]) -> None:
    row = {"chat_id": 159, "parent_chat_id": -1, "input_length": 521, "output_length": 132, "type": "text", "turn": 1}
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({**row, "timestamp": at}) + "\n" for at in times))
    assert read_trace(tmp_path / "q.jsonl")[1].at == pytest.approx(times[1] - times[0])
    assert read_trace(tmp_path / "q.jsonl", unit="ms")[1].at == pytest.approx((times[1] - times[0]) / 1000)


def test_a_damaged_gzip_file_and_an_unknown_unit_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(AZURE.encode())
    for damaged in (packed[:-9], packed[:12] + b"\xff\xff" + packed[14:], packed[:3], b"\x80\xff"):
        (tmp_path / "d.csv.gz").write_bytes(damaged)
        with pytest.raises(InvalidValue, match="cannot read a trace from"):
            read_trace(tmp_path / "d.csv.gz")
    with pytest.raises(InvalidValue, match="unit is 'h'"):
        read_trace(tmp_path / "d.csv.gz", unit="h")  # type: ignore[arg-type]


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
        ("a,b\n1,2\n", "no column TIMESTAMP, ContextTokens, GeneratedTokens; it has a, b"),
        (AZURE.replace("GeneratedTokens", "Generated"), "no column GeneratedTokens; it has"),
        (AZURE.replace("44", "4.4"), "request 1 .* no whole number"),
        (AZURE.replace("374,44", "374"), "request 1 of the trace"),
        (AZURE.replace("2023-11-16 18:15:46", "yesterday"), "request 1 .* no date and time"),
        ("", "holds no requests"),
        ("\ufeff\r\n", "holds no requests"),
        ('{"timestamp": 1, "input_length": 5}', "no field in request 1: output_length"),
        (MOONCAKE.replace("500", "NaN"), "request 1: at nan s"),
        (MOONCAKE.replace("500", '"now"'), "request 1 of the trace"),
        (MOONCAKE.replace("600", "[6]"), "request 1 of the trace"),
        (MOONCAKE + "[]", "request 2 of the trace .* must be an object"),
        (MOONCAKE.replace("500", "500.25"), r"request 1 is at 500.25: .* unit='s'"),
    ],
)
def test_a_file_that_is_no_trace_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InvalidValue, match=message):
        read_trace(tmp_path / "t.csv")


def test_scaling_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidValue, match="length_factor 0"):
        scaled([TraceRequest(0, 1, 1)], rate=1, max_input=1, max_output=1, length_factor=0)
    with pytest.raises(InvalidValue, match="cannot read"):
        read_trace(Path("nowhere.csv"))
