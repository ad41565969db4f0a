"""Files read once, front to back, and hashed on the way, wherever they lie.

Of an evaluation set every byte is needed twice: for its samples and for its digest. A
:class:`Stream` fetches a file in blocks, some ahead of the reader, so that neither a disk nor a
web server is asked twice for any of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..durable import storage_errors
from ..pools import tar
from ..pools.ranges import Ranges, changed, is_remote, open_ranges

BLOCK = 4 << 20
AHEAD = 4
"""Blocks of a remote file on their way while one is used."""
_ZEROS = bytes(1 << 16)
MAX_KEPT = 256 << 20
"""Bytes behind the front that stay at hand for a sample that is not released yet."""


class Stream(tar.Window):
    """A window on a tar that moves forward only, block by block, and hashes what it passes."""

    def __init__(self, file: Ranges, pool: ThreadPoolExecutor) -> None:
        self._file, self._threads = file, pool
        self.total = file.size
        self._sha256 = hashlib.sha256()
        self._zeros = 0
        self._ahead: deque[Future[bytes]] = deque()
        self._asked = self._front = self._start = 0
        self._blocks: deque[bytes] = deque()
        self._depth = AHEAD if is_remote(file.place) else 1

    def __call__(self, offset: int, size: int) -> bytes:
        """Return the bytes at [offset, offset + size); fewer where the file ends."""
        end = min(offset + size, self.total)
        while self._front < end:
            self._advance()
        if offset < self._start:
            return self._file.read(offset, max(end - offset, 0))
        parts: list[bytes] = []
        at = self._start
        for block in self._blocks:
            if at >= end:
                break
            if at + len(block) > offset:
                parts.append(block[max(offset - at, 0) : end - at])
            at += len(block)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, offset: int) -> None:
        """Let go of what lies before ``offset``."""
        while len(self._blocks) > 1 and self._start + len(self._blocks[0]) <= offset:
            self._start += len(self._blocks.popleft())

    def digest(self) -> str:
        """Read what is left and return the SHA-256 of the file without the zeros at its end.

        A tar may have any number of them: a release adds some, and it is the same set still.
        Raises DataError when the file changed meanwhile.
        """
        while self._front < self.total:
            self._advance()
            self.release(self._front)
        if self._file.is_changed():
            raise changed(self._file.place)
        return self._sha256.hexdigest()

    def _hash(self, block: bytes) -> None:
        """Hash a block; zeros wait until something follows them."""
        content = block.rstrip(b"\0")
        if content:
            while self._zeros:
                step = min(self._zeros, len(_ZEROS))
                self._sha256.update(_ZEROS[:step])
                self._zeros -= step
            self._sha256.update(content)
        self._zeros += len(block) - len(content)

    def close(self) -> None:
        """Give up what is on its way."""
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _advance(self) -> None:
        while len(self._ahead) <= self._depth and self._asked < self.total:
            size = min(BLOCK, self.total - self._asked)
            self._ahead.append(self._threads.submit(self._file.read, self._asked, size))
            self._asked += size
        block = self._ahead.popleft().result()
        self._hash(block)
        self._blocks.append(block)
        self._front += len(block)
        while self._front - self._start > MAX_KEPT and len(self._blocks) > 1:
            self._start += len(self._blocks.popleft())


@contextlib.contextmanager
def streamed(place: str) -> Iterator[Stream]:
    """Open a file to be read once; see :class:`Stream`."""
    file = open_ranges(place)
    pool = ThreadPoolExecutor(AHEAD, "fetch")
    stream = Stream(file, pool)
    try:
        yield stream
    finally:
        stream.close()
        pool.shutdown(wait=True, cancel_futures=True)
        file.close()


def sha256_of(place: str) -> str:
    """Return the SHA-256 of a file without the zeros at its end, reading it once."""
    with streamed(place) as stream:
        return stream.digest()


@contextlib.contextmanager
def local_copy(place: str) -> Iterator[tuple[Path, str]]:
    """Yield a path to read a file at, and its SHA-256.

    A parquet file is read from its end, so a remote one is fetched whole first, into a temporary
    file that goes again. Raises DataError when a local one changes while it is read: the digest
    would be that of other bytes.
    """
    if not is_remote(place):
        file = open_ranges(place)
        try:
            yield Path(place), sha256_of(place)
            if file.is_changed():
                raise changed(place)
        finally:
            file.close()
        return
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        with storage_errors(copy.name), streamed(place) as stream:
            for offset in range(0, stream.total, BLOCK):
                copy.write(stream(offset, BLOCK))
                stream.release(offset + BLOCK)
            copy.flush()
            sha256 = stream.digest()
        yield Path(copy.name), sha256
