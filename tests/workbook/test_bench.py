"""Where a chapter measures: on a plain endpoint, with no engine at all, recorded and replayed, and on a noisy machine."""

import asyncio
import json
import re

import pytest

from labkit.engines import recordings_dir
from labkit.request import EngineError, Message, Request, complete
from labkit.workbook import ExerciseError
from labkit.workbook.bench import RECORD, Bench
from labkit.workbook.noise import Noise
from labkit.workbook.recorded import load
from labkit.workbook.rounds import Spread
from tests.workbook.plain_endpoint import MODEL, serving

ASK = Request((Message("user", "Hello"),), max_tokens=4)
QUIET, BUSY = Noise(1.05, 0.0), Noise(2.0, 0.9)


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("LABKIT_SMALL", MODEL)
    with serving() as address:
        monkeypatch.setenv("LABKIT_BASE_URL", address)
        yield address


@pytest.fixture
def noise(monkeypatch):
    """Sets what the gauge says."""
    now = [QUIET]
    monkeypatch.setattr("labkit.workbook.bench.gauge", lambda: now[0])
    return now


def bench(tmp_path, engine="auto", needs=("answers",)):
    return Bench(
        "99",
        engine=engine,
        profile="ci",
        needs=needs,
        recording=tmp_path / "committed.jsonl",
        writes=tmp_path / "written.jsonl",
        quiet=True,
    )


async def asked_twice(one):
    """Measure an answer's words in two rounds, and a table of lengths at once, and reveal a number."""
    live = await one.connect("small")

    async def words(number):
        return [number, (await complete(live, ASK)).text]

    async def lengths():
        return {"usage": (await complete(live, ASK)).done.usage}

    try:
        return await one.measure("words", words, rounds=2), await one.measure("lengths", lengths)
    finally:
        one.revealed("99.share", Spread(2.0, 1.0, 3.0, 5, 0.93))
        await one.close()


def recorded(tmp_path):
    """What was measured, after its recording has become the chapter's."""
    found = asyncio.run(asked_twice(bench(tmp_path, RECORD)))
    (tmp_path / "written.jsonl").rename(tmp_path / "committed.jsonl")
    return found


def test_what_the_engine_can_do_is_measured_now(tmp_path, endpoint, noise):
    words, lengths = asyncio.run(asked_twice(bench(tmp_path)))
    assert words.value == [[0, "I cannot say more"], [1, "I cannot say more"]]
    assert lengths.value["usage"].output_tokens == 4
    assert not words.recorded
    assert "measured on an endpoint" in words.source


def test_a_recording_gives_the_same_values_and_says_that_it_is_one(tmp_path, endpoint, noise, monkeypatch, capsys):
    measured = recorded(tmp_path)
    monkeypatch.delenv("LABKIT_BASE_URL")
    monkeypatch.setenv("LABKIT_ENGINE", "none")
    replayed = asyncio.run(asked_twice(bench(tmp_path)))
    assert [one.value for one in replayed] == [one.value for one in measured]
    assert all(one.recorded and "REPLAYED from a recording" in one.source for one in replayed)
    out = capsys.readouterr().out
    assert "No engine for this chapter here. LABKIT_ENGINE=none" in out
    assert out.count("Recorded, not measured now") == 2 * 2  # HTML and text
    assert out.count("It needs an engine that answers") == 2  # once, in HTML and text


@pytest.mark.parametrize("why", ["replay", "http://127.0.0.1:9/v1", "nonsense"])
def test_without_an_engine_for_any_reason_the_recording_stands_in(tmp_path, endpoint, noise, monkeypatch, capsys, why):
    recorded(tmp_path)
    one = bench(tmp_path, engine=why)

    async def ask_the_stand_in():
        live = await one.connect("small")
        assert live.tokenizer_path is None or live.provenance.kind == "replay"
        with pytest.raises(EngineError, match="no engine here"):
            await complete(live, ASK)
        with pytest.raises(EngineError, match="no engine here"):
            await live.metrics()

    asyncio.run(ask_the_stand_in())
    assert "No engine for this chapter here" in capsys.readouterr().out


def test_only_what_is_missing_is_replayed(tmp_path, endpoint, noise):
    recorded(tmp_path)
    one = bench(tmp_path, needs=("answers", "metrics"))

    async def both():
        live = await one.connect("small")
        assert one.lacks() == ("metrics",)
        assert one.lacks(("answers",)) == ()

        async def text():
            return (await complete(live, ASK)).text

        return await one.measure("words", text), await one.measure("words", text, needs=("answers",))

    replayed, live = asyncio.run(both())
    assert (replayed.recorded, live.recorded) == (True, False)
    assert live.value == "I cannot say more"


def test_a_measurement_that_the_recording_lacks_is_named_with_the_fix(tmp_path, endpoint, noise):
    recorded(tmp_path)
    one = bench(tmp_path, needs=("vllm",))

    async def other():
        await one.connect("small")
        await one.measure("others", other)

    with pytest.raises(ExerciseError, match=r"'others'.*words, lengths.*Record the chapter again.*vLLM starts"):
        asyncio.run(other())


def test_before_an_engine_is_connected_nothing_can_be_measured(tmp_path):
    with pytest.raises(ExerciseError, match=r"book\.connect"):
        bench(tmp_path).lacks()


def test_what_needs_no_engine_is_measured_without_one(tmp_path, noise):
    async def work():
        return 7

    found = asyncio.run(bench(tmp_path).measure("seven", work, needs=()))
    assert found.value == 7
    assert "measured live" in found.source


def test_a_busy_machine_is_told_and_shows_the_quiet_ones_result(tmp_path, endpoint, noise, capsys):
    recorded(tmp_path)
    one = bench(tmp_path)
    asyncio.run(asked_twice(one))
    assert one.quiet_result("99.share") is None
    noise[0] = BUSY
    asyncio.run(asked_twice(one))
    assert "This machine is busy" in capsys.readouterr().out
    result, caption = one.quiet_result("99.share")
    assert result.median == 2.0
    assert MODEL in caption
    assert one.quiet_result("99.other") is None


def test_a_busy_machines_recording_is_not_called_quiet(tmp_path, endpoint, noise):
    noise[0] = BUSY
    recorded(tmp_path)
    one = bench(tmp_path)
    asyncio.run(asked_twice(one))
    assert one.quiet_result("99.share") is None


@pytest.mark.parametrize("text", ["", "{}", '{"labkit_chapter": 1, "chapter": "99", "profile": "ci"}\n', "not json"])
def test_a_file_that_says_too_little_is_no_recording(tmp_path, text):
    path = tmp_path / "committed.jsonl"
    path.write_text(text)
    with pytest.raises(ExerciseError, match="record it again"):
        load(path)


def test_a_measurement_without_its_engine_is_no_recording(tmp_path, endpoint, noise):
    recorded(tmp_path)
    path = tmp_path / "committed.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["engines"] = []
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ExerciseError, match="names no engine"):
        load(path)


def test_an_unknown_need_is_named():
    with pytest.raises(ExerciseError, match="magic"):
        Bench("99", engine="auto", profile="ci", needs=("magic",), recording=None, writes=None, quiet=True)


def test_a_folder_of_the_machine_is_not_recorded(tmp_path, endpoint, noise):
    one = bench(tmp_path, RECORD)

    async def where():
        live = await one.connect("small")
        await complete(live, ASK)
        return {"ledger": str(tmp_path / "ledger.sqlite")}

    async def measured():
        await one.connect("small")
        await one.measure("where", where)

    with pytest.raises(ExerciseError, match="folder of this machine"):
        asyncio.run(measured())


@pytest.mark.parametrize("path", sorted(recordings_dir().rglob("*.jsonl")), ids=lambda path: path.name)
def test_no_committed_recording_names_a_folder(path):
    assert re.findall(r'"(/(?:tmp|root|home|work|opt|var|Users|private)/[^"]*)', path.read_text(encoding="utf-8")) == []
