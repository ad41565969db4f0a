"""What is served: the paths of a folder of releases, and nothing that no manifest lists."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from ...errors import DatacompError, MissingError
from ..release import Release, Releases
from ..release.folder import CROISSANT, DATASHEET, KEY, MANIFEST, SIGNATURE, SUMS, TOMBSTONES
from .answer import BRIEF, IMMUTABLE, Served
from .proofs import Prover

POINTER = "latest.json"
MAX_VIEW = 1 << 30

_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".tar": "application/x-tar",
    ".torrent": "application/x-bittorrent",
    ".meta4": "application/metalink4+xml",
    ".md": "text/markdown; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".pem": "application/x-pem-file",
    ".parquet": "application/vnd.apache.parquet",
}
_PLAIN_TEXT = "text/plain; charset=utf-8"
_UNKNOWN = "application/octet-stream"


class Withdrawn(Exception):  # noqa: N818  an answer (410)
    """A file that a later version took back."""


def media_type(name: str) -> str:
    """Return a file's media type by its name; never one that a browser would run."""
    return _PLAIN_TEXT if name == SUMS else _TYPES.get(os.path.splitext(name)[1], _UNKNOWN)


class Catalog:
    """Finds the file behind a path. Notices new versions by itself."""

    def __init__(self, folder: Path | str) -> None:
        self.releases = Releases(folder)
        # Taken before the versions are read: what is published meanwhile is news later.
        self._state = self._pointer_state()
        self.releases.latest  # noqa: B018  an empty folder is told at the start
        self._small: dict[Path, tuple[tuple[int, int], str]] = {}
        self._lock = threading.Lock()

    def is_stale(self) -> bool:
        """Tell whether the pointer has changed since; costs next to nothing."""
        return self._pointer_state() != self._state

    def refresh(self) -> bool:
        """Take up what is new; return whether there was anything.

        The pointer is never served before the version that it names.
        """
        with self._lock:
            state = self._pointer_state()
            if state == self._state:
                return False
            fresh = Releases(self.releases.folder)
            try:
                fresh.latest  # noqa: B018
            except DatacompError:  # a folder in disorder: what was served stays
                return False
            self._state, self.releases = state, fresh
            return True

    def find(self, path: str) -> Served:
        """Return the file of a URL path (without its first slash).

        Raises MissingError for what is not served, Withdrawn for what no longer is, and
        IntegrityError for a file that is not as its manifest says.
        """
        folder = self.releases.folder
        if path in (POINTER, KEY):
            return self._view(folder / path, BRIEF)
        first, _, rest = path.partition("/")
        name, _, rest = rest.partition("/")
        release = self._release(name) if first == "versions" else None
        if release is None or not rest:
            raise MissingError(f"{path}: nothing is served there")
        manifest = release.manifest
        if rest in views(release):
            return self._view(release.folder / rest, IMMUTABLE)
        top, _, inside = rest.partition("/")
        if top != manifest.name or inside not in manifest.by_path:
            raise MissingError(f"{path}: nothing is served there")
        if release.is_withdrawn(inside):
            raise Withdrawn(f"{inside} was taken back by its keeper")
        file = manifest.by_path[inside]
        place = release.locate(inside)

        def prover() -> Prover | None:
            record = release.record(inside)
            return None if record is None else Prover(place, record)

        return Served(place, file.size, file.sha256, media_type(inside), prover=prover)

    def _release(self, version: str) -> Release | None:
        return next((r for r in self.releases.versions if r.manifest.version == version), None)

    def _view(self, path: Path, cache: str) -> Served:
        """Return a small file whose digest no manifest tells; it is read when it changes."""
        try:
            status = path.stat()
            known = (status.st_mtime_ns, status.st_size)
            kept = self._small.get(path)
            if kept is None or kept[0] != known:
                with path.open("rb") as file:
                    kept = known, hashlib.file_digest(file, "sha256").hexdigest()
                self._small[path] = kept
        except FileNotFoundError:
            raise MissingError(f"{path.name}: nothing is served there") from None
        return Served(path, known[1], kept[1], media_type(path.name), cache)

    def _pointer_state(self) -> tuple[int, int, int] | None:
        try:
            status = (self.releases.folder / POINTER).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def views(release: Release) -> tuple[str, ...]:
    """Return the names of the files that stand beside a version's data, there or not."""
    torrents = release.manifest.torrents
    title = f"{release.manifest.name}-{release.manifest.version}"
    return (
        MANIFEST,
        SIGNATURE,
        SUMS,
        f"{title}.meta4",
        torrents["v1"]["file"],
        torrents["hybrid"]["file"],
        CROISSANT,
        DATASHEET,
        TOMBSTONES,
    )
