"""What a check found in tars, of more samples than fit into memory.

Uids and offsets lie in the order of the tars in a file without a name, and the uids once more,
sorted so many at a time, to be walked through together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from ...durable import storage_errors
from ...pools.merging import joined_uids
from ...pools.uids import UID_DTYPE, UidArray, sort_uids
from ..subset import Counts, Lookup

HELD = 1 << 20
"""Samples that are kept in memory, 48 bytes each; more go to the disk."""
ROW = np.dtype([("tar", "<i8"), ("high", "<u8"), ("low", "<u8"), ("offset", "<i8")])
Rows = NDArray[np.void]


def rows_of(uids: UidArray, offsets: NDArray[np.int64], tars: NDArray[np.int64] | int = 0) -> Rows:
    """Return uids with their offsets and the numbers of their tars, shape (n,), as one array."""
    rows = np.empty(len(uids), ROW)
    rows["high"], rows["low"] = uids["f0"], uids["f1"]
    rows["offset"], rows["tar"] = offsets, tars
    return rows


def same_rows(one: Iterator[Rows], other: Iterator[Rows]) -> bool:
    """Tell whether two streams of arrays hold the same rows, however they are cut."""
    left, right = _some(one), _some(other)
    while left is not None and right is not None:
        count = min(len(left), len(right))
        if not np.array_equal(left[:count], right[:count]):
            return False
        left = left[count:] if len(left) > count else _some(one)
        right = right[count:] if len(right) > count else _some(other)
    return left is right


def _some(parts: Iterator[Rows]) -> Rows | None:
    return next((part for part in parts if len(part)), None)


@dataclass(frozen=True)
class _Run:
    """Uids in a file, sorted."""

    file: IO[bytes]
    start: int
    count: int

    def read(self, first: int, count: int) -> UidArray:
        """Return so many of them from a place on, shape (count,)."""
        size = UID_DTYPE.itemsize
        self.file.seek(self.start + first * size)
        return np.frombuffer(self.file.read(count * size), UID_DTYPE)


class UidRuns:
    """Takes uids in any order and keeps them in sorted runs, in a file in ``folder`` if need be.

    A context manager, at whose end the file is gone.
    """

    def __init__(self, folder: Path, held: int = HELD) -> None:
        self._folder, self._held = folder, held
        self._file: IO[bytes] = _scratch(folder, held * UID_DTYPE.itemsize)
        self._runs: list[_Run] = []
        self._waiting: list[UidArray] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def add(self, uids: UidArray) -> None:
        """Take in more uids, shape (n,)."""
        self._waiting.append(uids)
        self._count += len(uids)
        if self._count >= self._held:
            self._settle()

    def all(self) -> list[_Run]:
        """Return all that were taken in, as sorted runs."""
        self._settle()
        return self._runs

    def _settle(self) -> None:
        if not self._count:
            return
        ordered = sort_uids(joined_uids(self._waiting))
        with storage_errors(self._folder):
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(ordered.view(np.uint8).data)
            self._file.flush()
        self._runs.append(_Run(self._file, start, len(ordered)))
        self._waiting, self._count = [], 0


class FoundSamples:
    """Takes uids and offsets of the samples of one tar after the other.

    A context manager; the files it needs lie without names in ``folder``.
    """

    def __init__(self, folder: Path, held: int = HELD) -> None:
        self._folder = folder
        self._rows: IO[bytes] = _scratch(folder, held * ROW.itemsize)
        self._counts: list[int] = []
        self.uids = UidRuns(folder, held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with ExitStack() as closing:
            closing.callback(self._rows.close)
            closing.enter_context(self.uids)

    def add(self, uids: UidArray, offsets: NDArray[np.int64]) -> None:
        """Take in the samples of the next tar, shape (n,)."""
        with storage_errors(self._folder):
            self._rows.seek(0, os.SEEK_END)
            self._rows.write(rows_of(uids, offsets, len(self._counts)).view(np.uint8).data)
            self._rows.flush()
        self._counts.append(len(uids))
        self.uids.add(uids)

    def tars(self) -> Iterator[tuple[UidArray, Rows]]:
        """Yield uids and rows of each tar, shape (n,), as they came."""
        start = 0
        for count in self._counts:
            self._rows.seek(start)
            rows = np.frombuffer(self._rows.read(count * ROW.itemsize), ROW)
            start += rows.nbytes
            uids = np.empty(count, UID_DTYPE)
            uids["f0"], uids["f1"] = rows["high"], rows["low"]
            yield uids, rows

    def beyond(self, uids: UidArray, wanted: Counts) -> Iterator[tuple[UidArray, Rows, Counts]]:
        """Find the samples of some sorted uids that come after so many of each as are ``wanted``.

        Yields for each tar uids and rows of its samples, and places, shape (n,): which of the
        ``uids`` a sample has that is one too many, else -1.
        """
        lookup = Lookup(uids)
        seen = np.zeros(len(uids), np.int64)
        for own, rows in self.tars():
            places = lookup.find(own)
            for row in np.flatnonzero(places >= 0).tolist():
                place = places[row]
                seen[place] += 1
                if seen[place] <= wanted[place]:
                    places[row] = -1
            yield own, rows, places


def _scratch(folder: Path, held: int) -> IO[bytes]:
    """Return a file without a name, in memory while it is small.

    It lies elsewhere if nothing can be written to the folder, as one that is only to be checked.
    """
    place = str(folder) if os.access(folder, os.W_OK) else None
    return tempfile.SpooledTemporaryFile(held, dir=place)
