"""Read the files of a version: what is new once, what is unchanged not at all.

A file is unchanged when path, size and time of change are those remembered and its digests are
at hand. Of those that share pieces of the v1 torrent, some are read again where one before them
has changed. New files are read by several threads, for hashing lets go of Python's lock. Tars are
padded to whole pieces; what has to be written anew for that, or because it lies on another file
system, is written in the same pass.
"""

from __future__ import annotations

import functools
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...durable import digest, storage_errors
from ...errors import DataError, IntegrityError, MissingError
from ...pools.engine import ALL, Engine
from ...progress import Progress, warn
from ..stretch import Bytes, Spill
from .digests import Record, read_digests
from .folder import Release
from .state import Seen, State
from .tail import TailPieces, known_pieces
from .torrents import check_fits

BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file to publish: its path in the release, and where it lies."""

    path: str
    file: Path


@dataclass(frozen=True)
class Found:
    """A file whose digests are known, and where to link it from."""

    path: str
    record: Record
    seen: Seen
    place: Path


@dataclass
class Reading:
    """All files by path, the pieces that span some of them, and what had to be read."""

    found: list[Found] = field(default_factory=list)
    tail: Bytes = b""
    read: int = 0
    bytes_read: int = 0
    copied: int = 0


@dataclass
class _Job:
    """One file: as it is now, and its digests once they are known.

    ``pad`` and ``copy`` say that it cannot be linked as it is; ``place`` is where it can be
    linked from.
    """

    source: Source
    size: int
    mtime_ns: int
    pad: bool
    copy: bool
    place: Path | None = None
    record: Record | None = None


@dataclass(frozen=True)
class _Shape:
    """How pieces and CIDs are made, and the folder that copies go to."""

    piece_length: int
    profile: str
    objects: Path


class Reader:
    """Reads files into the memory of a folder of releases, for one version.

    Hashes that grow with the files wait in a ``spill``, which has to be open while what is returned
    is used.
    """

    def __init__(
        self,
        state: State,
        piece_length: int,
        profile: str,
        spill: Spill,
        *,
        parent: Release | None = None,
        there: Release | None = None,
        rehash: bool = False,
        engine: Engine,
    ) -> None:
        self._state, self._piece_length, self._profile = state, piece_length, profile
        self._engine, self._parent, self._spill = engine, parent, spill
        self._made = [] if rehash else [release for release in (there, parent) if release]
        self._seen = {} if rehash else state.seen()
        self._shape = _Shape(piece_length, profile, state.objects)
        self._device = state.folder.stat().st_dev

    def read(self, sources: Sequence[Source]) -> Reading:
        """Return the digests of all files; new ones are remembered as soon as they are known.

        Raises MissingError, DataError, IntegrityError (a file changes meanwhile), StorageError,
        UsageError (torrents would be too large).
        """
        self._engine.reach(*sorted({source.file.parent for source in sources}), self._state.folder)
        jobs = [self._survey(source) for source in sources]
        sizes = ((job.source.path, job.size) for job in jobs)
        check_fits(sizes, self._piece_length)
        new = [job for job in jobs if job.record is None]
        apart = [job for job in jobs if job.pad or job.size % self._piece_length == 0]
        row = [job for job in jobs if not job.pad and job.size % self._piece_length]
        pieces, known = self._known_pieces(row)
        again = _read_again(row, known)
        reading = Reading(
            read=len(new),
            bytes_read=sum(job.size for job in new) + sum(again.values()),
            copied=sum(job.copy for job in new),
        )
        with Progress("reading", reading.bytes_read, "bytes") as progress:
            unread = [job for job in apart if job.record is None]
            read = functools.partial(_read, self._shape)
            for job, found in zip(unread, self._engine.map(read, unread, threads=ALL), strict=True):
                self._remember(job, *found)
                progress.advance(job.size)
            # What shares pieces with its neighbours is read in one row.
            tail = TailPieces(self._piece_length, self._spill, pieces)
            for job in row:
                if job.record is None:
                    self._remember(job, *_read(self._shape, job, tail))
                    progress.advance(job.size)
                elif known < job.size:
                    _feed(tail, job, known)
                    progress.advance(again.get(job.source.path, 0))
                known = max(0, known - job.size)
        reading.tail = tail.finish()
        reading.found = [self._found(job) for job in jobs]
        return reading

    def _known_pieces(self, row: list[_Job]) -> tuple[Bytes, int]:
        """Return the pieces of the row's beginning that a version has, and how many bytes it is."""
        if all(job.record is None or job.record.content for job in row):
            return b"", 0  # nothing would be read again
        named = [(job.source.path, job.record and job.record.sha256) for job in row]
        found = (
            known_pieces(release, named, self._piece_length, self._spill) for release in self._made
        )
        return max(found, key=lambda item: item[1], default=(b"", 0))

    def _survey(self, source: Source) -> _Job:
        """Look at a file, and take its digests from memory if it is unchanged."""
        try:
            status = os.stat(source.file)
        except OSError:
            raise MissingError(f"{source.file}: no such file") from None
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{source.file}: not a regular file")
        pad = source.path.endswith(".tar") and status.st_size % self._piece_length != 0
        copy = pad or status.st_dev != self._device
        job = _Job(source, status.st_size, status.st_mtime_ns, pad, copy)
        seen = self._seen.get(source.path)
        if seen is not None and (seen.size, seen.mtime_ns) == (job.size, job.mtime_ns):
            if copy:
                job.place = self._place(job, seen.sha256)
            if job.place is not None or not copy:
                job.record = self._known(seen.sha256, job)
        return job

    def _known(self, sha256: str, job: _Job) -> Record | None:
        record = self._state.record(sha256)
        size = job.size + (-job.size % self._piece_length if job.pad else 0)
        if record is None or (record.size, record.piece_length, record.profile) != (
            size,
            self._piece_length,
            self._profile,
        ):
            return None
        return record.set_aside(self._spill)

    def _place(self, job: _Job, sha256: str) -> Path | None:
        """Return a copy that was made before, by a killed run or for another version."""
        made = self._state.objects / sha256
        if made.is_file():
            return made
        for release in self._made:
            file = release.manifest.by_path.get(job.source.path)
            place = release.data / job.source.path
            if file and file.sha256 == sha256 and place.is_file():
                return place if place.stat().st_size == file.size else None
        return None

    def _remember(self, job: _Job, record: Record, place: Path | None) -> None:
        status = job.source.file.stat()
        if (status.st_size, status.st_mtime_ns) != (job.size, job.mtime_ns):
            raise IntegrityError(f"{job.source.file}: changed while it was read; try again")
        self._warn_if_edited(job, record)
        self._state.keep(record)
        self._state.note(_seen(job, record))
        job.record, job.place = record.set_aside(self._spill), place

    def _warn_if_edited(self, job: _Job, record: Record) -> None:
        """Say so where a file was not replaced but written into, for versions share its bytes."""
        before = self._parent and self._parent.manifest.by_path.get(job.source.path)
        if self._parent is None or before is None or before.sha256 == record.sha256:
            return
        shared = self._parent.data / job.source.path
        if shared.is_file() and shared.samefile(job.source.file):
            warn(
                f"{job.source.file}: was changed in place, so version "
                f"{self._parent.manifest.version} has lost it; write a new file and rename it"
            )

    def _found(self, job: _Job) -> Found:
        assert job.record is not None
        return Found(
            job.source.path,
            job.record,
            _seen(job, job.record),
            job.place or job.source.file,
        )


def _read(
    shape: _Shape, job: _Job, tail: TailPieces | None = None
) -> tuple[Record, Path | None]:  # fmt: skip
    """Read a file, and write it anew where that is necessary. Runs in a worker.

    Returns its digests, and where the copy is, if one was made.
    """
    how = shape.piece_length, shape.profile
    also = None if tail is None else tail.update
    if not job.copy:
        return read_digests(job.source.file, *how, also=also), job.place
    objects = shape.objects
    with storage_errors(objects):
        objects.mkdir(parents=True, exist_ok=True)
        partial = objects / f".{digest(job.source.path)}.{secrets.token_hex(4)}.partial"
        try:
            with partial.open("wb") as file:

                def write(block: memoryview) -> None:
                    file.write(block)
                    if also is not None:
                        also(block)

                record = read_digests(job.source.file, *how, pad=job.pad, also=write)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(objects / record.sha256)
        finally:
            partial.unlink(missing_ok=True)
    return record, objects / record.sha256


def _seen(job: _Job, record: Record) -> Seen:
    return Seen(job.source.path, job.size, job.mtime_ns, record.sha256)


def _read_again(row: list[_Job], known: int) -> dict[str, int]:
    """Return how much of which unchanged files has to be read: ``known`` bytes of the row not."""
    found: dict[str, int] = {}
    for job in row:
        if job.record is not None and not job.record.content and known < job.size:
            found[job.source.path] = job.size - known
        known = max(0, known - job.size)
    return found


def _feed(tail: TailPieces, job: _Job, start: int) -> None:
    """Hand the bytes of an unchanged file from ``start`` on; small ones are remembered."""
    assert job.record is not None
    if job.record.content:
        tail.update(bytes(job.record.content)[start:])
        return
    with (job.place or job.source.file).open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK):
            tail.update(block)
