"""Find uids that stand in several rows, of more rows than fit into memory.

Rows of one uid meet by its first bits: what is too much for memory lies meanwhile in a file without
a name, of which the rows with the same first bits are looked at together. Where these are too many
too, they are sorted out by their next bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...durable import storage_errors
from ...pools.uids import UidArray
from .scratch import read_rows

HELD = 1 << 21
"""Rows that are kept in memory: 24 bytes each, and twice that while they are looked at."""
_BITS = 8
_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


class RepeatFinder:
    """Takes the uids of rows in order and tells which of them stood in an earlier row.

    A context manager; the file it needs lies in ``folder``.
    """

    def __init__(self, folder: Path, held: int = HELD, shift: int = 0) -> None:
        """``shift`` is how many first bits all uids agree in."""
        self._folder, self._held, self._shift = folder, held, shift
        self._rows = 0
        self._waiting: list[NDArray[np.void]] = []
        self._count = 0
        self._file: BinaryIO | None = None
        self._spilled: list[NDArray[np.int64]] = []
        """Of each stretch of the file the row where those of some bits begin, and its end."""

    def __enter__(self) -> RepeatFinder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, uids: UidArray) -> None:
        """Take in the uids of the next rows, shape (n,)."""
        part = np.empty(len(uids), _ROW)
        part["high"], part["low"] = uids["f0"], uids["f1"]
        part["row"] = np.arange(self._rows, self._rows + len(uids))
        self._rows += len(uids)
        self._add(part)

    def repeated(self) -> NDArray[np.int64]:
        """Return the rows, ascending, whose uid stands in an earlier row already."""
        if self._file is None:
            return np.sort(_later(self._joined()))
        self._spill()
        counts = np.sum([np.diff(ends) for ends in self._spilled], axis=0).tolist()
        found = [self._repeated(number, count) for number, count in enumerate(counts)]
        return np.sort(np.concatenate(found))

    def _repeated(self, number: int, count: int) -> NDArray[np.int64]:
        """Do as ``repeated`` among the rows, so many, whose next bits are some number."""
        shift = self._shift + _BITS
        if count <= self._held or shift == 64:
            return _later(np.concatenate([np.empty(0, _ROW), *self._bucket(number)]))
        with RepeatFinder(self._folder, self._held, shift) as finer:
            for rows in self._bucket(number):
                finer._add(rows)
            return finer.repeated()

    def _bucket(self, number: int) -> Iterator[NDArray[np.void]]:
        """Read the rows whose next bits are some number, in their order."""
        assert self._file is not None
        for ends in self._spilled:
            start, count = int(ends[number]), int(ends[number + 1] - ends[number])
            if count:
                yield read_rows(self._file, start * _ROW.itemsize, count, _ROW, self._folder)

    def _add(self, rows: NDArray[np.void]) -> None:
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= self._held:
            self._spill()

    def _joined(self) -> NDArray[np.void]:
        waiting, self._waiting, self._count = self._waiting, [], 0
        return np.concatenate(waiting) if waiting else np.empty(0, _ROW)

    def _spill(self) -> None:
        """Write what is in memory, in the order of its next bits; remember where these begin."""
        rows = self._joined()
        first = (rows["high"] >> np.uint64(64 - _BITS - self._shift)).astype(np.uint8)
        rows = rows[np.argsort(first, kind="stable")]
        start = int(self._spilled[-1][-1]) if self._spilled else 0
        counts = np.bincount(first, minlength=1 << _BITS)
        self._spilled.append(start + np.concatenate([[0], np.cumsum(counts)]))
        with storage_errors(self._folder):
            if self._file is None:
                self._file = _file(self._folder)
            self._file.seek(start * _ROW.itemsize)
            self._file.write(rows.view(np.uint8).data)
            self._file.flush()


def _file(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder)


def _later(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the numbers of the rows, whose own ascend, that repeat the uid of an earlier one."""
    high = np.sort(rows["high"])
    if not (high[1:] == high[:-1]).any():
        return np.zeros(0, np.int64)
    order = np.lexsort((rows["row"], rows["low"], rows["high"]))
    ordered = rows[order]
    same = ordered["high"][1:] == ordered["high"][:-1]
    same &= ordered["low"][1:] == ordered["low"][:-1]
    return ordered["row"][1:][same]
