"""DAG-PB blocks with UnixFS inside: how IPFS writes files, folders and links.

A block is a list of links and some data; the data is a UnixFS message that says what the block
is. There is exactly one encoding of each, with the links first.

https://ipld.io/specs/codecs/dag-pb/spec and https://specs.ipfs.tech/unixfs
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...errors import DataError
from . import protobuf, varint
from .cid import CID

RAW, DIRECTORY, FILE, METADATA, SYMLINK, HAMT = range(6)

FANOUT = 256
MURMUR3 = 0x22

MAX_LINKS = 1 << 17
"""More than fit a block of two MiB."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link: binary CID, name, and the size of all blocks below it (``Tsize``)."""

    cid: bytes
    name: bytes
    tsize: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A block, read: its links, and what its UnixFS message says."""

    kind: int
    links: tuple[Link, ...]
    content: bytes = b""
    size: int = 0
    block_sizes: tuple[int, ...] = field(default=())
    fanout: int = 0


def encode(links: Iterable[Link], message: bytes) -> bytes:
    """Return a block: the links as they are ordered, then the data."""
    parts = []
    for link in links:
        body = b"".join((
            b"\x0a", varint.encode(len(link.cid)), link.cid,
            b"\x12", varint.encode(len(link.name)), link.name,
            b"\x18", varint.encode(link.tsize),
        ))  # fmt: skip
        parts += (b"\x12", varint.encode(len(body)), body)
    return b"".join((*parts, b"\x0a", varint.encode(len(message)), message))


def file_message(block_sizes: Iterable[int]) -> bytes:
    """Return the UnixFS message of an inner block of a file."""
    sizes = list(block_sizes)
    parts = [b"\x08\x02", protobuf.number(3, sum(sizes))]
    return b"".join((*parts, *(protobuf.number(4, size) for size in sizes)))


def leaf_frame(length: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the ``length`` bytes of a leaf that is a dag-pb block."""
    after = protobuf.number(3, length)
    before = b"\x08\x02" + (b"\x12" + varint.encode(length) if length else b"")
    total = len(before) + length + len(after)
    return b"\x0a" + varint.encode(total) + before, after


DIRECTORY_MESSAGE = b"\x08\x01"


def symlink_message(target: bytes) -> bytes:
    """Return the UnixFS message of a symbolic link."""
    return b"\x08\x04" + protobuf.data(2, target)


def hamt_message(bitfield: bytes) -> bytes:
    """Return the UnixFS message of a shard of a large folder; ``bitfield`` is big-endian."""
    parts = (b"\x08\x05", protobuf.data(2, bitfield.lstrip(b"\0")),
             protobuf.number(5, MURMUR3), protobuf.number(6, FANOUT))  # fmt: skip
    return b"".join(parts)


def decode(block: bytes, where: str) -> Entry:
    """Read a dag-pb block with its UnixFS message; raises DataError."""
    try:
        links, message = _node(block)
        return _unixfs(links, message)
    except DataError as error:
        raise DataError(f"{where}: not a UnixFS block: {error}") from None


def _node(block: bytes) -> tuple[list[Link], bytes]:
    links: list[Link] = []
    message = None
    for number, value in protobuf.fields(block):
        if number == 2 and isinstance(value, bytes) and message is None:
            links.append(_link(value))
            if len(links) > MAX_LINKS:
                raise DataError(f"more than {MAX_LINKS:,} links")
        elif number == 1 and isinstance(value, bytes) and message is None:
            message = value
        else:
            raise DataError(f"field {number} where it does not belong")
    if message is None:
        raise DataError("it holds no data")
    return links, message


def _link(data: bytes) -> Link:
    cid: bytes | None = None
    name, tsize = b"", 0
    for number, value in protobuf.fields(data):
        if number == 1 and isinstance(value, bytes):
            CID.from_bytes(value)
            cid = value
        elif number == 2 and isinstance(value, bytes):
            name = value
        elif number == 3 and isinstance(value, int):
            tsize = value
        else:
            raise DataError(f"field {number} in a link")
    if cid is None:
        raise DataError("a link without a CID")
    return Link(cid, name, tsize)


def _unixfs(links: list[Link], message: bytes) -> Entry:
    kind: int | None = None
    content, size, fanout, function = b"", None, 0, 0
    block_sizes: list[int] = []
    for number, value in protobuf.fields(message):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, bytes):
            content = value
        elif number == 3 and isinstance(value, int):
            size = value
        elif number == 4:
            block_sizes += [value] if isinstance(value, int) else _packed(value)
        elif number == 5 and isinstance(value, int):
            function = value
        elif number == 6 and isinstance(value, int):
            fanout = value
    if kind not in (RAW, DIRECTORY, FILE, SYMLINK, HAMT):
        raise DataError(f"UnixFS type {kind}")
    if kind in (RAW, FILE):
        total = len(content) + sum(block_sizes)
        if len(block_sizes) != len(links) or (size is not None and size != total):
            raise DataError("its sizes do not fit its links")
        size = total
    if kind == HAMT and (function != MURMUR3 or fanout != FANOUT):
        raise DataError(f"a folder sharded {fanout} ways by hash 0x{function:x}; "
                        f"only {FANOUT} and murmur3 are known")  # fmt: skip
    return Entry(kind, tuple(links), content, size or 0, tuple(block_sizes), fanout)


def _packed(data: bytes) -> list[int]:
    numbers, offset = [], 0
    while offset < len(data):
        value, offset = varint.decode(data, offset)
        numbers.append(value)
    return numbers
