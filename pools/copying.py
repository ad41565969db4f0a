"""Sources that lie elsewhere: copied beside the pool, then read like any other.

A *place* is a URL of one file on a web server, or of a file or folder in an object store that
fsspec knows. Its files go to ``POOL.sources/DIGEST``, each whole or not at all; ``place.json``
there says from where they are and which version, so that adding the place again copies only
what is new or has changed, and removes what has vanished.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..durable import atomic_path, read_json, write_json
from ..errors import DataError, MissingError, UnsafeInputError
from ..progress import Progress, say
from .connection import one_line
from .ranges import Ranges, open_ranges, store

MAX_FILES = 1_000_000
_MAX_LIST = 1 << 30
_CHUNK = 8 << 20
_LIST = "place.json"


def copied(place: str, pool: Path) -> Path:
    """Copy what lies at a place, or what has changed of it, beside the pool; return where it is.

    Raises MissingError where nothing lies, DataError for what cannot be read, UnsafeInputError
    for names that lead elsewhere, StorageError for a full disk.
    """
    files, is_file = _listing(place)
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    folder = pool.with_name(pool.name + ".sources") / name
    known = _known(folder, place)
    for gone in set(known) - set(files):
        (folder / gone).unlink(missing_ok=True)
        del known[gone]
    fetched = 0
    with Progress(f"copying {place}", len(files), "files") as progress:
        for relative, remote in sorted(files.items()):
            found = open_ranges(remote)
            stamp = [found.size, found.version]
            target = folder / relative
            there = target.is_file() and target.stat().st_size == found.size
            # A place that does not tell versions may have changed without it showing.
            if not there or not found.version or known.get(relative) != stamp:
                _copy(found, target)
                known[relative] = stamp
                write_json(folder / _LIST, {"place": place, "files": known})
                fetched += 1
            progress.advance()
    write_json(folder / _LIST, {"place": place, "files": known})
    say(f"{place}: {fetched:,} of {len(files):,} files copied to {folder}")
    return folder / next(iter(files)) if is_file else folder


def unpacked_beside(data: Path, pool: Path) -> Path:
    """Return the folder ``POOL.sources/DIGEST`` that a dataset's images are unpacked into."""
    name = hashlib.sha256(str(data.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    return pool.with_name(pool.name + ".sources") / f"{name}-images"


def _listing(place: str) -> tuple[dict[str, str], bool]:
    """Return the files at a place, their names and the place of each; and whether it is a file."""
    if place.startswith(("http://", "https://")):
        name = PurePosixPath(unquote(urlsplit(place).path)).name
        return {_plain(name, place): place}, True
    system, root = store(place)
    try:
        system.invalidate_cache()
        one = system.isfile(root)
        found = [root] if one else system.find(root)
    except FileNotFoundError:
        one, found = False, []
    except Exception as error:  # noqa: BLE001  every store has errors of its own
        raise DataError(f"{place}: cannot be listed: {one_line(error)}") from None
    if len(found) > MAX_FILES:
        raise DataError(f"{place}: more than {MAX_FILES:,} files")
    listed = {}
    for path in map(str, found):
        name = PurePosixPath(path).name if one else path[len(str(root).rstrip("/")) :].lstrip("/")
        parts = name.split("/")
        hidden = any(part.startswith(".") and part != ".." for part in parts)
        if not hidden and name != _LIST:
            listed["/".join(_plain(part, place) for part in parts)] = system.unstrip_protocol(path)
    if not listed:
        raise MissingError(f"{place}: nothing lies there")
    return listed, one


def _plain(name: str, place: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UnsafeInputError(f"{place}: {name!r} is no name of a file")
    return name


def _known(folder: Path, place: str) -> dict[str, list[Any]]:
    if not (folder / _LIST).is_file():
        return {}
    try:
        listed = read_json(folder / _LIST, _MAX_LIST)
    except DataError:
        return {}  # everything is copied again
    same = isinstance(listed, dict) and listed.get("place") == place
    return dict(listed["files"]) if same and isinstance(listed.get("files"), dict) else {}


def _copy(found: Ranges, target: Path) -> None:
    with atomic_path(target) as partial, partial.open("wb") as file:
        for start in range(0, found.size, _CHUNK):
            wanted = min(_CHUNK, found.size - start)
            data = found.read_at(start, wanted)
            if len(data) != wanted:
                raise DataError(f"{found.place}: ends too soon; run the same command again")
            file.write(data)
