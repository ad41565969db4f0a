"""Parquet files in which some text is not UTF-8: the sound rows, and which ones are not.

DuckDB reads such a file not at all. So only where it has refused one, the file is read again
through Arrow, which does not look at text unless asked to, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from ...errors import DataError
from ..footers import read_schema
from .base import SetAside, printable

TABLE = "incoming_sound"
"""The temporary table of the sound rows."""
ROW = "_row_in_file"
"""Its column besides those of the file: a row's number there, from 0."""

_BATCH = 1 << 14


def is_not_utf8(error: BaseException) -> bool:
    """Tell whether DuckDB refused a parquet file for text that is not UTF-8."""
    return "is not valid UTF8" in str(error)


def columns_of(file: Path) -> list[str]:
    """Return the names of the columns of a parquet file."""
    try:
        return read_schema(file).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(file, error) from error


def load(
    connection: duckdb.DuckDBPyConnection, file: Path, name: str, caption: str
) -> list[SetAside]:
    """Fill ``TABLE`` with the sound rows of ``file``; return the others, named by ``name``.

    They are set aside as ``caption_not_utf8`` where the column ``caption`` is at fault, else as
    ``value_not_utf8``. Raises DataError where the file cannot be read to its end.
    """
    import pyarrow.parquet as pq

    aside: list[SetAside] = []

    def batches(opened: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in opened.iter_batches(_BATCH):
            bad = _unsound(batch)
            aside.extend(_said(name, first + row, bad[row], caption) for row in sorted(bad))
            numbers = pa.array(range(first, first + len(batch)), pa.int64())
            first += len(batch)
            keep = pa.array([row not in bad for row in range(len(batch))], pa.bool_())
            yield batch.append_column(ROW, numbers).filter(keep)

    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow.append(pa.field(ROW, pa.int64()))
            reader = pa.RecordBatchReader.from_batches(schema, batches(opened))
            connection.register("sound_arrow", reader)
            try:
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE {TABLE} AS SELECT * FROM sound_arrow"
                )
            finally:
                connection.unregister("sound_arrow")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(file, error) from error
    return aside


def _broken(file: Path, error: BaseException) -> DataError:
    return DataError(f"{file}: {' '.join(str(error).split())[:200]}")


def _unsound(batch: pa.RecordBatch) -> dict[int, str]:
    """Return the rows that hold text which is not UTF-8, each with the first such column."""
    found: dict[int, str] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if _is_sound(column):
            continue
        for row in range(len(column)):
            if not _is_sound(column.slice(row, 1)):
                found.setdefault(row, field.name)
    return found


def _is_sound(column: pa.Array) -> bool:
    try:
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _said(name: str, row: int, column: str, caption: str) -> SetAside:
    reason = "caption_not_utf8" if column == caption else "value_not_utf8"
    return SetAside(f"{name}: row {row + 1}", reason, f"column {printable(column)}")
