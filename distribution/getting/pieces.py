"""The pieces of a v1 torrent (BEP 3): each has a SHA-1, and may run from one file into the next.

The piece at the edge of a file can be told right only with the bytes of its neighbours, which
are read from the source whose bytes are in question.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..bencode import decode
from ..release.torrents import MAX_TORRENT_BYTES
from .spans import Spans
from .torrent_file import v1_files

MAX_PIECE = 1 << 28
KEPT_BYTES = 64 << 20
"""Of pieces that small files share: each is fetched once for all of them."""
_DIGEST = 20

Read = Callable[[str, int, int, int], bytes]
"""Returns bytes of a file: its path, its size, start and end."""


class Pieces:
    """The digests of a torrent's pieces, and where in them each file lies."""

    def __init__(self, length: int, digests: bytes, files: list[tuple[str | None, int]]) -> None:
        self._length, self._digests = length, digests
        self._files: list[tuple[int, int, str | None]] = []
        at = 0
        for path, size in files:
            self._files.append((at, at + size, path))
            at += size
        self._total = at
        self._places = {path: (start, end) for start, end, path in self._files if path is not None}
        self._shared: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of_torrent(cls, data: bytes, where: str) -> Pieces | None:
        """Take the pieces out of a v1 or hybrid torrent; None where there are none of use.

        Raises DataError and UnsafeInputError for a torrent whose list of files is broken.
        """
        info = decode(data, MAX_TORRENT_BYTES, where)[b"info"]
        length, digests = info.get(b"piece length"), info.get(b"pieces")
        if not isinstance(length, int) or not isinstance(digests, bytes):
            return None
        files = v1_files(info, where)
        total = sum(size for _, size in files)
        if not 0 < length <= MAX_PIECE or len(digests) != _DIGEST * -(-total // length):
            return None
        return cls(length, digests, files)

    def bad_spans(
        self, descriptor: int, path: str, size: int, read: Read
    ) -> tuple[Spans | None, bool]:
        """Return the (start, end) of each wrong part of a file, None for one of another torrent.

        ``read`` gives bytes of this torrent's files, and may raise. The other value tells whether
        it gave a piece wrong: what is said of the file's part of that is no more than a suspicion.
        """
        first, last = self._places.get(path, (0, -1))
        if last - first != size:
            return None, False
        bad: Spans = []
        lied = False
        for number in range(first // self._length, -(-last // self._length) if size else 0):
            start, end = self._span(number)
            at, until = max(start, first), min(end, last)
            mine = os.pread(descriptor, until - at, at - first)
            if (at, until) == (start, end):
                right = self._is(number, mine)
            else:
                shared = self._whole(number, read, (at, until, mine))
                lied = lied or shared is None
                right = shared is not None and shared[at - start : until - start] == mine
            if not right:
                bad.append((at - first, until - first))
        return bad, lied

    def _span(self, number: int) -> tuple[int, int]:
        return number * self._length, min((number + 1) * self._length, self._total)

    def _is(self, number: int, data: bytes) -> bool:
        expected = self._digests[_DIGEST * number : _DIGEST * (number + 1)]
        return hashlib.sha1(data, usedforsecurity=False).digest() == expected

    def _whole(self, number: int, read: Read, known: tuple[int, int, bytes]) -> bytes | None:
        """Return a shared piece as it should be, None if the source does not give it so.

        What is ``known`` of it is read again if the whole does not fit: that tells whose fault
        it is.
        """
        with self._lock:
            data = self._shared.get(number)
        if data is not None:
            return data
        data = self._assemble(number, read, known)
        if not self._is(number, data):
            data = self._assemble(number, read, (0, 0, b""))
            if not self._is(number, data):
                return None
        with self._lock:
            self._shared[number] = data
            while len(self._shared) > max(KEPT_BYTES // self._length, 1):
                self._shared.popitem(last=False)
        return data

    def _assemble(self, number: int, read: Read, known: tuple[int, int, bytes]) -> bytes:
        start, end = self._span(number)
        parts = []
        for first, last, path in self._overlapping(start, end):
            at, until = max(start, first), min(end, last)
            if (at, until) == known[:2]:
                parts.append(known[2])
            elif path is None:
                parts.append(bytes(until - at))
            else:
                parts.append(read(path, last - first, at - first, until - first))
        return b"".join(parts)

    def _overlapping(self, start: int, end: int) -> Iterator[tuple[int, int, str | None]]:
        index = bisect_right(self._files, start, key=lambda file: file[1])
        for file in self._files[index:]:
            if file[0] >= end:
                return
            if file[0] < file[1]:
                yield file
