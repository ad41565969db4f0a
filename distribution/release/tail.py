"""The pieces of a v1 torrent that span several files.

Files that do not end where a piece ends share pieces with their neighbours. They follow all
others in the torrent, so these pieces are computed from them alone, read one after another.
"""

from __future__ import annotations

import hashlib


class TailPieces:
    """SHA-1 of the pieces of bytes that come in order, in blocks of any size."""

    def __init__(self, piece_length: int) -> None:
        self._length = self._room = piece_length
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._pieces = bytearray()

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: self._room]
            self._sha1.update(part)
            self._room -= len(part)
            view = view[len(part) :]
            if not self._room:
                self._close()

    def finish(self) -> bytes:
        """Return the hashes, 20 bytes a piece; no bytes may follow."""
        if self._room < self._length:
            self._close()
        return bytes(self._pieces)

    def _close(self) -> None:
        self._pieces += self._sha1.digest()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._room = self._length
