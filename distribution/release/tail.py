"""The pieces of a v1 torrent that span several files.

Files that do not end where a piece ends share pieces with their neighbours. They follow all
others in the torrent, so these pieces are computed from them alone, read one after another. As far
as a row of files is that of an earlier version, its torrent has the pieces.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Sequence

from ...errors import DatacompError
from .. import bencode
from .folder import Release
from .torrents import MAX_TORRENT_BYTES


class TailPieces:
    """SHA-1 of the pieces of bytes that come in order, in blocks of any size.

    ``known`` are those of pieces that went before.
    """

    def __init__(self, piece_length: int, known: bytes = b"") -> None:
        self._length = self._room = piece_length
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._pieces = bytearray(known)

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


def known_pieces(
    release: Release, row: Sequence[tuple[str, str | None]], piece_length: int
) -> tuple[bytes, int]:
    """Return the pieces a version has of the beginning of a row, and how many bytes that is.

    ``row`` has path and SHA-256 of the files that are not aligned, in order. The torrent is
    believed if its info-hash is that of the manifest.
    """
    manifest = release.manifest
    if manifest.piece_length != piece_length:
        return b"", 0
    before = [file for file in manifest.files if file.size % piece_length]
    pairs = map(operator.eq, ((file.path, file.sha256) for file in before), row)
    same = sum(1 for _ in itertools.takewhile(bool, pairs))
    size = sum(file.size for file in before[:same])
    # The piece in which the row begins to differ is another one.
    whole = same == len(before) == len(row)
    count = -(-size // piece_length) if whole else size // piece_length
    pieces = _pieces_of(release) if count else None
    if pieces is None:
        return b"", 0
    first = sum(file.size for file in manifest.files if not file.size % piece_length)
    start = 20 * (first // piece_length)
    return pieces[start : start + 20 * count], min(size, count * piece_length)


def _pieces_of(release: Release) -> bytes | None:
    """Return the SHA-1 of all pieces of a version's v1 torrent, None if it is not at hand."""
    said = release.manifest.torrents["v1"]
    try:
        data = (release.folder / said["file"]).read_bytes()
        info = bencode.decode(data, MAX_TORRENT_BYTES, said["file"])[b"info"]
        found = hashlib.sha1(bencode.encode(info), usedforsecurity=False).hexdigest()
        return info[b"pieces"] if found == said["infohash"] else None
    except (OSError, DatacompError, KeyError, TypeError):
        return None
