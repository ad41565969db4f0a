"""The manifest of a release: what one version of a dataset consists of, and who says so.

A manifest is canonical JSON and a newline; ``docs/releases.md`` explains each key. Its SHA-256
names the version, the next version names it as its parent, and the signature beside it covers
its bytes. What a stranger's manifest says is checked here as far as that goes without its files.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...durable import canonical_json
from ...errors import DataError, IntegrityError, UnsafeInputError, UsageError
from .. import manifest as plain
from . import keys
from .digests import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH
from .fields import NAME, Reader

FORMAT = "datacomp-release"
FORMAT_VERSION = 1
MAX_BYTES = 1 << 30

_UID = re.compile(r"[0-9a-f]{32}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TORRENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,140}\.torrent")
MIRROR = re.compile(r"https?://[^\s?#]+/")
TRACKER = re.compile(r"(https?|udp|wss?)://[^\s#]+")

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a release; ``pieces_root`` is that of BitTorrent v2, None for an empty file."""

    path: str
    size: int
    sha256: str
    pieces_root: str | None
    cid: str


@dataclass(frozen=True)
class Parent:
    """The version before: its name, its serial number and the SHA-256 of its manifest."""

    version: str
    serial: int
    sha256: str


@dataclass(frozen=True)
class Removal:
    """Samples that a version took back, why, and the (path, size, SHA-256) that held them."""

    version: str
    serial: int
    reason: str
    uids: tuple[str, ...]
    files: tuple[tuple[str, int, str], ...]

    def to_dict(self) -> Fields:
        """Return plain JSON values."""
        files = [dict(zip(("path", "size", "sha256"), file, strict=True)) for file in self.files]
        return {
            "version": self.version,
            "serial": self.serial,
            "reason": self.reason,
            "uids": list(self.uids),
            "files": files,
        }


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read and checked; ``raw`` are its bytes."""

    raw: bytes
    name: str
    version: str
    serial: int
    date: str
    key: str
    parent: Parent | None
    licence: str | None
    authors: tuple[str, ...]
    description: str | None
    url: str | None
    counts: dict[str, int | None]
    piece_length: int
    cid_profile: str
    root_cid: str
    files: tuple[File, ...]
    torrents: dict[str, dict[str, str]]
    mirrors: tuple[str, ...]
    trackers: tuple[str, ...]
    removed: tuple[Removal, ...]
    scores: dict[str, Any] | None

    @cached_property
    def sha256(self) -> str:
        """The digest that names this version."""
        return hashlib.sha256(self.raw).hexdigest()

    @cached_property
    def by_path(self) -> dict[str, File]:
        """The files by their paths."""
        return {file.path: file for file in self.files}

    @cached_property
    def withdrawn(self) -> frozenset[str]:
        """The SHA-256 of every file that this or an earlier version took back."""
        kept = {file.sha256 for file in self.files}
        taken = {sha256 for removal in self.removed for _, _, sha256 in removal.files}
        return frozenset(taken - kept)

    @cached_property
    def removed_uids(self) -> frozenset[str]:
        """Every uid that this or an earlier version took back."""
        return frozenset(uid for removal in self.removed for uid in removal.uids)


def encode(fields: Fields) -> bytes:
    """Return the bytes of a manifest."""
    return canonical_json(fields) + b"\n"


def check_name(text: str, what: str) -> str:
    """Return a name of a dataset or version that is safe in paths and URLs, or raise UsageError."""
    if not NAME.fullmatch(text):
        raise UsageError(
            f"{what} {text[:80]!r}: expected up to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit and not ending in '.'"
        )
    return text


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Check a manifest and return it.

    Raises DataError (malformed), UnsafeInputError (size, names of files), IntegrityError
    (counts that do not fit the list of files).
    """
    if len(data) > MAX_BYTES:
        raise UnsafeInputError(f"{where}: larger than {MAX_BYTES:,} bytes; refused")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not JSON") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{where}: not the manifest of a release (format is not {FORMAT!r})")
    if value.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{where}: a manifest of format version {value.get('format_version')!r}, but this "
            f"datacomp knows {FORMAT_VERSION}; update datacomp"
        )
    try:
        canonical = encode(value)
    except (ValueError, RecursionError):
        canonical = b""
    if canonical != data:
        raise DataError(f"{where}: not canonical JSON; it was not written by datacomp")
    manifest = _manifest(Reader(value, where), data)
    plain.check_paths([file.path for file in manifest.files], where)
    paths = [file.path for file in manifest.files]
    if paths != sorted(paths):
        raise DataError(f"{where}: the files are not sorted by path")
    sizes = sum(file.size for file in manifest.files)
    if (manifest.counts["files"], manifest.counts["bytes"]) != (len(paths), sizes):
        raise IntegrityError(f"{where}: its counts do not fit its list of files; it was altered")
    return manifest


def verify_manifest(data: bytes, signature: bytes, where: str, key: str | None = None) -> Manifest:
    """Return a manifest whose signature is right, and made with ``key`` if that is given.

    Raises IntegrityError for another key or a wrong signature, else as ``parse_manifest``.
    """
    manifest = parse_manifest(data, where)
    if key is not None and manifest.key != key:
        raise IntegrityError(
            f"{where}: signed with the key {manifest.key}, not with {key} as expected; refused"
        )
    if not keys.verify(manifest.key, signature, data):
        raise IntegrityError(f"{where}: its signature is wrong; it was altered or is not theirs")
    return manifest


def _manifest(reader: Reader, raw: bytes) -> Manifest:
    value = reader.value
    length = reader.number("piece_length", MIN_PIECE_LENGTH)
    if length & (length - 1) or length > MAX_PIECE_LENGTH:
        raise reader.broken("piece_length", "a power of two", length)
    counts = reader.within("counts")
    scores = value.get("scores")
    if scores is not None and not isinstance(scores, dict):
        raise reader.broken("scores", "an object or null", scores)
    return Manifest(
        raw=raw,
        name=reader.name("name"),
        version=reader.name("version"),
        serial=reader.number("serial", 1),
        date=reader.text("date", _DATE),
        key=keys.check_public(value.get("key"), f"{reader.where}: key"),
        parent=None if value.get("parent") is None else _parent(reader.within("parent")),
        licence=reader.optional("licence"),
        authors=reader.texts("authors"),
        description=reader.optional("description"),
        url=reader.optional("url"),
        counts={
            "files": counts.number("files"),
            "bytes": counts.number("bytes"),
            "shards": counts.number("shards"),
            "samples": counts.maybe_number("samples"),
        },
        piece_length=length,
        cid_profile=reader.text("cid_profile", limit=64),
        root_cid=reader.cid("root_cid"),
        files=tuple(_file(item) for item in reader.each("files")),
        torrents=_torrents(reader.within("torrents")),
        mirrors=reader.texts("mirrors", MIRROR),
        trackers=reader.texts("trackers", TRACKER),
        removed=tuple(_removal(item) for item in reader.each("removed")),
        scores=scores,
    )


def _parent(reader: Reader) -> Parent:
    return Parent(reader.name("version"), reader.number("serial", 1), reader.hex("sha256"))


def _file(reader: Reader) -> File:
    size = reader.number("size")
    root = None if size == 0 else reader.hex("pieces_root")
    return File(
        reader.text("path", limit=plain.MAX_PATH),
        size,
        reader.hex("sha256"),
        root,
        reader.cid("cid"),
    )


def _torrents(reader: Reader) -> dict[str, dict[str, str]]:
    v1, hybrid = reader.within("v1"), reader.within("hybrid")
    return {
        "v1": {"file": v1.text("file", _TORRENT), "infohash": v1.hex("infohash", 40)},
        "hybrid": {
            "file": hybrid.text("file", _TORRENT),
            "infohash_v1": hybrid.hex("infohash_v1", 40),
            "infohash_v2": hybrid.hex("infohash_v2"),
        },
    }


def _removal(reader: Reader) -> Removal:
    files = reader.each("files")
    return Removal(
        reader.name("version"),
        reader.number("serial", 1),
        reader.text("reason"),
        reader.texts("uids", _UID),
        tuple((f.text("path"), f.number("size"), f.hex("sha256")) for f in files),
    )
