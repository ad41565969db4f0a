"""Folders as UnixFS blocks: one block each, or a HAMT where the folder is large.

https://specs.ipfs.tech/unixfs
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...errors import DataError
from . import cid as cids
from . import dagpb, hamt
from .profiles import DEFAULT_PROFILE, SHARDING_BYTES, Profile, get_profile
from .unixfs import Node

MAX_DEPTH = 128
"""Folders inside folders."""


@dataclass(frozen=True)
class Directory:
    """A folder with all below it: CID, bytes of its files, bytes of all blocks.

    ``blocks`` has every block of this folder and of those inside it, by CID; those of files are
    not among them.
    """

    cid: str
    size: int
    tsize: int
    blocks: dict[str, bytes] = field(default_factory=dict, repr=False)


def directory(
    entries: Iterable[tuple[str, Node | Directory]], profile: str | Profile = DEFAULT_PROFILE
) -> Directory:
    """Return the folder of ``entries``, pairs of a path (with ``/``) and what stands there.

    Folders between come into being; an empty one is given as a Directory. The order does not
    matter. Raises DataError for a path that stands there twice, both as file and as folder, or
    is not plain.
    """
    profile = get_profile(profile)
    folders: dict[tuple[str, ...], dict[str, Node | Directory]] = {(): {}}
    for path, node in entries:
        *parents, name = parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise DataError(f"{path[:80]!r}: not a plain relative path")
        if len(parts) > MAX_DEPTH:
            raise DataError(f"{path[:80]!r}: more than {MAX_DEPTH} folders deep")
        for depth in range(1, len(parts)):
            folders.setdefault(tuple(parents[:depth]), {})
        inside = folders.setdefault(tuple(parents), {})
        if name in inside:
            raise DataError(f"{path[:80]!r}: stands there twice")
        inside[name] = node
    blocks: dict[str, bytes] = {}
    for where in sorted(folders, key=len, reverse=True):
        made = _folder(folders[where], profile)
        blocks |= made.blocks
        if not where:
            return Directory(made.cid, made.size, made.tsize, blocks)
        parent = folders[where[:-1]]
        if where[-1] in parent:
            raise DataError(f"{'/'.join(where)[:80]!r}: both a file and a folder")
        parent[where[-1]] = made
    raise AssertionError("the root is always among the folders")


def _folder(entries: dict[str, Node | Directory], profile: Profile) -> Directory:
    """Write one folder whose entries are finished."""
    blocks: dict[str, bytes] = {}

    def store(block: bytes, below: int) -> dagpb.Link:
        digest = hashlib.sha256(block).digest()
        name = cids.to_bytes(profile.version, cids.DAG_PB, digest)
        blocks[cids.to_text(name)] = block
        return dagpb.Link(name, b"", len(block) + below)

    links = [
        dagpb.Link(cids.CID.parse(node.cid).to_bytes(), name.encode(), node.tsize)
        for name, node in entries.items()
    ]
    links.sort(key=lambda link: link.name)
    block = dagpb.encode(links, dagpb.DIRECTORY_MESSAGE)
    counted = len(block) if profile.counts_block else _estimate(links)
    if counted > SHARDING_BYTES:
        root = hamt.build(links, store)
    else:
        root = store(block, sum(link.tsize for link in links))
    for node in entries.values():
        if isinstance(node, Directory):
            blocks |= node.blocks
    size = sum(node.size for node in entries.values())
    return Directory(cids.to_text(root.cid), size, root.tsize, blocks)


def _estimate(links: list[dagpb.Link]) -> int:
    """Return the size of a folder as Kubo estimated it before it counted blocks."""
    return sum(len(link.name) + len(link.cid) for link in links)
