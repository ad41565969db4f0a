"""Files as UnixFS trees: cut into equal chunks, tied together in layers (balanced layout).

Only the digests of the leaves are kept, 32 bytes a chunk: from them and the file's size
everything else, inner blocks included, is computed again when it is needed.

https://specs.ipfs.tech/unixfs
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import DataError
from ..stretch import Kept, Spill
from . import cid as cids
from . import dagpb
from .profiles import DEFAULT_PROFILE, PROFILES, Profile, get_profile

__all__ = ["DEFAULT_PROFILE", "PROFILES", "FileHasher", "FileTree", "Node", "Profile", "Span",
           "node_of_leaves"]  # fmt: skip

DIGEST = 32


@dataclass(frozen=True, slots=True)
class Node:
    """A file or folder: CID, bytes of its files, bytes of all its blocks, digests of its leaves.

    ``leaves`` holds the SHA-256 of each leaf block in order, 32 bytes each; none for a folder.
    """

    cid: str
    size: int
    tsize: int
    leaves: Kept = b""


class Span(NamedTuple):
    """A part of a file, in bytes."""

    offset: int
    length: int


class FileHasher:
    """Names a file as its bytes come by: each byte is hashed once, memory is 32 bytes a chunk."""

    def __init__(self, profile: str | Profile = DEFAULT_PROFILE) -> None:
        self.profile = get_profile(profile)
        self._leaves = bytearray()
        self._size = 0
        self._room = self.profile.chunk
        self._hash = hashlib.sha256()
        self._held = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the file, however many."""
        view = memoryview(data).cast("B")
        self._size += len(view)
        offset = 0
        while offset < len(view):
            # A full chunk is closed only when a byte follows it: the last one stays open.
            if self._room == 0:
                self._close_chunk()
            part = view[offset : offset + self._room]
            if self.profile.raw_leaves:
                self._hash.update(part)
            else:
                self._held += part  # its length is hashed before it
            self._room -= len(part)
            offset += len(part)

    def _close_chunk(self) -> None:
        if not self.profile.raw_leaves:
            before, after = dagpb.leaf_frame(len(self._held))
            for part in (before, self._held, after):
                self._hash.update(part)
            self._held = bytearray()
        self._leaves += self._hash.digest()
        self._hash = hashlib.sha256()
        self._room = self.profile.chunk

    def finish(self) -> Node:
        """Return the file's name and leaves; no bytes may follow."""
        self._close_chunk()
        return node_of_leaves(self._size, bytes(self._leaves), self.profile)


@dataclass(frozen=True, slots=True)
class _Branch:
    """The root of a subtree: binary CID, bytes of file, bytes of blocks."""

    cid: bytes
    size: int
    tsize: int


class FileTree:
    """The tree of one file, from its size and the digests of its leaves.

    Level 0 are the leaves, the root is alone on the highest level. Raises DataError where the
    number of digests does not fit the size.
    """

    def __init__(self, size: int, leaves: bytes, profile: str | Profile = DEFAULT_PROFILE) -> None:
        self.profile = get_profile(profile)
        self.size = size
        self.leaves: Kept = leaves
        self.count = max(-(-size // self.profile.chunk), 1)
        if size < 0 or len(leaves) != DIGEST * self.count:
            raise DataError(
                f"{len(leaves):,} bytes of digests for {size:,} bytes of file in chunks of "
                f"{self.profile.chunk:,}; expected {DIGEST * self.count:,}"
            )
        self._inner: list[list[_Branch]] = []
        below = self.count
        while below > 1:
            level = len(self._inner) + 1
            below = -(-below // self.profile.width)
            self._inner.append([self._tie(level, index) for index in range(below)])

    def set_aside(self, spill: Spill) -> None:
        """Put the digests of the leaves into a file until they are needed."""
        self.leaves = spill.put(bytes(self.leaves))

    @property
    def height(self) -> int:
        """The level of the root: 0 for a file of one chunk."""
        return len(self._inner)

    @property
    def node(self) -> Node:
        """The file's name."""
        root = self._branch(self.height, 0)
        return Node(cids.to_text(root.cid), root.size, root.tsize, self.leaves)

    def inner(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield binary CID, level and index of every inner block."""
        for level, branches in enumerate(self._inner, 1):
            for index, branch in enumerate(branches):
                yield branch.cid, level, index

    def span(self, index: int) -> Span:
        """Return where the bytes of a leaf stand in the file."""
        offset = index * self.profile.chunk
        return Span(offset, min(self.profile.chunk, self.size - offset))

    def leaf(self, content: bytes) -> bytes:
        """Return the leaf block that holds ``content``."""
        if self.profile.raw_leaves:
            return content
        before, after = dagpb.leaf_frame(len(content))
        return before + content + after

    def leaf_length(self, index: int) -> int:
        """Return the bytes of a leaf block."""
        return self._branch(0, index).tsize

    def block(self, level: int, index: int) -> bytes:
        """Return an inner block."""
        return _inner_block(self._children(level, index))

    def _tie(self, level: int, index: int) -> _Branch:
        children = self._children(level, index)
        block = _inner_block(children)
        name = cids.to_bytes(self.profile.version, cids.DAG_PB, hashlib.sha256(block).digest())
        size = sum(child.size for child in children)
        return _Branch(name, size, len(block) + sum(child.tsize for child in children))

    def _children(self, level: int, index: int) -> list[_Branch]:
        first, last = self._range(level, index)
        if level > 1:
            return self._inner[level - 2][first:last]
        digests = bytes(self.leaves[first * DIGEST : last * DIGEST])
        return [
            self._leaf(child, digests[at : at + DIGEST])
            for child, at in zip(range(first, last), itertools.count(0, DIGEST), strict=False)
        ]

    def _range(self, level: int, index: int) -> tuple[int, int]:
        below = self.count if level == 1 else len(self._inner[level - 2])
        first = index * self.profile.width
        return first, min(first + self.profile.width, below)

    def _branch(self, level: int, index: int) -> _Branch:
        if level:
            return self._inner[level - 1][index]
        return self._leaf(index, bytes(self.leaves[index * DIGEST : (index + 1) * DIGEST]))

    def _leaf(self, index: int, digest: bytes) -> _Branch:
        length = self.span(index).length
        if self.profile.raw_leaves:
            return _Branch(cids.to_bytes(1, cids.RAW, digest), length, length)
        frame = sum(map(len, dagpb.leaf_frame(length)))
        name = cids.to_bytes(self.profile.version, cids.DAG_PB, digest)
        return _Branch(name, length, length + frame)


def _inner_block(children: list[_Branch]) -> bytes:
    links = (dagpb.Link(child.cid, b"", child.tsize) for child in children)
    return dagpb.encode(links, dagpb.file_message(child.size for child in children))


def node_of_leaves(size: int, leaves: bytes, profile: str | Profile = DEFAULT_PROFILE) -> Node:
    """Return the name of a file of which only the size and the leaves' digests are at hand."""
    return FileTree(size, leaves, profile).node
