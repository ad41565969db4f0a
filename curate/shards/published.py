"""The samples of a subset out of a published dataset: only their bytes cross the network.

A release that was made of an indexed folder publishes the index too. It is fetched and verified
like any file of the release; then the samples' ranges are read from a mirror and written as
shards. Every range comes with a proof that leads to the root of its shard in the signed manifest.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...distribution.getting import Options, get_some
from ...distribution.getting.folder import Folder
from ...distribution.getting.order import Order
from ...durable import partial_path
from ...errors import DataError, IntegrityError, MissingError, StorageError
from ...pools.proved import SCHEME
from ...progress import warn
from .build import BuildReport, build_shards
from .selection import NothingThereError
from .storage import METADATA, PARQUET, ShardRecord, open_parquet, save_metadata


@dataclass
class PublishedReport:
    """What was taken out of a release; ``index_bytes`` were fetched to find the samples."""

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

    Uids that the release does not have are listed in ``missing.txt``. With ``options.update`` the
    shards of another version there are deleted and made anew. Key and version are remembered
    there as ``get`` does it. The same call goes on after an interruption. Raises MissingError for
    a release without an index, IntegrityError for a mirror whose shards are not those of the
    manifest, and as ``get`` and ``build_shards``.
    """
    out = Path(out)
    folder = partial_path(out).with_suffix(".index")
    order, report = get_some(source, folder, (PARQUET, METADATA), options, out)
    assert order.manifest is not None
    if report.failed:
        path, reason = next(iter(report.failed.items()))
        raise MissingError(f"{path}: {reason}; run the same command again")
    if not (folder / PARQUET).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        raise MissingError(
            f"{order.title}: was published without the index of its shards ({PARQUET}); ask its "
            "keeper to run 'datacomp shards index' before the next release, or get all of it"
        )
    records = _records(order, folder)
    try:
        mirror, built = _build(folder, records, subset, out, order.mirrors, options.update)
    except NothingThereError:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"{order.title}: has none of the samples of {subset}") from None
    Folder(out).keep(order)
    shutil.rmtree(folder, ignore_errors=True)
    manifest = order.manifest
    return PublishedReport(manifest.name, manifest.version, mirror, report.fetched, built)


def _build(
    folder: Path,
    records: list[ShardRecord],
    subset: Path | str,
    out: Path,
    mirrors: list[str],
    renew: bool,
) -> tuple[str, BuildReport]:
    """Build from the first mirror that proves what it gives; the next goes on where it stopped."""
    for number, mirror in enumerate(mirrors, 1):
        save_metadata(folder, SCHEME + mirror.rstrip("/"), records, {})
        try:
            return mirror, build_shards(folder, subset, out, keep_going=True, renew=renew)
        except (DataError, MissingError, StorageError) as error:
            if isinstance(error, NothingThereError):
                raise
            if number == len(mirrors):
                raise
            warn(f"{error}; going on with {mirrors[number]}")
    raise AssertionError("there is a mirror")


def _records(order: Order, folder: Path) -> list[ShardRecord]:
    """Return what the index says of each shard, with size and root from the signed manifest."""
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
        if file is None or file.pieces_root is None:
            raise IntegrityError(f"{PARQUET}: names {name[:80]!r}, which is not published")
        records.append(ShardRecord(name, file.size, file.pieces_root, rows))
    return records
