"""Merge sorted subsets that do not fit into memory."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..durable import atomic_path
from ..errors import DataError
from .engine import Engine
from .uids import UID_DTYPE, UidArray, npy_header, sort_uids

HELD = 1 << 20
"""How many uids are in memory at a time, 16 bytes each."""
OPEN = 256
"""How many files are merged at a time."""
_KEYS = 1 << 64


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
    found = hashlib.sha256()
    parts = [_open(file) for file in files]
    total = sum(map(len, parts))
    with atomic_path(out) as partial, partial.open("wb") as file:
        header = {"descr": UID_DTYPE.descr, "fortran_order": False, "shape": (total,)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in _blocks(parts, held):
            data = block.tobytes()
            found.update(data)
            file.write(data)
    return Merged(total, found.hexdigest())


def _open(file: Path) -> UidArray:
    with file.open("rb") as opened:
        shape, fortran, dtype, start = npy_header(opened)
    if len(shape) != 1 or fortran or dtype != UID_DTYPE:
        raise DataError(f"{file}: not a subset")
    if not shape[0]:  # numpy maps no empty array
        return np.empty(0, UID_DTYPE)
    return np.memmap(file, UID_DTYPE, "r", start, shape)


def _blocks(parts: Sequence[UidArray], held: int) -> Iterator[UidArray]:
    """Yield the uids in order, cut by ranges of their high half that hold few enough."""
    waiting = [(0, _KEYS, [(0, len(part)) for part in parts])]
    while waiting:
        first, end, places = waiting.pop()
        count = sum(last - start for start, last in places)
        if not count:
            continue
        if count > held and end - first > 1:
            middle = (first + end) // 2
            cuts = [
                bisect.bisect_left(part, middle, start, last, key=_high)
                for part, (start, last) in zip(parts, places, strict=True)
            ]
            below = [(start, cut) for (start, _), cut in zip(places, cuts, strict=True)]
            above = [(cut, last) for (_, last), cut in zip(places, cuts, strict=True)]
            waiting += [(middle, end, above), (first, middle, below)]
            continue
        pieces = [part[start:last] for part, (start, last) in zip(parts, places, strict=True)]
        yield sort_uids(np.concatenate(pieces))


def _high(uid: np.void) -> int:
    return int(uid["f0"])
