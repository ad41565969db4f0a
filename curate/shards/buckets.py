"""Rows put into numbered buckets, more of them than fit into memory.

What is too much for memory lies meanwhile in a file without a name, in stretches that are ordered
by bucket: rows of one bucket are read from each stretch, and nothing is left behind by a crash.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...durable import storage_errors
from .scratch import read_rows

HELD = 32 << 20
"""Bytes of rows that are kept in memory, and twice that while they are put in order."""
MAX_BUCKETS = 1 << 16

Rows = NDArray[np.void]
Numbers = NDArray[np.uint16]


class Buckets:
    """``count`` buckets of rows of a dtype of whole 64-bit words.

    ``rows[k]`` is how many bucket k has. The file lies in ``folder``, or in the nearest folder
    above that is there; it goes with this object.
    """

    def __init__(self, count: int, dtype: np.dtype, folder: Path, held: int | None = None) -> None:
        if not 0 < count <= MAX_BUCKETS or dtype.itemsize % 8:
            raise ValueError("too many buckets, or rows that are not of whole words")
        self.rows: NDArray[np.int64] = np.zeros(count, np.int64)
        self._folder, self._dtype = folder, dtype
        room = max(1, (HELD if held is None else held) // dtype.itemsize)
        # The system gives memory when it is written to.
        self._waiting = np.empty((room, dtype.itemsize // 8), np.uint64)
        self._numbers = np.empty(room, np.uint16)
        self._filled = 0
        self._file: BinaryIO | None = None
        self._stretches: list[NDArray[np.int64]] = []
        """Of each stretch the row of the file where each bucket begins, and its end."""

    def add(self, numbers: Numbers, rows: Rows) -> None:
        """Append rows, shape (n,), to the buckets of these numbers."""
        self.rows += np.bincount(numbers, minlength=len(self.rows))
        words = _words(rows)
        while len(words):
            if self._filled == len(self._waiting):
                self._spill()
            taken = min(len(words), len(self._waiting) - self._filled)
            here = slice(self._filled, self._filled + taken)
            self._waiting[here], self._numbers[here] = words[:taken], numbers[:taken]
            self._filled += taken
            numbers, words = numbers[taken:], words[taken:]

    def pieces(self, first: int, last: int) -> Iterator[Rows]:
        """Yield the rows of the buckets [first, last), those of each in the order they came.

        Each piece has the rows of some stretch, ordered by bucket.
        """
        for starts in self._stretches:
            if starts[first] < starts[last]:
                yield self._read(int(starts[first]), int(starts[last]))
        numbers = self._numbers[: self._filled]
        found = np.flatnonzero((numbers >= first) & (numbers < last))
        if len(found):
            order = found[np.argsort(numbers[found], kind="stable")]
            yield self._waiting.take(order, axis=0).reshape(-1).view(self._dtype)

    def _read(self, first: int, last: int) -> Rows:
        assert self._file is not None
        start = first * self._dtype.itemsize
        return read_rows(self._file, start, last - first, self._dtype, self._folder)

    def _spill(self) -> None:
        """Write what is in memory, ordered by bucket."""
        numbers, words = self._numbers[: self._filled], self._waiting[: self._filled]
        counts = np.bincount(numbers, minlength=len(self.rows))
        start = self._stretches[-1][-1] if self._stretches else 0
        self._stretches.append(start + np.concatenate([[0], np.cumsum(counts)]))
        if (numbers[1:] < numbers[:-1]).any():
            words = words.take(np.argsort(numbers, kind="stable"), axis=0)
        with storage_errors(self._folder):
            if self._file is None:
                self._file = _nameless(self._folder)
                weakref.finalize(self, self._file.close)
            self._file.seek(int(start) * self._dtype.itemsize)
            self._file.write(words.data)
            self._file.flush()
        self._filled = 0


def take(rows: Rows, order: NDArray[Any]) -> Rows:
    """Return some rows of whole 64-bit words in an order: numpy is slow with records."""
    return _words(rows).take(order, axis=0).reshape(-1).view(rows.dtype)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of some arrays, at least one, in a new one."""
    return np.concatenate([_words(part) for part in parts]).reshape(-1).view(parts[0].dtype)


def _words(rows: Rows) -> NDArray[np.uint64]:
    words = np.ascontiguousarray(rows).view(np.uint64)
    return words.reshape(-1, rows.dtype.itemsize // 8)


def _nameless(folder: Path) -> BinaryIO:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return tempfile.TemporaryFile(dir=folder)
