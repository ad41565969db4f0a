"""Blocks of a file, each with a digest of its own: the piece layers of BitTorrent v2 (BEP 52).

A layer is the row of a file's hash tree in which one digest covers one piece. It may come from
anyone: it is right if it leads to the root that stands in the signed manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...pools.merkle import BLOCK, fold, leaves_of, root_of_layer, width_of
from ..bencode import decode
from ..release.torrents import MAX_TORRENT_BYTES

MAX_WHOLE = 1 << 20
"""Of a file that is read at once."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The piece layers of a torrent, by the root of their file."""

    piece_length: int
    by_root: dict[bytes, bytes]

    @classmethod
    def of_torrent(cls, data: bytes, where: str) -> Layers:
        """Take the layers out of a v2 or hybrid torrent; there are none in a v1 torrent.

        Raises DataError and UnsafeInputError for what is no torrent.
        """
        return cls.of_value(decode(data, MAX_TORRENT_BYTES, where))

    @classmethod
    def of_value(cls, value: Any) -> Layers:
        """Take them out of what a torrent file encodes."""
        info = value.get(b"info") if isinstance(value, dict) else None
        length = info.get(b"piece length") if isinstance(info, dict) else None
        layers = value.get(b"piece layers") if isinstance(value, dict) else None
        if not isinstance(layers, dict) or not isinstance(length, int):
            return cls(BLOCK, {})
        if length < BLOCK or length & (length - 1):
            return cls(BLOCK, {})
        good = {root: layer for root, layer in layers.items() if isinstance(layer, bytes)}
        return cls(length, good)

    def bad_blocks(self, descriptor: int, size: int, root: str) -> list[tuple[int, int]] | None:
        """Return the (start, end) of every block of a file that is wrong; None if nobody can tell.

        ``root`` is the file's root in hex, from the signed manifest.
        """
        if not self.prove(size, root):
            return None
        expected = bytes.fromhex(root)
        if size <= self.piece_length or not self.by_root:
            # One block, or none known: the root itself is the digest.
            return _whole(descriptor, size, expected)
        return list(self._compare(descriptor, size, self.by_root[expected]))

    def prove(self, size: int, root: str) -> bool:
        """Tell whether what is known leads to the root of a file, so that its bytes can be told."""
        if size <= self.piece_length or not self.by_root:
            return size <= MAX_WHOLE
        expected = bytes.fromhex(root)
        layer = self.by_root.get(expected, b"")
        pieces = -(-size // self.piece_length)
        return len(layer) == 32 * pieces and root_of_layer(layer, self.piece_length) == expected

    def _compare(self, descriptor: int, size: int, layer: bytes) -> Iterator[tuple[int, int]]:
        width = self.piece_length // BLOCK
        for number, start in enumerate(range(0, size, self.piece_length)):
            end = min(start + self.piece_length, size)
            data = memoryview(os.pread(descriptor, end - start, start))
            if fold(leaves_of(data), width) != layer[32 * number : 32 * number + 32]:
                yield start, end


def _whole(descriptor: int, size: int, root: bytes) -> list[tuple[int, int]]:
    leaves = leaves_of(memoryview(os.pread(descriptor, size, 0)))
    return [] if fold(leaves, width_of(len(leaves))) == root else [(0, size)]
