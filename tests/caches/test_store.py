"""The store against a model of it: 10⁵ random operations here, 10⁶ by `python -m tests.caches.model`; crashes; bad files."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labkit.caches import CacheControl, CacheError, Entry, Scope, Store
from labkit.caches.schema import CACHE
from labkit.request import InvalidValue
from tests.caches.model import Pair, drive
from tests.sqlite.damage import damaged

SCOPE = Scope("shop", frozenset(), "small")


def entry(key: str, value: bytes = b"yes", scope: Scope = SCOPE, created: float = 1000.0, **more: object) -> Entry:
    return Entry(scope, key, value, created, **more)  # type: ignore[arg-type]


def store_one(store: Store, made: Entry) -> str | None:
    return store.put(made, store.ticket(made.scope))


@pytest.mark.parametrize("where", ["memory", "file"])
def test_every_operation_does_what_the_model_says(where: str, tmp_path: Path, dice: random.Random) -> None:
    pair = Pair(":memory:" if where == "memory" else tmp_path / "cache.db")
    drive(pair, 50_000, dice)
    pair.close()
    # Each way an answer can be refused was met, or the judge had nothing to judge.
    missed = {reason for _, kind, reason in pair.model.counts if kind == "miss"}
    assert missed >= {"absent", "scope", "expired", "max-age", "facts", "clock", "no-cache"}


def test_threads_never_see_an_answer_of_another_tenant_or_one_that_was_invalidated(tmp_path: Path) -> None:
    scopes = [Scope(f"tenant-{i}", frozenset(), "small") for i in range(4)]
    gone_below = [0] * 4  # by tenant: every value numbered lower was stored before an invalidation that has returned
    wrong: list[str] = []

    with Store(tmp_path / "cache.db", limit_bytes=20_000) as store:

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(600):
                which, key = dice.randrange(4), f"k{dice.randrange(5)}"
                least = gone_below[which]
                found = store.get(scopes[which], key, 1000.0).entry
                if found is not None:
                    tenant, number = found.value.decode().split("/")
                    if tenant != scopes[which].tenant or int(number) < least:
                        wrong.append(f"{scopes[which]} got {found.value!r}, nothing below {least} may be seen")
                ticket = store.ticket(scopes[which])
                number = next_number()
                if dice.random() < 0.05:
                    store.advance_epoch(scopes[which].tenant, dry_run=False)
                    gone_below[which] = max(gone_below[which], number)
                store.put(entry(key, f"{scopes[which].tenant}/{number}".encode(), scopes[which]), ticket)

        lock, last = threading.Lock(), [0]

        def next_number() -> int:
            with lock:
                last[0] += 1
                return last[0]

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = store.stats()
        assert kept.looked_up == 6 * 600
        assert kept.stores - kept.replaced - kept.evicted - kept.expired - kept.deleted - kept.dropped == len(store)
    assert wrong == []


_WRITER = """
import sys, random
from labkit.caches import Entry, Scope, Store
scope, dice = Scope("shop", frozenset(), "small"), random.Random(int(sys.argv[2]))
with Store(sys.argv[1], limit_bytes=200_000) as store:
    for i in range(10**9):
        key = f"k{dice.randrange(50)}"
        store.put(Entry(scope, key, key.encode() * dice.randrange(1, 300), 1000.0 + i / 1000), store.ticket(scope))
        if dice.random() < 0.05:
            store.delete(key=key, dry_run=False)
            print(f"gone {key}", flush=True)
        else:
            print(f"kept {key}", flush=True)
"""


def test_a_killed_writer_leaves_whole_entries_and_forgets_no_invalidation(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    dice = random.Random(7)
    for round_ in range(6):
        with (tmp_path / "said").open("w") as said:
            writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(round_)], stdout=said)
            while (tmp_path / "said").stat().st_size < 200 * dice.random() * 20 + 50:
                assert writer.poll() is None
                time.sleep(0.005)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        lines = (tmp_path / "said").read_text().split("\n")[:-1]
        last = {key: verb for verb, key in (line.split() for line in lines)}
        with Store(path, limit_bytes=200_000, clock_slack_s=1e6) as store:
            held = {e.key: e for e in store.entries(layer="response")}
            assert store.stats().dropped == 0
            for e in held.values():
                assert e.value == e.key.encode() * (len(e.value) // len(e.key))
            # What was acknowledged as gone is gone, unless the last, unacknowledged operation stored it again.
            again = {key for key, verb in last.items() if verb == "gone" and key in held}
            assert len(again) <= 1
            assert sum(1 for key, verb in last.items() if verb == "kept" and key not in held) <= 1
            store.delete(layer="response", dry_run=False)


def test_a_damaged_file_is_set_aside_and_an_empty_one_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"this was never a database" * 500)
    with Store(path) as store:
        assert len(store) == 0
        assert store_one(store, entry("k")) is None
    assert "set aside as" in caplog.text
    assert [p.read_bytes()[:8] for p in tmp_path.glob("cache.db.damaged-*")] == [b"this was"]
    path.write_bytes(b"again" * 1000)
    with pytest.raises(CacheError, match=r"unusable.*delete it"):
        Store(path, set_aside=False)


@pytest.mark.parametrize(("column", "value"), [("value", b"pays 99 euros"), ("created", 1500.0), ("facts", "{}x")])
def test_an_entry_damaged_on_the_disk_is_a_miss_and_goes(column: str, value: object, tmp_path: Path) -> None:
    with Store(tmp_path / "cache.db") as store:
        store_one(store, entry("k", b"pays 10 euros"))
    with sqlite3.connect(tmp_path / "cache.db") as raw:
        raw.execute(f"UPDATE entries SET {column} = ?", (value,))
    raw.close()
    with Store(tmp_path / "cache.db") as store:
        assert store.get(SCOPE, "k", 1600.0).reason == "corrupt"
        assert store.get(SCOPE, "k", 1600.0).reason == "absent"
        assert store.stats().dropped == 1


def test_files_of_other_versions_and_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version={CACHE.version + 1}")
    raw.close()
    with pytest.raises(CacheError, match=rf"schema version {CACHE.version + 1}.*update labkit"):
        Store(path)
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version={CACHE.version - 1}")
    raw.close()
    with Store(path) as store:
        assert len(store) == 0
    assert len(list(tmp_path.glob("cache.db.old-*"))) == 1

    other = tmp_path / "holiday.db"
    with sqlite3.connect(other) as raw:
        raw.execute("CREATE TABLE photos (name TEXT)")
    raw.close()
    before = other.read_bytes()
    with pytest.raises(CacheError, match="not a cache; it is left as it is"):
        Store(other)
    assert other.read_bytes() == before
    with pytest.raises(CacheError, match="folder does not exist"):
        Store(tmp_path / "nowhere" / "cache.db")


def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    child = os.fork()  # the limit below holds for a whole process
    if child == 0:
        try:
            with Store(tmp_path / "cache.db") as store:
                assert store_one(store, entry("early")) is None
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                refused = [store_one(store, entry(f"k{i}", os.urandom(20_000))) for i in range(60)]
                assert refused[-1] == "unavailable"
                assert store.get(SCOPE, "early", 1000.0).entry is not None
                assert store.stats().refused["unavailable"] == refused.count("unavailable")
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - a forked child must not run on into pytest
            print(repr(error), file=sys.stderr)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with Store(tmp_path / "cache.db") as store:
        assert store.get(SCOPE, "early", 1000.0).entry is not None
        assert store_one(store, entry("later")) is None


def test_impossible_values_are_named() -> None:
    with pytest.raises(InvalidValue, match="limit_bytes is 0"):
        Store(limit_bytes=0)
    with pytest.raises(InvalidValue, match="not str"):
        entry("k", "text")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="cost is -1"):
        entry("k", cost=-1)
    with Store() as store, pytest.raises(InvalidValue, match="nothing was given"):
        store.delete()
    with pytest.raises(CacheError, match="is closed"):
        len(store)


def test_a_put_counts_as_a_time_seen_even_where_its_ticket_is_of_an_older_era(tmp_path: Path) -> None:
    with Store(tmp_path / "cache.db") as store:
        before = store.ticket(SCOPE)
        store.get(SCOPE, "k", 1000.0)
        store.get(SCOPE, "k", 10.0)  # the clock steps back
        assert store_one(store, entry("k", created=10.0)) is None
        assert store.put(entry("other", created=40.5), before) == "clock"
        assert store.get(SCOPE, "k", 40.0, CacheControl(max_age_s=30.2)).reason == "max-age", "it is 40.5 at least"


KEYS = [f"k{i}" for i in range(40)]


def filled(path: Path) -> None:
    with Store(path) as store:
        store.put_together([entry(key, key.encode() * 50, tags={"t"}, lifetime=1e6) for key in KEYS], store.ticket(SCOPE))
        store.delete(key=KEYS[0], dry_run=False)


def every_use(store: Store) -> None:
    """Whatever a cache does with its file; what it hands out must be what was stored."""
    for key in KEYS:
        found = store.get(SCOPE, key, 1001.0).entry
        assert found is None or found.value == key.encode() * 50
    assert all(e.value == e.key.encode() * 50 for e in store.follow(("response",))[0])
    assert all(e.value == e.key.encode() * 50 for e in store.entries(layer="response"))
    store.delete(tag="t", tenant="shop", dry_run=False)
    for key in KEYS[:3]:
        assert store.get(SCOPE, key, 1002.0).entry is None, "it was invalidated"
        for _ in range(3):  # damage may show only after something was written
            store.put(entry(key, key.encode() * 50, created=1002.0), store.ticket(SCOPE))
            if store.get(SCOPE, key, 1002.0).entry is not None:
                break
        assert store.get(SCOPE, key, 1002.0).entry is not None, "a damaged file has made room for a working one"
    assert len(store) >= 1
    assert store.bytes > 0


@pytest.mark.parametrize("how", ["byte", "header", "schema", "page"])
@pytest.mark.parametrize("when", ["before it is opened", "while it is in use"])
def test_a_file_damaged_anywhere_ends_in_an_empty_cache_and_never_in_an_error(
    when: str, how: str, tmp_path: Path, dice: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path / "whole.db")
    whole = (tmp_path / "whole.db").read_bytes()
    for number in range(8):
        path = tmp_path / f"{number}.db"
        path.write_bytes(whole if when == "while it is in use" else damaged(whole, dice, how))
        with Store(path) as store:
            if when == "while it is in use":
                with path.open("r+b") as raw:  # the same file, under the connection's feet
                    raw.write(damaged(whole, dice, how))
                store._file.shared.check().execute("PRAGMA shrink_memory")
            every_use(store)


def test_a_process_follows_when_another_one_has_set_the_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with Store(path) as one:
        store_one(one, entry("k"))
        early = one.ticket(SCOPE)
        path.rename(tmp_path / "aside")
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").rename(tmp_path / f"aside{suffix}")
        with Store(path) as two:
            assert store_one(two, entry("k", b"new")) is None
            assert one.get(SCOPE, "k", 1000.0).entry.value == b"new"
            one.delete(key="k", dry_run=False)
            assert two.get(SCOPE, "k", 1000.0).reason == "absent"
            assert two.put(entry("k", b"old"), early) == "new-file", "the ticket is of the file that was set aside"


def test_entries_are_stored_together_or_not_at_all() -> None:
    with Store(limit_bytes=1000) as store:
        ticket = store.ticket(SCOPE)
        assert store.put_together([entry("a"), entry("b", b"x" * 1000)], ticket) == "too-large"
        assert len(store) == 0
        assert store.put_together([entry("a"), entry("b", layer="other")], ticket) is None
        assert len(store) == 2
        with pytest.raises(InvalidValue, match="of one scope"):
            store.put_together([entry("a"), entry("a", scope=Scope("b"))], ticket)
