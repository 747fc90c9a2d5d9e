"""Widths, titles and second channels, judged by what Vega-Lite's own compiler makes of them."""

import altair as alt
import pandas as pd
import pytest
import vl_convert

from labkit.workbook import ChartError, Figure
from labkit.workbook.charts import spec

FRAME = pd.DataFrame(
    {"n": [1, 2, 1, 2], "ms": [3, 4, 5, 9], "engine": ["small", "small", "large", "large"], "run": list("abcd")}
)
BASE = alt.Chart(FRAME).encode(x="n:Q", y="ms:Q", color="engine:N")


def made(chart):
    return spec(Figure(chart, "words", "source"))


def compiled(chart):
    return vl_convert.vegalite_to_vega(made(chart), vl_version="5.20")


def legends(chart):
    """What each legend of the drawn chart explains."""
    channels = ("fill", "stroke", "strokeDash", "shape")
    return [tuple(channel for channel in channels if channel in legend) for legend in compiled(chart).get("legends", ())]


def test_lines_get_a_dash_and_points_a_shape_in_one_legend_with_the_colour():
    assert legends(BASE.mark_line()) == [("stroke", "strokeDash")]
    assert legends(BASE.mark_point()) == [("stroke", "shape")]
    assert legends(BASE.mark_circle()) == [("fill", "shape")]


def test_dashes_and_shapes_that_an_author_hid_from_the_legend_are_in_it():
    which = {"title": None, "sort": ["small", "large"]}
    both = BASE.encode(color=alt.Color("engine:N", **which))
    chart = both.mark_point().encode(shape=alt.Shape("engine:N", legend=None, **which)) + both.mark_line().encode(
        strokeDash=alt.StrokeDash("engine:N", legend=None, **which)
    )
    ((*shown,),) = legends(chart)
    assert {"stroke", "strokeDash", "shape"} <= set(shown)


def test_a_legend_that_an_author_left_out_stays_out():
    assert legends(BASE.mark_line().encode(color=alt.Color("engine:N", legend=None))) == []


@pytest.mark.parametrize(
    "chart",
    [
        BASE.mark_line().encode(row="engine:N"),
        BASE.mark_point().encode(y="engine:N"),
        BASE.mark_line().encode(color=alt.value("red")),
        BASE.mark_line().encode(color="ms:Q"),
        alt.Chart(FRAME.assign(engine="small")).mark_line().encode(x="n:Q", y="ms:Q", color="engine:N"),
    ],
    ids=["a row each", "an axis", "one colour", "a number", "one value"],
)
def test_nothing_is_added_where_the_place_tells_or_nothing_is_to_tell(chart):
    assert not {"strokeDash", "shape"} & set(made(chart)["encoding"])


def test_ticks_of_categories_get_lanes():
    ticks = alt.Chart(FRAME).mark_tick().encode(x="ms:Q", color="engine:N")
    assert made(ticks.encode(y="run:N"))["encoding"]["yOffset"]["field"] == "engine"
    assert made(ticks)["encoding"]["y"]["field"] == "engine"
    compiled(ticks.encode(y="run:N"))


def test_a_colour_that_alone_tells_marks_apart_is_refused():
    with pytest.raises(ChartError, match="colour of 'engine' is all that tells the marks of type 'rect' apart"):
        made(alt.Chart(FRAME).mark_rect().encode(x="n:O", y="run:O", color="engine:N"))


def test_segments_of_a_stack_have_an_edge():
    assert made(alt.Chart(FRAME).mark_bar().encode(x="ms:Q", y="n:O", color="engine:N"))["mark"]["stroke"] == "currentColor"


def test_one_view_takes_the_room_whatever_its_author_said_and_does_not_follow_the_page():
    for chart in (BASE.mark_line(), BASE.mark_line().properties(width=200), BASE.mark_line() + BASE.mark_point()):
        assert 800 < made(chart)["width"] < 1000


def test_bars_from_here_to_there_get_an_edge_of_their_own():
    """Such bars do not stack, so their order tells nothing."""
    from_to = alt.Chart(FRAME).mark_bar().encode(x="n:Q", x2="ms:Q", y="run:N", color="engine:N")
    chart = made(from_to)
    assert chart["mark"]["stroke"] == "currentColor"
    assert chart["encoding"]["strokeDash"]["field"] == "engine"
    compiled(from_to)
    assert "strokeDash" not in made(from_to.encode(y="engine:N"))["encoding"]


def test_views_in_a_row_share_the_row_in_their_authors_proportion():
    narrow, wide = BASE.mark_line().properties(width=100), BASE.mark_line().properties(width=300)
    left, right = (view["width"] for view in made(narrow | wide)["hconcat"])
    assert left < right
    assert left + right <= 1000
    assert all(view["width"] > 500 for view in made(narrow & wide)["vconcat"])


def test_facets_share_the_row_by_how_many_there_are():
    faceted = alt.Chart(FRAME).mark_bar().encode(x="n:Q", y="ms:Q")
    one, four = (made(faceted.encode(column=f"{field}:N"))["width"] for field in ("engine", "run"))
    assert 4 * four < 1000
    assert 1.8 < one / four < 2.6
    assert made(faceted.encode(row="run:N"))["width"] > 800
    assert made(faceted.facet(column="run:N"))["spec"]["width"] == four


def test_a_width_for_each_category_is_the_authors():
    bars = alt.Chart(FRAME).mark_bar().encode(x="run:N", y="ms:Q").properties(width=alt.Step(20))
    assert made(bars)["width"] == {"step": 20}


def test_a_long_title_is_broken_and_long_labels_stand_below():
    long = FRAME.assign(engine=FRAME.engine + " with arguments of the chapter's own")
    chart = alt.Chart(long).mark_line().encode(x="n:Q", y="ms:Q", color="engine:N").properties(title="word " * 40)
    assert len(made(chart)["title"]) == 3
    assert max(map(len, made(chart)["title"])) <= 95
    (legend,) = compiled(chart)["legends"]
    assert legend["orient"] == "bottom"
