"""Verify releases offline: signatures, the chain of versions, every byte, what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...durable import sha256_file
from ...errors import DatacompError
from ...pools.engine import ALL, Workers, engine_of
from ...progress import Progress
from .beside import Fault, list_faults, pointer_faults, torrent_faults
from .digests import read_digests
from .folder import MANIFEST, Release, Releases
from .manifest import File


@dataclass
class VerifyReport:
    """What was verified. A file that several versions share is read once."""

    path: str
    versions: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    withdrawn: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        faults = [vars(fault) for fault in self.faults]
        return {**vars(self), "faults": faults, "sound": self.sound}


@dataclass(frozen=True)
class _Job:
    release: Release
    file: File
    place: Path
    deep: bool


def verify_releases(
    folder: Path | str,
    version: str | None = None,
    deep: bool = False,
    workers: Workers = None,
) -> VerifyReport:
    """Read every file of one version or of all, and compare it with the manifest.

    The SHA-256 decides; ``deep`` computes the hash tree of BitTorrent and the CID too. Of a version
    whose manifest is altered nothing else is looked at, for nothing it says can be trusted.
    """
    releases = Releases(folder)
    wrong = releases.sift()
    if not wrong:
        _ = releases.latest  # none is an error
    if version is None:
        chosen = releases.versions
    else:
        wrong = {name: detail for name, detail in wrong.items() if name == version}
        chosen = tuple(r for r in releases.versions if r.folder.name == version)
        chosen = chosen or (() if wrong else (releases.version(version),))
    report = VerifyReport(str(folder), [release.manifest.version for release in chosen])
    report.faults += [Fault(name, MANIFEST, "untrusted", what)
                      for name, what in wrong.items()]  # fmt: skip
    if releases.newest_is_sound and releases.versions[-1] in chosen:
        report.faults += pointer_faults(releases)
    jobs: list[_Job] = []
    shared: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    """The versions and paths that are one file on the disk; it is read once."""
    names: list[tuple[Any, ...]] = []
    for release in chosen:
        report.faults += [*list_faults(release), *torrent_faults(release)]
        for file in release.manifest.files:
            report.files += 1
            if file.sha256 in release.withdrawn:
                report.withdrawn += 1
                continue
            place = release.data / file.path
            try:
                status = place.stat()
                inode = (status.st_dev, status.st_ino)
            except OSError:
                inode = (str(place),)
            name = (*inode, file.sha256, file.pieces_root, file.cid)
            if name not in shared:
                names.append(name)
                jobs.append(_Job(release, file, place, deep))
            shared.setdefault(name, []).append((release.manifest.version, file.path))
    engine = engine_of(workers)
    engine.reach(*sorted({release.data for release in chosen}))
    with Progress("verifying", sum(job.file.size for job in jobs), "bytes") as progress:
        found = engine.map(_verify, jobs, threads=ALL)
        for job, name, fault in zip(jobs, names, found, strict=True):
            progress.advance(job.file.size)
            report.bytes += job.file.size
            if fault is not None:
                report.faults += [
                    replace(fault, version=version, path=path) for version, path in shared[name]
                ]
    return report


def _verify(job: _Job) -> Fault | None:
    file = job.file

    def fault(kind: str, detail: str) -> Fault:
        return Fault(job.release.manifest.version, file.path, kind, detail)

    try:
        size = job.place.stat().st_size
        if size != file.size:
            return fault("size", f"{size:,} bytes instead of {file.size:,}")
        if not job.deep:
            found = sha256_file(job.place)
        else:
            manifest = job.release.manifest
            record = read_digests(job.place, manifest.piece_length, manifest.cid_profile)
            found = record.sha256
            if found == file.sha256 and (record.pieces_root, record.cid) != (
                file.pieces_root,
                file.cid,
            ):
                return fault("tree", "the manifest has another BitTorrent root or CID for it")
    except FileNotFoundError:
        return fault("missing", "no such file")
    except OSError as error:
        return fault("unreadable", error.strerror or str(error))
    except DatacompError as error:
        return fault("unreadable", str(error))
    if found != file.sha256:
        return fault("digest", f"SHA-256 {found} instead of {file.sha256}")
    return None
