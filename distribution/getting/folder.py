"""The folder that is being filled: what is there, what is known to be right, what is half there.

Beside the files stands the hidden folder ``.datacomp``:

    manifest.json, manifest.json.sig, latest.json   of the version that is here whole
    unsigned          what is here where nobody has signed it: the info-hash of a torrent, the CID
                      of a folder, or an IPNS name, the sequence number of its record and the CID
    verified.jsonl    path, size, time of change and SHA-256 of every file that was verified
    partial/          files under way, named by their digest
    torrent/          files under way from peers
    lock

A version's manifest appears there last of all, when every file has been verified: it marks the
folder as whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import append_line, fsync_directory, storage_errors, write_bytes, write_text
from ...errors import DataError, MissingError, StorageError, UnsafeInputError, UsageError
from ..bencode import decode
from ..release import parse_manifest

if TYPE_CHECKING:
    from ..release import Manifest
    from .order import Order, Wanted
    from .spans import Spans

STATE = ".datacomp"
MANIFEST, SIGNATURE, POINTER = "manifest.json", "manifest.json.sig", "latest.json"
VERIFIED = "verified.jsonl"
RESUME = "torrent.resume"
UNSIGNED = "unsigned"
MAX_RECORDS = 1 << 30
MAX_RESUME = 1 << 28
CHUNK = 1 << 20
_EMPTY = {"lock", "partial"}


class Folder:
    """A folder of downloaded files; use it as a context manager: one process at a time."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.state = self.path / STATE
        self.partial = self.state / "partial"
        self.torrent = self.state / "torrent"
        self._known: dict[str, tuple[int, int, str]] = {}

    def __enter__(self) -> Folder:
        self._fresh = not self.path.exists()
        with storage_errors(self.path):
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock = (self.state / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StorageError(
                f"{self.path}: another 'datacomp get' fills it; wait for that one"
            ) from None
        self._known = dict(self._read_records())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._lock.close()
        if not self._fresh or exc_info[0] is None:
            return
        left = set(os.listdir(self.state))
        noted = {POINTER, UNSIGNED} if isinstance(exc_info[1], UsageError) else set[str]()
        if _EMPTY <= left <= _EMPTY | noted:
            # Nothing was got: a mistake in the command leaves no folder behind.
            with contextlib.suppress(OSError):
                self.partial.rmdir()
                for name in left - {self.partial.name}:
                    (self.state / name).unlink()
                self.state.rmdir()
                self.path.rmdir()

    # -- what is here -----------------------------------------------------------------------

    def held(self) -> Manifest | None:
        """Return the manifest of the version that is here whole, None if there is none."""
        try:
            data = (self.state / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None
        return parse_manifest(data, str(self.state / MANIFEST))

    def pointer(self) -> bytes | None:
        """Return the newest ``latest.json`` seen here."""
        with contextlib.suppress(FileNotFoundError):
            return (self.state / POINTER).read_bytes()
        return None

    def place_of(self, path: str) -> Path:
        """Return where a file belongs; UnsafeInputError if a link on the way leaves the folder."""
        place = self.path / path
        if not place.parent.resolve().is_relative_to(self.path.resolve()):
            raise UnsafeInputError(f"{place}: a link on the way leaves the folder; refused")
        if place.parent.resolve().is_relative_to(self.state.resolve()):
            raise UnsafeInputError(f"{place}: that folder is our own; refused")
        return place

    def knows(self, wanted: Wanted) -> bool:
        """Tell whether a file is here and was verified, and has not been touched since."""
        found = self.verified_digest(wanted.path)
        return found is not None and wanted.sha256 in (None, found)

    def verified_digest(self, path: str) -> str | None:
        """Return the SHA-256 that was verified of a file here, if it has not been touched since."""
        known = self._known.get(path)
        if known is None:
            return None
        try:
            status = os.stat(self.path / path, follow_symlinks=False)
        except OSError:
            return None
        return known[2] if (status.st_size, status.st_mtime_ns) == known[:2] else None

    def is_ours(self, path: str) -> bool:
        """Tell whether a file of this path was once put here by us."""
        return path in self._known

    def records(self) -> Iterator[tuple[str, str]]:
        """Yield path and SHA-256 of every file that is known to be right."""
        for path in list(self._known):
            found = self.verified_digest(path)
            if found is not None:
                yield path, found

    # -- changing it ------------------------------------------------------------------------

    def partial_of(self, wanted: Wanted) -> Path:
        """Return where a file is prepared: its name says what it will be."""
        unnamed = f"{wanted.path}\0{wanted.size}".encode()
        return self.partial / (wanted.sha256 or hashlib.sha256(unnamed).hexdigest())

    def put(self, wanted: Wanted, prepared: Path, sha256: str) -> None:
        """Move a prepared and verified file to its place, flushed to the disk, and remember it."""
        place = self.place_of(wanted.path)
        with storage_errors(place):
            descriptor = os.open(prepared, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            place.parent.mkdir(parents=True, exist_ok=True)
            self.place_of(wanted.path)
            prepared.replace(place)
            fsync_directory(place.parent)
        self.remember(wanted.path, sha256)

    def take_back(self, wanted: Wanted) -> None:
        """Move a file that is wrong from its place to where files are prepared."""
        self.place_of(wanted.path).replace(self.partial_of(wanted))
        self._known.pop(wanted.path, None)

    def lend(self, wanted: Wanted, place: str) -> None:
        """Move a file that only a torrent can tell to be right to its place in the torrent."""
        staged = self.torrent / place
        staged.parent.mkdir(parents=True, exist_ok=True)
        self.place_of(wanted.path).replace(staged)
        (self.torrent / RESUME).unlink(missing_ok=True)

    def bind(self, identity: str) -> None:
        """Bind the folder to an unsigned source; UsageError if it is bound to another."""
        if self._bound() not in ([], [identity]):
            raise UsageError(f"{self.path}: holds the files of another source; use another folder")
        write_text(self.state / UNSIGNED, identity)

    def followed(self) -> tuple[str, int] | None:
        """Return the IPNS name that the folder is bound to, and the number of its record."""
        bound = self._bound()
        return (bound[0], int(bound[1])) if len(bound) > 1 else None

    def follow(self, name: str, sequence: int, root: str, update: bool) -> None:
        """Bind the folder to an IPNS name that points to the CID ``root`` now.

        Where it pointed elsewhere before, no file here is taken to be right until it is read
        again. Raises UsageError without ``update`` then, or where it is bound to something else.
        """
        bound = self._bound()
        if bound[:1] != [name]:
            self.bind(root)
        elif bound[2] != root:
            if not update:
                raise UsageError(
                    f"{self.path}: holds number {bound[1]} of ipns://{name}; --update makes it "
                    f"number {sequence}, or use another folder"
                )
            self._known = {path: (size, -1, sha) for path, (size, _, sha) in self._known.items()}
            self._write_records()
        write_text(self.state / UNSIGNED, f"{name} {sequence} {root}")

    def _bound(self) -> list[str]:
        """Return what the folder is bound to: nothing, an identity, or name, number and CID."""
        path = self.state / UNSIGNED
        words = path.read_text(errors="replace").split(" ") if path.is_file() else []
        if len(words) > 1 and not (len(words) == 3 and words[1].isdecimal()):
            raise DataError(f"{path}: damaged; delete it if you trust what is in {self.path}")
        return words

    def left_over(self, paths: Collection[str]) -> list[str]:
        """Return which files that were put here, and are as they were then, are none of these."""
        return sorted(
            path
            for path, (size, _, sha256) in self._known.items()
            if path not in paths
            and (place := self.place_of(path)).is_file()
            and place.stat().st_size == size
            and sha256_of(place) == sha256
        )

    def remember(self, path: str, sha256: str) -> None:
        """Note that a file is right as it stands now."""
        status = os.stat(self.path / path, follow_symlinks=False)
        self._known[path] = (status.st_size, status.st_mtime_ns, sha256)
        append_line(self.state / VERIFIED, _line(path, self._known[path]))

    def remove(self, path: str) -> None:
        """Delete a file, and the folders that are empty then."""
        place = self.place_of(path)
        place.unlink(missing_ok=True)
        self._known.pop(path, None)
        for parent in place.parents:
            if parent == self.path:
                break
            try:
                parent.rmdir()
            except OSError:
                break

    def forget_partials_of(self, digests: Collection[str]) -> None:
        """Delete what is half there of files with some SHA-256."""
        for path in self.partial.iterdir() if digests else ():
            if path.name.removesuffix(".gaps") in digests:
                path.unlink()

    def forget_staged(self, name: str, paths: Iterable[str], infohashes: Collection[str]) -> None:
        """Delete what peers gave of some files of a torrent ``name``.

        Pieces have no digest of the file they are of. What is known to be of a torrent with one of
        ``infohashes``, which hold other files under these paths, stays.
        """
        if not (self.torrent / name).is_dir() or self._staged_of() in infohashes:
            return
        root = self.torrent.resolve()
        for path in paths:
            staged = self.torrent / name / path
            if staged.parent.resolve().is_relative_to(root) and not staged.is_dir():
                staged.unlink(missing_ok=True)

    def _staged_of(self) -> str | None:
        """Return the v1 info-hash of the torrent whose pieces are there, None if not known."""
        path = self.torrent / RESUME
        try:
            if path.stat().st_size > MAX_RESUME:
                return None
            return decode(path.read_bytes(), MAX_RESUME, str(path))[b"info-hash"].hex()
        except (OSError, DataError, UnsafeInputError, KeyError, TypeError, AttributeError):
            return None

    def forget_partials(self) -> None:
        """Delete what is half there."""
        shutil.rmtree(self.torrent, ignore_errors=True)
        for path in self.partial.iterdir():
            path.unlink()

    def finish(self, order: Order) -> None:
        """Mark the folder as whole: it holds the version of the order, and nothing half."""
        self.forget_partials()
        self._write_records()
        self.keep(order)

    def keep(self, order: Order) -> None:
        """Remember whose version this is: no other key and nothing older is believed later."""
        if order.pointer is not None:
            self.see(order.pointer.raw)
        if order.manifest is not None:
            write_bytes(self.state / SIGNATURE, order.signature)
            write_bytes(self.state / MANIFEST, order.manifest.raw)

    def see(self, pointer: bytes) -> None:
        """Remember the newest pointer, so that no older one is believed."""
        write_bytes(self.state / POINTER, pointer)

    def _write_records(self) -> None:
        lines = [_line(path, known) + "\n" for path, known in sorted(self._known.items())]
        write_text(self.state / VERIFIED, "".join(lines))

    def _read_records(self) -> Iterator[tuple[str, tuple[int, int, str]]]:
        path = self.state / VERIFIED
        if not path.is_file():
            return
        if path.stat().st_size > MAX_RECORDS:
            raise UnsafeInputError(f"{path}: larger than {MAX_RECORDS:,} bytes; delete it")
        with path.open("rb") as file:
            for line in file:
                # A line that a crash has torn says nothing; its file will be read again.
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    item = json.loads(line)
                    yield str(item["path"]), (int(item["size"]), int(item["mtime_ns"]),
                                              str(item["sha256"]))  # fmt: skip


def copy_spans(source: Path, target: Path, spans: Spans) -> None:
    """Copy some spans of a file to the same places of another, which is made if need be."""
    with source.open("rb", buffering=0) as read:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            for start, end in spans:
                at = start
                while at < end and (data := os.pread(read.fileno(), min(CHUNK, end - at), at)):
                    at += os.pwrite(descriptor, data, at)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex; MissingError if it is not there."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None


def _line(path: str, known: tuple[int, int, str]) -> str:
    size, mtime_ns, sha256 = known
    return json.dumps({"path": path, "size": size, "mtime_ns": mtime_ns, "sha256": sha256})
