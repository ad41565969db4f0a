"""The hash tree of BitTorrent v2 (BEP 52): SHA-256 over blocks of 16 KiB.

Leaves beyond the end of a file are 32 zero bytes. The root of a file does not depend on the
piece length, nor on the torrent: the same shard has the same root in every version.
"""

from __future__ import annotations

import hashlib

BLOCK = 16 << 10
ZERO = bytes(32)


def leaves_of(data: memoryview) -> list[bytes]:
    """Return the SHA-256 of each block of ``data``."""
    sha256 = hashlib.sha256
    return [sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]


def fold(hashes: list[bytes], width: int, filler: bytes = ZERO) -> bytes:
    """Return the root over ``width`` (a power of two) hashes; those not given are ``filler``."""
    sha256 = hashlib.sha256
    while width > 1:
        if len(hashes) % 2:
            hashes = [*hashes, filler]
        filler = sha256(filler + filler).digest()
        hashes = [sha256(hashes[at] + hashes[at + 1]).digest() for at in range(0, len(hashes), 2)]
        width //= 2
    return hashes[0] if hashes else filler


def width_of(count: int) -> int:
    """Return the smallest power of two that is no less than ``count``."""
    return 1 << max(count - 1, 0).bit_length()


def root_of_layer(layer: bytes, piece_length: int) -> bytes:
    """Return the root of a file from the hashes of its pieces, of which there are several."""
    pieces = [layer[at : at + 32] for at in range(0, len(layer), 32)]
    empty = fold([], piece_length // BLOCK)
    return fold(pieces, width_of(len(pieces)), empty)
