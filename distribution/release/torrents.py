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

from .. import bencode
from .digests import Record

CREATED_BY = "datacomp"
MAX_TORRENT_BYTES = 1 << 28

Files = Sequence[tuple[str, Record]]
"""Paths below the torrent's folder, with ``/``, and the digests of the files."""


@dataclass(frozen=True)
class Torrent:
    """The bytes of a ``.torrent`` file and what names it; ``v2`` is None for a v1 torrent."""

    data: bytes
    v1: str
    v2: str | None = None

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
    tail: bytes,
    webseeds: Sequence[str] = (),
    trackers: Sequence[str] = (),
) -> Torrent:
    """Return the v1 torrent of a folder ``name``.

    ``tail`` has the SHA-1 of the pieces of all files that are not aligned, one after another.
    """
    aligned, others = v1_order(files)
    info = {
        "files": [
            {"length": record.size, "path": path.split("/")} for path, record in aligned + others
        ],
        "name": name,
        "piece length": piece_length,
        "pieces": b"".join(record.pieces for _, record in aligned) + tail,
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
    listed: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    tree: dict[str, Any] = {}
    layers: dict[bytes, bytes] = {}
    missing = 0
    for number, (path, record) in enumerate(ordered):
        if missing and record.size:
            listed.append({"attr": "p", "length": missing, "path": [".pad", str(missing)]})
            missing = 0
        listed.append({"length": record.size, "path": path.split("/")})
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
        "pieces": b"".join(pieces),
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
    tree[name] = {"": leaf}


def _finish(value: dict[str, Any], webseeds: Sequence[str], trackers: Sequence[str]) -> Torrent:
    value |= {"created by": CREATED_BY, **addresses(webseeds, trackers)}
    info = value["info"] = bencode.Encoded(bencode.encode(value["info"]))
    v2 = hashlib.sha256(info).hexdigest() if "piece layers" in value else None
    v1 = hashlib.sha1(info, usedforsecurity=False).hexdigest()
    return Torrent(bencode.encode(value), v1, v2)
