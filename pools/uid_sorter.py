"""Sort uids that come a batch at a time.

Some batches together are grouped by the first byte of their uids while they are in the processor's
cache; at the end the groups of each byte are joined and sorted, one byte after the other. Uids are
hashes, so these are about equal; where they are not, time and memory are lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .subset_files import subset_writer
from .uids import RECORD, UID_DTYPE, UidArray, joined_uids, part_uids, sort_alike, sort_uids

_PART = 1 << 18
"""So many uids at least are grouped at a time: of few there would be many small groups to join."""
_TOGETHER = 4
"""Of so many bytes uids are one write, and so many writes may wait for the disk."""


class UidSorter:
    """Takes uids in any order and gives them back in lexicographic order, repetitions kept.

    Holds them once, and twice while all are asked for at once; of hashes, a tenth more.
    """

    def __init__(self) -> None:
        self._waiting: list[UidArray] = []
        self._unparted = 0
        self._parts: list[tuple[UidArray, list[int]]] = []
        self._sorted: UidArray | None = None
        self.count = 0

    @classmethod
    def holding(cls, ordered: UidArray) -> UidSorter:
        """Return one of records (n,) that are sorted."""
        sorter = cls()
        sorter._sorted, sorter.count = ordered, len(ordered)
        return sorter

    def add(self, uids: UidArray) -> None:
        """Take in records, shape (n,). The array is kept: it must not be changed afterwards."""
        assert self._sorted is None, "all uids have been asked for"
        self._waiting.append(uids)
        self.count += len(uids)
        self._unparted += len(uids)
        if self._unparted >= _PART:
            self._part()

    def pieces(self) -> Iterator[UidArray]:
        """Yield all records in order, shape (n,) each."""
        if self._sorted is not None:
            yield self._sorted
            return
        if self._parts:
            self._part()
            yield from map(self._piece, range(256))
        elif self._waiting:
            yield sort_uids(joined_uids(self._waiting))

    def sorted(self) -> UidArray:
        """Return all records, shape (n,), in order; no more can be added then."""
        if self._sorted is None:
            found = np.empty(self.count, UID_DTYPE)
            end = 0
            for piece in self.pieces():
                start, end = end, end + len(piece)
                found.view(RECORD)[start:end] = piece.view(RECORD)
            self._sorted, self._parts, self._waiting = found, [], []
        return self._sorted

    def save(self, path: Path | str) -> str:
        """Write all records as a subset file while they are sorted; return their digest.

        Hashes are never at hand all at once, unless they were asked for.
        """
        with subset_writer(path) as writer, ThreadPoolExecutor(1) as thread:
            written: deque[Future[None]] = deque()
            ready: list[UidArray] = []
            try:
                for piece in self.pieces():
                    ready.append(piece)
                    if len(ready) == _TOGETHER:
                        written.append(thread.submit(writer.write, *ready))
                        ready = []
                    if len(written) > _TOGETHER:
                        written.popleft().result()
                written.append(thread.submit(writer.write, *ready))
                for future in written:
                    future.result()
            finally:
                thread.shutdown(cancel_futures=True)
        return writer.digest

    def _part(self) -> None:
        """Group what waits for it."""
        if self._unparted:
            self._parts.append(part_uids(joined_uids(self._waiting)))
        self._waiting, self._unparted = [], 0

    def _piece(self, byte: int) -> UidArray:
        """Return the records that begin with a byte."""
        found = [part[ends[byte] : ends[byte + 1]] for part, ends in self._parts]
        return sort_alike(joined_uids(found), 1)
