"""Columns of Arrow tables as numpy arrays and lists, and back.

Not by Arrow's own ``to_numpy`` and ``array``: they import pandas, which takes longer than all the
rest of a short command.
"""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...pools.uids import UID_DTYPE, UidArray, from_halves

if TYPE_CHECKING:
    import pyarrow as pa


def uid_records(column: pa.ChunkedArray | pa.Array, where: str) -> UidArray:
    """Turn a column of hex uids into records, shape (n,); raise DataError for anything else."""
    import pyarrow as pa

    if column.type != pa.string():
        column = column.cast(pa.string())
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
        raise DataError(f"{where}: its uids are not 32 hex digits each; index again") from None
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


def integer_column(values: list[int]) -> pa.Array:
    """Return integers of 64 bits as a column."""
    import pyarrow as pa

    data = pa.py_buffer(np.array(values, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(values), [None, data])


def text_column(values: list[str]) -> pa.Array:
    """Return texts as a column."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    data = pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(values), _offsets(map(len, encoded)), data)


def list_column(lengths: list[int], values: pa.Array, kind: pa.ListType) -> pa.Array:
    """Return lists of neighbouring values as a column, given the length of each."""
    import pyarrow as pa

    offsets = _offsets(lengths)
    first = pa.Array.from_buffers(pa.int32(), len(lengths) + 1, [None, offsets])
    return pa.ListArray.from_arrays(first, values, type=kind)


def _offsets(lengths: Iterable[int]) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.fromiter(itertools.accumulate(lengths, initial=0), np.int32))
