"""Tell rows of an index that may be wanted from those that are not, by the first bits of a uid.

Only for a subset of several parts: the rows left are sorted out by part, on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...pools.uids import UidArray
from .buckets import Numbers

BITS = 29
"""A table of 2**29 bits takes 64 MB."""
PER_UID = 4
"""A table has 2**4 times as many bits as uids where that is not too many: one row in 16 passes."""


class Sieve:
    """A table of the first bits of all uids wanted, and where the parts of the subset begin."""

    def __init__(self, blocks: Iterable[UidArray], count: int, starts: Sequence[int]) -> None:
        """``blocks`` are the uids, sorted, ``starts`` the first high half of each part but one."""
        self._starts = np.array(starts, np.uint64)
        self.parts = len(starts) + 1
        bits = max(3, min(BITS, count.bit_length() + PER_UID))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << (bits - 3), np.uint8)
        for block in blocks:
            place, bit = self._bits(block["f0"])
            first = np.concatenate([[0], np.flatnonzero(np.diff(place)) + 1])
            self._table[place[first]] |= np.bitwise_or.reduceat(bit, first)

    def find(self, uids: UidArray) -> tuple[NDArray[np.int64], Numbers]:
        """Return which rows may be wanted, shape (n,), and the number of the part of each."""
        place, bit = self._bits(uids["f0"])
        rows = np.flatnonzero(self._table[place] & bit)
        parts = np.searchsorted(self._starts, uids["f0"][rows], "right")
        return rows, parts.astype(np.uint16)

    def _bits(self, high: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        prefix = high >> self._shift
        bit = np.uint8(1) << (prefix & np.uint64(7)).astype(np.uint8)
        return (prefix >> np.uint64(3)).astype(np.int64), bit
