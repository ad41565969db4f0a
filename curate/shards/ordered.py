"""Samples put in order: that of the tars, or shuffled by a seed. More than fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...pools import tar
from ...pools.uids import UidArray, from_halves
from ...pools.views import FIELDS
from .buckets import Buckets, Numbers, joined, take
from .order import Places, shuffle_keys

RECORD = np.dtype(list(FIELDS))
Records = NDArray[np.void]

GROUP = 1 << 19
"""Records that are put in order at a time."""
SHUFFLED_BITS = 11


class Ordered:
    """Records of samples, read by their places in the order.

    Without a seed they stand in the order of their tars and within these, repetitions beside each
    other: what is near in the order comes into one bucket, some tars or a part of a large one.
    With a seed buckets are ranges of ``shuffle_keys``. ``total`` counts samples with repetitions,
    ``blocks`` theirs.
    """

    def __init__(
        self, tars: Sequence[tuple[int, int]], shuffle: int | None, folder: Path
    ) -> None:  # fmt: skip
        """``tars`` are (samples, bytes) of each; ``folder`` takes what memory does not."""
        self._shuffle = shuffle
        if shuffle is None:
            rows, sizes = np.array(tars, np.int64).reshape(-1, 2).T
            ends = np.cumsum(rows)
            total = int(rows.sum())
            self._starts, self._last = ends - rows, np.maximum(rows - 1, 0)
            self._per_block = rows / np.maximum(sizes // tar.BLOCK, 1)
            self._size = max(GROUP, (total >> SHUFFLED_BITS) + 1)
            count = max(total - 1, 0) // self._size + 1
        else:
            count = 1 << SHUFFLED_BITS
        self._buckets = Buckets(count, RECORD, folder)
        self._samples: NDArray[np.int64] = np.zeros(count, np.int64)
        self.total = self.blocks = 0
        self._groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self._loaded: tuple[int, Records, bool] | None = None

    def add(self, records: Records, counts: Places) -> None:
        """Add records, shape (n,), each so many times; ``copy`` of them is not looked at."""
        self.total += int(counts.sum())
        self.blocks += int((records["blocks"] * counts).sum())
        if not counts.all():
            records, counts = records[counts > 0], counts[counts > 0]
        records["copy"] = counts - 1
        if self._shuffle is None:
            self._put(self._near(records), records, counts)
            return
        number = int(counts.sum())
        for first in range(0, number, GROUP):
            part = records
            if number > len(records) or number > GROUP:
                part = _repeated(records, first, min(first + GROUP, number))
            keys = self._keys(part) >> np.uint64(64 - SHUFFLED_BITS)
            self._put(keys.astype(np.uint16), part, np.ones(len(part), np.int64))

    def read(self, first: int, last: int) -> Records:
        """Return the records of the places [first, last)."""
        bounds, ends = self._grouped()
        parts = [np.empty(0, RECORD)]
        while first < last:
            group = int(np.searchsorted(ends, first, "right"))  # no empty one
            start = int(ends[group - 1]) if group else 0
            end = min(last, int(ends[group]))
            records, repeated = self._load(group, int(bounds[group]), int(bounds[group + 1]))
            if repeated:
                parts.append(_repeated(records, first - start, end - start))
            else:
                parts.append(records[first - start : end - start])
            first = end
        return joined(parts)

    def _put(self, numbers: Numbers, records: Records, counts: Places) -> None:
        self._groups = self._loaded = None
        self._buckets.add(numbers, records)
        held = np.bincount(numbers, counts, len(self._samples))
        self._samples += held.astype(np.int64)

    def _near(self, records: Records) -> Numbers:
        """Return the bucket of each record: of its tar, and of about its row in it.

        A record's row is guessed from its place, which never puts it before one that it follows.
        """
        file = records["file"]
        rows = (records["block"] * self._per_block[file]).astype(np.int64)
        place = self._starts[file] + np.minimum(rows, self._last[file])
        return (place // self._size).astype(np.uint16)

    def _keys(self, records: Records) -> NDArray[np.uint64]:
        if self._shuffle is None:
            return (records["file"].astype(np.uint64) << np.uint64(32)) | records["block"]
        return shuffle_keys(records["high"], records["low"], records["copy"], self._shuffle)

    def _grouped(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where groups of neighbouring buckets begin, and the place where each ends."""
        if self._groups is None:
            ends = np.cumsum(self._buckets.rows)
            bounds = [0]
            while bounds[-1] < len(ends):
                before = ends[bounds[-1] - 1] if bounds[-1] else 0
                fits = int(np.searchsorted(ends, before + GROUP, "right"))
                bounds.append(max(fits, bounds[-1] + 1))
            samples = np.concatenate([[0], np.cumsum(self._samples)])
            self._groups = np.array(bounds), samples[bounds[1:]]
        return self._groups

    def _load(self, group: int, first: int, last: int) -> tuple[Records, bool]:
        """Return the records of a group in order, and whether ``copy`` says how often more."""
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = None
            records = joined(list(self._buckets.pieces(first, last)))
            records = self._sorted(records)
            repeated = self._shuffle is None and bool(records["copy"].any())
            self._loaded = group, records, repeated
        return self._loaded[1:]

    def _sorted(self, records: Records) -> Records:
        keys = self._keys(records)
        if (keys[1:] > keys[:-1]).all():
            return records
        # In the order of the tars stretches are sorted already.
        order = np.argsort(keys, kind="stable" if self._shuffle is None else None)
        keys = keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        if len(same):  # of a shuffle, hardly ever: two hashes of 64 bits that are equal
            ties = np.unique(np.concatenate([same, same + 1]))
            rows = take(records, order[ties])
            names = ("copy", "block", "file")
            exact = np.lexsort([rows[name] for name in names] + [keys[ties]])
            order[ties] = order[ties][exact]
        return take(records, order)


def uids_of(records: Records) -> UidArray:
    """Return the uids of records, shape (n,)."""
    return from_halves(records["high"], records["low"])


def _repeated(records: Records, first: int, last: int) -> Records:
    """Return the places [first, last) of records that stand there ``copy`` times more."""
    counts = records["copy"].astype(np.int64) + 1
    ends = np.cumsum(counts)
    places = np.arange(first, last)
    rows = np.searchsorted(ends, places, "right")
    found = take(records, rows)
    found["copy"] = places - (ends - counts)[rows]
    return found
