"""Walking UnixFS trees block by block: for the gateway that sends them, for the client that reads.

Blocks come from a function, CID to bytes, that has verified them. Trees are a stranger's all the
same: their depth is bounded, sizes must add up, and nothing is kept but the path to the block
at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ...errors import DataError, MissingError, UnsafeInputError
from . import dagpb, hamt
from .cid import CID, DAG_PB, RAW

Blocks = Callable[[CID], bytes]
"""Returns the verified block of a CID; raises MissingError where it is not at hand."""

Scope = Literal["block", "entity", "all"]

MAX_FILE_DEPTH = 32
"""Inner levels of a file. Five levels of 174 links and 256 KiB already hold 40 PB."""

MAX_DEPTH = 1024
"""Links from a root to any block below, for whole trees."""


class Leaf(NamedTuple):
    """A part of a file: the block that holds it, and where its bytes stand in file and block."""

    cid: CID
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Item:
    """A name in a folder: what it links to and the bytes of all blocks below (as claimed)."""

    name: str
    cid: CID
    tsize: int


def read_entry(cid: CID, block: bytes) -> dagpb.Entry:
    """Return what a block is: of raw bytes, a file; raises DataError for other codecs."""
    if cid.codec == RAW:
        return dagpb.Entry(dagpb.RAW, (), block, len(block))
    if cid.codec != DAG_PB:
        raise DataError(f"{cid}: codec 0x{cid.codec:x}, which is neither a file nor a folder")
    return dagpb.decode(block, str(cid))


# -- folders ---------------------------------------------------------------------------------


def resolve(blocks: Blocks, root: CID, segments: list[str]) -> tuple[CID, list[CID]]:
    """Follow names down from a root: the CID found, and those of the blocks read on the way.

    Raises MissingError where a name is not there, DataError where it would lead into a file.
    """
    read: list[CID] = []
    for segment in segments:
        wanted = segment.encode("utf-8", "surrogateescape")
        entry = read_entry(root, blocks(root))
        read.append(root)
        if entry.kind == dagpb.DIRECTORY:
            found = [link for link in entry.links if link.name == wanted]
        elif entry.kind == dagpb.HAMT:
            found = _find_in_hamt(blocks, entry, wanted, read)
        else:
            raise DataError(f"{root}: not a folder, so there is no {segment[:80]!r} in it")
        if not found:
            raise MissingError(f"{root}: there is no {segment[:80]!r} in this folder")
        root = CID.from_bytes(found[0].cid)
    return root, read


def _find_in_hamt(
    blocks: Blocks, entry: dagpb.Entry, name: bytes, read: list[CID]
) -> list[dagpb.Link]:
    for place in hamt.name_hash(name):
        prefix = b"%02X" % place
        found = [link for link in entry.links if link.name[:2] == prefix]
        if not found or found[0].name != prefix:
            return [link for link in found if link.name[2:] == name]
        cid = CID.from_bytes(found[0].cid)
        entry = read_entry(cid, blocks(cid))
        read.append(cid)
        if entry.kind != dagpb.HAMT:
            raise DataError(f"{cid}: not a shard of a folder")
    return []


def list_folder(blocks: Blocks, root: CID) -> Iterator[Item]:
    """Yield what a folder links to, in the order of its blocks; raises DataError for a file.

    Names are as they stand there: check them before they become files. In a sharded folder each
    must stand where its hash belongs.
    """
    stack = [(root, b"")]
    while stack:
        cid, places = stack.pop()
        entry = read_entry(cid, blocks(cid))
        if entry.kind == dagpb.DIRECTORY and not places:
            for link in entry.links:
                yield _item(cid, link, link.name)
            continue
        if entry.kind != dagpb.HAMT or (places and not entry.links):
            raise DataError(f"{cid}: not a folder")
        below = []
        for link in entry.links:
            where = places + _place(cid, link)
            if len(link.name) == 2:
                if len(where) == hamt.DEPTH:
                    raise UnsafeInputError(f"{root}: a folder sharded too deeply; refused")
                below.append((CID.from_bytes(link.cid), where))
            # A shard linked from many places would list its names many times over.
            elif not hamt.name_hash(link.name[2:]).startswith(where):
                raise DataError(f"{cid}: {link.name[2:82]!r} stands where its hash does not belong")
            else:
                yield _item(cid, link, link.name[2:])
        stack += reversed(below)


def _place(cid: CID, link: dagpb.Link) -> bytes:
    try:
        return bytes.fromhex(link.name[:2].decode("ascii"))
    except ValueError:
        raise DataError(f"{cid}: {link.name[:80]!r} is no name in a sharded folder") from None


def _item(cid: CID, link: dagpb.Link, name: bytes) -> Item:
    try:
        return Item(name.decode(), CID.from_bytes(link.cid), link.tsize)
    except UnicodeDecodeError:
        raise DataError(f"{cid}: a name that is not UTF-8: {name[:80]!r}") from None


# -- files -----------------------------------------------------------------------------------


def leaves(blocks: Blocks, root: CID, size: int | None = None) -> Iterator[Leaf]:
    """Yield the leaves of a file in order; raw ones without asking for their blocks.

    ``size`` is what the file must have, where that is known. Raises DataError for a folder, or
    where sizes do not add up, UnsafeInputError for a tree deeper than MAX_FILE_DEPTH.
    """
    # (block, bytes it must hold or None for the root, where they begin, depth)
    stack: list[tuple[CID, int | None, int, int]] = [(root, size, 0, 0)]
    while stack:
        cid, expected, offset, depth = stack.pop()
        if cid.codec == RAW and expected is not None:
            yield Leaf(cid, offset, expected)
            continue
        entry = read_entry(cid, blocks(cid))
        if entry.kind not in (dagpb.RAW, dagpb.FILE):
            raise DataError(f"{cid}: not a file")
        if expected is not None and entry.size != expected:
            raise DataError(f"{cid}: a block says {entry.size:,} bytes where {expected:,} belong")
        if not entry.links:
            yield Leaf(cid, offset, entry.size)
            continue
        if entry.content:
            raise DataError(f"{cid}: a block with both bytes and links")
        if depth == MAX_FILE_DEPTH:
            raise UnsafeInputError(f"{root}: a file of more than {MAX_FILE_DEPTH} levels; refused")
        ends = []
        for length in entry.block_sizes:
            # Blocks of no bytes could be tied into a tree without end that is read in no time.
            if length == 0:
                raise DataError(f"{cid}: a block of a file with nothing below one of its links")
            ends.append((offset, length))
            offset += length
        below = zip(entry.links, ends, strict=True)
        stack += reversed(
            [(CID.from_bytes(link.cid), length, start, depth + 1)
             for link, (start, length) in below]
        )  # fmt: skip


def content(cid: CID, block: bytes, length: int) -> bytes:
    """Return the bytes of the file that a leaf block holds; raises DataError unless ``length``."""
    entry = read_entry(cid, block)
    if entry.links or entry.kind not in (dagpb.RAW, dagpb.FILE) or len(entry.content) != length:
        raise DataError(f"{cid}: not a leaf of {length:,} bytes")
    return entry.content


def read_file(blocks: Blocks, root: CID, limit: int) -> bytes:
    """Return a file of at most ``limit`` bytes; raises UnsafeInputError for a larger one."""
    parts = []
    for leaf in leaves(blocks, root):
        if leaf.offset + leaf.length > limit:
            raise UnsafeInputError(f"{root}: a file of more than {limit:,} bytes; refused")
        parts.append(content(leaf.cid, blocks(leaf.cid), leaf.length))
    return b"".join(parts)


# -- whole trees -----------------------------------------------------------------------------


def walk(
    blocks: Blocks,
    root: CID,
    scope: Scope = "all",
    first: int = 0,
    last: int | None = None,
    seen: set[bytes] | None = None,
) -> Iterator[tuple[CID, bytes]]:
    """Yield the blocks below ``root``, depth first, each time they are met.

    With ``seen``, digests of blocks that came before, each comes once, and is added to it.

    ``block`` is the root alone, ``entity`` a whole file or what it takes to list a folder,
    ``all`` everything. Of a file, only blocks that hold bytes from ``first`` to ``last``
    (inclusive) are visited, besides the root.
    """
    # Each has: block, where its bytes begin in the file (None in a folder), depth.
    stack: list[tuple[CID, int | None, int]] = [(root, None, 0)]
    while stack:
        cid, start, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise UnsafeInputError(f"{root}: a tree deeper than {MAX_DEPTH:,}; refused")
        known = seen is not None and cid.digest in seen
        if known and cid.codec != DAG_PB:
            continue
        block = blocks(cid)
        if not known:
            yield cid, block
        if seen is not None:
            seen.add(cid.digest)
        if scope == "block" or cid.codec != DAG_PB:
            continue
        entry = read_entry(cid, block)
        stack += reversed(list(_below(entry, scope, start or 0, first, last, depth + 1)))


def _below(
    entry: dagpb.Entry, scope: Scope, start: int, first: int, last: int | None, depth: int
) -> Iterator[tuple[CID, int | None, int]]:
    if entry.kind == dagpb.FILE:
        for link, length in zip(entry.links, entry.block_sizes, strict=True):
            if start + length > first and (last is None or start <= last):
                yield CID.from_bytes(link.cid), start, depth
            start += length
        return
    for link in entry.links:
        if scope == "all" or (entry.kind == dagpb.HAMT and len(link.name) == 2):
            yield CID.from_bytes(link.cid), None, depth
