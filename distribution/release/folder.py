"""A folder of releases: the versions of one dataset, as they are served.

latest.json               the signed pointer to the newest version
key.pem                   the public key, for openssl
versions/V/               never changes once it is there
    manifest.json         the truth; all that follows is made from it
    manifest.json.sig     the signature of its bytes
    SHA256SUMS, NAME-V.meta4, NAME-V.torrent, NAME-V.hybrid.torrent,
    croissant.json, datasheet.md, tombstones.tsv
    NAME/                 the files, as hard links wherever that is possible
"""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cached_property
from pathlib import Path

from ...errors import DatacompError, DataError, IntegrityError, MissingError, UsageError, suggest
from .digests import Record
from .manifest import MAX_BYTES, Manifest, verify_manifest
from .pointer import NAME as POINTER
from .pointer import Pointer, read_pointer
from .state import State

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
SUMS = "SHA256SUMS"
CROISSANT = "croissant.json"
DATASHEET = "datasheet.md"
TOMBSTONES = "tombstones.tsv"
KEY = "key.pem"
VERSIONS = "versions"
MEND = f"put {MANIFEST} and {SIGNATURE} back from another copy of this version"


class Release:
    """One version: its manifest, and where its files lie.

    Number and parent are read at once; everything is checked when the manifest is first asked
    for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / MANIFEST
        self._raw = _bytes_of(self._path)
        self.signature = _bytes_of(folder / SIGNATURE)
        self.serial, self.parent = _place_in_chain(self._raw, str(self._path))
        self.sha256 = hashlib.sha256(self._raw).hexdigest()
        self._withdrawn_later: frozenset[str] = frozenset()

    @cached_property
    def manifest(self) -> Manifest:
        """What the version says; raises as ``verify_manifest``."""
        return verify_manifest(self._raw, self.signature, str(self._path))

    @property
    def withdrawn(self) -> frozenset[str]:
        """The SHA-256 of files that this or a later version took back."""
        return self._withdrawn_later | self.manifest.withdrawn

    @property
    def data(self) -> Path:
        """The folder of its files."""
        return self.folder / self.manifest.name

    def is_withdrawn(self, path: str) -> bool:
        """Tell whether a listed file was taken back since."""
        file = self.manifest.by_path.get(path)
        return file is not None and file.sha256 in self.withdrawn

    def locate(self, path: str) -> Path:
        """Return where a listed file lies.

        Raises MissingError for one that is not listed, was taken back or is gone, IntegrityError
        for one of another size.
        """
        file = self.manifest.by_path.get(path)
        if file is None:
            raise MissingError(f"{self.manifest.version} has no file {path[:80]!r}")
        if file.sha256 in self.withdrawn:
            raise MissingError(f"{path}: was taken back after version {self.manifest.version}")
        place = self.data / path
        if not place.is_file():
            raise MissingError(f"{place}: no such file, though the manifest lists it")
        size = place.stat().st_size
        if size != file.size:
            raise IntegrityError(f"{place}: {size:,} bytes instead of {file.size:,}")
        return place

    def record(self, path: str) -> Record | None:
        """Return the digests of a listed file, None if this machine does not know them."""
        file = self.manifest.by_path[path]
        return State(self.folder.parent.parent).record(file.sha256)


class Releases:
    """All versions in a folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.newest_is_sound = True
        """As far as ``sift`` has found."""

    def refresh(self) -> None:
        """Look for new versions."""
        self.__dict__.pop("versions", None)
        self.__dict__.pop("pointer", None)

    @cached_property
    def versions(self) -> tuple[Release, ...]:
        """The versions by serial number.

        Raises DataError or IntegrityError for a manifest
        that cannot be believed or does not name the one before as its parent.
        """
        found = sorted(map(Release, self._places()), key=lambda release: release.serial)
        for before, after in itertools.pairwise(found):
            if after.parent != before.sha256:
                _ = before.manifest, after.manifest  # is one of them altered, it is to blame
                raise IntegrityError(f"{after.folder}: {_breaks(before)}")
        return _chained(found)

    def sift(self) -> dict[str, str]:
        """Take the versions that can be believed; return what is wrong with others, by name."""
        sound: list[Release] = []
        wrong: dict[str, str] = {}
        numbers: set[int | None] = set()
        for folder in self._places():
            serial = None
            try:
                release = Release(folder)
                serial = release.serial
                _ = release.manifest
                sound.append(release)
            except DatacompError as error:
                wrong[folder.name] = f"{error}; {MEND}"
                numbers.add(serial)
        sound.sort(key=lambda release: release.serial)
        for before, after in itertools.pairwise(sound):
            told = after.serial > before.serial + 1 and numbers & {None, after.serial - 1}
            if after.parent != before.sha256 and not told:
                wrong[after.folder.name] = f"{after.folder}: {_breaks(before)}"
        self.newest_is_sound = bool(sound) and all(
            number is not None and number < sound[-1].serial for number in numbers
        )
        self.versions = _chained(sound)
        return wrong

    def _places(self) -> list[Path]:
        places = (self.folder / VERSIONS).glob(f"*/{MANIFEST}")
        return sorted(path.parent for path in places if not path.parent.name.startswith("."))

    @property
    def latest(self) -> Release:
        """The newest version; raises MissingError if there is none."""
        if not self.versions:
            raise MissingError(
                f"{self.folder}: no release there; make one with 'datacomp release create'"
            )
        return self.versions[-1]

    def version(self, name: str) -> Release:
        """Return a version by its name; raises UsageError for an unknown one."""
        for release in self.versions:
            if release.folder.name == name:
                return release
        known = [release.folder.name for release in self.versions]
        raise UsageError(f"{self.folder}: no version {name!r}{suggest(name, known)}")

    @cached_property
    def pointer(self) -> Pointer:
        """What ``latest.json`` says; raises as ``read_pointer``."""
        path = self.folder / POINTER
        return read_pointer(_bytes_of(path), str(path))


def _chained(versions: list[Release]) -> tuple[Release, ...]:
    """Let each version know what the newest has taken back."""
    for release in versions:
        release._withdrawn_later = versions[-1].manifest.withdrawn
    return tuple(versions)


def _breaks(before: Release) -> str:
    return (
        f"does not name {before.folder.name!r} as its parent; the chain of versions is broken: "
        "bring back, from another copy, what stood between them or was replaced"
    )


def _place_in_chain(raw: bytes, where: str) -> tuple[int, str | None]:
    """Return the number of a manifest and the SHA-256 of its parent, not believed yet."""
    try:
        value = json.loads(raw)
        parent = value["parent"]
        return int(value["serial"]), None if parent is None else str(parent["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"{where}: not the manifest of a release") from None


def _bytes_of(path: Path) -> bytes:
    """Read a file of bounded size."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; the release is not whole") from None
