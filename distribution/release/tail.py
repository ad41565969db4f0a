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
from ..stretch import Bytes, Joined, Spill, chunks_of
from .folder import Release
from .torrents import MAX_TORRENT_BYTES, info_hashes

AT_ONCE = 1 << 16
"""Bytes of hashes that are put into a file together."""


class TailPieces:
    """SHA-1 of the pieces of bytes that come in order, in blocks of any size.

    ``known`` are those of pieces that went before. The hashes wait in a ``spill``.
    """

    def __init__(self, piece_length: int, spill: Spill, known: Bytes = b"") -> None:
        self._length = self._room = piece_length
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._spill, self._parts = spill, [known]
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

    def finish(self) -> Joined:
        """Return the hashes, 20 bytes a piece; no bytes may follow."""
        if self._room < self._length:
            self._close()
        return Joined([*self._parts, bytes(self._pieces)])

    def _close(self) -> None:
        self._pieces += self._sha1.digest()
        if len(self._pieces) >= AT_ONCE:
            self._parts.append(self._spill.put(bytes(self._pieces)))
            self._pieces.clear()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._room = self._length


def known_pieces(
    release: Release, row: Sequence[tuple[str, str | None]], piece_length: int, spill: Spill
) -> tuple[Bytes, int]:
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
    first = sum(file.size for file in manifest.files if not file.size % piece_length)
    start = 20 * (first // piece_length)
    pieces = _pieces_of(release, slice(start, start + 20 * count), spill) if count else None
    return (b"", 0) if pieces is None else (pieces, min(size, count * piece_length))


def _pieces_of(release: Release, part: slice, spill: Spill) -> Bytes | None:
    """Return some SHA-1 of the pieces of a version's v1 torrent, None if it is not at hand."""
    said = release.manifest.torrents["v1"]
    try:
        with (release.folder / said["file"]).open("rb") as file:
            value, places = bencode.scan(file, MAX_TORRENT_BYTES, said["file"])
            if info_hashes(places[b"info"])[0] != said["infohash"]:
                return None
            pieces = value[b"info"][b"pieces"][part]
            return Joined([spill.put(chunk) for chunk in chunks_of(pieces)])
    except (OSError, DatacompError, KeyError, TypeError):
        return None
