"""Where shards are built: a folder, or a folder of an object store, with nothing of another's.

In a folder a shard is whole when its stats are there, for they are written after it. A store has
that too, but a shard would have to be read back to know its digest. So each shard that stands there
is noted, last of all, by an empty file ``building.NUMBER.SIZE.SHA256.BUILD``: one listing tells
what is there, and what is of another build is not taken for it. When ``manifest.json`` says all
that, the notes are removed.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import atomic_path, digest, sha256_file, storage_errors, sweep_attempts, write_json
from ...errors import DataError, UsageError
from ...pools.ranges import fetch, is_remote, join
from ...pools.stores import remove, sizes_below, upload
from ...pools.uids import is_uid
from ...progress import say
from .folder import (
    GROWN,
    SHARD_NAME,
    STATE,
    STATS_NAME,
    UNUSABLE,
    is_whole,
    known_entries,
    locked,
    short,
    stats_text,
)

BUILDING = "building"
_SHARD = re.compile(r"[0-9]{8,}(\.tar|_stats\.json)")
_NOTE = re.compile(BUILDING + r"\.([0-9]{8,12})\.([0-9]{1,15})\.([0-9a-f]{64})\.([0-9a-f]{16})")

Known = Mapping[str, FileEntry]
NOTHING: Known = {}


@dataclass
class Found:
    """What is there of a build."""

    shards: list[FileEntry | Path | None]
    """Of each shard its entry, or its path if its digest is not known, or None."""
    known: Known
    """Files that need not be written again."""


@dataclass
class Destination(ABC):
    """A place where shards are built; it travels to the workers."""

    place: str
    build: str = ""
    """The name of what is being built."""

    @abstractmethod
    def held(self) -> AbstractContextManager[None]:
        """Hold the place for one build, where that can be done; refuse one that is not a build."""

    @abstractmethod
    def local(self) -> list[Path]:
        """Return what workers must be able to reach on a file system."""

    @abstractmethod
    def found(self, counts: Sequence[int]) -> Found:
        """Look what is there of shards of so many samples."""

    @abstractmethod
    def file(self, name: str, known: Known = NOTHING) -> AbstractContextManager[Path]:
        """Yield where to write a file; when the block ends, it is there whole.

        One that turns out to be as ``known`` need not be written again.
        """

    @abstractmethod
    def copy(self, path: Path, name: str, known: Known) -> None:
        """Put a copy of a file there, unless it is ``known``."""

    @abstractmethod
    def note(self, entry: FileEntry) -> None:
        """Remember that a shard and its stats are there."""

    @abstractmethod
    def settle(self) -> None:
        """Forget what was noted: the manifest says it."""

    def began(self) -> int:
        """Return when the build began, in ns since 1970; the end of time where it is not known."""
        return sys.maxsize

    @abstractmethod
    def _names(self) -> list[str]: ...

    @abstractmethod
    def _read(self, name: str) -> bytes | None: ...

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are none."""

    def claim(self, identity: dict[str, Any], changed: int = 0) -> list[tuple[str, str]]:
        """Write what is being built, or make sure that the same is being built already.

        Shards that were begun before the source ``changed``, in ns since 1970, are deleted: an
        edit that moves nothing leaves the identity as it is.
        Returns (uid, reason) of samples that an earlier attempt found to be unusable.
        """
        data = self._read(STATE)
        if data is None:
            self._begin(identity, [])
            return []
        damaged = DataError(
            f"{join(self.place, STATE)}: damaged; remove the folder {self.place} and build again"
        )
        found = _json(data)
        if not isinstance(found, dict):
            raise damaged
        if found.get(GROWN):
            raise UsageError(
                f"{self.place}: has grown since it was built ('datacomp shards append'); build "
                "into another folder, and append that"
            )
        for name, value in identity.items():
            if found.get(name) != value:
                raise UsageError(
                    f"{self.place}: holds another build ({name}: {short(found.get(name))} instead "
                    f"of {short(value)}); choose another folder or remove this one"
                )
        if changed > self.began():
            self._clear()
            self._begin(identity, [])
            return []
        try:
            unusable = [(str(uid), str(reason)) for uid, reason in found.get(UNUSABLE, [])]
        except (TypeError, ValueError):
            raise damaged from None
        if not all(is_uid(uid) for uid, _ in unusable):
            raise damaged
        self.build = _name_of(identity, unusable)
        return unusable

    def begin_without(self, identity: dict[str, Any], unusable: Sequence[tuple[str, str]]) -> None:
        """Delete the shards, so that they are built without samples found to be unusable.

        Killed before that is written down, the same call finds them again.
        """
        self._delete_shards()
        self._begin(identity, unusable)

    def make_room(self, identity: dict[str, Any]) -> None:
        """Delete the shards of a build that differs in its source alone, so that it is made anew.

        ``identity`` is that of the new build as far as it is known before its samples are looked
        up. What names the build goes last: killed, the same call goes on.
        """
        found = _json(self._read(STATE) or b"")
        if not isinstance(found, dict):
            return
        other = {name for name, value in identity.items() if found.get(name) != value}
        if other != {"source"}:
            return
        self._clear()
        self.remove([STATE])

    def _begin(self, identity: dict[str, Any], unusable: Sequence[tuple[str, str]]) -> None:
        with self.file(STATE) as path:
            write_json(path, {**identity, UNUSABLE: unusable} if unusable else identity)
        self.build = _name_of(identity, unusable)

    def _clear(self) -> None:
        say(f"{self.place}: its source has changed; its shards are deleted and made anew")
        self._delete_shards()

    def _delete_shards(self) -> None:
        self.remove([manifests.NAME, "missing.txt"])
        names = self._names()
        self.remove(name for name in names if _SHARD.fullmatch(name) or _NOTE.fullmatch(name))

    def _refuse_foreign(self) -> None:
        others = sorted(name for name in self._names() if not name.startswith("."))
        if others and STATE not in others:
            raise UsageError(
                f"{self.place}: is not empty ({others[0]}) and was not made by 'datacomp shards "
                "build'; choose another folder"
            )


def destination_of(place: Path | str) -> Destination:
    """Return the folder or the store that is meant."""
    text = str(place)
    return Store(text.rstrip("/")) if is_remote(text) else Folder(str(Path(text)))


class Folder(Destination):
    """A folder of this machine, or of a file system that workers share."""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder if need be, and hold it."""
        with locked(Path(self.place)):
            self._refuse_foreign()
            yield

    def local(self) -> list[Path]:
        """Return the folder."""
        return [Path(self.place)]

    def found(self, counts: Sequence[int]) -> Found:
        """Find shards by their stats."""
        out = Path(self.place)
        sweep_attempts(out)
        known = known_entries(out)
        shards: list[FileEntry | Path | None] = []
        for number, count in enumerate(counts):
            name = SHARD_NAME.format(number)
            whole = is_whole(out, number, count, known)
            shards.append((known.get(name) or out / name) if whole else None)
        if None in shards:
            self.remove([manifests.NAME])
        return Found(shards, {})

    @contextlib.contextmanager
    def file(self, name: str, known: Known = NOTHING) -> Iterator[Path]:
        """Yield the path itself: what writes there takes care that a file is whole."""
        del known
        yield Path(self.place, name)

    def copy(self, path: Path, name: str, known: Known) -> None:
        """Copy the file."""
        del known
        with atomic_path(Path(self.place, name)) as partial:
            shutil.copyfile(path, partial)

    def note(self, entry: FileEntry) -> None:
        """Do nothing: the stats are there."""

    def settle(self) -> None:
        """Do nothing."""

    def began(self) -> int:
        """Return when what is being built was written down."""
        return Path(self.place, STATE).stat().st_mtime_ns

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are none."""
        with storage_errors(self.place):
            for name in names:
                Path(self.place, name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        return sorted(path.name for path in Path(self.place).iterdir())

    def _read(self, name: str) -> bytes | None:
        try:
            return Path(self.place, name).read_bytes()
        except FileNotFoundError:
            return None


class Store(Destination):
    """A folder of an object store.

    What goes there stands in a temporary folder of the worker that makes it meanwhile.
    """

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold nothing: two builds that are alike write the same."""
        self._refuse_foreign()
        yield

    def local(self) -> list[Path]:
        """Return nothing."""
        return []

    def found(self, counts: Sequence[int]) -> Found:
        """Find shards by the manifest, or by what was noted, and by the sizes in the listing.

        The manifest of a build that has lost something stays: nothing else names the others.
        """
        sizes = sizes_below(self.place)
        known: dict[str, FileEntry] = {}
        data = self._read(manifests.NAME) if manifests.NAME in sizes else None
        if data is not None:
            listed = manifests.checked(_json(data), join(self.place, manifests.NAME))["files"]
            known = {item["path"]: FileEntry(**item) for item in listed}
        for noted in filter(None, map(_NOTE.fullmatch, sizes)):
            number, size, sha256, build = noted.groups()
            if build == self.build:
                name = SHARD_NAME.format(int(number))
                known[name] = FileEntry(name, int(size), sha256)
        known = {name: entry for name, entry in known.items() if sizes.get(name) == entry.size}
        shards: list[FileEntry | Path | None] = []
        for number, count in enumerate(counts):
            counted = sizes.get(STATS_NAME.format(number)) == len(stats_text(count))
            shards.append(known.get(SHARD_NAME.format(number)) if counted else None)
        return Found(shards, known)

    @contextlib.contextmanager
    def file(self, name: str, known: Known = NOTHING) -> Iterator[Path]:
        """Yield a temporary path, and put what was written there into the store."""
        with tempfile.TemporaryDirectory(prefix="datacomp-") as home:
            path = Path(home, name.rpartition("/")[2])
            yield path
            self.copy(path, name, known)

    def copy(self, path: Path, name: str, known: Known) -> None:
        """Put a file into the store."""
        if name not in known or known[name].sha256 != sha256_file(path):
            upload(path, join(self.place, name))

    def note(self, entry: FileEntry) -> None:
        """Put a name there that says it all."""
        number = entry.path.removesuffix(".tar")
        with self.file(f"{BUILDING}.{number}.{entry.size}.{entry.sha256}.{self.build}") as path:
            path.touch()

    def settle(self) -> None:
        """Remove the notes."""
        self.remove(filter(_NOTE.fullmatch, self._names()))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are none."""
        remove(join(self.place, name) for name in names)

    def _names(self) -> list[str]:
        return list(sizes_below(self.place))

    def _read(self, name: str) -> bytes | None:
        return fetch(join(self.place, name), manifests.MAX_BYTES)


def _name_of(identity: dict[str, Any], unusable: Sequence[tuple[str, str]]) -> str:
    return digest([identity, unusable])[:16]


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
