"""What is different between two versions: files, and samples.

Only samples of shards that differ are looked at, since a shard that both versions have holds the
same. A sample is changed when its image, caption or metadata is another one; its place and key
do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...distribution.release import Release, Releases
from ...pools import tar
from ..shards.index import Index
from ..shards.storage import PARQUET

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Changes:
    """Names that only the later version has, only the earlier one, or both with other contents."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


@dataclass
class DiffReport:
    """Two versions compared. ``samples`` is None where one of them has no index.

    ``bytes`` is what a copy of the first needs to become the second; ``unknown`` samples are in
    both, but their shard is not at hand to compare them.
    """

    before: str
    after: str
    files: Changes
    bytes: int
    samples: Changes | None
    unknown: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def diff_releases(folder: Path | str, before: str, after: str) -> DiffReport:
    """Compare two versions of a folder of releases; raises UsageError for unknown ones."""
    releases = Releases(folder)
    a, b = releases.version(before), releases.version(after)
    old, new = a.manifest.by_path, b.manifest.by_path
    there = {file.sha256 for file in a.manifest.files}
    files = Changes(
        sorted(new.keys() - old.keys()),
        sorted(old.keys() - new.keys()),
        sorted(p for p in old.keys() & new.keys() if old[p].sha256 != new[p].sha256),
    )
    size = sum({f.sha256: f.size for f in new.values() if f.sha256 not in there}.values())
    report = DiffReport(before, after, files, size, None)
    if PARQUET in old and PARQUET in new:
        _compare(report, a, b, files)
    return report


@dataclass(frozen=True)
class _Place:
    """Where a sample lies: shard, offset, length."""

    shard: str
    offset: int
    length: int


def _compare(report: DiffReport, a: Release, b: Release, files: Changes) -> None:
    samples = report.samples = Changes()
    old = _places(a, {*files.removed, *files.changed})
    new = _places(b, {*files.added, *files.changed})
    samples.added = sorted(new.keys() - old.keys())
    samples.removed = sorted(old.keys() - new.keys())
    reader_a, reader_b = _Contents(a), _Contents(b)
    # In the order of the tars, so that each is read from front to back.
    both = sorted(old.keys() & new.keys(), key=lambda uid: (new[uid].shard, new[uid].offset))
    for uid in both:
        before, after = reader_a.digest(old[uid]), reader_b.digest(new[uid])
        if before is None or after is None:
            report.unknown.append(uid)
        elif before != after:
            samples.changed.append(uid)
    samples.changed.sort()
    report.unknown.sort()


def _places(release: Release, shards: set[str]) -> dict[str, _Place]:
    """Return where the samples of some shards of a version lie, by uid."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(sorted(shards), pa.string())

    def select(rows: pa.RecordBatch) -> list[dict[str, Any]]:
        wanted = pc.is_in(rows.column("shard").cast(pa.string()), value_set=names)  # pyright: ignore[reportAttributeAccessIssue]
        return rows.filter(wanted).to_pylist()

    index = Index(release.data, str(release.data), (), "")
    columns = ("uid", "shard", "offset", "length")
    return {
        row["uid"]: _Place(row["shard"], row["offset"], row["length"])
        for rows in index.scan(columns, select)
        for row in rows
    }


class _Contents:
    """The digests of samples, read from the shards of one version."""

    def __init__(self, release: Release) -> None:
        self._data = release.data

    def digest(self, place: _Place) -> str | None:
        """Return the digest of a sample's members, None where its shard is gone."""
        path = self._data / place.shard
        try:
            with path.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
        except OSError:
            return None
        sample = tar.parse_sample(data, f"{path} at {place.offset:,}")
        return hashlib.sha256(b"".join(_members(sample, data))).hexdigest()


def _members(sample: tar.TarSample, data: bytes) -> Iterator[bytes]:
    for extension, member in sorted(sample.members.items()):
        content = data[member.data : member.data + member.size]
        yield extension.encode() + b"\0" + hashlib.sha256(content).digest()
