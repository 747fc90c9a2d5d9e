"""Recordings: nothing without full provenance is read or written, and nothing measured is lost."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from labkit.engines import Provenance
from labkit.engines.errors import RecordingError
from labkit.experiments import EXPERIMENTS, Measured, jobs, recordings
from labkit.experiments.measured import RECORDINGS, SUFFIX, Recorder

HERE = Provenance("live", "Some CPU, 2 cores", "CPU", "vLLM", "0.1", "small", "2026-01-02T03:04:05+00:00", "labkit record")


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def header(**changes: object) -> dict[str, object]:
    return {"labkit_experiment": 1, "experiment": "prefill", "variant": "default", "provenance": HERE.as_dict()} | changes


def test_what_is_written_is_read_back_with_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "cpu" / f"a{SUFFIX}"
    recorder = Recorder(path, "prefill", "default", HERE)
    recorder.add({"prompt_tokens": 100, "ttft_s": 0.25})
    assert not Measured.load(path).complete
    assert "UNFINISHED" in Measured.load(path).caption()
    recorder.finish()
    (found,) = recordings("prefill", model="small", folder=tmp_path)
    assert found.rows == ({"prompt_tokens": 100, "ttft_s": 0.25},)
    assert found.complete
    assert found.caption() == "small · vLLM 0.1 · Some CPU, 2 cores · REPLAYED from a recording 2026-01-02"
    assert recordings("prefill", model="large", folder=tmp_path) == ()
    assert list(found.frame().columns) == ["prompt_tokens", "ttft_s"]


@pytest.mark.parametrize("field", [f.name for f in fields(Provenance) if f.name not in ("driver", "arguments")])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_recording_without_full_provenance_is_refused(field: str, how: str, tmp_path: Path) -> None:
    provenance = HERE.as_dict()
    if how == "missing":
        del provenance[field]
    else:
        provenance[field] = ""
    path = write(tmp_path / "cpu" / f"a{SUFFIX}", header(provenance=provenance), {"ttft_s": 1}, {"end": True})
    with pytest.raises(RecordingError, match=rf"lacks {field}.*record them again"):
        recordings(folder=tmp_path)
    with pytest.raises(RecordingError, match=rf"lacks {field}"):
        Recorder(path.with_name("b"), "prefill", "default", replace(HERE, **{field: ""}))


def test_numbers_that_nobody_measured_are_no_recording(tmp_path: Path) -> None:
    for kind in ("modelled", "replay"):
        with pytest.raises(RecordingError, match=f"{kind} engine cannot be recorded"):
            Recorder(tmp_path / "x", "prefill", "default", replace(HERE, kind=kind))
        path = write(tmp_path / f"a{SUFFIX}", header(provenance=replace(HERE, kind=kind).as_dict()), {"end": True})
        with pytest.raises(RecordingError, match=f"holds {kind} numbers"):
            Measured.load(path)


def test_files_that_are_no_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recording at"):
        Measured.load(tmp_path / "nothing")
    with pytest.raises(RecordingError, match="no provenance header"):
        Measured.load(write(tmp_path / "a", {"ttft_s": 1.0}))
    (tmp_path / "b").write_text('{"labkit_experiment": 1}\nnot json\n{}\n')
    with pytest.raises(RecordingError, match="line 2 is no JSON"):
        Measured.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        *(
            (json.dumps({k: v for k, v in header().items() if k != n}) + "\n", f"lacks {n}")
            for n in ("experiment", "variant")
        ),
        (json.dumps(header(provenance="mine")) + "\n", "no provenance header"),
        (json.dumps(header()) + "\n[1]\n", "no row"),
        (b"\xff\xfe", "no text"),
    ],
)
def test_a_broken_recording_is_named_with_what_is_wrong(content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecordingError, match=rf"{re.escape(str(path))}.*{told}"):
        Measured.load(path)


def test_an_unfinished_recording_goes_on_where_it_was_even_after_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    Recorder(path, "prefill", "default", HERE).add({"ttft_s": 1.0})
    with path.open("a") as file:
        file.write('{"ttft_s": 2.')
    again = Recorder(path, "prefill", "default", replace(HERE, date="2026-03-03T00:00:00+00:00"))
    assert again.done == ({"ttft_s": 1.0},)
    again.add({"ttft_s": 3.0})
    again.finish()
    read = Measured.load(path)
    assert [row["ttft_s"] for row in read.rows] == [1.0, 3.0]
    assert read.provenance.date == HERE.date


@pytest.mark.parametrize("other", [{"engine_version": "0.2"}, {"machine": "Another CPU"}, {"arguments": {"block_size": 64}}])
def test_rows_of_two_engines_are_never_mixed(other: dict[str, object], tmp_path: Path) -> None:
    Recorder(tmp_path / "a", "prefill", "default", HERE).add({"ttft_s": 1.0})
    with pytest.raises(RecordingError, match="another engine or machine; delete it"):
        Recorder(tmp_path / "a", "prefill", "default", replace(HERE, **other))
    assert len(Measured.load(tmp_path / "a").rows) == 1


def test_every_committed_recording_says_where_it_is_from_and_is_of_an_experiment_we_have() -> None:
    for path in RECORDINGS.rglob("*.jsonl"):
        if path.name.endswith(SUFFIX):
            found = Measured.load(path)
            assert found.complete, path
            # What others published is kept in the same form, and made by no experiment of ours.
            assert found.experiment in {*EXPERIMENTS, "silicon"}
            assert (found.experiment == "silicon") == (path.parent.name == "public-silicon")
            assert found.rows
    names = [job.name for where in ("cpu", "gpu") for job in jobs(where)]
    assert len(set(names)) == len(names)
