"""Manifests: which files a dataset consists of, with sizes and SHA-256, and one name for all.

``digest`` is the SHA-256 over the canonical JSON of the list of files: it names the data, and
training pins it. A manifest from a stranger is data like any other: names that would leave the
folder, collide on some file system or stand there twice are refused.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..durable import canonical_json, read_json, sha256_file, write_bytes
from ..durable import digest as digest_of
from ..errors import DataError, IntegrityError, MissingError, UnsafeInputError
from ..pools.engine import ALL, Workers, engine_of
from ..progress import Progress

FORMAT = "datacomp-manifest"
VERSION = 1
NAME = "manifest.json"
MAX_BYTES = 1 << 30
MAX_PATH = 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_NAMES = frozenset({"", ".", ".."})

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path relative to the folder (with ``/``), size in bytes and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file is not what the manifest says: ``missing``, ``size``, ``digest`` or ``unsafe``."""

    path: str
    kind: str
    detail: str


def manifest_of(entries: Iterable[FileEntry]) -> Manifest:
    """Return the manifest of files whose digests are known; the order given does not matter."""
    files = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.path)]
    check_paths([item["path"] for item in files], "manifest")
    return {
        "format": FORMAT,
        "version": VERSION,
        "files": files,
        "total_bytes": sum(item["size"] for item in files),
        "digest": digest_of(files),
    }


def build_manifest(
    directory: Path | str, files: Iterable[str] | None = None, workers: int = 1
) -> Manifest:
    """Read and describe the ``files`` of a folder, or all of them.

    All means every regular file below it except hidden ones and ``manifest.json`` itself.
    Raises UnsafeInputError for a link that leaves the folder.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise MissingError(f"{directory}: no such folder")
    names = sorted(_visible_files(directory) if files is None else files)
    check_paths(names, str(directory))
    for name in names:
        if not _inside(directory, name):
            raise UnsafeInputError(f"{directory / name}: a link that leaves the folder")

    def describe(name: str) -> FileEntry:
        path = directory / name
        if not path.is_file():
            raise MissingError(f"{path}: no such file")
        size = path.stat().st_size
        return FileEntry(name, size, sha256_file(path))

    with ThreadPoolExecutor(max(workers, 1)) as threads:
        return manifest_of(threads.map(describe, names))


def write(path: Path | str, manifest: Manifest) -> None:
    """Write a manifest as canonical JSON, atomically."""
    write_bytes(path, canonical_json(manifest) + b"\n")


def load(path: Path | str) -> Manifest:
    """Read a manifest and check all that can be checked without its files.

    Raises MissingError, DataError (malformed), UnsafeInputError (names) or IntegrityError
    (digest or total do not fit the list).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"{path}: no such manifest")
    return checked(read_json(path, MAX_BYTES), str(path))


def checked(value: Any, path: str) -> Manifest:
    """Return what was read from ``path`` if it is a manifest; raises as ``load`` does."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{path}: not a manifest (format is not {FORMAT!r})")
    if value.get("version") != VERSION:
        raise DataError(
            f"{path}: manifest of version {value.get('version')!r}, but this datacomp knows "
            f"{VERSION}; update datacomp"
        )
    files = value.get("files")
    if not isinstance(files, list) or not all(map(_is_entry, files)):
        raise DataError(f"{path}: 'files' must be a list of {{path, size, sha256}}")
    names = [item["path"] for item in files]
    check_paths(names, path)
    if names != sorted(names):
        raise DataError(f"{path}: the files are not sorted by path")
    if value.get("total_bytes") != sum(item["size"] for item in files):
        raise IntegrityError(f"{path}: total_bytes is not the sum of the sizes")
    if value.get("digest") != digest_of(files):
        raise IntegrityError(f"{path}: its digest does not fit its list of files; it was altered")
    return value


def verify(directory: Path | str, manifest: Manifest, workers: Workers = 1) -> list[Problem]:
    """Read every file of the manifest and return what is wrong, in the manifest's order.

    Files that the manifest does not name are none of its business.
    """
    directory = Path(directory)
    problems: list[Problem] = []
    look = functools.partial(_verify_file, directory)
    with Progress("verifying", manifest["total_bytes"], "bytes") as progress:
        found = engine_of(workers).map(look, manifest["files"], threads=ALL)
        for item, problem in zip(manifest["files"], found, strict=True):
            progress.advance(item["size"])
            if problem is not None:
                problems.append(problem)
    return problems


def _verify_file(directory: Path, item: dict[str, Any]) -> Problem | None:
    name = item["path"]
    path = directory / name
    if not _inside(directory, name):
        return Problem(name, "unsafe", "a link that leaves the folder")
    if not path.is_file():
        return Problem(name, "missing", "no such file")
    try:
        size = path.stat().st_size
        if size != item["size"]:
            return Problem(name, "size", f"{size:,} bytes instead of {item['size']:,}")
        found = sha256_file(path)
    except OSError as error:
        return Problem(name, "unreadable", error.strerror or str(error))
    if found != item["sha256"]:
        return Problem(name, "digest", f"SHA-256 {found} instead of {item['sha256']}")
    return None


def check_paths(names: list[str], where: str) -> None:
    """Raise UnsafeInputError unless every name is safe and no two could be the same file."""
    seen: dict[str, str] = {}
    for name in names:
        reason = _unsafe(name)
        if reason:
            raise UnsafeInputError(f"{where}: file name {name[:80]!r} {reason}; refused")
        folded = _fold(name)
        if folded in seen:
            how = (
                "stands there twice" if seen[folded] == name else f"collides with {seen[folded]!r}"
            )
            raise UnsafeInputError(f"{where}: file name {name[:80]!r} {how}; refused")
        seen[folded] = name
    for folded, name in seen.items():
        parent = folded.rpartition("/")[0]
        while parent:
            if parent in seen:
                raise UnsafeInputError(
                    f"{where}: file name {name[:80]!r} needs a folder where {seen[parent]!r} is "
                    "a file; refused"
                )
            parent = parent.rpartition("/")[0]


def _unsafe(name: str) -> str | None:
    if not name or len(name) > MAX_PATH:
        return "is empty or too long"
    if _CONTROL.search(name):
        return "has control characters"
    if "\\" in name:
        return "has a backslash"
    if name.startswith("/") or name[1:2] == ":":  # on Windows, a drive
        return "is absolute"
    if not _NO_NAMES.isdisjoint(name.split("/")):
        return "is not a plain relative path"
    with contextlib.suppress(UnicodeEncodeError):
        name.encode()
        return None
    return "is not UTF-8"


def _fold(name: str) -> str:
    """Return what a name is on a file system that ignores case and normalises Unicode."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_entry(item: object) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"path", "size", "sha256"}
        and isinstance(item["path"], str)
        and type(item["size"]) is int
        and item["size"] >= 0
        and isinstance(item["sha256"], str)
        and _SHA256.fullmatch(item["sha256"]) is not None
    )


def _inside(directory: Path, name: str) -> bool:
    try:
        return (directory / name).resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False


def _visible_files(directory: Path) -> Iterable[str]:
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder) / name
            relative = path.relative_to(directory).as_posix()
            if not name.startswith(".") and relative != NAME and path.is_file():
                yield relative
