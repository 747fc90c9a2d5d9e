"""A ledger's attempts in columns, for questions that are asked every second.

SQLite keeps rows, which is right for booking and slow for adding up: a sum over 1,000,000 attempts reads all of their
columns, and takes a second or more. `Mirror` holds the columns that a dashboard adds up in DuckDB's memory, where the same
sum takes some hundredths of a second. A ledger is append-only, so to keep up with it only new rows are read, on a connection
of their own that delays no append.

What the attempts of a request are to each other is worked out once, when they are read, from the ledger's index of keyed
attempts. Then every number of a dashboard is a plain sum over attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labkit.extras import extra
from labkit.ledger import WASTED, Ledger, LedgerError
from labkit.request import CUT_SHORT, InvalidValue
from labkit.spending.classes import TOKENS
from labkit.spending.slices import DIMENSIONS, FIRST, SERVED

SPLITS = ("organisation", "feature", "user", "workflow", "model", "prompt_version", "provider", "cache_layer", "outcome")
"""The dimensions by which a mirror's attempts can be split (see `DIMENSIONS`)."""

_KEY = '"labkit.idempotency_key"'
_SAME = f"""other.{_KEY} <> '' AND other."labkit.tenant" = attempts."labkit.tenant" AND other.{_KEY} = attempts.{_KEY}"""
_OF_KEY = f"(SELECT min(rowid) FROM attempts AS other WHERE {_SAME})"
_REASONS = '{0}"gen_ai.response.finish_reasons"'
_WHOLE = (
    """{0}"labkit.outcome" = 'completed' AND NOT {0}"labkit.shadow" """
    + "".join(f"AND instr({_REASONS}, '\"{reason}\"') = 0 " for reason in CUT_SHORT)
).strip()
_SOLVES = f"""({_WHOLE.format("")} AND ({_KEY} = '' OR NOT EXISTS (
  SELECT 1 FROM attempts AS other WHERE {_SAME} AND other.rowid < attempts.rowid AND {_WHOLE.format("other.")})))"""
_CACHE_KNOWN = """CASE WHEN "gen_ai.usage.cache_read.input_tokens" IS NOT NULL THEN {read} ELSE 0 END"""

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("n", "BIGINT", "rowid"),
    ("started", "DOUBLE", '"labkit.started_unix"'),
    ("request", "BIGINT", f"CASE WHEN {_KEY} <> '' THEN {_OF_KEY} ELSE rowid END"),
    ("opens", "BOOLEAN", f"CASE WHEN {_KEY} <> '' THEN rowid = {_OF_KEY} ELSE {FIRST} END"),
    ("solves", "BOOLEAN", _SOLVES),
    ("attempt", "BIGINT", '"labkit.attempt"'),
    ("waste", "VARCHAR", WASTED),
    ("served", "BOOLEAN", f"coalesce({SERVED}, 0)"),
    *((name, "BIGINT", of) for name, of in TOKENS),
    ("told", "BIGINT", _CACHE_KNOWN.format(read=dict(TOKENS)["read"])),
    ("cost", "DECIMAL(38, 18)", '"labkit.cost"'),
    ("currency", "VARCHAR", '"labkit.currency"'),
    *((name, "VARCHAR", DIMENSIONS[name]) for name in SPLITS),
)
_BATCH = 50_000
_PACKED_EVERY = 100_000
_ATTEMPT = [name for name, _, _ in _COLUMNS].index("attempt")
_READ = (
    f"SELECT {', '.join(f'{of} AS {name}' for name, _, of in _COLUMNS)} FROM attempts WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
# A later attempt that completed makes the earlier ones of its request superseded, as in `labkit.ledger.WASTED`.
_LATER = """SELECT request, max(attempt) AS attempt FROM batch
  WHERE attempt > 1 AND (waste IS NULL OR waste = 'superseded') GROUP BY request"""
_SUPERSEDE = f"""UPDATE attempts SET waste = 'superseded' FROM ({_LATER}) AS later
  WHERE attempts.request = later.request AND attempts.attempt < later.attempt AND attempts.waste IS NULL"""


class Mirror:
    """The attempts of `ledger` in columns, as far as `catch_up` has read them. Use it from one thread.

    The table `attempts` has, for each: `n`, its number in the ledger, from 1; `started`, seconds since 1970; `request`, the
    number of its request's first attempt; `opens`, whether its request begins here, and `solves`, whether it is the first
    attempt that gave its request a whole answer (completed, not shadow, not cut short); `attempt`; `waste`, the reason of
    `labkit.ledger.waste`; `served`, whether a cache repeated the answer; tokens as in `Usage`, `read` and `out` being all of
    them, and `told`, the input tokens of attempts that say how many were cached; `cost` and `currency`; and `SPLITS`.

    Close it, or use it as a context manager, to free its memory; the ledger stays open. Raises `MissingExtra` where DuckDB
    is not installed.
    """

    def __init__(self, ledger: Ledger) -> None:
        with extra("analysis"):
            import duckdb
        if not isinstance(ledger, Ledger):
            raise InvalidValue(f"a Mirror is of a Ledger, such as Ledger('books.db'); it got {ledger!r:.80}")
        self.ledger = ledger
        self.attempts = 0
        self._packed = 0
        self._trouble = duckdb.Error
        # It reads no file and fetches nothing from a network.
        self._db = duckdb.connect(
            ":memory:", config={"enable_external_access": "false", "autoload_known_extensions": "false"}
        )
        self._db.execute(f"CREATE TABLE attempts ({', '.join(f'{name} {kind}' for name, kind, _ in _COLUMNS)})")
        self._db.execute("CREATE TABLE repeated (request BIGINT)")

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory. Closing again does nothing."""
        self._db.close()

    def catch_up(self, at_most: int | None = None) -> int:
        """Read the attempts that were booked since the last call, `at_most` so many; returns how many are still unread.

        Raises `LedgerError` for a ledger that cannot be read, and for a file that another ledger has taken the place of.
        """
        while True:
            there = int(self.ledger.select("SELECT coalesce(max(rowid), 0) FROM attempts")[0][0])
            if there < self.attempts:
                raise LedgerError(
                    f"the ledger {self.ledger.path} has {there} attempts and had {self.attempts}: another file has taken "
                    "its place; open it anew",
                    self.ledger.path,
                )
            if there == self.attempts or at_most == 0:
                if self.attempts - self._packed > _PACKED_EVERY and there == self.attempts:
                    self._pack()
                return there - self.attempts
            read = self._read(min(_BATCH, _BATCH if at_most is None else at_most))
            if at_most is not None:
                at_most -= read

    def select(self, query: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The result of DuckDB's SQL over the mirror's table. Raises `LedgerError` for amounts too large to add up."""
        try:
            rows: list[tuple[Any, ...]] = self._db.execute(query, list(params)).fetchall()
        except self._trouble as error:
            raise LedgerError(f"the ledger {self.ledger.path} cannot be added up: {error}", self.ledger.path) from error
        return rows

    def _pack(self) -> None:
        """Compress what was read: sums over it are then faster by half."""
        self._db.execute("CHECKPOINT")
        self._packed = self.attempts

    def _read(self, most: int) -> int:
        import pyarrow as pa

        rows = self.ledger.select(_READ, [self.attempts, most])
        columns = zip(*rows, strict=True)
        types = {"BIGINT": pa.int64(), "BOOLEAN": pa.int64(), "DOUBLE": pa.float64()}
        batch = pa.table(
            {
                name: pa.array(values, types.get(kind, pa.string()))
                for (name, kind, _), values in zip(_COLUMNS, columns, strict=True)
            }
        )
        self._db.register("batch", batch)
        try:
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO attempts SELECT * FROM batch")
            self._db.execute("INSERT INTO repeated SELECT DISTINCT request FROM batch WHERE request <> n")
            if any(row[_ATTEMPT] > 1 for row in rows):
                self._db.execute(_SUPERSEDE)
            self._db.execute("COMMIT")
        finally:
            self._db.unregister("batch")
        self.attempts += len(rows)
        return len(rows)
