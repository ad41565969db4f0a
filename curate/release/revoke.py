"""Take samples back: a new version whose shards no longer hold them.

The dataset's own shards are written anew, only those that hold the samples; the new version lists
the samples, the reason and the files that held them, and those files are deleted from the older
versions here, so that nobody gets them from this folder again. Copies that others have are beyond
reach, except that ``get`` deletes what was taken back when it updates one.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    UsageError for uids that the newest version does not hold.
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
    published = _published(parent, wanted)
    index = ensure_index(dataset, plan.workers, keep_going=True)
    shards = sorted({*published, *_shards_with(index, wanted)})
    remove_samples(dataset, wanted, shards, parent.manifest.piece_length)
    removal = Removal(
        plan.version,
        parent.manifest.serial + 1,
        reason,
        tuple(wanted),
        tuple(_files(parent, published)),
    )
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


def _published(parent: Release, wanted: list[str]) -> list[str]:
    """Return the shards of a version that hold some of the samples; all of them must be there."""
    if PARQUET not in parent.manifest.by_path:
        raise MissingError(
            f"{parent.folder}: was published without an index of its samples, so it is not known "
            "where they are"
        )
    index = Index(parent.data, str(parent.data), (), "")
    found = holders(index, wanted)
    unknown = set(wanted) - {uid for uids in found.values() for uid in uids}
    if unknown:
        raise UsageError(
            f"{parent.folder}: version {parent.manifest.version} holds no sample "
            f"{min(unknown)}{f' and {len(unknown) - 1:,} more' if len(unknown) > 1 else ''}; "
            "take what is not there out of the list"
        )
    rows = sum(index.scan(("uid",), len))
    if rows == parent.manifest.counts["samples"]:
        return sorted(found)
    # The index has one place of a sample that stands there several times.
    shards = [file.path for file in parent.manifest.files if file.path.endswith(".tar")]
    return [path for path in shards if path in found or _holds(parent.data / path, set(wanted))]


def _holds(path: Path, wanted: set[str]) -> bool:
    """Tell whether a tar holds one of the samples."""
    return path.is_file() and any(uid in wanted for _, uid in uids_in(path))


def _shards_with(index: Index, wanted: list[str]) -> list[str]:
    """Return the shards of the dataset as it is now that may hold some of the samples."""
    repeated = [shard.name for shard in index.shards if shard.dropped]
    return [*holders(index, wanted), *repeated]


def _files(parent: Release, shards: list[str]) -> Iterable[tuple[str, int, str]]:
    """Return the files of a version that held samples: shards, and parquet files beside them."""
    for shard in shards:
        for path in (shard, f"{shard.removesuffix('.tar')}.parquet"):
            file = parent.manifest.by_path.get(path)
            if file is not None:
                yield file.path, file.size, file.sha256
