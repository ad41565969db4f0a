"""Write one large file at the speed of the disk, hashed on its way.

Bytes are gathered in one buffer while a thread hashes and writes the other. They go past the
system's cache: what is written through it waits there until it is flushed, often at a fraction
of the disk's speed, and pushes out the input that is still to be read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUFFER = 2 << 20
O_DIRECT = getattr(os, "O_DIRECT", 0)


class OutputFile:
    """A new file. ``size`` is what was written to it so far.

    Files smaller than a buffer, and those of file systems that know no direct writing, go
    through the cache.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._direct = False
        self._sha256 = hashlib.sha256()
        # Mapped, because what is written directly must begin at a page.
        self._filling, self._other = (memoryview(mmap.mmap(-1, BUFFER)) for _ in range(2))
        self._filled = 0
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.shutdown()
        os.close(self._file)

    def write(self, data: Any) -> None:
        """Append bytes; they are copied."""
        size = len(data)
        end = self._filled + size
        if end >= BUFFER:
            self._write_large(memoryview(data))
        else:
            self._filling[self._filled : end] = data
            self._filled = end
        self.size += size

    def write_rows(self, rows: NDArray[np.uint8], order: NDArray[np.intp]) -> None:
        """Append some rows of bytes in this order; they are copied without Python's lock."""
        width = rows.shape[1]
        self.size += len(order) * width
        while len(order):
            count = min((BUFFER - self._filled) // width, len(order))
            if not count:  # a row that does not fit any more
                self._write_large(rows[order[0]].data)
                order = order[1:]
                continue
            end = self._filled + count * width
            room = np.frombuffer(self._filling[self._filled : end], np.uint8)
            # What is out of bounds would be clipped; to be told of it costs another copy.
            np.take(rows, order[:count], 0, room.reshape(count, width), "clip")
            self._filled, order = end, order[count:]
            if end == BUFFER:
                self._hand_over()

    def finish(self) -> str:
        """Write what is left and return the SHA-256 of all."""
        self._wait()
        self._set_direct(False)  # the last piece ends where it ends
        self._put(self._filling[: self._filled])
        return self._sha256.hexdigest()

    def _write_large(self, data: memoryview) -> None:
        while data:
            piece = data[: BUFFER - self._filled]
            end = self._filled + len(piece)
            self._filling[self._filled : end] = piece
            self._filled = end
            data = data[len(piece) :]
            if end == BUFFER:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let the thread write the full buffer; go on with the one it wrote before."""
        if self._written is None:
            self._set_direct(True)
        self._wait()
        self._written = self._thread.submit(self._put, self._filling)
        self._filling, self._other, self._filled = self._other, self._filling, 0

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def _put(self, data: memoryview) -> None:
        self._sha256.update(data)
        while data:
            try:
                written = os.write(self._file, data)
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                written = 0
            data = data[written:]
            if data:  # what is left of it does not begin where it must
                self._set_direct(False)

    def _set_direct(self, direct: bool) -> None:
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        flags = flags | O_DIRECT if direct else flags & ~O_DIRECT
        with contextlib.suppress(OSError):  # a file system that does not know it
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags)
            self._direct = direct
