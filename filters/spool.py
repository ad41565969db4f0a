"""Vectors on disk while a filter works: what a pool's features are too many for.

Rows are written once, at any places, and read by place or in a stretch. Neither way holds more
than what is asked for. The file has no name, so nothing is left of it, however the work ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..durable import storage_errors
from ..errors import DataError
from ..pools.uids import UID_DTYPE, UidArray
from .sets import Samples
from .vectors import unit


class Spool:
    """``rows`` vectors of ``dimension`` numbers each, of one dtype, in a temporary file."""

    def __init__(self, rows: int, dimension: int, dtype: Any) -> None:
        self.rows, self.dimension, self.dtype = rows, dimension, np.dtype(dtype)
        self._width = dimension * self.dtype.itemsize
        self._place = tempfile.gettempdir()
        with storage_errors(self._place):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            os.truncate(self._file.fileno(), rows * self._width)

    def write(self, places: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Put rows (n, dimension) at places (n,), each once; neighbours go in one piece."""
        order = np.argsort(places, kind="stable")
        places, rows = places[order], np.ascontiguousarray(rows[order], self.dtype)
        if len(places) and not (places[0] >= 0 and places[-1] < self.rows):
            raise IndexError(f"places {places[0]} to {places[-1]} of {self.rows} rows")
        with storage_errors(self._place):
            for first, end in _runs(places):
                self._put(rows[first:end], int(places[first]) * self._width)

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, dimension) at the end."""
        first, self.rows = self.rows, self.rows + len(rows)
        with storage_errors(self._place):
            self._put(np.ascontiguousarray(rows, self.dtype), first * self._width)

    def _put(self, rows: NDArray[Any], offset: int) -> None:
        data = rows.view(np.uint8).reshape(-1).data
        while data:
            written = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[written:], offset + written

    def stretch(self, start: int, end: int) -> NDArray[Any]:
        """Return the rows from ``start`` to before ``end``, shape (end - start, dimension)."""
        found = np.empty((end - start, self.dimension), self.dtype)
        self._get(found, start * self._width)
        return found

    def take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows at places (n,), in the order asked for."""
        found = np.empty((len(places), self.dimension), self.dtype)
        for first, end in _runs(places):
            self._get(found[first:end], int(places[first]) * self._width)
        return found

    def _get(self, into: NDArray[Any], offset: int) -> None:
        data = into.view(np.uint8).reshape(-1).data
        while data:
            read = os.preadv(self._file.fileno(), [data], offset)
            if read == 0:
                raise DataError(f"{self._place}: a temporary file has become shorter")
            data, offset = data[read:], offset + read

    def shrink(self, rows: int) -> None:
        """Leave only the first rows: as many as were written."""
        self.rows = rows
        os.truncate(self._file.fileno(), rows * self._width)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _runs(places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield where each run of successive places begins and ends."""
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    return itertools.pairwise([0, *cuts.tolist(), len(places)] if len(places) else [])


@contextlib.contextmanager
def gathered(samples: Samples) -> Iterator[tuple[UidArray, list[Spool]]]:
    """Copy what can be used of a set's features to where it can be read by place.

    Yields uids (n,) in the order of the files, and a spool for each of the features, whose row i
    is that of uid i. A sample is left out unless all its features can be brought to length one.
    """
    found, rows = [np.empty(0, UID_DTYPE)], 0
    with contextlib.ExitStack() as opened:
        spools: list[Spool] = []
        for uids, batch in samples.batches():
            vectors = list(batch.features.values())
            if not spools:
                spools = [
                    opened.enter_context(Spool(samples.count, v.shape[1], v.dtype)) for v in vectors
                ]
            usable = np.flatnonzero(np.logical_and.reduce([unit(v)[1] for v in vectors]))
            places = np.arange(rows, rows + len(usable))
            for spool, part in zip(spools, vectors, strict=True):
                spool.write(places, part[usable])
            found.append(uids[usable])
            rows += len(usable)
        if not spools:
            nothing = np.dtype(np.float16)
            spools = [opened.enter_context(Spool(0, 1, nothing)) for _ in samples.features]
        for spool in spools:
            spool.shrink(rows)
        yield np.concatenate(found), spools
