"""A dataframe and a foreign log give the bill that a ledger gives."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger
from labkit.request import InvalidValue
from labkit.spending import Slice, attribute, explain_change, from_frame
from tests.spending.books import PRICES, rows

LIST = self_defined("m", input="2", output="8")


@given(st.lists(rows(), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_ledgers_own_frame_gives_its_rows_back(given_rows):
    with Ledger(":memory:") as ledger:
        ledger.extend(given_rows)
        with from_frame(ledger.frame()) as again:
            assert again.rows() == ledger.rows()
            assert attribute(Slice(again, prices=PRICES)).equals(attribute(Slice(ledger, prices=PRICES)))


def test_columns_are_named_and_a_missing_cost_is_what_the_list_says_or_nobody_knows():
    frame = pd.DataFrame({
        "when": pd.to_datetime(["2026-03-02T09:00:00", "2026-03-02T10:00:00", "2026-03-03T09:00:00"]),
        "model": ["m", "m", "other"], "app": ["desk", None, "desk"], "spend": [0.1, np.nan, np.nan],
        "prompt_tokens": [374.0, 1_000_000.0, 5.0], "completion_tokens": [1, 2, 3], "customer": [17.0, np.nan, 3.0],
    })  # fmt: skip
    columns = {
        "started_unix": "when", "request_model": "model", "feature": "app", "cost": "spend", "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens", "user": "customer",
    }  # fmt: skip
    ledger = from_frame(frame, columns, prices={"m": LIST})
    first, second, third = ledger.rows()
    assert (first.cost, first.input_tokens, first.user, first.started_unix) == (Decimal("0.1"), 374, "17", 1772442000.0)
    assert (second.feature, second.user, second.cost) == ("", "", price_request(second.usage, LIST).total)
    assert third.cost is None
    table = attribute(Slice(ledger, prices={"m": LIST}), ["day"])
    assert table[["day", "unpriced", "attempts"]].values.tolist() == [["2026-03-02", 0, 2], ["2026-03-03", 1, 1]]


@pytest.mark.parametrize(
    ("frame", "columns", "told"),
    [
        ({"cost": ["0.1", "dear"]}, {}, "row 1 of the frame: cost"),
        ({"cost": [1, -1]}, {}, "row 1 of the frame: cost"),
        ({"input_tokens": [1.0, 2.5]}, {}, "row 1 of the frame: input_tokens"),
        ({"input_tokens": [1], "cached_tokens": [2]}, {}, "row 0 of the frame: usage"),
        ({"cost": [1, 1, 2], "attempt_id": ["a", "b", "a"]}, {}, "1 rows have the attempt_id.*row 2"),
        ({"price": [1]}, {}, "no column of the frame is a cost.*price"),
        ({"price": [1]}, {"cost": "spend"}, "no column 'spend'"),
        ({"price": [1]}, {"costs": "price"}, "no 'costs'"),
    ],
)
def test_a_frame_that_is_no_bill_is_refused_with_its_row(frame, columns, told):
    with pytest.raises(InvalidValue, match=told):
        from_frame(pd.DataFrame(frame), columns)


def test_no_frame_is_refused():
    with pytest.raises(InvalidValue, match="list"):
        from_frame([{"cost": 1}])


def test_a_frame_in_a_file_is_a_ledger_like_any_other(tmp_path):
    frame = pd.DataFrame({"cost": [1, 2], "prompt_version": ["v1", "v2"]})
    from_frame(frame, path=tmp_path / "books.db").close()
    with Ledger(tmp_path / "books.db") as ledger:
        old, new = (Slice(ledger, only={"prompt_version": version}) for version in ("v1", "v2"))
        assert explain_change(old, new, ()).parts()["unsplit"] == 1


def test_a_row_keeps_the_cost_that_it_has():
    (row,) = from_frame(pd.DataFrame({"cost": [3], "input_tokens": [1], "output_tokens": [1]}), prices={"*": LIST}).rows()
    assert row.cost == 3
