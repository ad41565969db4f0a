"""Torrents from digests that are known: a v1 one that every client reads, and a hybrid one.

BEP 3 (v1), BEP 52 (v2 and hybrid), BEP 47 (pad files), BEP 19 (web seeds). Files that end where
a piece ends come first in the v1 torrent: their pieces are their own in every version, and none
needs a pad file. A hybrid torrent prescribes the order of its files (that of its file tree), so
files that are not aligned are padded there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ...errors import UsageError
from .. import bencode
from ..stretch import Bytes, Joined, chunks_of
from .digests import MAX_PIECE_LENGTH, Record

CREATED_BY = "datacomp"
MAX_TORRENT_BYTES = 1 << 28
"""Of a torrent file that is made or read."""
ROOM = 1 << 20
"""For names, addresses and trackers in it."""

Files = Sequence[tuple[str, Record]]
"""Paths below the torrent's folder, with ``/``, and the digests of the files."""


@dataclass(frozen=True)
class Torrent:
    """A ``.torrent`` file and what names it; ``v2`` is None for a v1 torrent.

    Its ``content`` takes the hashes of pieces from where the records have them.
    """

    content: bencode.Encoding
    v1: str
    v2: str | None = None

    @property
    def data(self) -> bytes:
        """All bytes of the file."""
        return bytes(self.content)

    def magnet(self, name: str, mirrors: Iterable[str] = (), trackers: Iterable[str] = ()) -> str:
        """Return the magnet link."""
        parts = [f"xt=urn:btih:{self.v1}"]
        if self.v2 is not None:
            parts.append(f"xt=urn:btmh:1220{self.v2}")
        parts.append(f"dn={quote(name)}")
        parts += [f"tr={quote(url, safe='')}" for url in trackers]
        parts += [f"ws={quote(url, safe='')}" for url in mirrors]
        return "magnet:?" + "&".join(parts)


def v1_order(files: Files) -> tuple[list[tuple[str, Record]], list[tuple[str, Record]]]:
    """Return the aligned files and the others, each sorted by path: the order of a v1 torrent."""
    ordered = sorted(files)
    return [f for f in ordered if f[1].aligned], [f for f in ordered if not f[1].aligned]


def v1_torrent(
    name: str,
    piece_length: int,
    files: Files,
    tail: Bytes,
    webseeds: Sequence[str] = (),
    trackers: Sequence[str] = (),
) -> Torrent:
    """Return the v1 torrent of a folder ``name``.

    ``tail`` has the SHA-1 of the pieces of all files that are not aligned, one after another.
    """
    aligned, others = v1_order(files)
    info = {
        "files": [
            _listed({"length": record.size, "path": path.split("/")})
            for path, record in aligned + others
        ],
        "name": name,
        "piece length": piece_length,
        "pieces": Joined([*(record.pieces for _, record in aligned), tail]),
    }
    return _finish({"info": info}, webseeds, trackers)


def hybrid_torrent(
    name: str,
    piece_length: int,
    files: Files,
    webseeds: Sequence[str] = (),
    trackers: Sequence[str] = (),
) -> Torrent:
    """Return the hybrid (v1 and v2) torrent of a folder ``name``."""
    ordered = sorted(files, key=lambda item: [part.encode() for part in item[0].split("/")])
    last = max((n for n, (_, record) in enumerate(ordered) if record.size), default=-1)
    listed: list[bencode.Encoded] = []
    pieces: list[Bytes] = []
    tree: dict[str, Any] = {}
    layers: dict[bytes, Bytes] = {}
    missing = 0
    for number, (path, record) in enumerate(ordered):
        if missing and record.size:
            pad = {"attr": "p", "length": missing, "path": [".pad", str(missing)]}
            listed.append(_listed(pad))
            missing = 0
        listed.append(_listed({"length": record.size, "path": path.split("/")}))
        _plant(tree, path, record)
        if record.layer:
            layers[bytes.fromhex(record.pieces_root or "")] = record.layer
        if record.aligned or number == last:
            pieces.append(record.pieces)
        else:
            pieces += [record.pieces[:-20], record.padded_last]
            missing = -record.size % piece_length
    info = {
        "file tree": tree,
        "files": listed,
        "meta version": 2,
        "name": name,
        "piece length": piece_length,
        "pieces": Joined(pieces),
    }
    return _finish({"info": info, "piece layers": layers}, webseeds, trackers)


def addresses(webseeds: Sequence[str], trackers: Sequence[str]) -> dict[str, Any]:
    """Return what a torrent says of where it is to be had."""
    said: dict[str, Any] = {}
    if webseeds:
        said["url-list"] = list(webseeds)
    if trackers:
        said["announce"] = trackers[0]
    if len(trackers) > 1:
        said["announce-list"] = [[url] for url in trackers]
    return said


def _plant(tree: dict[str, Any], path: str, record: Record) -> None:
    """Add a file to the file tree."""
    *folders, name = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    leaf: dict[str, Any] = {"length": record.size}
    if record.pieces_root is not None:
        leaf["pieces root"] = bytes.fromhex(record.pieces_root)
    tree[name] = _listed({"": leaf})


def _listed(value: dict[str, Any]) -> bencode.Encoded:
    """Encode what is said of one file: of ten thousands, that is the smallest to keep."""
    return bencode.Encoded(bencode.encode(value))


def _finish(value: dict[str, Any], webseeds: Sequence[str], trackers: Sequence[str]) -> Torrent:
    value |= {"created by": CREATED_BY, **addresses(webseeds, trackers)}
    info = bencode.lazily(value["info"])
    v1, v2 = info_hashes(info)
    value["info"] = info
    return Torrent(bencode.lazily(value), v1, v2 if "piece layers" in value else None)


def info_hashes(info: Bytes | memoryview) -> tuple[str, str]:
    """Return the SHA-1 and the SHA-256 of an encoded info dictionary, in hex."""
    v1, v2 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    for chunk in (info,) if isinstance(info, memoryview) else chunks_of(info):
        v1.update(chunk)
        v2.update(chunk)
    return v1.hexdigest(), v2.hexdigest()


def check_fits(files: Iterable[tuple[str, int]], piece_length: int) -> None:
    """Raise UsageError if the hybrid torrent of files, path and size, could be too large to read.

    That one is the larger of the two. Known before any file is read.
    """
    files = list(files)
    if bound(files, piece_length) <= MAX_TORRENT_BYTES:
        return
    length = piece_length
    while length < MAX_PIECE_LENGTH and bound(files, length) > MAX_TORRENT_BYTES:
        length *= 2
    if bound(files, length) > MAX_TORRENT_BYTES:
        advice = "publish fewer or smaller files"
    else:
        advice = f"give --piece-length {length}, and shards built with --pad {length}"
    raise UsageError(
        f"{sum(size for _, size in files):,} bytes in pieces of {piece_length:,} need a torrent of "
        f"more than {MAX_TORRENT_BYTES >> 20} MiB, which 'datacomp get' refuses; {advice}"
    )


def bound(files: Sequence[tuple[str, int]], piece_length: int) -> int:
    """Return what a hybrid torrent has no more bytes than: 52 a piece, some hundred a file."""
    pieces = sum(-(-size // piece_length) for _, size in files)
    # Twice each name: listed, and in the tree, with up to 20 bytes around each of its parts.
    names = sum(2 * len(path.encode()) + 20 * (path.count("/") + 1) for path, _ in files)
    return 52 * pieces + names + 400 * len(files) + ROOM
