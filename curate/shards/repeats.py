"""Find uids that stand in several rows, of more rows than fit into memory.

Rows of one uid meet by its first bits: what is too much for memory lies meanwhile in a file without
a name, of which the rows with the same first bits are looked at together. Where these are too many
too, they are sorted out by their next bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...pools.uids import UidArray
from .buckets import Buckets, Rows, joined

HELD = 1 << 21
"""Rows that are kept in memory: 24 bytes each, and twice that while they are looked at."""
_BITS = 8
_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


class RepeatFinder:
    """Takes the uids of rows in order and tells which of them stood in an earlier row.

    The file it needs lies in ``folder`` and goes with this object.
    """

    def __init__(self, folder: Path, held: int = HELD, shift: int = 0) -> None:
        """``shift`` is how many first bits all uids agree in."""
        self._folder, self._held, self._shift = folder, held, shift
        self._buckets = Buckets(1 << _BITS, _ROW, folder, held * _ROW.itemsize)
        self._count = 0

    def add(self, uids: UidArray) -> None:
        """Take in the uids of the next rows, shape (n,)."""
        part = np.empty(len(uids), _ROW)
        part["high"], part["low"] = uids["f0"], uids["f1"]
        part["row"] = np.arange(self._count, self._count + len(uids))
        self._count += len(uids)
        self._add(part)

    def repeated(self) -> NDArray[np.int64]:
        """Return the rows, ascending, whose uid stands in an earlier row already."""
        found = [np.empty(0, np.int64)]
        for first, last, count in self._spans():
            pieces = self._buckets.pieces(first, last)
            if count <= self._held or self._shift + _BITS == 64:
                found.append(_later(joined(list(pieces))))
                continue
            finer = RepeatFinder(self._folder, self._held, self._shift + _BITS)
            for rows in pieces:
                finer._add(rows)
            found.append(finer.repeated())
        return np.sort(np.concatenate(found))

    def _add(self, rows: Rows) -> None:
        bits = (rows["high"] >> np.uint64(64 - _BITS - self._shift)).astype(np.uint8)
        self._buckets.add(bits.astype(np.uint16), rows)

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        """Yield buckets to be looked at together, or a large one: first, end, rows.

        They are a sixteenth of what is held, if they may be: small arrays are sorted faster.
        """
        first = total = 0
        for number, count in enumerate(self._buckets.rows.tolist()):
            if total and total + count > self._held >> 4:
                yield first, number, total
                first, total = number, 0
            total += count
        if total:
            yield first, 1 << _BITS, total


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
