"""Remove samples from shards for good: only the shards that hold them are written anew.

What is left of a shard stays as it is, byte for byte, and a shard that was padded to whole pieces
is padded again. Counts, the subset, parquet files beside the shards, manifest and index are
brought up to date. A killed removal is finished by the same call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...durable import atomic_path
from ...errors import DataError, MissingError
from ...pools import tar
from ...pools.identity import uid_of_sample
from ...pools.subset_files import SubsetFile, subset_writer
from ...pools.uids import from_hex
from ..subset import Lookup
from .folder import locked
from .index import index_shards
from .reading import WINDOW
from .storage import PARQUET
from .stretches import copy_stretches
from .upkeep import update_counts, update_manifest

SUBSET = "sample_ids.npy"


@dataclass
class RemoveReport:
    """Which shards were written anew, and how many samples went."""

    shards: list[str] = field(default_factory=list)
    samples: int = 0


def remove_samples(
    directory: Path | str,
    uids: Collection[str],
    shards: Iterable[str],
    piece_length: int | None = None,
) -> RemoveReport:
    """Remove the samples of ``uids`` (32 hex digits each) from the named ``shards`` of a folder.

    A shard whose size is a multiple of ``piece_length`` is padded to one again. Raises
    MissingError, DataError, StorageError.
    """
    directory = Path(directory)
    unwanted = frozenset(uids)
    names = sorted(set(shards))
    report = RemoveReport()
    with locked(directory):
        for name in names:
            removed = _remove(directory / name, unwanted, piece_length)
            if removed:
                report.shards.append(name)
                report.samples += removed
        stats = {path.name for path in directory.glob("*_stats.json")}
        counted = [name for name in names if f"{name.removesuffix('.tar')}_stats.json" in stats]
        update_counts(directory, counted)
        _update_subset(directory / SUBSET, unwanted)
        update_manifest(directory, names)
        if (directory / PARQUET).is_file():
            index_shards(directory, keep_going=True)
    return report


def _remove(path: Path, unwanted: frozenset[str], piece_length: int | None) -> int:
    """Write a shard without some samples; return how many those are."""
    if not path.is_file():
        raise MissingError(f"{path}: no such shard, so what it holds cannot be removed")
    size = path.stat().st_size
    keep: list[tuple[int, int]] = []
    gone: set[str] = set()
    for sample, uid in uids_in(path):
        if uid in unwanted:
            gone.add(sample.key)
        else:
            keep.append((sample.start, sample.end))
    # Before the tar, for it alone says which keys are meant; the parquet may name others yet.
    _remove_rows(path.with_suffix(".parquet"), unwanted, gone)
    if not gone:
        return 0
    pad = piece_length if piece_length and size % piece_length == 0 else tar.BLOCK
    copy_stretches(path, path, keep, tar.END, pad)
    return len(gone)


def uids_in(path: Path) -> Iterator[tuple[tar.TarSample, str | None]]:
    """Yield the samples of a tar with their uids, None for one that cannot be used."""
    with path.open("rb", buffering=0) as file:
        window = tar.Window(file.fileno(), WINDOW)
        for sample in tar.samples_in(window, str(path)):
            try:
                yield sample, uid_of_sample(window, sample)
            except ValueError:
                yield sample, None


def _remove_rows(path: Path, unwanted: frozenset[str], keys: set[str]) -> None:
    """Remove samples from the parquet that img2dataset writes beside a shard, if there is one."""
    if not path.is_file():
        return
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable: {str(error).splitlines()[0]}") from None
    keep = pa.array([True] * len(table))
    for column, values in (("uid", unwanted), ("key", keys)):
        if column in table.column_names:
            text = table[column].cast(pa.string()).combine_chunks()
            found = pc.is_in(text, value_set=pa.array(sorted(values), pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
            keep = pc.and_not(keep, found)  # pyright: ignore[reportAttributeAccessIssue]
    left = table.filter(keep)
    if len(left) < len(table):
        with atomic_path(path) as partial:
            pq.write_table(left, partial)


def _update_subset(path: Path, unwanted: frozenset[str]) -> None:
    if not path.is_file():
        return
    file = SubsetFile.of(path)
    file.verify()
    lookup = Lookup(from_hex(sorted(unwanted)))
    if any((lookup.find(block) >= 0).any() for block in file.blocks()):
        with subset_writer(path) as writer:
            for block in file.blocks():
                writer.write(block[lookup.find(block) < 0])
