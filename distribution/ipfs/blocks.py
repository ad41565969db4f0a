"""Which block lies where: CIDs to parts of files on disk, without a copy of any block.

Inner blocks are computed again from the digests of leaves. An index on disk finds the part of a
file that a leaf is; what is read there is verified before it is handed on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import IntegrityError, MissingError
from ..stretch import Spill
from . import cid as cids
from .cid import CID
from .directory import Directory
from .unixfs import DIGEST, FileTree

if TYPE_CHECKING:
    from .leaf_index import LeafIndex


class TakenBackError(MissingError):
    """A block of a file that its keeper took back."""


@dataclass
class StoredFile:
    """A file on disk and its tree; ``paths`` are all places where the same bytes lie."""

    tree: FileTree
    paths: list[Path] = field(default_factory=list)


class BlockMap:
    """Finds and reads the blocks of files and folders; safe to use from several threads.

    Files of the same bytes are one file at several places. ``withdrawn`` are the CIDs of files
    that were taken back.
    """

    def __init__(
        self,
        files: Iterable[tuple[Path, FileTree]] = (),
        directories: Iterable[Directory] = (),
        withdrawn: Iterable[str] = (),
    ) -> None:
        self._withdrawn = {CID.parse(text).digest for text in withdrawn}
        by_root: dict[str, StoredFile] = {}
        for path, tree in files:
            stored = by_root.setdefault(tree.node.cid, StoredFile(tree))
            stored.paths.append(path)
        self._files = list(by_root.values())
        # Blocks are found by digest: a CID of another version or codec names the same bytes.
        self._inner: dict[bytes, bytes | tuple[StoredFile, int, int]] = {}
        for stored in self._files:
            for name, level, index in stored.tree.inner():
                self._inner[name[-DIGEST:]] = (stored, level, index)
        for folder in directories:
            for text, block in folder.blocks.items():
                self._inner[CID.parse(text).digest] = block
        self._leaves = self._index()

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, cid: CID) -> bool:
        if cid.function == cids.IDENTITY or cid.digest in self._inner:
            return True
        return self._leaf(cid.digest) is not None

    def is_folder(self, cid: CID) -> bool:
        """Tell whether a block is one of a folder's."""
        return isinstance(self._inner.get(cid.digest), bytes)

    def require(self, cid: CID) -> None:
        """Raise MissingError, or TakenBackError, unless a block is here."""
        if cid not in self:
            raise self._missing(cid)

    def _missing(self, cid: CID) -> MissingError:
        if cid.digest in self._withdrawn:
            return TakenBackError(f"{cid}: was taken back by its keeper")
        return MissingError(f"{cid}: no such block here")

    def length(self, cid: CID) -> int:
        """Return the bytes of a block without reading it; raises MissingError."""
        if cid.function == cids.IDENTITY or cid.digest in self._inner:
            return len(self.get(cid))
        found = self._leaf(cid.digest)
        if found is None:
            raise self._missing(cid)
        stored, index = found
        return stored.tree.leaf_length(index)

    def get(self, cid: CID) -> bytes:
        """Return a block, verified.

        Raises MissingError where it is not here, IntegrityError where the file on disk has
        other bytes by now.
        """
        if cid.function == cids.IDENTITY:
            return cid.digest
        inner = self._inner.get(cid.digest)
        if isinstance(inner, bytes):
            return inner
        if inner is not None:
            stored, level, index = inner
            return stored.tree.block(level, index)
        found = self._leaf(cid.digest)
        if found is None:
            raise self._missing(cid)
        return _read(*found, cid)

    def _index(self) -> LeafIndex:
        from .leaf_index import LeafIndex

        return LeafIndex([stored.tree for stored in self._files], Spill())

    def _leaf(self, digest: bytes) -> tuple[StoredFile, int] | None:
        """Return the file and the number of the leaf with a digest."""
        for number, index in self._leaves.find(digest):
            stored = self._files[number]
            if bytes(stored.tree.leaves[index * DIGEST : (index + 1) * DIGEST]) == digest:
                return stored, index
        return None


def _read(stored: StoredFile, index: int, cid: CID) -> bytes:
    """Read a leaf from the first place where it still stands."""
    span = stored.tree.span(index)
    spoilt: Path | None = None
    for path in stored.paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            data = os.pread(descriptor, span.length, span.offset)
        except OSError:
            continue
        finally:
            os.close(descriptor)
        block = stored.tree.leaf(data)
        try:
            cid.check(block)
        except IntegrityError:
            spoilt = path
            continue
        return block
    if spoilt is not None:
        raise IntegrityError(
            f"{spoilt}: bytes {span.offset:,} to {span.offset + span.length:,} are not what was "
            "released"
        )
    raise MissingError(f"{cid}: the file that held this block is gone")
