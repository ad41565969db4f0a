"""Take samples back: a new version whose shards no longer hold them.

The dataset's own shards are written anew, only those that hold the samples; the new version lists
the samples, the reason and the files of all versions that held them, and those files are deleted
from the older versions here, so that nobody gets them from this folder again. Copies that others
have are beyond reach, except that ``get`` deletes what was taken back when it updates one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ...distribution.release import (
    CreateReport,
    Plan,
    Release,
    Releases,
    Removal,
    SigningKey,
)
from ...errors import DataError, MissingError, UsageError
from ...pools.uids import is_uid, load_subset, to_hex
from ..shards.index import Index, ensure_index
from ..shards.remove import remove_samples, uids_in
from ..shards.storage import PARQUET
from .create import create_release, holders

MAX_LIST_BYTES = 1 << 30
MAX_REASON = 1000

_File = tuple[str, int, str]
"""Path, size and SHA-256."""


@dataclass
class RevokeReport:
    """What was taken back. ``shards`` were written anew, ``withdrawn`` files deleted."""

    uids: int
    shards: list[str]
    reason: str
    release: CreateReport

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def revoke_samples(
    dataset: Path | str,
    folder: Path | str,
    uids: Iterable[str],
    reason: str,
    plan: Plan,
    key: SigningKey,
    now: datetime | None = None,
    **more: Any,
) -> RevokeReport:
    """Remove samples from ``dataset`` and publish what is left as version ``plan.version``.

    The name may be left empty: it is that of the dataset published. ``more`` goes to
    ``create_release``. After an interruption the same call goes on where it stopped. Raises
    UsageError for uids that no version holds.
    """
    dataset, folder = Path(dataset), Path(folder)
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= MAX_REASON:
        raise UsageError(f"a reason of 1 to {MAX_REASON} characters is needed, for all to read")
    versions = Releases(folder).versions
    before = [v for v in versions if v.folder.name != plan.version]
    if not before:
        raise MissingError(f"{folder}: no release there, so nothing can be taken back")
    parent = before[-1]
    wanted = sorted(set(uids))
    if not wanted:
        raise UsageError("no uid given to take back")
    if PARQUET not in parent.manifest.by_path:
        raise MissingError(
            f"{parent.folder}: was published without an index of its samples, so it is not known "
            "where they are"
        )
    there = next((v for v in versions if v.folder.name == plan.version), None)
    files = _held(before, there, wanted)
    index = ensure_index(dataset, plan.workers, keep_going=True)
    shards = sorted({*_still_published(parent, files), *_shards_with(index, wanted)})
    remove_samples(dataset, wanted, shards, parent.manifest.piece_length)
    removal = Removal(plan.version, parent.manifest.serial + 1, reason, tuple(wanted), files)
    plan = replace(plan, name=parent.manifest.name, removal=removal)
    report = create_release(dataset, folder, plan, key, now=now, **more)
    return RevokeReport(len(wanted), shards, reason, report)


def read_uids(path: Path | str) -> list[str]:
    """Return the uids of a file: a subset (``.npy``), or text with one a line, ``#`` comments."""
    path = Path(path)
    if path.suffix == ".npy":
        return to_hex(load_subset(path))
    found: list[str] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = line.partition("#")[0].strip()
                if text and not is_uid(text):
                    raise DataError(
                        f"{path}: line {number}: expected a uid of 32 hex digits, found "
                        f"{text[:40]!r}"
                    )
                found += [text] if text else []
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file of uids") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: neither a subset (.npy) nor text") from None
    return found


def _held(before: list[Release], there: Release | None, wanted: list[str]) -> tuple[_File, ...]:
    """Return the files of all versions that hold some of the samples, but for those taken back.

    Every sample must be in one of them. ``there`` is the version to make, where a killed run has
    made it already: what that one deleted is among the files.
    """
    taken = before[-1].manifest.withdrawn
    removed = () if there is None else there.manifest.removed[len(before[-1].manifest.removed) :]
    deleted = frozenset(sha256 for removal in removed for _, _, sha256 in removal.files)
    files: set[_File] = set()
    known: set[str] = set()
    for release in before:
        by_path = release.manifest.by_path
        for shard, uids in _holders(release, wanted, deleted).items():
            if by_path[shard].sha256 in taken:
                continue
            known.update(uids)
            for path in (shard, f"{shard.removesuffix('.tar')}.parquet"):
                file = by_path.get(path)
                if file is not None:
                    files.add((file.path, file.size, file.sha256))
    unknown = set(wanted) - known
    if unknown:
        raise UsageError(
            f"{before[-1].folder.parent}: no version holds the sample {min(unknown)}"
            f"{f' and {len(unknown) - 1:,} more' if len(unknown) > 1 else ''}; take what is not "
            "there out of the list"
        )
    return tuple(sorted(files))


def _holders(
    release: Release, wanted: list[str], deleted: frozenset[str]
) -> dict[str, Collection[str]]:
    """Return which shards of a version hold some of the samples, and which of them."""
    manifest, found = release.manifest, dict[str, Collection[str]]()
    if (release.data / PARQUET).is_file() and PARQUET in manifest.by_path:
        index = Index(release.data, str(release.data), (), "")
        found.update(holders(index, wanted))
        if sum(index.scan(("uid",), len)) == manifest.counts["samples"]:
            return found
    # No index, or it has one place of a sample that stands there several times: the tars know.
    for file in manifest.files:
        if file.path.endswith(".tar") and file.path not in found:
            held = set(wanted) if file.sha256 in deleted else _uids_of(release, file.path, wanted)
            if held:
                found[file.path] = held
    return found


def _uids_of(release: Release, path: str, wanted: list[str]) -> set[str]:
    """Return which of the samples a tar holds, if it is there."""
    place = release.data / path
    return (
        {uid for _, uid in uids_in(place) if uid}.intersection(wanted) if place.is_file() else set()
    )


def _still_published(parent: Release, files: Iterable[_File]) -> Iterator[str]:
    """Yield the shards of the newest version that stand, or whose parquet stands, among files."""
    by_path = parent.manifest.by_path
    for path, _, sha256 in files:
        shard = f"{path.removesuffix('.parquet').removesuffix('.tar')}.tar"
        if path in by_path and by_path[path].sha256 == sha256 and shard in by_path:
            yield shard


def _shards_with(index: Index, wanted: list[str]) -> list[str]:
    """Return the shards of the dataset as it is now that may hold some of the samples."""
    repeated = [shard.name for shard in index.shards if shard.dropped]
    return [*holders(index, wanted), *repeated]
