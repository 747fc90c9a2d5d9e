"""Fit a Vega-Lite specification to its page and to readers who do not tell its colours apart.

A chart takes `_ROW_PX`, about what JupyterLab's page has, and the stylesheet shrinks the picture where the page is narrower.
Vega-Lite's own width of "container" follows the page, but ten such charts in an executed notebook keep a browser busy for
good. Widths that an author sets say only in which proportion views in a row share the room.

Where a colour tells categories apart, a second channel tells them too: a line gets a dash for each, a point a shape, a tick
a lane of its own, a bar from here to there a dashed edge, in one legend with the colour. Segments of a stack follow each
other in the order of the legend, with an edge between them. Nothing is added where the place already tells the category (an
axis, a facet, a text).
"""

from __future__ import annotations

import copy
import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from labkit.workbook.charts import ChartError

Spec = dict[str, Any]
_ROW_PX = 1000  # a notebook's output in a window of 1,400 px
_CHARACTER_PX = 6.6  # of a label at 12 px
_GAP_PX = 50  # between views in a row: the axis's ticks, labels of numbers, and its title
_TITLE_CHARACTERS = 95
_LONG_LABEL = 26  # characters; legends with longer labels stand below, where they take no width from the chart
_CATEGORIES = ("nominal", "ordinal")
_PLACES = ("x", "y", "xOffset", "yOffset", "row", "column", "facet", "text")
_DASHED, _POINTS, _STACKED = {"line", "trail", "rule"}, {"point", "circle", "square"}, {"bar", "area", "arc"}
_PARTS = ("layer", "hconcat", "vconcat", "concat")


def fitted(spec: Spec, width_px: float | None = None) -> Spec:
    """A copy of a specification as the module says: second channels added, legends merged, width and title fitted.

    `width_px` is the width of the whole picture, by default `_ROW_PX`.
    Raises `ChartError` for a mark whose categories only a colour would tell apart.
    """
    made = copy.deepcopy(spec)
    tables = _Tables(made)
    _tell_apart(made, {}, (), tables, None)
    _widen(made, width_px or _ROW_PX, tables)
    _wrap_title(made)
    return made


class _Tables:
    """The inline data of a specification."""

    def __init__(self, spec: Spec) -> None:
        self._named = spec.get("datasets", {})
        self._all = [*self._named.values(), *_inline(spec)]

    def values(self, field: str) -> list[Any]:
        """The different values of a field; none for a field that only a transformation makes."""
        return _different(self._all, field)

    def of(self, view: Spec, above: Any) -> _Tables:
        """The data that a view and its layers draw; `above` is the data that they inherit."""
        datas = [one["data"] for one in _layers(view) if "data" in one]
        if not datas or ("data" not in view and any("data" not in one for one in _layers(view) if "mark" in one)):
            datas.append(above)
        found = [data for data in datas if isinstance(data, dict)]
        own = _Tables({})
        own._all = [data["values"] if "values" in data else self._named.get(data.get("name"), []) for data in found]
        return own


def _different(tables: list[Any], field: str) -> list[Any]:
    rows = [row for table in tables if isinstance(table, list) for row in table if isinstance(row, Mapping)]
    return list(dict.fromkeys(row[field] for row in rows if isinstance(row.get(field), str | int | float)))


def _layers(view: Spec) -> Iterator[Spec]:
    yield view
    for layer in view.get("layer", ()):
        yield from _layers(layer)


def _longest(values: list[Any]) -> int:
    return max((len(str(value)) for value in values), default=0)


def _inline(part: Any) -> Iterator[Any]:
    if isinstance(part, list):
        for one in part:
            yield from _inline(one)
    elif isinstance(part, dict):
        data = part.get("data")
        if isinstance(data, dict) and "values" in data:
            yield data["values"]
        for name in (*_PARTS, "spec"):
            yield from _inline(part.get(name))


# Second channels


def _tell_apart(
    spec: Spec, inherited: Spec, facets: tuple[str, ...], tables: _Tables, data: Any, within: bool = False
) -> None:
    """Add second channels to all marks of a part; `tables` are those of the view, once one is reached (`within`)."""
    if not within and ("mark" in spec or "layer" in spec):
        tables, within = tables.of(spec, data), True
    data = spec.get("data", data)
    own = spec.get("encoding", {})
    encoding = {**inherited, **own}
    facet = spec.get("facet")
    if isinstance(facet, dict):
        facets += tuple(_field(one) for one in (facet, facet.get("row"), facet.get("column")) if _field(one))
    for name in _PARTS:
        for one in spec.get(name, ()):
            _tell_apart(one, encoding, facets, tables, data, within)
    if isinstance(spec.get("spec"), dict):
        _tell_apart(spec["spec"], encoding, facets, tables, data)
    if "mark" in spec:
        added = _second(spec, encoding, facets, tables)
        if added:
            spec["encoding"] = {**own, **added}


def _second(spec: Spec, encoding: Spec, facets: tuple[str, ...], tables: _Tables) -> Spec:
    """What the encoding of one mark lacks so that its categories are told apart without their colours."""
    colour = next((encoding[name] for name in ("color", "fill", "stroke") if _field(encoding.get(name))), None)
    if colour is None or colour.get("type") not in _CATEGORIES:
        return {}
    field, mark = _field(colour), spec["mark"]
    values = tables.values(field)
    if len(values) == 1 or field in facets or any(_field(encoding.get(place)) == field for place in _PLACES):
        return {}
    _order(colour, values)
    _make_room(colour, values)
    kind = mark["type"] if isinstance(mark, dict) else mark
    settings = mark if isinstance(mark, dict) else {}
    if kind in _DASHED:
        return {"strokeDash": _beside(colour, encoding.get("strokeDash"))}
    if kind in _POINTS:
        filled = {"filled": True} if kind != "point" else {}
        spec["mark"] = {**filled, **settings, "type": "point"}
        return {"shape": _beside(colour, encoding.get("shape"))}
    if kind == "bar" and _field(encoding.get("size")):
        return {}  # told apart by their thickness
    if kind == "bar" and any(name in encoding for name in ("x2", "y2")):  # from here to there: no stack whose order tells
        spec["mark"] = {"stroke": "currentColor", "strokeWidth": 1.5, **settings, "type": kind}
        return {"strokeDash": _beside(colour, encoding.get("strokeDash"))}
    if kind in _STACKED:
        spec["mark"] = {"stroke": "currentColor", "strokeWidth": 0.75, **settings, "type": kind}
        return {}
    if kind == "tick":
        for place in ("y", "x"):
            if _field(encoding.get(place)) and encoding[place].get("type") in _CATEGORIES:
                return {f"{place}Offset": {"field": field, "type": "nominal", "sort": colour.get("sort", "ascending")}}
            if place not in encoding:
                return {place: {k: v for k, v in colour.items() if k in ("field", "type", "sort")} | {"title": None}}
    if kind == "text":
        return {}
    raise ChartError(
        f"the colour of {field!r} is all that tells the marks of type {kind!r} apart: give {field!r} an axis, a row or a "
        "text, or draw lines, points or bars"
    )


def _beside(colour: Spec, own: Any) -> Spec:
    """A second channel for the colour's field, alike in what makes Vega-Lite put both into one legend."""
    domain = colour.get("scale", {}).get("domain") if isinstance(colour.get("scale"), dict) else None
    made: Spec = {name: colour[name] for name in ("field", "type", "title", "sort", "legend") if name in colour}
    scale = {"domain": domain} if domain is not None else {}
    if isinstance(own, dict) and _field(own) == _field(colour) and isinstance(own.get("scale"), dict):
        scale = {**own["scale"], **scale}
    elif isinstance(own, dict) and ("condition" in own or "value" in own or _field(own) != _field(colour)):
        return own  # the author's own rule
    return {**made, "scale": scale} if scale else made


def _order(colour: Spec, values: list[Any]) -> None:
    """Write the order of the categories out: Vega-Lite only puts channels into one legend whose scales have one domain."""
    scale, sort = colour.get("scale", {}), colour.get("sort", "ascending")
    if not values or not isinstance(scale, dict) or "domain" in scale:
        return
    if isinstance(sort, list):
        domain = [*(one for one in sort if one in values), *(one for one in values if one not in sort)]
    elif sort in ("ascending", "descending"):
        domain = sorted(values, key=lambda one: (isinstance(one, str), one), reverse=sort == "descending")
    elif sort is None:
        domain = values
    else:
        return
    colour["scale"] = {**scale, "domain": domain}


def _make_room(colour: Spec, values: list[Any]) -> None:
    longest = _longest(values)
    legend = colour.get("legend", {})
    if isinstance(legend, dict) and longest > _LONG_LABEL and "orient" not in legend:
        colour["legend"] = {"orient": "bottom", "columns": max(1, 110 // (longest + 6)), "labelLimit": 0, **legend}


# Widths and titles


def _widen(spec: Spec, room: float, tables: _Tables) -> None:
    """Set the widths of a view, or of the views that it is composed of, to fill `room` px."""
    if "hconcat" in spec or "concat" in spec:
        views = spec.get("hconcat") or spec["concat"]
        columns = len(views) if "hconcat" in spec else min(spec.get("columns", len(views)), len(views))
        wide = [_own_width(view) for view in views]
        for place, view in enumerate(views):
            row = wide[place // columns * columns : place // columns * columns + columns]
            _widen(view, room * wide[place] / sum(row), tables)
    elif "vconcat" in spec:
        for view in spec["vconcat"]:
            _widen(view, room, tables)
    elif isinstance(spec.get("spec"), dict):
        _widen(spec["spec"], _cell(room, spec.get("facet", {}), spec.get("columns"), tables), tables)
    elif _steps(spec):
        return
    elif facet := {name: one for name, one in spec.get("encoding", {}).items() if name in ("row", "column", "facet")}:
        columns = facet.get("facet", {}).get("columns")
        spec["width"] = _inner(spec, _cell(room, facet.get("facet", facet), columns, tables), tables)
    else:
        spec["width"] = _inner(spec, room, tables)
        for layer in spec.get("layer", ()):
            layer.pop("width", None)


def _cell(room: float, facet: Spec, columns: int | None, tables: _Tables) -> float:
    """The room of one column of facets, without the headers of rows."""
    across = facet.get("column", facet if _field(facet) else {})
    count = max(len(tables.values(_field(across))), 1) if _field(across) else 1
    rows = facet.get("row")
    header = 0.0
    if rows is not None and rows.get("header", {}) is not None:
        header = min(_CHARACTER_PX * _longest(tables.values(_field(rows))), 300)
    return (room - header) / min(count, columns or count)


def _inner(spec: Spec, room: float, tables: _Tables) -> int:
    """The width of a view's plot that leaves room for the labels of its vertical axis and a legend at its right."""
    layers = [spec, *spec.get("layer", ())]
    labels = 0.0
    legend = 0.0
    for one in layers:
        y, colour = (one.get("encoding", {}).get(name) or {} for name in ("y", "color"))
        if y.get("type") in _CATEGORIES and y.get("axis", {}) is not None:
            labels = max(labels, min(_CHARACTER_PX * _longest(tables.values(_field(y))), 260))
        shown = colour.get("legend", {})
        if _field(colour) and shown is not None and shown.get("orient", "right") == "right":
            legend = max(legend, 30 + _CHARACTER_PX * _longest(tables.values(_field(colour))))
    return max(80, math.floor(room - _GAP_PX - labels - legend))


def _own_width(view: Spec) -> float:
    for one in (view, *view.get("layer", ()), view.get("spec", {})):
        if isinstance(one.get("width"), int | float):
            return float(one["width"])
    return 300.0


def _steps(spec: Spec) -> bool:
    """Whether the author gave each category of the horizontal axis its width."""
    return any(isinstance(one.get("width"), dict) for one in (spec, *spec.get("layer", ())))


def _wrap_title(spec: Spec) -> None:
    title = spec.get("title")
    text = title.get("text") if isinstance(title, dict) else title
    if isinstance(text, str) and len(text) > _TITLE_CHARACTERS:
        lines = textwrap.wrap(text, _TITLE_CHARACTERS)
        spec["title"] = {**title, "text": lines} if isinstance(title, dict) else lines


def _field(channel: Any) -> str:
    return str(channel["field"]) if isinstance(channel, dict) and isinstance(channel.get("field"), str) else ""
