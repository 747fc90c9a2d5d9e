import json
import math
from collections import Counter
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import Chunk, Done, Message, Timing, Usage
from labkit.workbook import ExerciseError
from labkit.workbook.kept import from_json, to_json

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
    ),
    max_leaves=12,
)
CHUNK = Chunk("é\u2028", 1.5, tokens=2, usage=Usage(32, 2, cached_tokens=16))
DONE = Done(Usage(32, 2), Timing(1.0, 1.5, 2.0, 3.0), finish_reason="length")


def again(value):
    """What a file gives back."""
    return from_json(json.loads(json.dumps(to_json(value))))


@given(PLAIN)
def test_plain_values_come_back_equal_and_of_their_types(value):
    back = again(value)
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "value",
    [CHUNK, DONE, [CHUNK, DONE], {"answer": (CHUNK,)}, Message("user", "$lab"), {1, 2}, frozenset({"a"}), {"$lab": 1}],
)
def test_values_of_the_lab_come_back(value):
    assert again(value) == value


def test_a_default_is_not_written_and_comes_back():
    assert set(to_json(Usage(32, 2))["fields"]) == {"input_tokens", "output_tokens"}
    assert again(Usage(32, 2)) == Usage(32, 2)


def test_what_is_not_finite_comes_back():
    assert again(math.inf) == math.inf
    assert math.isnan(again([math.nan])[0])


def test_arrays_and_tables_come_back():
    array = np.array([[1.5, 2.0], [math.inf, 4.0]])
    assert (again(array) == array).all()
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": ["x", "y"]})
    pd.testing.assert_frame_equal(again(table), table)
    indexed = table.set_index("c").rename_axis(None)
    pd.testing.assert_frame_equal(again(indexed), indexed)
    assert again(np.float64(2.5)) == 2.5
    assert again(np.int64(3)) == 3


@pytest.mark.parametrize("value", [object(), lambda: 1, Counter, b"bytes", 1j])
def test_what_cannot_be_kept_is_named(value):
    with pytest.raises(ExerciseError, match="cannot be kept"):
        to_json(value)


@pytest.mark.parametrize(
    "kept",
    [
        {"$lab": "os:environ", "fields": {}},
        {"$lab": "subprocess:Popen", "fields": {"args": "true"}},
        {"$lab": "labkit.engines.choice:os", "fields": {}},
        {"$lab": "labkit.request.values:Usage", "fields": {"tokens": 1}},
        {"$code": "print(1)"},
    ],
)
def test_a_file_makes_nothing_but_the_labs_own_values(kept):
    with pytest.raises(ExerciseError):
        from_json(kept)


def test_money_stays_exact():
    assert again(Decimal("0.1")) == Decimal("0.1")
