"""Put a version together where nobody sees it, and rename it to its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...durable import storage_errors, sync
from ..stretch import Bytes, chunks_of
from .about import About
from .croissant import croissant
from .datasheet import datasheet
from .folder import CROISSANT, DATASHEET, MANIFEST, SIGNATURE, SUMS, TOMBSTONES
from .keys import SigningKey
from .manifest import Manifest
from .metalink import metalink
from .reading import Found, Reading
from .state import State
from .torrents import Torrent
from .views import sums, tombstones


def stage(
    place: Path,
    state: State,
    reading: Reading,
    manifest: Manifest,
    torrents: tuple[Torrent, Torrent],
    key: SigningKey,
    about: About,
) -> None:
    """Write everything of a version and rename it to ``place``, which must not be there.

    Raises StorageError.
    """
    folder = state.staging
    shutil.rmtree(folder, ignore_errors=True)
    v1, hybrid = torrents
    records = {found.path: found.record for found in reading.found}
    views: dict[str, Bytes | Iterable[str]] = {
        manifest.torrents["v1"]["file"]: v1.content,
        manifest.torrents["hybrid"]["file"]: hybrid.content,
        SUMS: sums(manifest),
        f"{manifest.name}-{manifest.version}.meta4": metalink(manifest, records),
        CROISSANT: croissant(manifest, about),
        DATASHEET: datasheet(manifest, about).encode(),
        MANIFEST: manifest.raw,
        SIGNATURE: key.sign(manifest.raw),
    }
    if manifest.removed:
        views[TOMBSTONES] = tombstones(manifest)
    with storage_errors(place):
        folders = _link_files(folder / manifest.name, reading.found)
        for name, content in views.items():
            _write(folder / name, content)
        # All at the end: one wait for the disk flushes most of what the others wait for.
        for written in (*(folder / name for name in views), *folders, folder):
            sync(written)
        place.parent.mkdir(exist_ok=True)
        folder.rename(place)
        sync(place.parent)


def _link_files(folder: Path, found: Sequence[Found]) -> set[Path]:
    """Link every file to its place below ``folder``; return the folders that were made."""
    folders = {folder}
    folder.mkdir(parents=True)
    for inside in {file.path.rpartition("/")[0] for file in found}:
        parent = folder / inside
        parent.mkdir(parents=True, exist_ok=True)
        folders.update(p for p in (parent, *parent.parents) if p.is_relative_to(folder))
    for file in found:
        _link(file.place, f"{folder}/{file.path}")
    return folders


def _link(place: Path, target: str) -> None:
    """Give a file a second name; copy it where the file system or its owner does not allow that."""
    try:
        os.link(os.path.realpath(place) if os.path.islink(place) else place, target)
    except OSError:
        shutil.copyfile(place, target)
        sync(Path(target))


def _write(path: Path, content: Bytes | Iterable[str]) -> None:
    """Write bytes, or text that may be too long to hold; the folder is what is renamed."""
    if isinstance(content, Bytes):
        with path.open("wb") as file:
            file.writelines(chunks_of(content))
        return
    with path.open("w", encoding="utf-8") as file:
        file.writelines(content)
