"""What each dialect says, told by hand; and files that no reader should trust."""

from __future__ import annotations

import gzip
import json
import random
import time
from decimal import Decimal
from pathlib import Path

import pytest

from labkit.ledger import Ledger, Row
from labkit.logs import read_log
from labkit.request import InvalidValue, Usage

NINE = 1772442000.0  # 2026-03-02 09:00:00 UTC
PLAIN = {"timestamp": NINE, "model": "m", "prompt_tokens": 10, "completion_tokens": 2}


def written(tmp_path: Path, *records: object, name: str = "log.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def only(tmp_path: Path, record: object):
    log = read_log(written(tmp_path, record))
    (call,) = log.calls
    return call


def test_a_chat_completion_with_its_request(tmp_path: Path) -> None:
    call = only(
        tmp_path,
        {
            "timestamp": "2026-03-02T10:00:00+01:00",
            "duration_ms": 1500,
            "ttft_ms": 500,
            "request": {"model": "gpt-4o", "user": "u7", "messages": [{"role": "user", "content": "Hi"}]},
            "response": {
                "model": "gpt-4o-2024-08-06",
                "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 21,
                    "total_tokens": 121,
                    "prompt_tokens_details": {"cached_tokens": 64},
                },
            },
        },
    )
    assert (call.at, call.duration, call.ttft, call.tpot) == (NINE, 1.5, 0.5, 0.05)
    assert call.usage == Usage(100, 21, cached_tokens=64)
    assert (call.model, call.user, call.status, call.finish) == ("gpt-4o-2024-08-06", "u7", "completed", "stop")
    assert (call.turns, call.answer) == ((("user", "Hi"),), "Hello")


def test_the_responses_api(tmp_path: Path) -> None:
    call = only(
        tmp_path,
        {
            "id": "resp_1",
            "created_at": 1772442000,
            "status": "completed",
            "model": "o4-mini",
            "instructions": "Be brief.",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "Yes."}]}],
            "usage": {
                "input_tokens": 50,
                "input_tokens_details": {"cached_tokens": 16},
                "output_tokens": 30,
                "output_tokens_details": {"reasoning_tokens": 20},
                "total_tokens": 80,
            },
        },
    )
    assert call.usage == Usage(50, 30, cached_tokens=16, reasoning_tokens=20)
    assert call.turns == (("system", "Be brief."), ("user", "Hi"))
    assert (call.at, call.answer, call.status) == (NINE, "Yes.", "completed")


def test_a_line_of_a_batch(tmp_path: Path) -> None:
    body = {"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}, "choices": []}
    call = only(tmp_path, {"id": "b1", "custom_id": "r1", "response": {"status_code": 200, "body": body}, "error": None})
    assert (call.usage, call.request, call.status) == (Usage(3, 1), "r1", "completed")


def test_anthropics_cache_stands_beside_its_input(tmp_path: Path) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5, "output_tokens": 7}
    want = Usage(100, 7, cached_tokens=90, cache_write_tokens=5)
    assert only(tmp_path, {"response": {"usage": usage, "stop_reason": "end_turn"}}).usage == want
    assert only(tmp_path, {"time": NINE, **usage}).usage == want


def test_litellms_spend_log(tmp_path: Path) -> None:
    row = {
        "request_id": "chatcmpl-1",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.000123,
        "total_tokens": 130,
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "startTime": "2026-03-02T09:00:00.000000",
        "completionStartTime": "2026-03-02T09:00:00.400000",
        "endTime": "2026-03-02T09:00:01.000000",
        "model": "openai/gpt-4o-mini",
        "user": "default_user_id",
        "end_user": "customer-7",
        "team_id": "support",
        "session_id": "s1",
        "status": "success",
        "cache_hit": "False",
        "cache_key": "abc",
        "messages": "{}",
        "response": "{}",
        "metadata": json.dumps({"usage_object": {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}}),
    }
    log = read_log(written(tmp_path, row))
    (call,) = log.calls
    assert (call.at, call.usage, call.duration) == (NINE, Usage(100, 30), 1.0)
    assert call.ttft == pytest.approx(0.4)
    assert (call.tenant, call.user, call.session, call.status) == ("support", "customer-7", "s1", "completed")
    assert (call.cost, call.prompt_key, call.turns) == (Decimal("0.000123"), "abc", ())
    assert "1 date without a time zone, taken as UTC" in log.told


def test_an_answer_that_came_whole_has_no_first_token(tmp_path: Path) -> None:
    at = {"startTime": NINE, "completionStartTime": NINE + 2, "endTime": NINE + 2}
    call = only(tmp_path, {**at, "prompt_tokens": 4, "completion_tokens": 9})
    assert (call.ttft, call.duration) == (None, 2.0)


def test_langfuses_kinds_are_disjoint(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    one = {
        "id": "o1",
        "type": "GENERATION",
        "startTime": "2026-03-02T09:00:00Z",
        "completionStartTime": "2026-03-02T09:00:00.250Z",
        "endTime": "2026-03-02T09:00:01Z",
        "model": "gpt-4o",
        "sessionId": "s",
        "userId": "u",
        "input": [{"role": "user", "content": "Hi"}],
        "output": {"role": "assistant", "content": "Hello"},
        "level": "DEFAULT",
        "usageDetails": {"input": 36, "input_cached_tokens": 64, "output": 5, "output_reasoning_tokens": 16, "total": 121},
        "calculatedTotalCost": 0.001,
    }
    path.write_text(json.dumps({"data": [one, {**one, "id": "o2"}]}, indent=1), encoding="utf-8")
    log = read_log(path)
    assert len(log) == 2
    assert log.calls[0].usage == Usage(100, 21, cached_tokens=64, reasoning_tokens=16)
    assert (log.calls[0].ttft, log.calls[0].session, log.calls[0].answer) == (0.25, "s", "Hello")


def test_opentelemetrys_attributes(tmp_path: Path) -> None:
    names = {
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.conversation.id": "c",
    }
    call = only(tmp_path, {"start_time": NINE * 1e9, "end_time": (NINE + 1) * 1e9, "attributes": names})
    assert call.usage == Usage(100, 9, cached_tokens=60), "input_tokens includes the cached ones there"
    assert (call.at, call.duration, call.session, call.model) == (NINE, 1.0, "c", "m")


def test_a_table_of_burstgpt_with_a_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "burst gpt.csv"
    text = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n5,ChatGPT,472,18,490,Conversation log\r\n"
    )
    path.write_bytes(b"\xef\xbb\xbf" + (text + "45,GPT-4,1087,230,1317,API log\r\n").encode())
    log = read_log(path)
    assert [call.usage for call in log.calls] == [Usage(472, 18), Usage(1087, 230)]
    assert (log.seconds, log.calls[0].feature, log.bad) == (40.0, "Conversation log", ())


def test_traces_are_read_by_their_own_reader(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50,9,1\n"
    )
    assert [call.usage for call in read_log(azure).calls] == [Usage(374, 44), Usage(9, 1)]
    rows = [{"timestamp": t, "input_length": 600, "output_length": 5, "hash_ids": [1, t]} for t in (0, 3000)]
    mooncake = read_log(written(tmp_path, *rows))
    assert [(call.at, call.block_hashes) for call in mooncake.calls] == [(0.0, (1, 0)), (3.0, (1, 3000))]


def test_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "led ger.db"
    with Ledger(path) as ledger:
        ledger.append(
            Row(
                provider="lab", outcome="cancelled", request_model="m", input_tokens=10, output_tokens=5, tenant="t",
                attempt=2, idempotency_key="k", workflow="w", sent=1.0, first_token=1.5, done=3.0, started_unix=NINE,
                cost=Decimal("0.1"),
            )
        )  # fmt: skip
    (call,) = read_log(path).calls
    assert (call.at, call.ttft, call.duration, call.usage) == (NINE, 0.5, 2.0, Usage(10, 5))
    assert (call.status, call.attempt, call.request, call.session, call.cost) == ("cancelled", 2, "k", "w", Decimal("0.1"))
    with Ledger(tmp_path / "empty.db"):
        pass
    with pytest.raises(InvalidValue, match="no rows yet"):
        read_log(tmp_path / "empty.db")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": "failure"}, "failed"),
        ({"status_code": 503}, "failed"),
        ({"status_code": 499}, "cancelled"),
        ({"status": "cancelled"}, "cancelled"),
        ({"error": {"type": "overloaded"}}, "failed"),
        ({"error": None, "finish_reason": "abort"}, "cancelled"),
        ({"finish_reason": "length"}, "completed"),
        ({}, ""),
    ],
)
def test_how_a_call_ended(tmp_path: Path, fields: dict, status: str) -> None:
    assert only(tmp_path, {**PLAIN, **fields}).status == status


# Times


@pytest.mark.parametrize(
    "at",
    [NINE, NINE * 1e3, NINE * 1e6, NINE * 1e9, str(int(NINE)), "2026-03-02T09:00:00Z", "2026-03-02 09:00:00",
     "2026-03-02T14:30+05:30",
     "2026-03-02 09:00:00 UTC", "2026-03-02T01:00:00,000-08:00"],
)  # fmt: skip
def test_one_moment_in_every_spelling(tmp_path: Path, at: object) -> None:
    assert only(tmp_path, {**PLAIN, "timestamp": at}).at == pytest.approx(NINE, abs=1e-3)


def test_zones_and_units_may_be_mixed_in_one_log_and_its_calls_come_in_order(tmp_path: Path) -> None:
    ats = ["2026-03-02T10:00:03+01:00", (NINE + 1) * 1000, NINE + 2, "2026-03-02T09:00:00Z"]
    log = read_log(written(tmp_path, *({**PLAIN, "timestamp": at} for at in ats)))
    assert [call.at for call in log.calls] == [NINE, NINE + 1, NINE + 2, NINE + 3]
    assert [call.line for call in log.calls] == [4, 2, 3, 1]


@pytest.mark.parametrize("at", ["yesterday", -5, float("nan"), float("inf"), True, [], 1e25, "1e400", 10**400])
def test_what_is_no_time_is_a_bad_line(tmp_path: Path, at: object) -> None:
    log = read_log(written(tmp_path, PLAIN, {**PLAIN, "timestamp": at}))
    assert (len(log), [bad.line for bad in log.bad]) == (1, [2])
    assert "time" in log.bad[0].why


def test_an_answer_before_its_question_is_a_bad_line(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, PLAIN, {**PLAIN, "endTime": NINE - 3}))
    assert log.bad[0].why == "the call ends 3 s before it begins"


def test_bare_numbers_that_must_be_milliseconds_are_said_to_be(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, *({**PLAIN, "latency": 1000 + i, "ttft": 400} for i in range(5))))
    assert log.calls[0].duration == pytest.approx(1.0)
    assert log.calls[0].ttft == pytest.approx(0.4)
    assert "taken as milliseconds" in log.told
    seconds = read_log(written(tmp_path, *({**PLAIN, "latency": 1 + i, "ttft": 0.4} for i in range(5))))
    assert (seconds.calls[0].duration, seconds.calls[0].ttft, seconds.notes) == (1.0, 0.4, ())


# Hostile files


def test_no_file_a_folder_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\xef\xbb\xbf \n")
    for path, why in ((tmp_path / "none", "cannot read"), (tmp_path, "is a folder"), (tmp_path / "empty", "is empty")):
        with pytest.raises(InvalidValue, match=why):
            read_log(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"b": 2}\n',
        "a,b\n1,2\n",
        "[1, 2]",
        "just prose",
        "{",
        '{"timestamp": "x"}',
        '{"usage": {"prompt_tokens": -1}}',
    ],
)
def test_a_file_without_a_call_says_what_it_looked_for(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(InvalidValue, match=r"holds no call.*token counts \(usage.*messages.*timestamp"):
        read_log(path)


def test_bad_lines_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = json.dumps(PLAIN)
    path.write_text(
        f"{good}\nnot json\n\n[1]\n{good}\n" + '{"timestamp": 1, "prompt_tokens": -4, "completion_tokens": 1}\n' + "{}\n"
    )
    log = read_log(path)
    assert len(log) == 2
    assert [bad.line for bad in log.bad] == [2, 4, 6, 7]
    assert "4 lines could not be read (2, 4, 6, 7" in log.told
    assert "prompt_tokens is -4" in log.bad[2].why


@pytest.mark.parametrize("count", [-1, 1.5, "many", float("nan"), 10**30, True])
def test_a_count_that_is_none_is_a_bad_line_and_a_missing_one_is_missing(tmp_path: Path, count: object) -> None:
    log = read_log(written(tmp_path, PLAIN, {**PLAIN, "prompt_tokens": count}, {"timestamp": NINE, "model": "m"}))
    assert [bad.line for bad in log.bad] == [2]
    assert [call.usage for call in log.calls] == [Usage(10, 2), None]
    assert log.has["usage"] == 1


def test_a_spreadsheets_floats_are_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp;prompt_tokens;completion_tokens\n1;374.0;44.0\n2;nan;1\n3;1\n")
    log = read_log(path)
    assert log.calls[0].usage == Usage(374, 44)
    assert [bad.line for bad in log.bad] == [3, 4]


def test_a_gzip_cut_short_gives_what_is_there_and_says_where_it_ends(tmp_path: Path) -> None:
    rng = random.Random(1)
    lines = "".join(json.dumps({**PLAIN, "user": f"{rng.random()}"}) + "\n" for _ in range(2000))
    packed = gzip.compress(lines.encode())
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(packed)
    assert len(read_log(path)) == 2000
    path.write_bytes(packed[: len(packed) // 2])
    log = read_log(path)
    assert 500 < len(log) < 1500
    assert "cut off" in log.bad[-1].why
    path.write_bytes(packed[:11])
    with pytest.raises(InvalidValue, match="cut off"):
        read_log(path)


def test_equal_records_with_an_id_count_once_and_are_named(tmp_path: Path) -> None:
    one = {**PLAIN, "request_id": "a"}
    log = read_log(written(tmp_path, one, one, {**one, "request_id": "b"}, PLAIN, PLAIN))
    assert len(log) == 4, "without an id nobody can tell a copy from a second call"
    assert log.duplicates == (2,)
    assert "1 copy of a record left out (line 2)" in log.told


def test_arabic_emoji_and_broken_text_survive(tmp_path: Path) -> None:
    path = tmp_path / "سجل 📝.jsonl"
    texts = ["مرحبا 👋🏽", "\ud800 half a pair"]
    path.write_text("".join(json.dumps({**PLAIN, "messages": [{"role": "user", "content": t}]}) + "\n" for t in texts))
    with path.open("ab") as file:
        file.write(b'{"timestamp": 1, "prompt_tokens": 1, "completion_tokens": 1, "messages": "\xff\xfe"}\n')
    log = read_log(path)
    assert [call.turns[0][1] for call in log.calls][:2] == texts
    assert len(log) == 3
    hash(log.calls[0].asked)


def test_a_line_of_ten_megabytes_and_a_deep_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    huge = json.dumps({**PLAIN, "messages": [{"role": "user", "content": "word " * 2_000_000}]})
    path.write_text(f"{huge}\n{'[' * 200_000}\n{json.dumps(PLAIN)}\n")
    log = read_log(path)
    assert (len(log), [bad.line for bad in log.bad]) == (2, [2])


SECRETS = ("sk-proj-abcdefgh12345678", "Bearer eyJhbGciOiJIUzI1NiJ9.payload")


@pytest.mark.parametrize("secret", SECRETS)
def test_no_key_of_a_logged_request_is_in_an_error_or_a_result(tmp_path: Path, secret: str) -> None:
    headers = {"headers": {"Authorization": secret, "x-api-key": secret}, "api_key": secret}
    good = {**PLAIN, "request": {**headers, "model": "m"}, "user": secret, **headers}
    bad = {**good, "timestamp": secret, "prompt_tokens": secret, "access_token": secret}
    path = written(tmp_path, good, bad, {"timestamp": NINE, "usage": {"prompt_tokens": secret, "token": secret}})
    path.write_text(path.read_text() + f'{{"authorization": "{secret}"\n{secret}\n')
    log = read_log(path)
    key = secret.split()[-1]
    assert len(log) == 1
    assert len(log.bad) == 4
    assert key not in f"{log!r} {log.calls!r} {log.bad!r} {log.told}"
    assert log.calls[0].user.startswith("key "), "a hash tells users apart all the same"
    path.write_text(f'{{"authorization": "{secret}"}}\n{secret}\n')
    with pytest.raises(InvalidValue) as error:
        read_log(path)
    assert key not in str(error.value)


def test_a_hundred_thousand_lines_take_seconds(tmp_path: Path) -> None:
    rng = random.Random(2)
    path = written(
        tmp_path,
        *(
            {
                "startTime": NINE + i / 10,
                "endTime": NINE + i / 10 + rng.random(),
                "request_id": f"r{i}",
                "response": {"usage": {"prompt_tokens": 900, "completion_tokens": 9, "total_tokens": 909}},
                "request": {"model": "gpt-4o", "messages": [{"role": "user", "content": f"question {rng.randrange(9999)}"}]},
            }
            for i in range(100_000)
        ),
    )
    begin = time.process_time()
    log = read_log(path)
    assert len(log) == 100_000
    assert time.process_time() - begin < 20, "about 5 s on an idle core"
