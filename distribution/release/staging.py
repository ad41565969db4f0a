"""Put a version together where nobody sees it, and rename it to its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ...durable import fsync_directory, storage_errors, write_bytes
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
    with storage_errors(place):
        _link_files(folder / manifest.name, reading.found)
        v1, hybrid = torrents
        write_bytes(folder / manifest.torrents["v1"]["file"], v1.data)
        write_bytes(folder / manifest.torrents["hybrid"]["file"], hybrid.data)
        _write(folder / SUMS, (f"{f.sha256}  {manifest.name}/{f.path}\n" for f in manifest.files))
        records = {found.path: found.record for found in reading.found}
        _write(folder / f"{manifest.name}-{manifest.version}.meta4", metalink(manifest, records))
        write_bytes(folder / CROISSANT, croissant(manifest, about))
        write_bytes(folder / DATASHEET, datasheet(manifest, about).encode())
        if manifest.removed:
            _write(folder / TOMBSTONES, tombstones(manifest))
        write_bytes(folder / MANIFEST, manifest.raw)
        write_bytes(folder / SIGNATURE, key.sign(manifest.raw))
        place.parent.mkdir(exist_ok=True)
        folder.rename(place)
        fsync_directory(place.parent)


def tombstones(manifest: Manifest) -> Iterable[str]:
    """Yield a line for every sample that was taken back: uid, version, reason."""
    for removal in manifest.removed:
        reason = " ".join(removal.reason.split())
        for uid in removal.uids:
            yield f"{uid}\t{removal.version}\t{reason}\n"


def _link_files(folder: Path, found: Iterable[Found]) -> None:
    folders = {folder}
    folder.mkdir(parents=True)
    for file in found:
        target = folder / file.path
        if target.parent not in folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.update(p for p in target.parents if p.is_relative_to(folder))
        _link(file.place, target)
    for inside in folders:
        fsync_directory(inside)


def _link(place: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system or its owner does not allow that."""
    try:
        os.link(place.resolve() if place.is_symlink() else place, target)
    except OSError:
        shutil.copyfile(place, target)
        fsync_directory(target)  # a file can be flushed through any descriptor


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write text that is too long to hold; the folder is renamed later, so no partial name."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
