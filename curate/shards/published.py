"""The samples of a subset out of a published dataset: only their bytes cross the network.

A release that was made of an indexed folder publishes the index too. It is fetched and verified
like any file of the release; then the samples' ranges are read from the mirror and written as
shards. The entity tags of the mirror's shards must be the digests that the keeper has signed.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...distribution.getting import Options, get_some
from ...distribution.getting.order import Order
from ...durable import partial_path
from ...errors import IntegrityError, MissingError, UsageError
from ...pools.ranges import open_ranges
from .build import BuildReport, build_shards
from .storage import METADATA, PARQUET, ShardRecord, open_parquet, save_metadata


@dataclass
class PublishedReport:
    """What was taken out of a release: ``bytes`` of samples, ``index_bytes`` to find them."""

    name: str
    version: str
    mirror: str
    index_bytes: int
    build: BuildReport

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def get_subset(source: str, subset: Path | str, out: Path | str, options: Options
               ) -> PublishedReport:  # fmt: skip
    """Write the samples of ``subset`` from a release into shards in the folder ``out``.

    Uids that the release does not have are listed in ``missing.txt``. The same call goes on after
    an interruption. Raises MissingError for a release without an index, IntegrityError for a
    mirror whose shards are not those of the manifest, and as ``get`` and ``build_shards``.
    """
    out = Path(out)
    folder = partial_path(out).with_suffix(".index")
    order, report = get_some(source, folder, (PARQUET, METADATA), options)
    if order.manifest is None or not order.mirrors:
        raise UsageError(f"{source}: names no signed release on an HTTP server; --subset needs one")
    if report.failed:
        path, reason = next(iter(report.failed.items()))
        raise MissingError(f"{path}: {reason}; run the same command again")
    if not (folder / PARQUET).is_file():
        raise MissingError(
            f"{order.title}: was published without the index of its shards ({PARQUET}); ask its "
            "keeper to run 'datacomp shards index' before the next release, or get all of it"
        )
    mirror = order.mirrors[0]
    records = _records(order, folder, mirror)
    save_metadata(folder, mirror.rstrip("/"), records)
    built = build_shards(folder, subset, out, keep_going=True)
    shutil.rmtree(folder, ignore_errors=True)
    manifest = order.manifest
    return PublishedReport(manifest.name, manifest.version, mirror, report.bytes, built)


def _records(order: Order, folder: Path, mirror: str) -> list[ShardRecord]:
    """Return what the index says of each shard, with size and tag from the signed manifest."""
    counts: dict[str, int] = {}
    with open_parquet(folder / PARQUET) as file:
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, columns=["shard"]).column(0)
            for item in names.value_counts().to_pylist():
                name = str(item["values"])
                counts[name] = counts.get(name, 0) + int(item["counts"])
    files = {wanted.path: wanted for wanted in order.files}
    records = []
    for name, rows in counts.items():
        file = files.get(name)
        if file is None:
            raise IntegrityError(f"{PARQUET}: names {name[:80]!r}, which is not published")
        records.append(ShardRecord(name, file.size, f'"{file.sha256}"', rows))
    if records:
        _check_tag(f"{mirror}{quote(records[0].name)}", records[0])
    return records


def _check_tag(url: str, record: ShardRecord) -> None:
    """Refuse a mirror that cannot say, or says otherwise, which bytes it has."""
    found = open_ranges(url)
    if (found.size, found.version) != (record.size, record.version):
        raise IntegrityError(
            f"{url}: the server does not name its bytes by the digest in the manifest; use a "
            "mirror that runs 'datacomp serve'"
        )
