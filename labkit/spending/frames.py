"""A bill from a dataframe: rows of somebody else's log, put into a ledger that everything here reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

from labkit.cost import Price
from labkit.extras import extra
from labkit.ledger import COLUMNS, Ledger, Row
from labkit.request import InvalidValue, LabError
from labkit.spending.rates import priced

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "integer", "real", "flag", "list", "money"]
_KINDS = {column.field: column.kind for column in COLUMNS}
_NAMES = {column.name: column.field for column in COLUMNS}
_AT_ONCE = 20_000


def from_frame(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    prices: Mapping[str, Price] | None = None,
    path: str | os.PathLike[str] = ":memory:",
) -> Ledger:
    """A ledger of the attempts in `frame`, one a row, so that a bill from anywhere can be attributed and explained.

    A column is taken where it has the name of an attribute of the ledger, as in `Ledger.frame`, or of a field of
    `labkit.ledger.Row`; `columns` says which of the frame's columns is which field: `{"cost": "spend", "feature": "app"}`.
    Other columns are left out. A missing value is unknown. Times are datetimes (`pandas.to_datetime`), in UTC where they
    have no zone, or seconds since 1970. A cost that is a float is taken as the decimal that it prints. A row without an id
    has its number as one.

    `prices` are price lists by model, as in `Slice`, for the rows that have tokens and no cost; a row whose model has none
    stays unpriced. The ledger is in memory, or in a new file at `path`. Raises `InvalidValue` with the number of the first
    row that is none, from 0, and for a frame without tokens or a cost.
    """
    with extra("analysis"):
        import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InvalidValue(f"frame is a {type(frame).__name__}; give a pandas.DataFrame with one row an attempt")
    chosen = _chosen(list(frame.columns), columns or {})
    if "attempt_id" in chosen:
        copies = frame[chosen["attempt_id"]].duplicated().to_numpy().nonzero()[0]
        if len(copies):
            raise InvalidValue(
                f"{len(copies)} rows have the attempt_id of a row above them, the first is row {copies[0]}; leave copies "
                f"out, as frame.drop_duplicates({chosen['attempt_id']!r}) does, or the column, if it is no id of an attempt"
            )
    ledger = Ledger(path)
    try:
        for first in range(0, len(frame), _AT_ONCE):
            ledger.extend(_rows(frame.iloc[first : first + _AT_ONCE], chosen, first, prices or {}))
    except BaseException:
        ledger.close()
        raise
    return ledger


def _chosen(there: list[Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The frame's column for each field of `Row`."""
    for field, name in columns.items():
        if field not in _KINDS:
            raise InvalidValue(f"an attempt has no {field!r}; columns can name {', '.join(_KINDS)}")
        if name not in there:
            raise InvalidValue(f"the frame has no column {name!r} for {field}; it has {', '.join(map(str, there))}")
    own = {_NAMES.get(name, name): name for name in there if _NAMES.get(name, name) in _KINDS}
    found = {**own, **columns}
    if not found.keys() & {"cost", "input_tokens", "output_tokens"}:
        raise InvalidValue(
            f"no column of the frame is a cost or a number of tokens; it has {', '.join(map(str, there))}. Say which is "
            'which, as in columns={"cost": "spend", "input_tokens": "prompt_tokens"}'
        )
    return found


def _rows(frame: pd.DataFrame, chosen: Mapping[str, Any], first: int, prices: Mapping[str, Price]) -> Iterator[Row]:
    values = {field: _values(frame[name], _KINDS[field]) for field, name in chosen.items()}
    for index in range(len(frame)):
        known = {field: column[index] for field, column in values.items() if column[index] is not None}
        try:
            yield priced(Row(**{"provider": "unknown", "attempt_id": str(first + index), **known}), prices)
        except LabError as error:
            raise InvalidValue(f"row {first + index} of the frame: {error}") from error


def _values(column: pd.Series[Any], kind: Kind) -> list[Any]:
    """The values of a column as those of a `Row`, None for a missing one; what cannot be one is left for `Row` to refuse."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        column = (pd.to_datetime(column, utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    clean = _CLEAN[kind]
    return [None if missing else clean(value) for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flag(value: Any) -> Any:
    return bool(value) if value in (0, 1) else value


def _money(value: Any) -> Any:
    if isinstance(value, Decimal | bool):
        return value
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def _text(value: Any) -> Any:
    """A number that is a name: one of whole numbers with gaps is a float in a dataframe."""
    number = _integer(value)
    return str(number) if isinstance(number, int | float) and not isinstance(number, bool) else value


def _list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _real(value: Any) -> Any:
    return value


_CLEAN: Mapping[Kind, Callable[[Any], Any]] = {
    "text": _text, "integer": _integer, "real": _real, "flag": _flag, "list": _list, "money": _money,
}  # fmt: skip
