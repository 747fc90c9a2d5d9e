"""What the ledger and the caches rely on: one connection a process, whole transactions, and nobody else's file touched."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest

from labkit.caches import CacheControl, CacheError, Entry, Scope, Store
from labkit.sqlite import FileKind, NotOpen, SharedFile, Unusable, explain, open_file, transaction

NOTES = FileKind("notebook", 0x1AB_7E57, 3, ("CREATE TABLE notes (text TEXT) STRICT",), durable=False)


def texts(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


def shared(path: Path) -> SharedFile:
    return SharedFile(lambda: open_file(str(path), NOTES, busy_timeout=5.0), in_memory=False)


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path):
    connection = open_file(str(tmp_path / "n.db"), NOTES, busy_timeout=1.0)
    with transaction(connection):
        connection.execute("INSERT INTO notes VALUES ('kept')")
    with pytest.raises(sqlite3.OperationalError, match="no such table: elsewhere"), transaction(connection):  # noqa: PT012
        connection.execute("INSERT INTO notes VALUES ('half')")
        connection.execute("INSERT INTO elsewhere VALUES (1)")
    assert texts(connection) == ["kept"]
    assert not connection.in_transaction


@pytest.mark.parametrize(
    ("change", "why"),
    [("application_id=7", "foreign"), ("user_version=4", "newer"), ("user_version=2", "older")],
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path, change, why):
    path = tmp_path / "n.db"
    open_file(str(path), NOTES, busy_timeout=1.0).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA {change}")
    raw.execute("PRAGMA journal_mode=DELETE")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(Unusable) as caught:
        open_file(str(path), NOTES, busy_timeout=1.0)
    assert caught.value.why == why
    assert path.read_bytes() == before


def test_a_process_forked_while_a_thread_writes_has_a_lock_of_its_own(tmp_path):
    # A lock that another thread holds at the fork would stay held in the child for ever: nobody there will release it.
    store = Store(tmp_path / "c.db")
    scope = Scope(tenant="t")
    assert store.put(Entry(scope, "k", b"v", 100.0), store.ticket(scope)) is None
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store._file.shared.use(), store._counts._lock.mine():
            holding.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(10)
        fork = multiprocessing.get_context("fork")
        answers = fork.Queue()
        child = fork.Process(target=lambda: answers.put(store.get(scope, "k", 101.0, CacheControl()).entry is not None))
        child.start()
        try:
            assert answers.get(timeout=20) is True
        finally:
            child.kill()
            child.join()
    finally:
        release.set()
        thread.join()
        store.close()


def test_a_closed_file_says_so_and_one_in_memory_stays_with_its_process(tmp_path):
    file = shared(tmp_path / "n.db")
    closing = []
    file.close(lambda: closing.append(len(texts(file.check()))))
    file.close(lambda: closing.append("again"))
    assert closing == [0]
    with pytest.raises(NotOpen, match="is closed; open it again"), file.use():
        pass
    with Store() as store:
        fork = multiprocessing.get_context("fork")
        said = fork.Queue()

        def ask() -> None:
            try:
                len(store)
            except CacheError as error:
                said.put(str(error))

        child = fork.Process(target=ask)
        child.start()
        assert "belongs to the process that made it; use a file" in said.get(timeout=20)
        child.join()


def test_errors_say_what_to_do():
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect("/nowhere/at/all.db")
    assert "create it or choose another path" in explain(caught.value, {})
    assert "a word of mine" in explain(caught.value, {sqlite3.SQLITE_CANTOPEN: "a word of mine"})


def test_a_schema_that_was_damaged_into_another_valid_one_is_told_as_damage(tmp_path):
    path = tmp_path / "n.db"
    open_file(str(path), NOTES, busy_timeout=1.0).close()
    whole = path.read_bytes()
    assert whole.count(b"TABLE notes (text TEXT)") == 1
    path.write_bytes(whole.replace(b"TABLE notes (text TEXT)", b"TABLE notes (tixt TEXT)"))
    with pytest.raises(Unusable, match="is damaged: its schema is not the one") as caught:
        open_file(str(path), NOTES, busy_timeout=1.0)
    assert caught.value.why == "damaged"


def test_a_file_that_lost_its_tables_is_not_taken_for_a_new_one(tmp_path):
    path = tmp_path / "n.db"
    connection = open_file(str(path), NOTES, busy_timeout=1.0)
    connection.execute("DROP TABLE notes")
    connection.close()
    with pytest.raises(Unusable, match="is damaged: its tables are gone"):
        open_file(str(path), NOTES, busy_timeout=1.0)


def test_a_file_that_could_not_be_opened_anew_is_tried_again_at_the_next_use(tmp_path):
    file = shared(tmp_path / "n.db")
    (tmp_path / "n.db").rename(tmp_path / "aside.db")
    (tmp_path / "n.db").mkdir()  # no file can be opened there
    with pytest.raises(sqlite3.OperationalError):
        file.renew()
    with pytest.raises(sqlite3.OperationalError), file.use():
        pass
    (tmp_path / "n.db").rmdir()
    with file.use() as connection:
        assert texts(connection) == []
