"""Bytes that lie in a file until they are needed, so that memory does not grow with them.

The digests of a release's pieces are some 0.1 GB for each TB. While a version is made they wait in
a file without a name; of a torrent that is read, the long strings stay where they are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..durable import storage_errors
from ..errors import StorageError

CHUNK = 1 << 18
KEPT = 128
"""Bytes that are not worth a place in a file: what stands for them is no smaller."""


class Stretch:
    """A part of a file that is open, to be used as the bytes that stand there."""

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: Any, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> Stretch:
        start, end, step = part.indices(self._length)
        if step != 1:
            raise ValueError("a stretch has no parts but those of one piece")
        return Stretch(self._file, self._start + start, max(end - start, 0))

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes piece by piece. Raises StorageError where they are no longer there."""
        at, end = self._start, self._start + self._length
        while at < end:
            data = os.pread(self._file.fileno(), min(CHUNK, end - at), at)
            if not data:
                raise StorageError(
                    f"{self._file.name}: was cut short while it was read; run the same command "
                    "again when nothing else changes it"
                )
            yield data
            at += len(data)


class Joined:
    """Several of these one after another, as one."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterable[bytes | Stretch | Joined]) -> None:
        self._parts = list(parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks())

    @property
    def is_held(self) -> bool:
        """Whether all of it is in memory."""
        return all(isinstance(part, bytes) for part in self._parts)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes piece by piece."""
        for part in self._parts:
            yield from chunks_of(part)


Kept = bytes | Stretch
Bytes = Kept | Joined


def chunks_of(data: Bytes) -> Iterator[bytes]:
    """Yield bytes piece by piece, wherever they are."""
    if isinstance(data, bytes):
        yield data
    else:
        yield from data.chunks()


class _Unnamed:
    """A file without a name in a folder; closed when nothing stands for a part of it any more."""

    name = "a temporary file"

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self._descriptor = os.dup(file.fileno())

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class Spill:
    """A file without a name in a folder, for bytes that are needed once more before the end.

    Nothing is left of it when it is closed, no longer used, or the process is killed. A context
    manager. Without a ``folder`` it is where temporary files are.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        with storage_errors(folder):
            self._file = _Unnamed(folder)
        self._end = 0

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def put(self, data: bytes) -> Kept:
        """Put bytes away and return what stands for them; a few are returned as they are.

        Raises StorageError where the disk is full.
        """
        if len(data) <= KEPT:
            return data
        start, view = self._end, memoryview(data)
        with storage_errors(self._folder):
            while view:
                written = os.pwrite(self._file.fileno(), view, self._end)
                self._end += written
                view = view[written:]
        return Stretch(self._file, start, len(data))
