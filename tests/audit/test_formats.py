"""Five formats, written by hand as their documentation shows them, and a ledger: totals against an independent sum."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from labkit.audit import Audited, AuditSettings, audit_logs, read_prices, report_html
from labkit.cost import self_defined
from labkit.ledger import Ledger, Row
from labkit.logs import LogStream, read_log
from labkit.request import InvalidValue

NINE = 1772442000.0  # 2026-03-02 09:00:00 UTC
OWN = {"m": self_defined("m", "2", "10", cached="0.5", cache_write="3"), "n": self_defined("n", "1", "4", cached="0.1")}
# (model, fresh, cached, written, visible, reasoning) of each call
CALLS = [
    ("m", 100, 0, 0, 20, 0),
    ("m", 36, 64, 0, 5, 16),
    ("n", 900, 0, 0, 300, 0),
    ("m", 10, 128, 40, 7, 0),
    ("n", 1, 0, 0, 1, 0),
]
PER_TOKEN = {"m": ("2", "0.5", "3", "10", "10"), "n": ("1", "0.1", "1", "4", "4")}


def expected() -> Decimal:
    """The sum in integer arithmetic on ten-millionths, apart from all code of the lab."""
    total = 0
    for model, *kinds in CALLS:
        total += sum(int(Decimal(rate) * 10) * count for rate, count in zip(PER_TOKEN[model], kinds, strict=True))
    return Decimal(total) / 10_000_000


def lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def openai(path: Path) -> None:
    lines(
        path,
        [
            {
                "id": f"chatcmpl-{i}",
                "object": "chat.completion",
                "created": int(NINE) + i,
                "model": model,
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
                "usage": {
                    "prompt_tokens": fresh + cached + written,
                    "completion_tokens": visible + reasoning,
                    "total_tokens": fresh + cached + written + visible + reasoning,
                    "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
                },
            }
            for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS)
        ],
    )


def litellm(path: Path) -> None:
    """`LiteLLM_SpendLogs`: the details of the usage are in the metadata, as text."""
    rows = []
    for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS):
        usage = {
            "prompt_tokens": fresh + cached + written,
            "completion_tokens": visible + reasoning,
            "total_tokens": fresh + cached + written + visible + reasoning,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
        rows.append(
            {
                "request_id": f"chatcmpl-{i}",
                "call_type": "acompletion",
                "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
                "spend": 0.001,
                "total_tokens": usage["total_tokens"],
                "prompt_tokens": usage["prompt_tokens"],
                "completion_tokens": usage["completion_tokens"],
                "startTime": f"2026-03-02T09:00:0{i}.000000",
                "endTime": f"2026-03-02T09:00:0{i}.500000",
                "model": model,
                "team_id": "support",
                "request_tags": "[]",
                "metadata": json.dumps({"usage_object": usage}),
                "messages": "{}",
                "response": "{}",
                "status": "success",
            }
        )
    lines(path, rows)


def langfuse(path: Path) -> None:
    """Enriched observations, whose kinds of usage are disjoint; a span that is no generation stands among them."""
    rows = [
        {
            "id": f"o{i}",
            "trace_id": "t",
            "type": "GENERATION",
            "name": "answer",
            "start_time": f"2026-03-02 09:00:0{i}.000000",
            "end_time": f"2026-03-02 09:00:0{i}.500000",
            "provided_model_name": model,
            "usage_details": {
                "input": fresh, "input_cached_tokens": cached, "input_cache_creation": written, "output": visible,
                "output_reasoning_tokens": reasoning, "total": fresh + cached + written + visible + reasoning,
            },
            "total_cost": 0.001,
            "level": "DEFAULT",
        }
        for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS)
    ]  # fmt: skip
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def helicone(path: Path) -> None:
    """The export as JSON lines: a call's time is that of its request, delays are milliseconds, caches stand beside."""
    lines(
        path,
        [
            {
                "response_id": f"r{i}",
                "response_created_at": f"2026-03-02T09:00:0{i}.500Z",
                "response_status": 200,
                "request_id": f"q{i}",
                "request_created_at": f"2026-03-02T09:00:0{i}Z",
                "request_model": model,
                "model": model,
                "delay_ms": 500,
                "time_to_first_token": 100,
                "request_user_id": "u1",
                "request_properties": {"Environment": "production"},
                "prompt_tokens": fresh,
                "prompt_cache_read_tokens": cached,
                "prompt_cache_write_tokens": written,
                "completion_tokens": visible + reasoning,
                "reasoning_tokens": reasoning,
                "costUSD": 0.001,
            }
            for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS)
        ],
    )


def otlp(path: Path) -> None:
    """The file exporter's lines, spans of one resource each: whole numbers are texts, and other spans stand among them."""

    def attribute(key: str, value: object) -> dict:
        return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}

    rows = []
    for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS):
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": fresh + cached + written,
            "gen_ai.usage.output_tokens": visible + reasoning,
            "gen_ai.usage.cache_read.input_tokens": cached,
            "gen_ai.usage.cache_creation.input_tokens": written,
            "gen_ai.usage.reasoning.output_tokens": reasoning,
        }
        times = {
            "startTimeUnixNano": f"{(int(NINE) + i) * 10**9}",
            "endTimeUnixNano": f"{(int(NINE) + i) * 10**9 + 5 * 10**8}",
        }
        span = {"traceId": "5b8e", "spanId": f"ee{i}", "name": f"chat {model}", "kind": 3, **times}
        span["attributes"] = [attribute(key, value) for key, value in about.items()]
        plain = {
            "traceId": "5b8e",
            "spanId": f"ff{i}",
            "name": "GET /",
            **times,
            "attributes": [attribute("http.method", "GET")],
        }
        resource = {"attributes": [attribute("service.name", "shop")]}
        rows.append({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": [plain, span]}]}]})
    lines(path, rows)


def a_ledger(path: Path) -> None:
    with Ledger(path) as book:
        book.extend(
            Row(
                provider="lab", outcome="completed", request_model=model, input_tokens=fresh + cached + written,
                output_tokens=visible + reasoning, cached_tokens=cached, cache_write_tokens=written,
                reasoning_tokens=reasoning, started_unix=NINE + i, feature="desk",
            )
            for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS)
        )  # fmt: skip


def a_table(path: Path) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["when", "engine", "in", "hit", "wrote", "out", "thought"])
        for i, (model, fresh, cached, written, visible, reasoning) in enumerate(CALLS):
            out.writerow([NINE + i, model, fresh + cached + written, cached, written, visible + reasoning, reasoning])


COLUMNS = {
    "time": "when", "model": "engine", "input": "in", "cached": "hit", "written": "wrote", "output": "out",
    "reasoning": "thought",
}  # fmt: skip
FORMATS: dict[str, Callable[[Path], None]] = {
    "openai": openai, "litellm": litellm, "langfuse": langfuse, "helicone": helicone, "otlp": otlp, "ledger": a_ledger,
    "table": a_table,
}  # fmt: skip


def audited(path: Path, **settings: object) -> Audited:
    return audit_logs([path], AuditSettings(prices=OWN, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("packed", [False, True])
def test_the_totals_of_every_format_are_those_of_an_independent_sum(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "log"
    FORMATS[name](path)
    if packed and name != "ledger":
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = audited(path, mapped=COLUMNS if name == "table" else {})
    assert found.cost.total == expected()
    assert found.tokens == tuple(sum(call[place] for call in CALLS) for place in range(1, 6))
    assert (found.calls, found.files[0].bad, found.seconds, found.unpriced) == (5, 0, 4.0, ())
    assert found.files[0].others == (5 if name == "otlp" else 0)
    for spenders in (found.models, found.features, found.tenants):
        assert sum((one.cost.total for one in spenders), Decimal(0)) == expected()


@pytest.mark.parametrize("name", ["openai", "litellm", "langfuse", "helicone", "otlp"])
def test_the_reader_of_whole_logs_reads_the_same_calls(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log"
    FORMATS[name](path)
    whole, streamed = read_log(path).calls, list(LogStream(path))
    assert [(c.usage, c.model, c.at) for c in whole] == [(c.usage, c.model, c.at) for c in streamed]
    assert len(streamed) == 5


def test_a_gateways_log_beside_the_clients_counts_each_call_once(tmp_path: Path) -> None:
    openai(tmp_path / "client")
    litellm(tmp_path / "gateway")
    found = audit_logs([tmp_path / "gateway", tmp_path / "client"], AuditSettings(prices=OWN))
    assert (found.calls, [one.copies for one in found.files], found.cost.total) == (5, [0, 5], expected())


BAD = [
    '{"timestamp": 1772442000, "model": "m", "prompt_tokens": -4, "completion_tokens": 1}',
    '{"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}}',
    '{"startTime": 1772442000, "endTime": 1772441990, "model": "m", "prompt_tokens": 4, "completion_tokens": 1}',
    "not json",
    "[1]",
    "{}",
]


def test_bad_lines_are_counted_by_their_numbers_and_change_no_sum(tmp_path: Path) -> None:
    openai(tmp_path / "log")
    with (tmp_path / "log").open("a") as file:
        file.write("\n".join(BAD * 5) + "\n")
    found = audited(tmp_path / "log")
    (one,) = found.files
    assert (one.calls, one.bad, len(one.first_bad)) == (5, 30, 20)
    assert [bad.line for bad in one.first_bad] == list(range(6, 26))
    assert found.cost.total == expected()
    assert "30 lines that could not be read; the first 20" in report_html(found)


def test_what_has_no_price_no_usage_or_another_currency_is_seen_and_in_no_sum(tmp_path: Path) -> None:
    openai(tmp_path / "log")
    more = {"timestamp": NINE, "prompt_tokens": 7, "completion_tokens": 3}
    with (tmp_path / "log").open("a") as file:
        for row in (
            {**more, "model": "nobody-knows-it", "cost": 2, "currency": "EUR"},
            {**more, "model": "m", "prompt_tokens": None, "completion_tokens": None, "cost": 1, "currency": "usd"},
        ):
            file.write(json.dumps(row) + "\n")
    found = audited(tmp_path / "log")
    assert found.unpriced == (("nobody-knows-it", 1, 10),)
    assert (found.without_usage, found.told) == (1, {"EUR": Decimal(2), "USD": Decimal(1)})
    assert found.cost.total == expected()
    assert "nobody-knows-it" in report_html(found)


def test_a_cut_off_gzip_tells_what_is_there_and_where_it_ends(tmp_path: Path) -> None:
    lines(
        tmp_path / "log",
        [{"timestamp": NINE + i, "model": "m", "prompt_tokens": i + 1, "completion_tokens": i % 7} for i in range(4000)],
    )
    packed = gzip.compress((tmp_path / "log").read_bytes())
    (tmp_path / "log").write_bytes(packed[: len(packed) // 2])
    (one,) = audited(tmp_path / "log").files
    assert 100 < one.calls < 4000
    assert "cut off" in one.first_bad[-1].why


def test_a_huge_line_is_left_out_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.logs.passing.LONGEST", 10_000)
    openai(tmp_path / "log")
    text = (tmp_path / "log").read_text()
    (tmp_path / "log").write_text('{"messages": "' + "x" * 25_000 + '"}\n' + text)
    found = audited(tmp_path / "log")
    assert (found.calls, found.cost.total) == (5, expected())
    assert (found.files[0].first_bad[0].line, found.files[0].bad) == (1, 1)


def test_zones_may_be_mixed(tmp_path: Path) -> None:
    one = {"model": "m", "prompt_tokens": 7, "completion_tokens": 3}
    lines(
        tmp_path / "log",
        [
            {**one, "timestamp": at}
            for at in ("2026-03-02T10:00:00+01:00", "2026-03-02T09:00:10", "2026-03-02T01:00:20-08:00")
        ],
    )
    found = audited(tmp_path / "log")
    assert (found.seconds, found.files[0].no_zone) == (20.0, 1)


@pytest.mark.parametrize("text", ["", "  \n", "a,b\n1,2\n", "[1, 2]", '{"a": 1}\n', "just prose\n"])
def test_a_file_without_a_call_is_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(InvalidValue, match=r"is empty|--map"):
        audited(tmp_path / "log")


def test_a_name_that_nothing_is_mapped_to_and_prices_that_are_none_are_refused(tmp_path: Path) -> None:
    openai(tmp_path / "log")
    with pytest.raises(InvalidValue, match="nothing is mapped to modle; use time"):
        audited(tmp_path / "log", mapped={"modle": "engine"})
    (tmp_path / "prices").write_text('{"m": {"input": 2.5, "output": "10"}}')
    with pytest.raises(InvalidValue, match="as text or Decimal"):
        read_prices(tmp_path / "prices")
    (tmp_path / "prices").write_text('{"m": {"input": "2.5", "output": "10"}}')
    assert read_prices(tmp_path / "prices")["m"].rates.fresh_input == Decimal("2.5")


def test_a_clock_that_is_years_off_does_not_stretch_the_log(tmp_path: Path) -> None:
    row = {"model": "m", "prompt_tokens": 7, "completion_tokens": 3}
    rows = [{**row, "timestamp": NINE + 60 * i} for i in range(300)]
    rows[7]["timestamp"], rows[9]["timestamp"] = 5e8, NINE + 3e8
    lines(tmp_path / "log", rows)
    found = audited(tmp_path / "log")
    assert found.span is not None
    assert (found.seconds, found.calls) == (299 * 60.0, 300)
    assert (found.span.far, found.span.lines) == (2, (("log", 8), ("log", 10)))
    assert "2 calls at times far from all others" in report_html(found)
    lines(tmp_path / "log", rows[:4] + rows[7:8])
    assert audited(tmp_path / "log").span.far == 0, "one of five is no stray"  # type: ignore[union-attr]


def test_equal_lines_without_an_id_count_and_are_told_of(tmp_path: Path) -> None:
    row = {"timestamp": NINE, "model": "m", "prompt_tokens": 7, "completion_tokens": 3}
    lines(tmp_path / "log", [row, row, {**row, "user": "u"}, {**row, "id": "a"}, {**row, "id": "a"}])
    found = audited(tmp_path / "log")
    (one,) = found.files
    assert (found.calls, one.alike, one.copies) == (4, 1, 1)
    assert ([bad.line for bad in one.first_alike], [bad.line for bad in one.first_copies]) == ([2], [5])
    assert found.tokens[0] == 28


def test_an_unpriced_models_money_is_not_zero_in_the_report(tmp_path: Path) -> None:
    rows = [{"timestamp": NINE + i, "model": "mx"[i % 2], "prompt_tokens": 7, "completion_tokens": 3} for i in range(4)]
    lines(tmp_path / "log", [*rows, {"timestamp": NINE, "model": "m", "status": "success"}])
    found = audited(tmp_path / "log")
    assert {one.name: (one.calls, one.unpriced) for one in found.models} == {"m": (2, 0), "x": (2, 2)}
    page = report_html(found)
    assert '<td>x</td><td class="n">no price</td>' in page
    assert "1 call without token counts: in no sum" in page
    assert found.lines_without == (("log", 5),)


TRACES = Path(os.environ.get("LABKIT_TRACES", Path(__file__).resolve().parents[3] / "shared" / "traces"))


@pytest.mark.parametrize(
    "name",
    ["azure2023_code.csv.gz", "azure2023_conv.csv.gz", "mooncake_conversation.jsonl.gz", "mooncake_synthetic.jsonl.gz"],
)
def test_real_traces_add_up(name: str) -> None:
    if not (TRACES / name).exists():
        pytest.skip(f"no trace at {TRACES / name}: the audit was NOT tried on real ones; LABKIT_TRACES names their folder")
    found = audit_logs([TRACES / name], AuditSettings(prices={"": self_defined("", "1", "0")}))
    with gzip.open(TRACES / name, "rt") as file:
        if ".csv" in name:
            into = [int(row["ContextTokens"]) for row in csv.DictReader(file)]
        else:
            into = [json.loads(line)["input_length"] for line in file]
    assert (found.calls, found.cost.total) == (len(into), Decimal(sum(into)) / 1_000_000)
