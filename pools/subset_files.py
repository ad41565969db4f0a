"""Subset files that are read and written a little at a time, however large they are.

A file that is mapped counts as memory with every page that was looked at, so blocks are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..durable import atomic_path
from ..errors import DataError
from .uids import UID_DTYPE, UidArray, is_sorted, subset_header, unsorted_error

BLOCK = 1 << 18
"""How many uids are read at a time, 16 bytes each."""


@dataclass(frozen=True)
class SubsetFile:
    """A subset file and how many uids it has.

    It is open only while a block is read: there may be more of them than a process may open.
    """

    path: Path
    count: int
    start: int
    stamp: tuple[int, int]

    @classmethod
    def of(cls, path: Path | str) -> SubsetFile:
        """Look at the header; whether the uids are in order is for ``verify`` to tell.

        Raises MissingError or DataError as ``load_subset`` does.
        """
        path = Path(path)
        count, start = subset_header(path)
        return cls(path, count, start, _stamp(path.stat()))

    def read(self, first: int, count: int) -> UidArray:
        """Return so many uids from a place on, shape (count,); DataError if the file changed."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb", buffering=0) as file:
            if _stamp(os.fstat(file.fileno())) == self.stamp:
                offset = self.start + first * UID_DTYPE.itemsize
                found = np.fromfile(file, UID_DTYPE, count, offset=offset)
                if len(found) == count:
                    return found
        raise DataError(f"{self.path}: changed while it was read; run the same command again")

    def require_same(self) -> None:
        """Raise DataError if the file is another one than was looked at."""
        self.read(0, 0)

    def blocks(self, size: int = BLOCK) -> Iterator[UidArray]:
        """Yield all uids, in order, at most ``size`` at a time."""
        for first in range(0, self.count, size):
            yield self.read(first, min(size, self.count - first))

    def verify(self) -> str:
        """Return the digest of the uids; DataError if they are not in lexicographic order."""
        found = hashlib.sha256()
        last = np.empty(0, UID_DTYPE)
        for block in self.blocks():
            if not (is_sorted(block) and is_sorted(np.concatenate([last, block[:1]]))):
                raise unsorted_error(self.path)
            found.update(block.view(np.uint8).data)
            last = block[-1:]
        return found.hexdigest()


def _stamp(state: os.stat_result) -> tuple[int, int]:
    """Return what changes with a file; its number changes by itself on some file systems."""
    return state.st_size, state.st_mtime_ns


class SubsetWriter:
    """Takes the uids of a subset file in order; knows how many there were, and their digest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.count = 0
        self.write_header()

    @property
    def digest(self) -> str:
        """The SHA-256 of what was written so far."""
        return self._digest.hexdigest()

    def write(self, *ordered: UidArray) -> None:
        """Append uids, shape (n,) each, none of them less than those before."""
        for uids in ordered:
            data = np.ascontiguousarray(uids).view(np.uint8).data
            self._digest.update(data)
            self._file.write(data)
            self.count += len(uids)

    def write_header(self) -> None:
        """Say at the beginning how many there are: numpy leaves room for every number."""
        self._file.seek(0)
        header = {"descr": UID_DTYPE.descr, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextlib.contextmanager
def subset_writer(path: Path | str) -> Iterator[SubsetWriter]:
    """Yield what takes the uids of a subset file, which is there when all have been written."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        writer = SubsetWriter(file)
        yield writer
        writer.write_header()
