"""Name files and folders on disk: the CID that ``ipfs add`` would give them.

Files are read once, by several threads: hashing lets go of Python's lock.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import DataError, MissingError, UsageError
from ...pools.parallel import map_threads
from ...progress import Progress
from . import cid as cids
from . import dagpb
from .directory import Directory, directory
from .profiles import DEFAULT_PROFILE, Profile, get_profile
from .unixfs import FileHasher, Node

BUFFER = 1 << 20


def name_path(
    path: Path | str,
    profile: str | Profile = DEFAULT_PROFILE,
    *,
    hidden: bool = False,
    workers: int | None = None,
) -> Node | Directory:
    """Return the CID of a file or of a folder with all below it, as a Node or a Directory.

    Hidden files inside a folder are left out, unless ``hidden``; symbolic links stay links.
    Raises MissingError for what is not there, DataError for what is neither file, folder nor
    link, or cannot be read.
    """
    path, profile = Path(path), get_profile(profile)
    if not path.exists():
        raise MissingError(f"{path}: no such file or folder")
    total = path.stat().st_size if path.is_file() else None
    lock = threading.Lock()
    with Progress("hashing", total, "bytes") as progress:

        def advance(count: int) -> None:
            with lock:
                progress.advance(count)

        if not path.is_dir():
            return _file(path, profile, advance)
        names = sorted(_walk(path, "", hidden))
        nodes = map_threads(lambda name: _name(path / name, profile, advance), names, workers)
        return directory(zip(names, nodes, strict=True), profile)


def _walk(folder: Path, prefix: str, hidden: bool) -> Iterator[str]:
    """Yield files, links and empty folders below a folder, relative to the first."""
    try:
        with os.scandir(folder) as entries:
            inside = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    if prefix and not inside:
        yield prefix.removesuffix("/")
    for entry in inside:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{folder}: the name {entry.name!r} is not UTF-8") from None
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", hidden)
        else:
            yield prefix + entry.name


def _name(path: Path, profile: Profile, advance: Callable[[int], None]) -> Node | Directory:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return _link(os.readlink(path), profile)
    if stat.S_ISDIR(mode):
        return directory([], profile)
    return _file(path, profile, advance)


def _file(path: Path, profile: Profile, advance: Callable[[int], None]) -> Node:
    if not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder")
    hasher = FileHasher(profile)
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(view[:count])
                advance(count)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return hasher.finish()


def _link(target: str, profile: Profile) -> Node:
    block = dagpb.encode((), dagpb.symlink_message(os.fsencode(target)))
    digest = hashlib.sha256(block).digest()
    name = cids.to_bytes(profile.version, cids.DAG_PB, digest)
    return Node(cids.to_text(name), 0, len(block))
