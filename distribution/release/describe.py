"""The manifest and the torrents of a version, from digests that are known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, UsageError
from .about import About
from .digests import check_piece_length
from .folder import Release
from .manifest import (
    FORMAT,
    FORMAT_VERSION,
    MIRROR,
    TRACKER,
    Fields,
    Manifest,
    Removal,
    encode,
    parse_manifest,
)
from .reading import Found, Reading
from .torrents import Torrent, hybrid_torrent, v1_torrent


@dataclass(frozen=True)
class Shape:
    """How the files are cut into pieces and chunks, and where else they are to be had."""

    piece_length: int
    profile: str
    mirrors: tuple[str, ...]
    trackers: tuple[str, ...]

    def check(self) -> Shape:
        """Return this if torrents and readers can use it, else raise UsageError."""
        check_piece_length(self.piece_length)
        _check_urls(self.mirrors, MIRROR, "web seed", "https://host/path/")
        _check_urls(self.trackers, TRACKER, "tracker", "udp://host:1337/announce")
        return self


def describe(
    reading: Reading,
    name: str,
    version: str,
    date: str,
    about: About,
    key: str,
    parent: Release | None,
    shape: Shape,
    removal: Removal | None,
) -> tuple[Manifest, tuple[Torrent, Torrent]]:
    """Return the manifest, and the v1 and the hybrid torrent.

    Raises DataError for a file that was taken back before.
    """
    webseeds = [f"{mirror}versions/{version}/" for mirror in shape.mirrors]
    files = [(found.path, found.record) for found in reading.found]
    v1 = v1_torrent(name, shape.piece_length, files, reading.tail, webseeds, shape.trackers)
    hybrid = hybrid_torrent(name, shape.piece_length, files, webseeds, shape.trackers)
    removed = [] if parent is None else list(parent.manifest.removed)
    if removal is not None:
        removed.append(removal)
    _refuse_withdrawn(reading.found, removed)
    before = None if parent is None else parent.manifest
    fields: Fields = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "version": version,
        "serial": 1 if before is None else before.serial + 1,
        "date": date,
        "key": key,
        "parent": before
        and {"version": before.version, "serial": before.serial, "sha256": before.sha256},
        "licence": about.licence,
        "authors": list(about.authors),
        "description": about.description,
        "url": about.url,
        "counts": {
            "files": len(files),
            "bytes": sum(record.size for _, record in files),
            "shards": sum(path.endswith(".tar") for path, _ in files),
            "samples": about.facts.samples,
        },
        "piece_length": shape.piece_length,
        "cid_profile": shape.profile,
        "root_cid": root_cid(reading.found, shape.profile),
        "files": [_file(found) for found in reading.found],
        "torrents": {
            "v1": {"file": f"{name}-{version}.torrent", "infohash": v1.v1},
            "hybrid": {
                "file": f"{name}-{version}.hybrid.torrent",
                "infohash_v1": hybrid.v1,
                "infohash_v2": hybrid.v2,
            },
        },
        "mirrors": list(shape.mirrors),
        "trackers": list(shape.trackers),
        "removed": [item.to_dict() for item in removed],
        "scores": None if about.scores is None else dict(about.scores),
    }
    return parse_manifest(encode(fields), f"version {version}"), (v1, hybrid)


def root_cid(found: Iterable[Found], profile: str) -> str:
    """Return the CID of the folder that holds the files."""
    from ..ipfs.directory import directory
    from ..ipfs.unixfs import Node

    nodes = ((f.path, Node(f.record.cid, f.record.size, f.record.tsize)) for f in found)
    return directory(nodes, profile).cid


def _file(found: Found) -> dict[str, Any]:
    record = found.record
    return {
        "path": found.path,
        "size": record.size,
        "sha256": record.sha256,
        "pieces_root": record.pieces_root,
        "cid": record.cid,
    }


def _refuse_withdrawn(found: list[Found], removed: list[Removal]) -> None:
    taken = {sha256: removal for removal in removed for _, _, sha256 in removal.files}
    for file in found:
        removal = taken.get(file.record.sha256)
        if removal is not None:
            raise DataError(
                f"{file.path}: has samples that version {removal.version} took back "
                f"({removal.reason[:80]}); run 'datacomp release revoke' on this folder, or "
                "remove them"
            )


def _check_urls(urls: Iterable[str], pattern: re.Pattern[str], what: str, example: str) -> None:
    for url in urls:
        if not pattern.fullmatch(url):
            raise UsageError(f"{what} {url[:80]!r}: expected a URL as {example}")
