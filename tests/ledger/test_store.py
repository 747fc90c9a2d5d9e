import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes

from labkit.ledger import COLUMNS, InvalidRow, Ledger, LedgerError, Row, spend, waste
from labkit.ledger.wholefile import whole_file
from tests.sqlite.damage import damaged

FULL = Row(
    provider="lab",
    outcome="failed",
    operation="chat",
    request_model="large",
    response_model="large-2",
    response_id="r-1",
    finish_reasons=("stop", 'odd "one"'),
    error_type="503",
    max_tokens=64,
    temperature=0.25,
    input_tokens=100,
    output_tokens=11,
    cached_tokens=60,
    cache_write_tokens=10,
    reasoning_tokens=4,
    usage_source="reported",
    cost=Decimal("0.000123456789012345"),
    currency="EUR",
    tenant="téam",
    user="u",
    feature="faq",
    workflow="w",
    prompt_version="v2",
    idempotency_key="k",
    attempt=2,
    shadow=True,
    route=("cascade", "large"),
    sent=10.0,
    first_token=10.5,
    last_token=12.0,
    done=12.5,
    started_unix=1.7e9,
)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_every_gen_ai_and_error_name_is_one_of_the_installed_semantic_conventions():
    official = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    official.add(error_attributes.ERROR_TYPE)
    ours = {column.name for column in COLUMNS if not column.name.startswith("labkit.")}
    assert ours <= official
    assert len(ours) >= 13


@pytest.mark.parametrize("row", [FULL, Row(provider="lab")], ids=["full", "minimal"])
@pytest.mark.parametrize("memory", [True, False])
def test_a_row_comes_back_as_it_was_appended(row, memory, tmp_path):
    with Ledger(":memory:" if memory else tmp_path / "l.db") as ledger:
        ledger.append(row)
        assert ledger.rows() == [row]


def test_rows_outlive_the_ledger_that_wrote_them(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.append(FULL)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.rows() == [FULL]


@pytest.mark.parametrize("where", [":memory:", "book.sqlite"])
def test_a_walk_gives_the_same_rows_one_by_one(tmp_path, where):
    rows = [Row(provider="lab", outcome="completed", attempt_id=f"a{i}") for i in range(5)]
    with Ledger(where if where == ":memory:" else tmp_path / where) as ledger:
        ledger.extend(rows)
        walk = ledger.walk()
        assert next(walk) == rows[0]
        ledger.append(FULL)  # a walk under way holds up nobody
        assert list(walk)[:4] == rows[1:] == ledger.rows()[1:5]


def test_commits_reach_the_disk_before_they_are_acknowledged(ledger):
    assert ledger._file.check().execute("PRAGMA synchronous").fetchone() == (2,)  # FULL, in SQLite's documentation
    assert ledger._file.check().execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("statement", ["UPDATE attempts SET \"labkit.cost\" = '0'", "DELETE FROM attempts"])
def test_rows_can_be_neither_changed_nor_deleted_even_from_outside(ledger, statement):
    ledger.append(FULL)
    outside = sqlite3.connect(ledger.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        outside.execute(statement)
    outside.close()
    assert ledger.rows() == [FULL]


def test_appending_a_row_again_keeps_it_once_and_a_different_one_under_its_id_is_refused(ledger):
    ledger.append(FULL)
    ledger.append(FULL)
    assert len(ledger) == 1
    other = Row(provider="other", attempt_id=FULL.attempt_id)
    with pytest.raises(LedgerError, match="already keeps a different row") as caught:
        ledger.append(other)
    assert caught.value.row is other
    assert ledger.rows() == [FULL]


def test_extend_keeps_all_rows_or_none(ledger):
    ledger.append(FULL)
    new = Row(provider="new")
    with pytest.raises(LedgerError) as caught:
        ledger.extend([new, Row(provider="clash", attempt_id=FULL.attempt_id)])
    assert len(caught.value.rows) == 2
    assert ledger.rows() == [FULL]
    ledger.extend(Row(provider=str(i)) for i in range(100))
    assert [row.provider for row in ledger.rows()[1:]] == [str(i) for i in range(100)]


def test_a_reader_that_has_some_rows_gets_the_others_in_order(ledger):
    first = [Row(provider=str(i)) for i in range(3)]
    ledger.extend(first)
    ledger.append(first[0])  # kept once
    with pytest.raises(LedgerError):  # kept not at all
        ledger.extend([Row(provider="new"), Row(provider="clash", attempt_id=first[1].attempt_id)])
    assert ledger.rows(after=0) == ledger.rows() == first
    ledger.append(FULL)
    assert [row.provider for row in ledger.rows(after=2)] == ["2", FULL.provider]
    assert ledger.rows(after=4) == ledger.rows(after=9) == ledger.rows(limit=0) == []
    assert ledger.rows(after=1, limit=2) == first[1:]


# --- dataframes and money


def test_the_frame_has_a_column_per_attribute_with_its_type(ledger):
    ledger.extend([FULL, Row(provider="lab")])
    frame = ledger.frame()
    assert str(frame["gen_ai.usage.input_tokens"].dtype) == "Int64"
    assert str(frame["labkit.shadow"].dtype) == "boolean"
    assert frame["labkit.sent"].dtype == float
    assert frame["labkit.cost"].dtype == pd.ArrowDtype(pa.decimal128(38, 18))
    assert frame["labkit.cost"][0] == FULL.cost
    assert pd.isna(frame["labkit.cost"][1])
    assert frame["labkit.route"].tolist() == [("cascade", "large"), ()]
    assert frame["gen_ai.usage.input_tokens"].tolist() == [100, pd.NA]


def test_an_empty_ledger_gives_a_frame_with_the_same_types(ledger):
    empty = ledger.frame().dtypes
    ledger.append(FULL)
    assert ledger.frame().dtypes.equals(empty)


def test_latencies_in_the_frame_are_those_of_timing(ledger):
    ledger.extend([FULL, Row(provider="lab", sent=1.0, first_token=2.0, done=3.0, output_tokens=1), Row(provider="lab")])
    frame = ledger.frame()
    assert len(frame) == 3
    for i, row in enumerate(ledger.rows()):
        timing = row.timing
        tpot = timing.tpot(row.output_tokens) if timing and not row.reasoning_tokens else None
        expected = (timing.ttft, timing.e2e, tpot) if timing else (None, None, None)
        got = tuple(None if pd.isna(v) else v for v in frame.loc[i, ["labkit.ttft", "labkit.e2e", "labkit.tpot"]])
        assert got == pytest.approx(expected) if timing and None not in expected else got == expected


def test_filters_select_by_value_by_list_and_by_unknown(ledger):
    ledger.extend([FULL, Row(provider="a", feature="x"), Row(provider="b", feature="y")])
    assert ledger.frame({"gen_ai.provider.name": "a"})["labkit.feature"].tolist() == ["x"]
    assert len(ledger.frame({"gen_ai.provider.name": ["a", "b"]})) == 2
    assert ledger.frame({"error.type": None})["gen_ai.provider.name"].tolist() == ["a", "b"]
    assert len(ledger.frame({"error.type": ["503", None], "labkit.shadow": True})) == 1
    assert len(ledger.frame({"labkit.feature": []})) == 0


def test_a_query_takes_parameters(ledger):
    ledger.extend([FULL, Row(provider="a", feature="x")])
    frame = ledger.frame('SELECT "labkit.feature", count(*) AS n FROM attempts WHERE "labkit.feature" = ? GROUP BY 1', ["x"])
    assert frame.to_dict("records") == [{"labkit.feature": "x", "n": 1}]


def test_a_selection_has_what_sqlite_has(ledger):
    ledger.extend([FULL, Row(provider="a", feature="x", cost=Decimal("0.10"))])
    query = 'SELECT rowid, "labkit.cost", "gen_ai.response.finish_reasons" FROM attempts WHERE "labkit.feature" = ?'
    assert ledger.select(query, ["x"]) == [(2, "0.10", "[]")]
    for wrong, says in (('SELECT "labkit.fature" FROM attempts', "labkit.feature"), ("DROP TABLE attempts", "cannot read")):
        with pytest.raises(LedgerError, match=says):
            ledger.select(wrong)
    assert len(ledger) == 2


@pytest.mark.parametrize("query", ['SELECT "labkit.fature" FROM attempts', {"labkit.fature": "x"}])
def test_a_misspelt_attribute_is_refused_with_the_right_one(ledger, query):
    with pytest.raises(LedgerError, match=r"labkit\.feature"):
        ledger.frame(query)


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize(
    "query", ["DROP TABLE attempts", "INSERT INTO attempts DEFAULT VALUES", "nonsense", "SELECT 1; SELECT 2"]
)
def test_a_query_cannot_write_and_nonsense_is_named(memory, query, tmp_path):
    with Ledger(":memory:" if memory else tmp_path / "l.db") as ledger:
        ledger.append(FULL)
        with pytest.raises(LedgerError, match="cannot read"):
            ledger.frame(query)
        ledger.append(Row(provider="still appends"))
        assert len(ledger) == 2


@given(st.lists(st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=18), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_sums_of_money_are_exact(costs):
    with localcontext(prec=60), Ledger(":memory:") as ledger:
        ledger.extend(Row(provider="lab", cost=cost) for cost in costs)
        exact = sum((Fraction(cost) for cost in costs), Fraction(0))
        summed = ledger.frame('SELECT decimal_sum("labkit.cost") AS "labkit.cost" FROM attempts')["labkit.cost"][0]
        assert Fraction(summed) == exact
        assert Fraction(ledger.frame()["labkit.cost"].sum()) == exact


def test_ten_dimes_are_a_dollar_where_floats_say_otherwise(ledger):
    ledger.extend(Row(provider="lab", cost=Decimal("0.1")) for _ in range(10))
    assert sum([0.1] * 10) != 1.0
    assert ledger.frame()["labkit.cost"].sum() == Decimal(1)


def test_a_cost_finer_than_18_places_is_rounded_once_and_the_same_everywhere(tmp_path):
    third = Row(provider="lab", cost=Decimal(1) / Decimal(3))
    assert third.cost == Decimal("0." + "3" * 18)
    with Ledger(":memory:") as ledger:
        ledger.append(third)
        ledger.export_parquet(tmp_path / "x.parquet")
        assert ledger.rows() == [third]
        assert ledger.frame()["labkit.cost"][0] == third.cost
    assert pq.read_table(tmp_path / "x.parquet")["labkit.cost"].to_pylist() == [third.cost]


# --- Parquet


def test_parquet_holds_every_value_and_duckdb_adds_its_money_exactly(ledger, tmp_path):
    ledger.extend([FULL, Row(provider="lab", cost=Decimal("0.2")), Row(provider="lab")])
    assert ledger.export_parquet(tmp_path / "x.parquet") == 3
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.field("labkit.cost").type == pa.decimal128(38, 18)
    back = [
        Row(**{c.field: tuple(r[c.name]) if isinstance(r[c.name], list) else r[c.name] for c in COLUMNS})
        for r in table.to_pylist()
    ]
    assert back == ledger.rows()
    total = duckdb.sql(f"SELECT sum(\"labkit.cost\") FROM '{tmp_path / 'x.parquet'}'").fetchall()[0][0]
    assert total == FULL.cost + Decimal("0.2")


def test_exporting_replaces_the_old_file_whole_and_leaves_no_other(ledger, tmp_path):
    (tmp_path / "out").mkdir()
    for expected in (1, 2):
        ledger.append(Row(provider="lab"))
        ledger.export_parquet(tmp_path / "out" / "x.parquet")
        assert pq.read_table(tmp_path / "out" / "x.parquet").num_rows == expected
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x.parquet"]


def test_a_failed_export_leaves_the_old_file_as_it_was(ledger, tmp_path, monkeypatch):
    target = tmp_path / "out" / "x.parquet"
    target.parent.mkdir()
    target.write_bytes(b"old")
    ledger.append(FULL)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(LedgerError, match="No space left on device"):
        ledger.export_parquet(target)
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_exporting_into_a_missing_folder_names_it(ledger, tmp_path):
    with pytest.raises(LedgerError, match="nowhere"):
        ledger.export_parquet(tmp_path / "nowhere" / "x.parquet")


# --- many writers


def _append_some(path, name, count):
    with Ledger(path) as ledger:
        for i in range(count):
            ledger.append(Row(provider=name, output_tokens=i))


def test_processes_that_open_and_append_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_append_some, args=(tmp_path / "l.db", f"p{n}", 40)) for n in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 6
    with Ledger(tmp_path / "l.db") as ledger:
        kept = ledger.rows()
    for n in range(6):
        assert [row.output_tokens for row in kept if row.provider == f"p{n}"] == list(range(40))


@pytest.mark.parametrize("memory", [True, False])
def test_threads_share_one_ledger(memory, tmp_path):
    with Ledger(":memory:" if memory else tmp_path / "l.db") as ledger:
        threads = [
            threading.Thread(target=lambda n=n: [ledger.append(Row(provider=f"t{n}")) or len(ledger) for _ in range(30)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ledger) == 120


def test_a_ledger_carried_across_a_fork_serves_parent_and_child(ledger):
    ledger.append(Row(provider="before"))
    child = multiprocessing.get_context("fork").Process(target=ledger.append, args=(Row(provider="child"),))
    child.start()
    ledger.append(Row(provider="parent"))
    child.join(30)
    assert child.exitcode == 0
    ledger.append(Row(provider="after"))
    assert sorted(row.provider for row in ledger.rows()) == ["after", "before", "child", "parent"]


def test_a_long_read_does_not_hold_up_an_append(ledger):
    ledger.append(FULL)
    with ledger._reading() as connection:
        cursor = connection.execute("SELECT * FROM attempts")
        ledger.append(Row(provider="meanwhile"))
        assert len(cursor.fetchall()) == 1
    assert len(ledger) == 2


# --- trouble


def test_a_full_disk_gives_the_row_back_and_it_can_be_appended_once_there_is_room(ledger):
    ledger.append(FULL)
    pages = ledger._file.check().execute("PRAGMA page_count").fetchone()[0]
    ledger._file.check().execute(f"PRAGMA max_page_count={pages}")
    kept = 1
    with pytest.raises(LedgerError, match="disk is full") as caught:  # noqa: PT012 - which append fills it is not known
        for _ in range(200):
            ledger.append(Row(provider="lab", workflow="w" * 300))
            kept += 1
    assert ledger.path in str(caught.value)
    assert len(ledger) == kept
    ledger._file.check().execute("PRAGMA max_page_count=1000000")
    ledger.append(caught.value.row)
    assert ledger.rows()[-1] == caught.value.row


def test_a_really_full_file_system_gives_the_row_back(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=512k tmpfs {mount} 2>/dev/null") != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        with Ledger(mount / "l.db") as ledger:
            kept = []
            with pytest.raises(LedgerError, match="full") as caught:  # noqa: PT012 - which append fills it is not known
                for i in range(3000):
                    row = Row(provider=f"{i}", workflow="w" * 2000)
                    ledger.append(row)
                    kept.append(row)
            assert ledger.rows() == kept
            os.system(f"mount -o remount,size=8m {mount}")
            ledger.append(caught.value.row)
            assert ledger.rows() == [*kept, caught.value.row]
    finally:
        os.system(f"umount {mount}")


def test_a_locked_ledger_says_who_to_ask_and_gives_the_row_back(tmp_path):
    with Ledger(tmp_path / "l.db", busy_timeout=0.05) as ledger:
        other = sqlite3.connect(tmp_path / "l.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked") as caught:
            ledger.append(FULL)
        assert caught.value.row is FULL
        other.execute("ROLLBACK")
        ledger.append(FULL)
        other.close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    Ledger(tmp_path / "l.db").close()
    raw = sqlite3.connect(tmp_path / "l.db")
    raw.execute("PRAGMA user_version=7")
    raw.close()
    before = (tmp_path / "l.db").read_bytes()
    with pytest.raises(LedgerError, match=r"schema version 7.*update labkit"):
        Ledger(tmp_path / "l.db")
    assert (tmp_path / "l.db").read_bytes() == before


def test_someone_elses_database_is_refused_and_left_alone(tmp_path):
    raw = sqlite3.connect(tmp_path / "l.db")
    raw.execute("CREATE TABLE mine (x)")
    raw.close()
    before = (tmp_path / "l.db").read_bytes()
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger(tmp_path / "l.db")
    assert (tmp_path / "l.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / "l.db").write_bytes(b"precious notes " * 100)
    with pytest.raises(LedgerError, match="not an SQLite file"):
        Ledger(tmp_path / "l.db")
    assert (tmp_path / "l.db").read_bytes() == b"precious notes " * 100


def test_a_damaged_ledger_is_named_with_the_way_to_save_it(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.extend(Row(provider="lab", workflow="w" * 500) for _ in range(200))
    content = bytearray((tmp_path / "l.db").read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (tmp_path / "l.db").write_bytes(content)
    with pytest.raises(LedgerError, match="recover"), Ledger(tmp_path / "l.db") as ledger:
        ledger.rows()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(LedgerError, match=r"nowhere.*does not exist; create it"):
        Ledger(tmp_path / "nowhere" / "l.db")


@pytest.fixture
def as_nobody():
    """Root may write anywhere, so read-only folders are tried as somebody else."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder), (lambda: os.seteuid(65534)) if root else (lambda: os.chmod(folder, 0o555))
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o755)


@pytest.mark.parametrize("existing", [True, False])
def test_a_read_only_folder_is_named(as_nobody, existing):
    folder, become_nobody = as_nobody
    if existing:
        Ledger(folder / "l.db").close()
    become_nobody()
    with pytest.raises(LedgerError, match="writable") as caught:
        Ledger(folder / "l.db")
    assert str(folder) in str(caught.value)


def test_a_closed_ledger_says_so_and_gives_the_row_back(tmp_path):
    ledger = Ledger(tmp_path / "l.db")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed") as caught:
        ledger.append(FULL)
    assert caught.value.row is FULL
    with pytest.raises(LedgerError, match="closed"):
        ledger.frame()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cost": 0.1}, "use Decimal"),
        ({"cost": Decimal("NaN")}, "amount"),
        ({"cost": Decimal(-1)}, "amount"),
        ({"input_tokens": -1}, "whole number"),
        ({"input_tokens": 2**63}, "whole number"),
        ({"output_tokens": 1.5}, "whole number"),
        ({"input_tokens": 5, "cached_tokens": 6}, "input_tokens must include"),
        ({"output_tokens": 5, "reasoning_tokens": 6}, "output_tokens must include"),
        ({"outcome": "maybe"}, "completed, cancelled, failed"),
        ({"provider": ""}, "empty"),
        ({"route": "abc"}, "tuple of texts"),
        ({"sent": float("nan")}, "finite"),
        ({"attempt": 0}, "count from 1"),
        ({"shadow": 1}, "True or False"),
        ({"tenant": None}, "use text"),
    ],
)
def test_an_absurd_row_is_refused_with_the_value_and_the_fix(fields, message):
    with pytest.raises(InvalidRow, match=message):
        Row(**{"provider": "lab"} | fields)


def test_text_that_is_no_unicode_is_kept_readably(ledger):
    ledger.append(Row(provider="lab", response_id="a\ud800b\x00c"))
    assert ledger.rows()[0].response_id == "a\\ud800b\x00c"


def every_use(path, folder):
    """Whatever is done with a ledger; returns how many of it were refused with LedgerError."""
    refused = 0
    try:
        ledger = Ledger(path)
    except LedgerError:
        return 1
    uses = (
        lambda: ledger.append(Row(provider="p")),
        ledger.rows,
        lambda: len(ledger),
        ledger.frame,
        lambda: ledger.frame({"labkit.feature": "search"}),
        lambda: ledger.frame('SELECT decimal_sum("labkit.cost") AS "labkit.cost" FROM attempts'),
        lambda: ledger.export_parquet(folder / "out.parquet"),
        lambda: spend(ledger, ("labkit.tenant",)),
        lambda: waste(ledger),
    )
    with ledger:
        for use in uses:
            try:
                use()
            except LedgerError:
                refused += 1
    return refused


@pytest.mark.parametrize("how", ["byte", "header", "schema", "page"])
def test_a_ledger_damaged_anywhere_says_so_and_what_to_do_and_nothing_else_is_raised(how, tmp_path, dice):
    whole = tmp_path / "whole.db"
    with Ledger(whole) as ledger:
        ledger.extend([Row(provider="p", feature="search", tenant=f"t{i % 3}", cost=Decimal(i) / 7) for i in range(40)])
    refused = 0
    for number in range(10):
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged(whole.read_bytes(), dice, how))
        refused += every_use(path, tmp_path)
    assert refused or how in ("byte", "header"), "many a byte changes a number and nothing else"


@pytest.mark.parametrize("column", ["labkit.cost", "labkit.route", "labkit.tenant", "gen_ai.usage.input_tokens"])
def test_a_value_that_no_row_wrote_is_told_as_damage(column, tmp_path):
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.append(Row(provider="p", input_tokens=7, cost=Decimal(1)))
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TRIGGER attempts_are_not_changed")
        bad = -7 if "tokens" in column else "CAST(x'ff5b' AS TEXT)"
        raw.execute(f'UPDATE attempts SET "{column}" = {bad}')
        raw.execute(
            "CREATE TRIGGER attempts_are_not_changed BEFORE UPDATE ON attempts "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: book a correcting row instead of changing one'); END"
        )
    raw.close()
    with Ledger(path) as ledger, pytest.raises(LedgerError, match=r"damaged.*keep the file, save what is left"):
        ledger.rows()


_EXPORTER = """
import os, signal, sys
from labkit.ledger import Ledger, tables
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
import labkit.ledger.store as store
store.write_parquet = killed
Ledger(sys.argv[1]).export_parquet(sys.argv[2])
"""


def test_what_a_killed_export_leaves_the_next_one_deletes_but_not_what_is_being_written(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.append(Row(provider="p"))
    folder = tmp_path / "exports"
    folder.mkdir()
    killed = subprocess.run([sys.executable, "-c", _EXPORTER, str(tmp_path / "l.db"), str(folder / "a.parquet")])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 1
    with whole_file(folder / "slow.parquet") as sink, Ledger(tmp_path / "l.db") as ledger:
        sink.write(b"slow")
        ledger.export_parquet(folder / "b.parquet")
        assert sum(path.name.startswith(".slow") for path in folder.iterdir()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["b.parquet", "slow.parquet"]
    with pytest.raises(ZeroDivisionError), whole_file(folder / "c.parquet"):
        1 / 0  # noqa: B018
    assert sorted(path.name for path in folder.iterdir()) == ["b.parquet", "slow.parquet"]
