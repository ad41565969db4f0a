"""HAMTs: folders too large for one block, spread over a tree by the hash of each name.

Each byte of the 64-bit murmur3 of a name picks one of 256 places, level by level, until the
name has a place of its own.

https://specs.ipfs.tech/unixfs (HAMTDirectory); Austin Appleby, MurmurHash3_x64_128, 2011
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...errors import DataError
from . import dagpb
from .dagpb import FANOUT, Link

DEPTH = 8
"""Bytes of the hash. Two names that share all of them cannot stand in one folder."""

_MASK = (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def name_hash(name: bytes) -> bytes:
    """Return the first half of MurmurHash3_x64_128 (seed 0), most significant byte first."""
    h1 = h2 = 0
    whole = len(name) & ~15
    for start in range(0, whole, 16):
        h1 ^= _mix(int.from_bytes(name[start : start + 8], "little"), _C1, 31, _C2)
        h1 = (_rotate(h1, 27) + h2) * 5 + 0x52DCE729 & _MASK
        h2 ^= _mix(int.from_bytes(name[start + 8 : start + 16], "little"), _C2, 33, _C1)
        h2 = (_rotate(h2, 31) + h1) * 5 + 0x38495AB5 & _MASK
    tail = name[whole:]
    h2 ^= _mix(int.from_bytes(tail[8:], "little"), _C2, 33, _C1)
    h1 ^= _mix(int.from_bytes(tail[:8], "little"), _C1, 31, _C2)
    h1 ^= len(name)
    h2 ^= len(name)
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    return (_finish(h1) + _finish(h2) & _MASK).to_bytes(8, "big")


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK


def _mix(block: int, first: int, bits: int, second: int) -> int:
    return _rotate(block * first & _MASK, bits) * second & _MASK


def _finish(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _MASK
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def build(links: Iterable[Link], store: Callable[[bytes, int], Link]) -> Link:
    """Write the shards of a folder of ``links``, those below first; return the link to its root.

    ``store(block, tsize_below)`` keeps a block and returns a link to it without a name. Raises
    DataError where two names have the same hash.
    """
    return _shard([(name_hash(link.name), link) for link in links], 0, store)


def _shard(
    items: list[tuple[bytes, Link]], depth: int, store: Callable[[bytes, int], Link]
) -> Link:
    if depth == DEPTH:
        raise DataError(
            f"{items[0][1].name!r} and {items[1][1].name!r} have the same hash and cannot stand in "
            "one sharded folder; rename one of them"
        )
    places: dict[int, list[tuple[bytes, Link]]] = {}
    for item in items:
        places.setdefault(item[0][depth], []).append(item)
    children = []
    bits = 0
    for place in sorted(places):
        bits |= 1 << place
        inside = places[place]
        prefix = b"%02X" % place
        if len(inside) == 1:
            link = inside[0][1]
            children.append(Link(link.cid, prefix + link.name, link.tsize))
        else:
            below = _shard(inside, depth + 1, store)
            children.append(Link(below.cid, prefix, below.tsize))
    message = dagpb.hamt_message(bits.to_bytes(FANOUT // 8, "big"))
    block = dagpb.encode(children, message)
    return store(block, sum(child.tsize for child in children))
