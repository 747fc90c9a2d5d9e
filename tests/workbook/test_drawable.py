"""What a data frame holds and JSON does not: drawn as numbers, text and dates, or refused with what to do."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest

from labkit.workbook import ChartError, Figure
from labkit.workbook.charts import MIME, bundle
from labkit.workbook.drawable import drawable


class Colour(enum.Enum):
    RED = "red"
    GREEN = (0, 1, 0)


class Level(enum.IntEnum):
    LOW = 1


DAY = dt.date(2026, 11, 25)
ID = uuid.UUID(int=7)


def drawn(chart):
    """The specification that JupyterLab is given, through JSON."""
    return json.loads(json.dumps(bundle(Figure(chart, "words", "source"))[0], allow_nan=False))[MIME]


def column(values, field="y"):
    frame = pd.DataFrame({"x": range(len(values))})
    frame["y"] = values
    made = drawn(alt.Chart(frame).mark_bar().encode(x="x", y=field))
    (rows,) = made["datasets"].values()
    return [row["y"] for row in rows], made["encoding"]["y"]["type"]


@pytest.mark.parametrize(
    ("values", "carried", "kind"),
    [
        ([Decimal("0.1"), Decimal("25")], [0.1, 25.0], "quantitative"),
        ([Decimal("0.01"), None], [0.01, None], "quantitative"),
        ([Decimal("NaN"), Decimal("1e999")], [None, None], None),
        ([Decimal(1), 2.5], [1.0, 2.5], "quantitative"),
        ([Fraction(1, 4), Fraction(2)], [0.25, 2.0], "quantitative"),
        (pd.Categorical([Decimal(2), Decimal(1)]), [2.0, 1.0], None),
        ([Decimal("1.5"), "none"], [1.5, "none"], None),
        ([DAY, DAY], ["2026-11-25T00:00:00"] * 2, "temporal"),
        (pd.to_datetime(["2026-11-25", None]), ["2026-11-25T00:00:00", ""], "temporal"),
        ([dt.time(9, 30), dt.time(10)], ["09:30:00", "10:00:00"], "nominal"),
        ([Colour.RED, Colour.GREEN], ["red", "GREEN"], "nominal"),
        ([Level.LOW, Level.LOW], [1, 1], "quantitative"),
        ([ID, ID], [str(ID)] * 2, "nominal"),
        ([Path("a") / "b", None], ["a/b", None], None),
        ([(Decimal(1), 2), [3]], [[1.0, 2], [3]], None),
        ([{"cost": Decimal("0.5")}], [{"cost": 0.5}], None),
        ([np.array([1, 2]), np.float32(0.5)], [[1, 2], 0.5], None),
        (pd.array([1, None], dtype="Int64"), [1, None], "quantitative"),
        (pd.array(["a", None], dtype="string"), ["a", None], "nominal"),
        (["a", None], ["a", None], "nominal"),
        ([None, None], [None, None], None),
        ([1, None, "a"], [1, None, "a"], None),
        ([1, 2], [1, 2], "quantitative"),
        ([True, False], [True, False], "nominal"),
        ([float("inf"), 1.0], [None, 1.0], "quantitative"),
    ],
)
def test_a_column_is_carried_as_what_it_means(values, carried, kind):
    found, its_kind = column(values, "y" if kind else "y:N")
    assert found == carried
    assert its_kind == (kind or "nominal")


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (pd.to_timedelta([1, 2], unit="s"), "'y'.*durations.*total_seconds"),
        ([dt.timedelta(seconds=1), None], "'y'.*durations.*total_seconds"),
        ([b"a", b"b"], "'y'.*bytes.*decode"),
        ([{1}, {2}], "'y'.*sets.*explode"),
        ([1 + 2j, 3j], "'y'.*complex"),
        (pd.period_range("2026-01", "2026-02", freq="M"), "'y'.*periods.*to_timestamp"),
        (pd.interval_range(0, 2), "'y'.*intervals.*astype"),
        ([object(), 1], "'y'.*type object"),
    ],
)
def test_a_column_that_no_chart_can_carry_is_named_with_what_to_draw_instead(values, advice):
    with pytest.raises(ChartError, match=advice):
        column(values, "y:Q")


def test_money_is_found_wherever_in_a_chart_it_stands():
    cost = Decimal("0.25")
    frame = pd.DataFrame({"f": ["a", "b"], "cost": [cost, cost]})
    bars = alt.Chart(frame).mark_bar().encode(x="f:N", y=alt.Y("cost", scale=alt.Scale(domain=[0, cost])))
    line = alt.Chart(alt.Data(values=[{"limit": cost}])).mark_rule().encode(y="limit:Q")
    found = alt.Chart(frame).mark_point().transform_lookup("f", alt.LookupData(frame, "f", ["cost"])).encode(y="cost:Q")
    for chart in (bars + line, bars | found, (bars & line).resolve_scale(y="shared"), bars.facet("f:N"), found):
        assert "0.25" in json.dumps(drawn(chart))
    assert drawn(bars)["encoding"]["y"]["scale"]["domain"] == [0, 0.25]
    assert frame.cost.tolist() == [cost, cost], "the reader's own frame stays as it is"


def test_a_chart_without_anything_odd_is_written_as_altair_writes_it():
    frame = pd.DataFrame({"x": [1.5, 2.5], "t": pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True), "s": ["a", "b"]})
    frame["c"] = pd.Categorical(["low", "high"], ["low", "high"], ordered=True)
    chart = alt.Chart(frame).mark_line().encode(x="t", y="x", color="s", shape="c")
    ours, theirs = (
        made.to_dict(format="vega-lite") for made in (drawable(chart + chart.mark_point()), chart + chart.mark_point())
    )
    for key in ("datasets", "layer", "data"):
        assert ours[key] == theirs[key]
