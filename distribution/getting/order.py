"""What is to be got: files with their digests, and all places that may have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..release import Manifest, Pointer


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file. Of SHA-256, v2 root (both in hex) and CID, those are None that nobody has told.

    ``number`` is its place in the order: what belongs to it elsewhere is found by it.
    """

    number: int
    path: str
    size: int
    sha256: str | None
    pieces_root: str | None = None
    cid: str | None = None


@dataclass
class Order:
    """The files of one version of a dataset, and where they may be had.

    ``mirrors`` are base URLs to which the path of a file is added. ``manifest`` is None where
    the source names files and digests, but nobody has signed them. ``record`` is the IPNS name
    that led here, and the sequence number of its record.
    """

    name: str
    version: str | None
    files: tuple[Wanted, ...]
    mirrors: list[str] = field(default_factory=list)
    manifest: Manifest | None = None
    signature: bytes = b""
    pointer: Pointer | None = None
    torrent: bytes | None = None
    magnet: str | None = None
    infohash: str | None = None
    seeds: list[str] = field(default_factory=list)
    single: bool = False
    record: tuple[str, int] | None = None

    def in_torrent(self, wanted: Wanted) -> str:
        """Return the path of a file as its torrent has it."""
        return wanted.path if self.single else f"{self.name}/{wanted.path}"

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{self.name} {self.version}" if self.version else self.name


def of_manifest(manifest: Manifest, signature: bytes, pointer: Pointer | None = None) -> Order:
    """Return the order of all files of a signed manifest."""
    files = tuple(
        Wanted(number, file.path, file.size, file.sha256, file.pieces_root, file.cid)
        for number, file in enumerate(manifest.files)
    )
    order = Order(manifest.name, manifest.version, files, [], manifest, signature, pointer)
    order.mirrors = [data_base(mirror, manifest.name, manifest.version) for mirror in
                     manifest.mirrors]  # fmt: skip
    return order


def data_base(root: str, name: str, version: str) -> str:
    """Return the base URL of a version's files on a mirror whose root is given."""
    return f"{root.rstrip('/')}/versions/{version}/{name}/"
