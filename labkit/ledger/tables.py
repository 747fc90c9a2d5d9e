"""Rows of the ledger as tables of other libraries: dataframes and Parquet files."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.ledger.row import COST_PLACES, KINDS, Kind, from_sql

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_EXPORT_ROWS = 50_000


def frame_of(names: Sequence[str], table: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """`table` as a dataframe with columns `names`.

    A column with the name of an attribute has its type; for others, pandas guesses the type.
    """
    with extra("analysis"):
        import pandas as pd

    columns = list(zip(*table, strict=True)) if table else [()] * len(names)
    return pd.DataFrame(
        {i: _series(KINDS.get(name), column) for i, (name, column) in enumerate(zip(names, columns, strict=True))},
        index=pd.RangeIndex(len(table)),
    ).set_axis(list(names), axis=1)


def write_parquet(cursor: sqlite3.Cursor, sink: IO[bytes]) -> int:
    """Write the rows of `cursor`, with all attributes in their order, to `sink` as Parquet; returns the number of rows."""
    with extra("analysis"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    types = {name: _arrow(kind) for name, kind in KINDS.items()}
    schema = pa.schema(list(types.items()))
    count = 0
    with pq.ParquetWriter(sink, schema) as writer:
        while batch := cursor.fetchmany(_EXPORT_ROWS):
            arrays = [
                pa.array([from_sql(kind, value) for value in column], _arrow(kind))
                for kind, column in zip(KINDS.values(), zip(*batch, strict=True), strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(batch)
    return count


def _arrow(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    types: dict[Kind, pa.DataType] = {
        "text": pa.string(), "integer": pa.int64(), "real": pa.float64(), "flag": pa.bool_(), "list": pa.list_(pa.string()),
        "money": pa.decimal128(38, COST_PLACES),
    }  # fmt: skip
    return types[kind]


def _series(kind: Kind | None, column: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    if kind is None:
        return pd.Series(pd.array(list(column))) if column else pd.Series([], dtype=object)
    values = [from_sql(kind, value) for value in column]
    dtype: Any = {
        "text": "str", "integer": "Int64", "real": "float64", "flag": "boolean", "list": object, "money": None,
    }[kind]  # fmt: skip
    if kind == "money":
        dtype = pd.ArrowDtype(_arrow("money"))
    series: pd.Series[Any] = pd.Series(values, dtype=dtype)
    return series
