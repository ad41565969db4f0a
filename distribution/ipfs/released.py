"""What of a release can be handed out block by block: its files on disk, and its folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import IntegrityError, MissingError
from .directory import Directory, directory
from .profiles import get_profile
from .unixfs import DIGEST, FileTree, Node

if TYPE_CHECKING:
    from ..release import Release
    from ..stretch import Spill


@dataclass
class Released:
    """The files of a version that are at hand, by path, and its folder if that can be made.

    ``folder`` is None where the digests of some file are not known on this machine, so that the
    folder's CID cannot be made again.
    """

    files: dict[str, tuple[Path, FileTree]] = field(default_factory=dict)
    folder: Directory | None = None


def collect(release: Release, trees: dict[str, FileTree], spill: Spill) -> Released:
    """Return what is at hand of a version; what was taken back is not.

    ``trees`` has the trees that are known already, by CID, and gets those that are made; the
    digests of their leaves are put into ``spill``.
    """
    found = Released()
    profile = release.manifest.cid_profile
    entries: list[tuple[str, Node]] = []
    for file in release.manifest.files:
        if file.sha256 in release.withdrawn:
            # Its folder names it all the same, and how large it was; that needs no digests.
            entries.append((file.path, replace(_shape(file.size, profile), cid=file.cid)))
            continue
        tree = trees.get(file.cid)
        if tree is None:
            record = release.record(file.path)
            if record is None or record.cid != file.cid:
                continue
            tree = trees[file.cid] = FileTree(record.size, bytes(record.leaves), record.profile)
            tree.set_aside(spill)
        entries.append((file.path, tree.node))
        try:
            found.files[file.path] = (release.locate(file.path), tree)
        except (MissingError, IntegrityError):
            continue
    if len(entries) == len(release.manifest.files):
        folder = directory(entries, profile)
        found.folder = folder if folder.cid == release.manifest.root_cid else None
    return found


def _shape(size: int, profile: str) -> Node:
    """Return a file of that size as it is cut, with all digests zero."""
    leaves = max(-(-size // get_profile(profile).chunk), 1)
    return FileTree(size, bytes(DIGEST * leaves), profile).node
