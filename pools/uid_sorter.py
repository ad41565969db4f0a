"""Sort uids that come a batch at a time, on every processor.

Batches are parted by the first byte of their uids while in the processor's cache; at the end
the parts of all batches are joined and sorted one by one. Uids are hashes, so parts are about
equal; where they are not, only time is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .parallel import default_workers, map_threads
from .subset_files import subset_writer
from .uids import RECORD, UID_DTYPE, UidArray, joined_uids, part_uids, sort_alike

_FEW = 1 << 17
"""So many need no threads."""
_THREADS = 2
"""More stand in each other's way: a part is sorted in no time, and Python is one at a time."""
_PART = 1 << 18
"""So many uids at least are parted at a time."""
_TOGETHER = 8
"""A thread sorts so many parts before it hands them over."""


class UidSorter:
    """Takes uids in any order and gives them back in lexicographic order, repetitions kept.

    Holds them once, and twice while all are asked for at once.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = min(threads or default_workers(), _THREADS)
        self._parts: list[tuple[UidArray, list[int]]] = []
        self._waiting: list[UidArray] = []
        self._unparted = 0
        self._sorted: UidArray | None = None
        self.count = 0

    @classmethod
    def holding(cls, ordered: UidArray) -> UidSorter:
        """Return one of records (n,) that are sorted."""
        sorter = cls()
        sorter._sorted, sorter.count = ordered, len(ordered)
        return sorter

    def add(self, uids: UidArray) -> None:
        """Take in records, shape (n,)."""
        assert self._sorted is None, "all uids have been asked for"
        self._waiting.append(uids)
        self.count += len(uids)
        self._unparted += len(uids)
        if self._unparted >= _PART:
            self._part()

    def pieces(self) -> Iterator[UidArray]:
        """Yield all records in order, shape (n,) each, sorted a little ahead by threads."""
        if self._sorted is not None:
            yield self._sorted
            return
        self._part()
        threads = 1 if self.count <= _FEW else self._threads
        firsts = range(0, 256 if self.count else 0, _TOGETHER)
        for pieces in map_threads(self._pieces, firsts, threads):
            yield from pieces

    def sorted(self) -> UidArray:
        """Return all records, shape (n,), in order; no more can be added then."""
        if self._sorted is None:
            found = np.empty(self.count, UID_DTYPE)
            end = 0
            for piece in self.pieces():
                found.view(RECORD)[end : (end := end + len(piece))] = piece.view(RECORD)
            self._sorted, self._parts = found, []
        return self._sorted

    def save(self, path: Path | str) -> str:
        """Write all records as a subset file, each part when it is sorted; return their digest.

        They are never at hand all at once, unless they were asked for.
        """
        with subset_writer(path) as writer:
            for piece in self.pieces():
                writer.write(piece)
        return writer.digest

    def _part(self) -> None:
        """Part what waits for it: many small parts take longer to join than to sort."""
        if self._unparted:
            self._parts.append(part_uids(joined_uids(self._waiting)))
        self._waiting, self._unparted = [], 0

    def _pieces(self, first: int) -> list[UidArray]:
        """Return the records that begin with a byte, and those of the bytes after it."""
        return [self._piece(byte) for byte in range(first, first + _TOGETHER)]

    def _piece(self, byte: int) -> UidArray:
        """Return the records that begin with a byte."""
        found = [part[ends[byte] : ends[byte + 1]] for part, ends in self._parts]
        return sort_alike(joined_uids(found), 1)
