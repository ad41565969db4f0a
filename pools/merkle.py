"""The hash tree of BitTorrent v2 (BEP 52): SHA-256 over blocks of 16 KiB.

Leaves beyond the end of a file are 32 zero bytes. The root of a file does not depend on the
piece length, nor on the torrent: the same shard has the same root in every version.

A few hashes of the tree prove that some blocks belong to a root: those beside the ways that lead
from the blocks up to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

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


def blocks_in(size: int) -> int:
    """Return of how many blocks a file of ``size`` bytes consists."""
    return -(-size // BLOCK)


def beside(first: int, end: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield level and number of each hash that proves the blocks ``first`` to ``end``.

    ``count`` is the number of blocks of the file. Level 0 has the leaves; a hash of which nothing
    lies in the file is not needed. The order is that in which ``root_of_blocks`` takes them.
    """
    level, width = 0, width_of(count)
    while width > 1:
        if first % 2:
            yield level, first - 1
        if end % 2 and end < count:
            yield level, end
        first, end, count = first // 2, (end + 1) // 2, (count + 1) // 2
        level, width = level + 1, width // 2


def root_of_blocks(leaves: list[bytes], first: int, count: int, proof: list[bytes]) -> bytes | None:
    """Return the root to which leaves from number ``first`` on lead; None for no proof at all.

    ``count`` is the number of blocks of the file, ``proof`` has the hashes that ``beside`` names.
    """
    end = first + len(leaves)
    if not leaves or end > count or len(proof) != sum(1 for _ in beside(first, end, count)):
        return None
    sha256, filler, given = hashlib.sha256, ZERO, iter(proof)
    hashes, width = list(leaves), width_of(count)
    while width > 1:
        if first % 2:
            hashes.insert(0, next(given))
        if end % 2:
            hashes.append(next(given) if end < count else filler)
        filler = sha256(filler + filler).digest()
        hashes = [sha256(hashes[at] + hashes[at + 1]).digest() for at in range(0, len(hashes), 2)]
        first, end, count, width = first // 2, (end + 1) // 2, (count + 1) // 2, width // 2
    return hashes[0]
