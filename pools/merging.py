"""Merge sorted subsets that do not fit into memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .engine import Engine
from .subset_files import SubsetFile, subset_writer
from .uids import (
    RECORD,
    UID_DTYPE,
    UidArray,
    joined_uids,
    multiplicities,
    sort_uids,
    starts_of,
)

HELD = 1 << 20
"""How many uids are in memory at a time, 16 bytes each."""
OPEN = 256
"""How many files are merged at a time."""


@dataclass(frozen=True)
class Merged:
    """A subset that was written: how many uids it has, and their digest."""

    count: int
    digest: str


@dataclass(frozen=True)
class _Group:
    files: tuple[Path, ...]
    out: Path


def merge_subsets(files: Sequence[Path], out: Path, work: Path, engine: Engine) -> Merged:
    """Write the uids of sorted subset files into one, sorted; a uid may come several times.

    Many files are merged in groups first, each by a worker of the engine, into files in the
    folder ``work``.
    """
    level = 0
    while len(files) > OPEN:
        groups = [
            _Group(tuple(files[first : first + OPEN]), work / f"merged-{level}-{first // OPEN}.npy")
            for first in range(0, len(files), OPEN)
        ]
        list(engine.map(_merge_group, groups, count=len(groups)))
        files, level = [group.out for group in groups], level + 1
    return merge_files(files, out)


def _merge_group(group: _Group) -> int:
    """Merge some files in a worker."""
    return merge_files(group.files, group.out).count


def merge_files(files: Sequence[Path], out: Path, held: int = HELD) -> Merged:
    """Write the uids of a few sorted subset files into one; about ``held`` are in memory."""
    with subset_writer(out) as writer:
        for pieces in walk([SubsetFile.of(file) for file in files], held):
            joined = joined_uids([uids for uids, _ in pieces])
            counts = np.concatenate([counts for _, counts in pieces])
            if counts.max(initial=1) == 1:
                writer.write(sort_uids(joined))
                continue
            order = np.lexsort((joined["f1"], joined["f0"]))
            for part in spread(joined[order], counts[order], held):
                writer.write(part)
    return Merged(writer.count, writer.digest)


# -- walking through sorted uids -------------------------------------------------------------

Counts = NDArray[np.int64]
Counted = tuple[UidArray, Counts]
"""Distinct uids in order, shape (n,), and how often each of them is there."""


class SortedUids(Protocol):
    """Sorted uids on a disk."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def read(self, first: int, count: int) -> UidArray:
        """Return so many of them from a place on, shape (count,)."""
        ...


def walk(sources: Sequence[SortedUids], held: int = HELD) -> Iterator[list[Counted]]:
    """Walk through sorted uids together: yield what each source has of one range after the other.

    A uid is in one range with all its repetitions, however many they are. About ``held`` distinct
    uids are in memory.
    """
    if not sources:
        return
    # Half of what is held is for those that have more: a long one must not lag behind short ones.
    even, total = held // len(sources), max(1, sum(source.count for source in sources))
    streams = [
        _Stream(source, max(2, (even + held * source.count // total) // 2)) for source in sources
    ]
    while True:
        for stream in streams:
            stream.fill()
        bound = min((stream.last for stream in streams if stream.more), default=None)
        yield [stream.take(bound) for stream in streams]
        if bound is None:
            return


def spread(uids: UidArray, counts: Counts, held: int = HELD) -> Iterator[UidArray]:
    """Yield uids as often as they are counted, once at least, and at most ``held`` at a time."""
    if (counts == 1).all():
        yield uids
        return
    ends = np.cumsum(counts)
    for first in range(0, int(ends[-1]), held):
        last = min(first + held, int(ends[-1]))
        start, end = np.searchsorted(ends, first, "right"), np.searchsorted(ends, last) + 1
        here = slice(start, end)
        times = np.minimum(ends[here], last) - np.maximum(ends[here] - counts[here], first)
        yield np.repeat(uids[here].view(RECORD), times).view(UID_DTYPE)


def summed(pieces: Sequence[Counted]) -> Counted:
    """Return what a walk yields as one: how often each uid is in any of the sources."""
    if len(pieces) == 1:
        return pieces[0]
    joined = joined_uids([np.empty(0, UID_DTYPE), *(uids for uids, _ in pieces)])
    order = merge_order(joined)
    ordered = joined.view(RECORD).take(order).view(UID_DTYPE)
    starts = starts_of(ordered)
    if not len(starts):
        return ordered, starts
    counts = np.concatenate([counts for _, counts in pieces])[order]
    return ordered.view(RECORD).take(starts).view(UID_DTYPE), np.add.reduceat(counts, starts)


def merge_order(joined: UidArray) -> Counts:
    """Return the stable order of uids. Sorting by the high half alone is a merge of sorted runs;
    only where high halves tie and low halves disagree is the full sort needed.
    """
    order = np.argsort(joined["f0"], kind="stable")
    high, low = joined["f0"][order], joined["f1"][order]
    if np.any((high[1:] == high[:-1]) & (low[1:] < low[:-1])):
        order = np.lexsort((joined["f1"], joined["f0"]))
    return order


class _Stream:
    """The next distinct uids of a source. The last one is held back while it may go on."""

    def __init__(self, source: SortedUids, size: int) -> None:
        self._source, self._size = source, size
        self._read = 0
        self._uids = np.empty(0, UID_DTYPE)
        self._counts = np.empty(0, np.int64)

    @property
    def more(self) -> bool:
        """Whether not all has been read."""
        return self._read < self._source.count

    @property
    def last(self) -> tuple[int, int]:
        """The last uid that is whole."""
        return self._uids[-2 if self.more else -1].item()

    def fill(self) -> None:
        """Read on, unless at least half of what is held is there yet."""
        while self.more and len(self._uids) <= self._size // 2:
            room = self._size - len(self._uids)
            block = self._source.read(self._read, min(room, self._source.count - self._read))
            self._read += len(block)
            uids, counts = multiplicities(block)
            kept = len(self._uids)
            if kept and self._uids[-1] == uids[0]:
                kept -= 1
                counts = counts.copy()
                counts[0] += self._counts[-1]
            self._uids = joined_uids([self._uids[:kept], uids])
            self._counts = np.concatenate([self._counts[:kept], counts])

    def take(self, bound: tuple[int, int] | None) -> Counted:
        """Return and let go of what is not above a bound."""
        end = len(self._uids)
        if bound is not None:
            end = bisect.bisect_right(self._uids, bound, key=np.void.item)
        found = self._uids[:end], self._counts[:end]
        self._uids, self._counts = self._uids[end:], self._counts[end:]
        return found
