"""Sort uids that come a batch at a time, on every processor.

Each batch is put into buckets by the first bits of its uids while it is in the processor's cache;
at the end the buckets of all batches are joined and sorted one by one. Uids are hashes, so buckets
are about equal; where they are not, only time is lost.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .parallel import default_workers
from .uids import RECORD, UID_DTYPE, UidArray, sort_uids

_BITS = 5
"""More buckets are more work to part and to join than they save in sorting."""
_FEW = 1 << 17
"""So many are sorted at once."""


class UidSorter:
    """Takes uids in any order and gives them back in lexicographic order, repetitions kept.

    Holds them once, and twice while they are sorted, besides a bucket or two of each thread.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or default_workers()
        self._parts: list[tuple[UidArray, NDArray[np.int64]]] = []
        self.count = 0

    def add(self, uids: UidArray) -> None:
        """Take in records, shape (n,)."""
        if not len(uids):
            return
        uids = np.ascontiguousarray(uids)
        first = uids.view(np.uint8).reshape(-1, 16)[:, 7]  # little-endian: the first is the last
        first = first >> (8 - _BITS)
        order = np.argsort(first, kind="stable")
        ends = np.cumsum(np.bincount(first, minlength=1 << _BITS))
        part = uids.view(RECORD).take(order).view(UID_DTYPE)
        self._parts.append((part, np.concatenate([[0], ends])))
        self.count += len(uids)

    def sorted(self) -> UidArray:
        """Return all records, shape (n,), in order; the sorter is empty then."""
        parts, self._parts = self._parts, []
        found = np.empty(self.count, UID_DTYPE)
        self.count = 0
        sizes = np.sum([np.diff(ends) for _, ends in parts], axis=0) if parts else np.zeros(1, int)
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()

        def settle(bucket: int) -> None:
            pieces = [part[ends[bucket] : ends[bucket + 1]].view(RECORD) for part, ends in parts]
            if pieces:
                own = found[starts[bucket] : starts[bucket + 1]]
                sort_uids(np.concatenate(pieces).view(UID_DTYPE), own)

        buckets = range(len(starts) - 1)
        if self._threads == 1 or len(found) <= _FEW:
            for bucket in buckets:
                settle(bucket)
        else:
            with ThreadPoolExecutor(self._threads) as threads:
                list(threads.map(settle, buckets))
        return found
