"""A ledger that an earlier release wrote is brought up to date when it is opened, with every row it holds."""

import sqlite3
from decimal import Decimal

from labkit.ledger import Ledger, Row


def test_a_ledger_of_the_first_version_keeps_its_rows_and_takes_new_ones(tmp_path):
    path = tmp_path / "books.db"
    old = Row(provider="lab", input_tokens=10, output_tokens=5, cost=Decimal("0.1"), first_token=1.0, done=3.0, sent=0.0)
    with Ledger(path) as ledger:
        ledger.append(old)
    with sqlite3.connect(path, isolation_level=None) as file:  # back to what version 1 was
        file.execute('ALTER TABLE attempts DROP COLUMN "labkit.prompt_version"')
        file.execute('ALTER TABLE attempts DROP COLUMN "labkit.note"')
        file.execute('ALTER TABLE attempts DROP COLUMN "labkit.tpot"')
        file.execute('ALTER TABLE attempts ADD COLUMN "labkit.tpot" REAL AS (1.0) VIRTUAL')
        file.execute("PRAGMA user_version=1")
    file.close()
    with Ledger(path) as ledger:
        assert ledger.rows() == [old]
        ledger.append(Row(provider="lab", note="why"))
        assert [row.note for row in ledger.rows()] == [None, "why"]
        assert ledger.frame()["labkit.tpot"].iloc[0] == 0.5
    with Ledger(path) as again:
        assert len(again) == 2


def test_a_ledger_of_the_second_version_gets_the_versions_of_its_prompts(tmp_path):
    path = tmp_path / "books.db"
    old = Row(provider="lab", workflow="w", cost=Decimal("0.1"), note="why")
    with Ledger(path) as ledger:
        ledger.append(old)
    with sqlite3.connect(path, isolation_level=None) as file:  # back to what version 2 was
        file.execute('ALTER TABLE attempts DROP COLUMN "labkit.prompt_version"')
        file.execute("PRAGMA user_version=2")
    file.close()
    new = Row(provider="lab", prompt_version="v2")
    with Ledger(path) as ledger:
        ledger.append(new)
        assert ledger.rows() == [old, new]
        assert len(ledger.frame({"labkit.prompt_version": "v2"})) == 1
