"""Every digest of a file from one pass over its bytes.

SHA-256 names the file, SHA-1 of each piece is for BitTorrent v1 (BEP 3), the hash tree for v2
(BEP 52), and the leaves of the UnixFS tree give the CID. A ``Record`` keeps all of it, so that
torrents, manifests, CARs and gateways need not read the file again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...durable import canonical_json
from ...errors import DataError, IntegrityError, MissingError, UsageError
from ...pools import merkle
from ..stretch import Kept, Spill

PIECE_LENGTH = 1 << 20
MIN_PIECE_LENGTH, MAX_PIECE_LENGTH = merkle.BLOCK, 16 << 20
BUFFER = 1 << 20


@dataclass(frozen=True)
class Record:
    """The digests of one file of ``size`` bytes.

    ``pieces`` holds 20 bytes a piece; ``padded_last`` is the SHA-1 of the last piece with zeros
    up to the piece length, as a hybrid torrent has it. ``layer`` holds 32 bytes a piece (empty
    for a file of one piece), ``leaves`` 32 bytes a leaf block of the UnixFS tree, ``tsize`` the
    bytes of all its blocks. ``content`` is the file itself where it is shorter than a block of
    the hash tree: a piece can then span small files without reading them again.

    Of many records, ``set_aside`` keeps in memory what does not grow with the files.
    """

    sha256: str
    size: int
    piece_length: int
    pieces: Kept
    padded_last: Kept
    layer: Kept
    pieces_root: str | None
    profile: str
    cid: str
    tsize: int
    leaves: Kept
    content: Kept = b""

    @property
    def aligned(self) -> bool:
        """Whether the file ends where a piece ends, so that a torrent needs no pad after it."""
        return self.size % self.piece_length == 0

    def set_aside(self, spill: Spill) -> Record:
        """Return the same record, whose hashes are in a file until they are needed."""
        put = {name: spill.put(bytes(getattr(self, name))) for name in _BYTES}
        return replace(self, **put)

    def encode(self) -> bytes:
        """Return the record as a line of JSON and the hashes after it."""
        said = {name: getattr(self, name) for name in _SAID}
        parts = [bytes(getattr(self, name)) for name in _BYTES]
        return canonical_json({**said, "lengths": list(map(len, parts))}) + b"\n" + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes, where: str) -> Record:
        """Read a record; raises DataError for anything else."""
        line, _, rest = data.partition(b"\n")
        try:
            said = json.loads(line)
            lengths = said.pop("lengths")
            ends = list(itertools.accumulate(lengths))
            parts = [rest[end - length : end] for length, end in zip(lengths, ends, strict=True)]
            record = cls(**said, **dict(zip(_BYTES, parts, strict=True)))
            if ends[-1] != len(rest) or len(record.pieces) != 20 * -(
                -record.size // record.piece_length
            ):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
            raise DataError(f"{where}: not a record of digests") from None
        return record


_SAID = ("sha256", "size", "piece_length", "pieces_root", "profile", "cid", "tsize")
_BYTES = ("pieces", "padded_last", "layer", "leaves", "content")


def check_piece_length(length: int) -> int:
    """Return a piece length both kinds of torrent can have; raises UsageError for another."""
    if length & (length - 1) or not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH:
        raise UsageError(
            f"piece length {length:,}: expected a power of two from {MIN_PIECE_LENGTH:,} to "
            f"{MAX_PIECE_LENGTH:,}"
        )
    return length


def read_digests(
    path: Path | str,
    piece_length: int = PIECE_LENGTH,
    profile: str | None = None,
    *,
    pad: bool = False,
    also: Callable[[memoryview], object] | None = None,
) -> Record:
    """Read a file once and return all its digests.

    With ``pad`` zeros up to a whole number of pieces count as part of it. What is hashed is
    handed to ``also`` too, if given. Raises MissingError, and IntegrityError
    for a file that changes meanwhile.
    """
    hashes = Digests(piece_length, profile)
    try:
        with Path(path).open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            for block in _blocks(file, hashes.buffer):
                hashes.update(block)
                if also is not None:
                    also(block)
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or (
        hashes.size != after.st_size
    ):
        raise IntegrityError(f"{path}: changed while it was read; try again when it is at rest")
    missing = -hashes.size % piece_length if pad else 0
    if missing:
        hashes.update(memoryview(bytes(missing)))
        if also is not None:
            also(memoryview(bytes(missing)))
    return hashes.finish()


def _blocks(file: Any, size: int) -> Iterator[memoryview]:
    """Yield blocks of exactly ``size`` bytes, the last one shorter; each is valid till the next."""
    buffer = memoryview(bytearray(size))
    while True:
        filled = 0
        while filled < size:
            count = file.readinto(buffer[filled:])
            if not count:
                break
            filled += count
        if filled:
            yield buffer[:filled]
        if filled < size:
            return


class Digests:
    """The digests of bytes that come in order, in blocks of any size."""

    def __init__(self, piece_length: int = PIECE_LENGTH, profile: str | None = None) -> None:
        from ..ipfs.unixfs import DEFAULT_PROFILE, FileHasher

        self.size = 0
        self.buffer = max(BUFFER, piece_length)
        self._length = piece_length
        self._profile = profile or DEFAULT_PROFILE
        self._sha256 = hashlib.sha256()
        self._cid = FileHasher(self._profile)
        self._pieces = bytearray()
        self._layer = bytearray()
        self._waiting = bytearray()
        """What came after the last whole piece."""

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        self.size += len(data)
        self._sha256.update(data)
        self._cid.update(data)
        if self._waiting:
            missing = self._length - len(self._waiting)
            self._waiting += data[:missing]
            data = data[missing:]
            if len(self._waiting) < self._length:
                return
            self._piece(memoryview(bytes(self._waiting)))
            self._waiting.clear()
        whole = len(data) - len(data) % self._length
        for at in range(0, whole, self._length):
            self._piece(data[at : at + self._length])
        self._waiting += data[whole:]

    def _piece(self, piece: memoryview) -> None:
        self._pieces += hashlib.sha1(piece, usedforsecurity=False).digest()
        self._layer += merkle.fold(merkle.leaves_of(piece), self._length // merkle.BLOCK)

    def finish(self) -> Record:
        """Return what came out; to be called once."""
        last = bytes(self._waiting)
        padded = bytes(self._pieces[-20:])
        root = None
        if last:
            sha1 = hashlib.sha1(last, usedforsecurity=False)
            self._pieces += sha1.digest()
            sha1.update(bytes(self._length - len(last)))
            padded = sha1.digest()
            leaves = merkle.leaves_of(memoryview(last))
            if self.size < self._length:
                root = merkle.fold(leaves, merkle.width_of(len(leaves)))
            self._layer += merkle.fold(leaves, self._length // merkle.BLOCK)
        layer = bytes(self._layer)
        if self.size == self._length:
            root = layer
        elif self.size > self._length:
            root = merkle.root_of_layer(layer, self._length)
        node = self._cid.finish()
        return Record(
            sha256=self._sha256.hexdigest(),
            size=self.size,
            piece_length=self._length,
            pieces=bytes(self._pieces),
            padded_last=padded,
            layer=layer if self.size > self._length else b"",
            pieces_root=None if root is None else root.hex(),
            profile=self._profile,
            cid=str(node.cid),
            tsize=node.tsize,
            leaves=node.leaves,
            content=last if self.size < merkle.BLOCK else b"",
        )
