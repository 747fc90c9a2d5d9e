"""Turn a chart's data into what JSON can carry: numbers, text and dates. An error says what to do about other data.

Altair raises a bare TypeError for a `Decimal`, and this package keeps all money in `Decimal`s.
"""

from __future__ import annotations

import copy
import datetime as dt
import enum
import ipaddress
import math
import numbers
import pathlib
import uuid
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from labkit.workbook.charts import ChartError

_AS_TEXT = (uuid.UUID, pathlib.PurePath, ipaddress.IPv4Address, ipaddress.IPv6Address, dt.time)
_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (dt.timedelta, "durations; draw a number whose unit the axis names, as frame[{0!r}].dt.total_seconds()"),
    (pd.Period, "periods; draw their beginnings, frame[{0!r}].dt.to_timestamp(), or their names, .astype(str)"),
    (pd.Interval, "intervals; draw a number of each, as its middle, or their names, frame[{0!r}].astype(str)"),
    ((bytes, bytearray, memoryview), "bytes; draw their text, frame[{0!r}].str.decode('utf-8'), or how many they are"),
    ((set, frozenset), "sets; draw a row for each member, frame.explode({0!r}), or how many there are"),
    (numbers.Complex, "complex numbers; draw a real part of them, as their absolute value"),
)


def drawable(part: Any) -> Any:
    """A copy of a chart, or of a part of one, in which JSON can carry all data and settings.

    Exact numbers (`Decimal`, `Fraction`) become the nearest float. Members of an enumeration become their value when that is
    text or a number, else their name. Dates stay dates. Numbers that are not finite become null, as in Altair. Raises
    `ChartError`, which names the column and says what to draw instead, for data that JSON cannot carry.
    """
    if isinstance(part, pd.DataFrame):
        return _frame(part)
    if isinstance(part, alt.SchemaBase):
        made = copy.copy(part)
        data = isinstance(part, alt.InlineData)
        inside = {name: _rows(value) if data and name == "values" else drawable(value) for name, value in part._kwds.items()}
        object.__setattr__(made, "_kwds", inside)
        return made
    if isinstance(part, list | tuple):
        return [drawable(one) for one in part]
    if isinstance(part, dict):
        return {name: drawable(value) for name, value in part.items()}
    return _plain(part, "") if isinstance(part, Decimal | Fraction) else part


def _rows(values: Any) -> Any:
    if not isinstance(values, list | tuple):
        return values
    return [{k: _plain(v, k) for k, v in row.items()} if isinstance(row, Mapping) else _plain(row, "data") for row in values]


def _frame(frame: pd.DataFrame) -> pd.DataFrame:
    made = frame.copy(deep=False)
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if column.dtype.kind not in "biufM" or isinstance(column.dtype, pd.CategoricalDtype):
            made.isetitem(place, _column(column, name))
    return made


def _column(column: pd.Series[Any], name: object) -> Any:
    """The column in a pandas type that Altair can write and can recognise as quantities, dates or names."""
    plain = [_plain(value, name) for value in column.astype(object)]
    if isinstance(column.dtype, pd.CategoricalDtype):
        order = [_plain(value, name) for value in column.cat.categories]
        return pd.Categorical(plain, order, ordered=column.cat.ordered)
    there = [value for value in column if not (pd.api.types.is_scalar(value) and pd.isna(value))]
    if there and all(isinstance(value, dt.date) for value in there):
        return pd.to_datetime(pd.Series(plain)).array
    if there and all(isinstance(value, str) for value in plain if value is not None):
        return pd.array(plain, dtype="string")
    if all(isinstance(value, float) for value in plain if value is not None):
        return np.array([math.nan if value is None else value for value in plain])
    filled = np.empty(len(plain), dtype=object)
    filled[:] = plain
    return filled


def _plain(value: Any, name: object) -> Any:
    """`value` of the column `name` as JSON's own types."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, enum.Enum):
        return _plain(value.value, name) if isinstance(value.value, str | int | float | Decimal) else value.name
    if isinstance(value, str | int):
        return value
    if isinstance(value, Decimal | Fraction | float):
        number = _as_float(value)
        return number if math.isfinite(number) else None
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return _plain(value.tolist(), name)
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dt.date):
        return dt.datetime.combine(value, dt.time()).isoformat()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inside, name) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside, name) for inside in value]
    remedy = next((text for kind, text in _REMEDIES if isinstance(value, kind)), None)
    if remedy is None:
        remedy = f"values of type {type(value).__name__}; draw numbers, text or dates made of them"
    raise ChartError(f"no chart can carry the column {name!r}: it holds {remedy.format(name)}; or leave the column out")


def _as_float(value: Decimal | Fraction | float) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):  # beyond what a float holds; a signalling NaN
        return math.nan
