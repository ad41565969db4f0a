"""Find uids that stand in several rows, of more rows than fit into memory.

Rows of one uid meet by its first bits: what is too much for memory lies meanwhile in files without
a name, which are looked at one after the other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...durable import storage_errors
from ...pools.uids import UidArray

HELD = 1 << 21
"""Rows that are kept in memory: 24 bytes each, and twice that while they are looked at."""
_BITS = 8
_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


class RepeatFinder:
    """Takes the uids of rows in order and tells which of them stood in an earlier row.

    A context manager; files it needs lie in ``folder``.
    """

    def __init__(self, folder: Path, held: int = HELD) -> None:
        self._folder, self._held = folder, held
        self._rows = 0
        self._waiting: list[NDArray[np.void]] = []
        self._count = 0
        self._files: list[BinaryIO] = []

    def __enter__(self) -> RepeatFinder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for file in self._files:
            file.close()

    def add(self, uids: UidArray) -> None:
        """Take in the uids of the next rows, shape (n,)."""
        part = np.empty(len(uids), _ROW)
        part["high"], part["low"] = uids["f0"], uids["f1"]
        part["row"] = np.arange(self._rows, self._rows + len(uids))
        self._rows += len(uids)
        self._waiting.append(part)
        self._count += len(uids)
        if self._count >= self._held:
            self._spill()

    def repeated(self) -> NDArray[np.int64]:
        """Return the rows, ascending, whose uid stands in an earlier row already."""
        if not self._files:
            return np.sort(_later(self._joined()))
        self._spill()
        found = []
        for file in self._files:
            file.seek(0)
            found.append(_later(np.frombuffer(file.read(), _ROW)))
        return np.sort(np.concatenate(found))

    def _joined(self) -> NDArray[np.void]:
        waiting, self._waiting, self._count = self._waiting, [], 0
        return np.concatenate(waiting) if waiting else np.empty(0, _ROW)

    def _spill(self) -> None:
        """Write what is in memory to the files of its first bits."""
        rows = self._joined()
        first = (rows["high"] >> np.uint64(64 - _BITS)).astype(np.uint8)
        rows = rows[np.argsort(first, kind="stable")]
        ends = np.cumsum(np.bincount(first, minlength=1 << _BITS)).tolist()
        with storage_errors(self._folder):
            if not self._files:
                self._files = [_file(self._folder) for _ in ends]
            for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
                file.write(rows[start:end].view(np.uint8).data)


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
