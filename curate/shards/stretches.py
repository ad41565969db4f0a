"""Stretches of a tar, copied as they are: what a shard without some samples is made of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ...durable import atomic_path
from ...errors import DataError

COPY = 1 << 20


def copy_stretches(
    source: Path, target: Path, parts: Sequence[tuple[int, int]], tail: bytes, pad: int = 1
) -> None:
    """Write some ranges (start, end) of a tar and a tail, padded with zeros to a multiple.

    The target may be the source. Raises DataError for a tar that has become shorter.
    """
    with atomic_path(target) as partial:
        with source.open("rb") as file, partial.open("wb") as out:
            for piece in pieces(file, parts):
                out.write(piece)
            out.write(tail)
            out.write(bytes(-out.tell() % pad))
        if target.exists():
            shutil.copymode(target, partial)


def pieces(file: BinaryIO, parts: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield some ranges (start, end) of a file, at most COPY bytes at a time."""
    for start, end in parts:
        file.seek(start)
        left = end - start
        while left:
            piece = file.read(min(left, COPY))
            if not piece:
                raise DataError(f"{file.name}: changed while it was rewritten; try again")
            yield piece
            left -= len(piece)
