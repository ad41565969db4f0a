"""What a check found in tars, of more samples than fit into memory.

Uids and offsets lie in the order of the tars in a file without a name, and the uids once more,
sorted so many at a time, to be walked through together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from ...durable import storage_errors
from ...errors import StorageError
from ...pools.merging import OPEN, spread, summed, walk
from ...pools.uids import UID_DTYPE, UidArray, joined_uids, sort_uids
from ..subset import Counts, Lookup
from .scratch import read_rows

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
    folder: Path
    start: int
    count: int

    def read(self, first: int, count: int) -> UidArray:
        """Return so many of them from a place on, shape (count,)."""
        start = self.start + first * UID_DTYPE.itemsize
        return read_rows(self.file, start, count, UID_DTYPE, self.folder)


class UidRuns:
    """Takes uids in any order and keeps them in sorted runs, in a file in ``folder`` if need be.

    A context manager, at whose end the file is gone.
    """

    def __init__(self, folder: Path, held: int = HELD) -> None:
        self._folder, self._held = _writable(folder), held
        self._file = self._scratch()
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
        """Return all that were taken in, as sorted runs, so few that they can be walked through.

        Of more, some are merged at a time: of thousands a walk would have few uids each at hand.
        """
        self._settle()
        while len(self._runs) > OPEN:
            runs, file = self._runs, self._file
            self._runs, self._file = [], self._scratch()
            with file:
                for first in range(0, len(runs), OPEN):
                    self._runs.append(self._merged(runs[first : first + OPEN]))
        return self._runs

    def _scratch(self) -> IO[bytes]:
        return _scratch(self._folder, self._held * UID_DTYPE.itemsize)

    def _settle(self) -> None:
        if not self._count:
            return
        start = self._append(sort_uids(joined_uids(self._waiting)))
        self._runs.append(_Run(self._file, self._folder, start, self._count))
        self._waiting, self._count = [], 0

    def _merged(self, runs: Sequence[_Run]) -> _Run:
        """Write the uids of some runs as one."""
        start = self._append(np.empty(0, UID_DTYPE))
        for pieces in walk(runs, self._held):
            for part in spread(*summed(pieces), self._held):
                self._append(part)
        return _Run(self._file, self._folder, start, sum(run.count for run in runs))

    def _append(self, uids: UidArray) -> int:
        """Write uids behind what is there; return where they begin."""
        with _writing(self._folder):
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(uids).view(np.uint8).data)
            self._file.flush()
        return start


class FoundSamples:
    """Takes uids and offsets of the samples of one tar after the other.

    A context manager; the files it needs lie without names in ``folder``.
    """

    def __init__(self, folder: Path, held: int = HELD) -> None:
        self._folder = _writable(folder)
        self._rows = _scratch(self._folder, held * ROW.itemsize)
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
        with _writing(self._folder):
            self._rows.seek(0, os.SEEK_END)
            self._rows.write(rows_of(uids, offsets, len(self._counts)).view(np.uint8).data)
            self._rows.flush()
        self._counts.append(len(uids))
        self.uids.add(uids)

    def tars(self) -> Iterator[tuple[UidArray, Rows]]:
        """Yield uids and rows of each tar, shape (n,), as they came."""
        start = 0
        for count in self._counts:
            rows = read_rows(self._rows, start, count, ROW, self._folder)
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


def _writable(folder: Path) -> Path:
    """Return the folder, or the system's for such files: one may be only there to be checked."""
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def _scratch(folder: Path, held: int) -> IO[bytes]:
    """Return a file without a name, in memory while it is small."""
    return tempfile.SpooledTemporaryFile(held, dir=str(folder))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say of the system's folder how to choose another one."""
    try:
        with storage_errors(folder):
            yield
    except StorageError as error:
        if folder != Path(tempfile.gettempdir()):
            raise
        raise StorageError(f"{error}, or name another folder in TMPDIR") from error
