import sqlite3

import pytest

from labkit.ledger import Ledger
from ledger.crash import check, crash_rounds


def test_no_acknowledged_row_is_lost_to_kill_9(tmp_path):
    outcome = crash_rounds(300, seed=20, folder=tmp_path)
    assert outcome.acknowledged > 300
    assert outcome.killed_mid_work > 100


def test_the_check_notices_a_missing_and_a_torn_row(tmp_path):
    crash_rounds(4, seed=1, folder=tmp_path)
    path = tmp_path / "0.db"
    with Ledger(path) as ledger:
        counts = {r: sum(row.tenant == str(r) for row in ledger.rows()) for r in range(4)}
    check(path, counts)
    round_id = max(counts, key=counts.__getitem__)
    with pytest.raises(AssertionError, match="are there"):
        check(path, counts | {round_id: counts[round_id] + 1})
    raw = sqlite3.connect(path)
    (guard,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = 'attempts_are_not_changed'").fetchone()
    raw.execute("DROP TRIGGER attempts_are_not_changed")
    raw.execute('UPDATE attempts SET "labkit.feature" = "labkit.feature" || \'y\' WHERE rowid = 1')
    raw.execute(guard)
    raw.commit()
    raw.close()
    with pytest.raises(AssertionError, match="torn"):
        check(path, counts)
