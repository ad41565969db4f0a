"""Sources that lie elsewhere: copied beside the pool, then read like any other.

A *place* is a URL of one file on a web server, or of a file or folder in an object store that
fsspec knows. Its files go to ``POOL.sources/DIGEST``, each whole or not at all; ``place.json``
there says from where they are and which version, so that adding the place again copies only
what is new or has changed.

The pool's samples lie in these files, and stay as they were where adding fails. So what has
changed is copied to ``DIGEST.incoming``, and takes the old files' places only once the pool is
open; the old ones wait in ``DIGEST.before`` until the pool has the new samples. A process killed
meanwhile leaves them there, and the next run puts them back first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..durable import alone, atomic_path, read_json, storage_errors, write_json
from ..errors import DataError, MissingError, UnsafeInputError
from ..progress import Progress, say
from .connection import one_line
from .ranges import Ranges, open_ranges, store

if TYPE_CHECKING:
    from .pool import Pool

MAX_FILES = 1_000_000
_MAX_LIST = 1 << 30
_CHUNK = 8 << 20
_LIST = "place.json"


class Copies:
    """The files of a place, copied beside a pool. ``path`` is where they are read."""

    def __init__(self, place: str, pool: Path) -> None:
        files, is_file = _listing(place)
        name = hashlib.sha256(place.encode()).hexdigest()[:16]
        self._place, self._files = place, files
        self._folder = pool.with_name(pool.name + ".sources") / name
        self._incoming = self._folder.with_name(f"{name}.incoming")
        self._before = self._folder.with_name(f"{name}.before")
        self._known: dict[str, list[Any]] = {}
        self._coming: dict[str, list[Any]] = {}
        self._swapped: list[str] = []
        self.path = self._folder / next(iter(files)) if is_file else self._folder

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from the copies."""
        return alone(
            self._folder,
            f"{self._folder}: another process is copying {self._place} to it; wait for it or "
            "stop it",
        )

    def fetch(self) -> None:
        """Copy what is new or has changed; no file that samples may lie in is touched."""
        self._put_back()
        self._known, self._coming = _known(self._folder, self._place)
        fetched = 0
        with Progress(f"copying {self._place}", len(self._files), "files") as progress:
            for relative, remote in sorted(self._files.items()):
                found = open_ranges(remote)
                stamp = [found.size, found.version]
                target, beside = self._folder / relative, self._incoming / relative
                if not _is_copy(target, self._known.get(relative), stamp):
                    if not _is_copy(beside, self._coming.get(relative), stamp):
                        new = not os.path.lexists(target)
                        _copy(found, target if new else beside)
                        (self._known if new else self._coming)[relative] = stamp
                        self._write_list()
                        fetched += 1
                    if self._coming.get(relative) == stamp and beside.is_file():
                        self._swapped.append(relative)
                progress.advance()
        self._write_list()
        say(f"{self._place}: {fetched:,} of {len(self._files):,} files copied to {self._folder}")

    @contextlib.contextmanager
    def taken_over(self, pool: Pool) -> Iterator[None]:
        """Let the copies be what the place is now, while it is added to the ``pool``, held open.

        Where that fails the files are again what they were. Where it does not, what has changed
        or vanished is removed, but for vanished files that hold images of the pool's samples.
        """
        gone = sorted(set(self._known) - set(self._files))
        try:
            for relative in [*gone, *self._swapped]:
                _move(self._folder / relative, self._before / relative)
            for relative in self._swapped:
                _move(self._incoming / relative, self._folder / relative)
            yield
        except BaseException:
            self._put_back()
            raise
        held = self._held(pool) if gone else set()
        for relative in gone:
            if relative in held:
                _move(self._before / relative, self._folder / relative)
            else:
                del self._known[relative]
        for relative in self._swapped:
            self._known[relative] = self._coming[relative]
        self._coming = {}
        for left in (self._before, self._incoming):
            shutil.rmtree(left, ignore_errors=True)
        self._write_list()

    def _put_back(self) -> None:
        """Undo what was taken over and not finished; what was copied is kept for the next run."""
        for folder, _, names in os.walk(self._before):
            for name in names:
                before = Path(folder, name)
                relative = before.relative_to(self._before)
                _move(self._folder / relative, self._incoming / relative)
                _move(before, self._folder / relative)
        shutil.rmtree(self._before, ignore_errors=True)

    def _held(self, pool: Pool) -> set[str]:
        """Return the files that samples of the pool lie in."""
        held: set[str] = set()
        for number, root in pool.source_paths().items():
            if root.resolve() in (self._folder.resolve(), self.path.resolve()):
                held |= {
                    shard
                    for (shard,) in pool.sql(
                        "SELECT DISTINCT shard FROM samples "
                        f"WHERE source = {number} AND shard IS NOT NULL"
                    ).fetchall()
                }
        return held

    def _write_list(self) -> None:
        listed = {"place": self._place, "files": self._known, "incoming": self._coming}
        write_json(self._folder / _LIST, listed)


@contextlib.contextmanager
def copies_of(place: str, pool: Path) -> Iterator[Copies]:
    """Copy what lies at a place, or what has changed of it, beside the pool.

    Raises MissingError where nothing lies, DataError for what cannot be read, UnsafeInputError
    for names that lead elsewhere, StorageError for a full disk.
    """
    copies = Copies(place, pool)
    with copies.alone():
        copies.fetch()
        yield copies


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


def _known(folder: Path, place: str) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return the versions of the files that are here, and of those that are to replace some."""
    if not (folder / _LIST).is_file():
        return {}, {}
    try:
        listed = read_json(folder / _LIST, _MAX_LIST)
    except DataError:
        return {}, {}  # everything is copied again
    if not isinstance(listed, dict) or listed.get("place") != place:
        return {}, {}
    files, incoming = (
        {name: stamp for name, stamp in found.items() if ".." not in name.split("/")}
        if isinstance(found := listed.get(key), dict)
        else {}
        for key in ("files", "incoming")
    )
    return files, incoming


def _is_copy(path: Path, known: list[Any] | None, stamp: list[Any]) -> bool:
    # A place that does not tell versions may have changed without it showing.
    there = path.is_file() and path.stat().st_size == stamp[0]
    return there and bool(stamp[1]) and known == stamp


def _move(path: Path, target: Path) -> None:
    if os.path.lexists(path):
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def _copy(found: Ranges, target: Path) -> None:
    with atomic_path(target) as partial, partial.open("wb") as file:
        for start in range(0, found.size, _CHUNK):
            wanted = min(_CHUNK, found.size - start)
            data = found.read_at(start, wanted)
            if len(data) != wanted:
                raise DataError(f"{found.place}: ends too soon; run the same command again")
            file.write(data)
