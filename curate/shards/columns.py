"""Columns of Arrow tables as numpy arrays and lists, and back.

Not by Arrow's own ``to_numpy`` and ``array``: they import pandas, which takes longer than all the
rest of a short command.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...pools.uids import UID_DTYPE, UidArray, from_halves

if TYPE_CHECKING:
    import pyarrow as pa

ANY_PARQUET = "write them so: printf('%032x', uid) AS uid, in the SQL of a pool"
"""Advice about uids that no index has: as a pool holds them, DuckDB writes rounded numbers."""


def uid_records(
    column: pa.ChunkedArray | pa.Array, where: str, advice: str = "index again"
) -> UidArray:
    """Turn a column of hex uids into records, shape (n,); raise DataError for anything else."""
    import pyarrow as pa

    none = DataError(f"{where}: its uids are not 32 hex digits each; {advice}")
    if column.type != pa.string():
        try:
            column = column.cast(pa.string())
        except pa.ArrowException:
            raise none from None
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(column) == 0:
        return np.empty(0, UID_DTYPE)
    _, offsets, text = column.buffers()
    starts = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset)
    try:
        if column.null_count or (np.diff(starts) != 32).any():
            raise ValueError
        digits = memoryview(text)[int(starts[0]) : int(starts[-1])]
        raw = np.frombuffer(binascii.unhexlify(digits), ">u8").reshape(len(column), 2)
    except ValueError:
        raise none from None
    return from_halves(raw[:, 0], raw[:, 1])


def integers(column: pa.Array, where: str) -> NDArray[np.int64]:
    """Return a column of the index as integers, shape (n,)."""
    if column.null_count:
        raise damaged(where)
    return np.from_dlpack(column).astype(np.int64, copy=False)


def dictionary(column: Any, where: str) -> tuple[list[str], NDArray[np.int32]]:
    """Return the texts of a column of the index that repeats few, and which each row has."""
    if column.null_count:
        raise damaged(where)
    return column.dictionary.to_pylist(), np.from_dlpack(column.indices).astype(
        np.int32, copy=False
    )


def damaged(where: str) -> DataError:
    """Return the error of an index that cannot be."""
    return DataError(f"{where}: its index is damaged; index again")


def integer_column(values: Sequence[int] | NDArray[np.int64]) -> pa.Array:
    """Return integers of 64 bits as a column."""
    import pyarrow as pa

    data = pa.py_buffer(np.ascontiguousarray(values, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(values), [None, data])


def text_column(values: list[str]) -> pa.Array:
    """Return texts as a column."""
    encoded = [value.encode() for value in values]
    return split_column(b"".join(encoded), [len(one) for one in encoded])


def split_column(data: bytes, lengths: Sequence[int] | NDArray[np.int64]) -> pa.Array:
    """Return texts that stand one behind the other, in UTF-8, as a column."""
    import pyarrow as pa

    return pa.StringArray.from_buffers(len(lengths), _offsets(lengths), pa.py_buffer(data))


def repeated_column(values: Sequence[str], times: int) -> pa.Array:
    """Return texts, over and over, as a column."""
    encoded = [value.encode() for value in values]
    return split_column(b"".join(encoded) * times, np.tile([len(one) for one in encoded], times))


def list_column(
    lengths: Sequence[int] | NDArray[np.int64], values: pa.Array, kind: pa.ListType
) -> pa.Array:
    """Return lists of neighbouring values as a column, given the length of each."""
    import pyarrow as pa

    first = pa.Array.from_buffers(pa.int32(), len(lengths) + 1, [None, _offsets(lengths)])
    return pa.ListArray.from_arrays(first, values, type=kind)


def _offsets(lengths: Sequence[int] | NDArray[np.int64]) -> pa.Buffer:
    import pyarrow as pa

    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.py_buffer(offsets)
