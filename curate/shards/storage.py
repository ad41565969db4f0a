"""The files of an index: ``index.parquet`` with the rows, ``index.json`` with the tars.

``index.parquet`` has one row per sample: ``uid`` (32 hex digits), ``shard`` (file name),
``offset`` and ``length`` in bytes (from the sample's first header to the end of its last padded
member), ``key``, and ``members``: extension, where its data starts (counted from ``offset``) and
size of each. Rows are in the order of shard name and offset. ``index.json`` remembers size and
version (time of change, ETag) of every tar, so that an unchanged tar is never read again, how many
of its samples were set aside and the keys of some, and how many tars and stats were missing.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import sha256_file, write_json
from ...errors import DatacompError, DataError
from ...pools.parallel import map_threads
from ...pools.ranges import Stamp, is_remote, join, open_ranges

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT = "datacomp-index"
VERSION = 4
PARQUET = "index.parquet"
METADATA = "index.json"
COLUMNS = ("uid", "shard", "offset", "length", "key", "members")
ROW_GROUP = 100_000
MAX_METADATA_BYTES = 1 << 30
EXAMPLES = 20
"""How many samples that were set aside the record of a tar names."""
REQUESTS = 16
"""Tars of another machine looked at at a time: what they cost is waiting."""


@dataclass(frozen=True)
class ShardRecord:
    """One tar of an index. ``dropped`` counts samples left out for their uid stood earlier.

    ``set_aside`` counts samples that cannot be used, by reason; ``examples`` has key and reason of
    the first EXAMPLES of them.
    """

    name: str
    size: int
    version: str
    rows: int
    dropped: int = 0
    set_aside: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[tuple[str, str], ...] = ()
    broken: str | None = None

    def stamp(self, root: str) -> Stamp:
        """Return what the tar was when it was read."""
        return Stamp(join(root, self.name), self.size, self.version)


class StoredIndex:
    """An index as it stands on the disk: row ranges of its tars at hand."""

    def __init__(
        self, directory: Path, root: str, shards: tuple[ShardRecord, ...], sha256: str,
        gaps: dict[str, int],
    ) -> None:  # fmt: skip
        self.directory, self.root, self.shards, self.sha256 = directory, root, shards, sha256
        self.gaps = gaps
        self._file: pq.ParquetFile | None = None
        self._group: tuple[int, pa.Table] | None = None
        self._first: dict[str, int] = {}
        first = 0
        for shard in shards:
            self._first[shard.name] = first
            first += shard.rows

    @classmethod
    def load(cls, directory: Path) -> StoredIndex | None:
        """Return the index of a folder, or None if there is none or it is not whole."""
        path, parquet = directory / METADATA, directory / PARQUET
        try:
            if path.stat().st_size > MAX_METADATA_BYTES:
                return None
            value = json.loads(path.read_bytes())
            if value["format"] != FORMAT or value["version"] != VERSION:
                return None
            shards = tuple(_shard_record(item) for item in value["shards"])
            if value["index_sha256"] != sha256_file(parquet):
                return None
            with open_parquet(parquet) as file:
                if file.metadata.num_rows != sum(shard.rows for shard in shards):
                    return None
            gaps = {str(reason): int(count) for reason, count in value["gaps"].items()}
            root = str(directory) if value["root"] is None else value["root"]
            if value["root"] is not None and not is_remote(root):
                return None
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError,
        ):  # fmt: skip
            return None
        return cls(directory, root, shards, value["index_sha256"], gaps)

    def reusable(self) -> dict[str, ShardRecord]:
        """Return the tars whose rows still hold.

        A tar that lost samples to an earlier one is read again: the earlier one may be gone.
        """
        whole = [shard for shard in self.shards if not shard.dropped and not shard.broken]
        workers = REQUESTS if is_remote(self.root) else 1
        same = map_threads(lambda shard: is_same(self.root, shard), whole, workers)
        return {shard.name: shard for shard, found in zip(whole, same, strict=True) if found}

    def rows(self, shards: Sequence[ShardRecord]) -> Iterator[pa.Table]:
        """Yield the rows of tars that follow one another, a table for each row group."""
        first, count = self._first[shards[0].name], sum(shard.rows for shard in shards)
        if self._file is None:
            self._file = open_parquet(self.directory / PARQUET)
        while count:
            group, inside = divmod(first, ROW_GROUP)
            if self._group is None or self._group[0] != group:
                self._group = group, self._file.read_row_group(group).cast(schema())
            part = self._group[1].slice(inside, count)
            yield part
            first, count = first + len(part), count - len(part)


class TableWriter:
    """Writes rows in groups of exactly ROW_GROUP."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> TableWriter:
        import pyarrow.parquet as pq

        options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": ["shard", "members.list.element.extension"],
            "write_statistics": ["uid", "offset"],
        }
        self._writer = pq.ParquetWriter(self._path, schema(), **options)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self._flush(everything=True)
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def _flush(self, everything: bool = False) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        ready = len(table) if everything else len(table) // ROW_GROUP * ROW_GROUP
        self._waiting = [table.slice(ready)]
        if ready:
            self._writer.write_table(table.slice(0, ready), row_group_size=ROW_GROUP)


def save_metadata(
    directory: Path, root: str | None, records: list[ShardRecord], gaps: Mapping[str, int]
) -> None:
    """Write ``index.json``; ``root`` is None where the tars lie beside the index.

    Raises DataError if it gets too large to be read again.
    """
    path = directory / METADATA
    write_json(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "root": root,
            "index_sha256": sha256_file(directory / PARQUET),
            "gaps": dict(sorted(gaps.items())),
            "shards": [vars(record) for record in records],
        },
    )
    if (size := path.stat().st_size) > MAX_METADATA_BYTES:
        path.unlink()
        raise DataError(
            f"{path}: would have {size:,} bytes, over the limit of {MAX_METADATA_BYTES:,}; put the "
            f"{len(records):,} tars into several folders and index each"
        )


def is_same(root: str, shard: ShardRecord) -> bool:
    """Tell whether a tar is as it was."""
    place = join(root, shard.name)
    try:
        if is_remote(place):
            file = open_ranges(place)
            return (file.size, file.version) == (shard.size, shard.version)
        status = os.stat(place)
    except (OSError, DatacompError):
        return False
    return (status.st_size, str(status.st_mtime_ns)) == (shard.size, shard.version)


def read_rows(parquet: Path, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return some rows by their numbers."""
    with open_parquet(parquet) as file:
        group = functools.lru_cache(1)(file.read_row_group)
        return [group(row // ROW_GROUP).slice(row % ROW_GROUP, 1).to_pylist()[0] for row in rows]


def open_parquet(path: Path, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open the rows of an index; raise DataError for anything else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, metadata=metadata, read_dictionary=["shard"])
        found = {field.name: field.type for field in file.schema_arrow}
        if any(found.get(name) != kind for name, kind in _stored_types().items()):
            raise DataError(f"{path}: not an index of shards")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable index: {str(error).splitlines()[0]}") from None
    return file


@functools.cache
def schema() -> pa.Schema:
    """Return the columns of the index."""
    import pyarrow as pa

    parts = [("extension", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
    member = pa.struct([pa.field(name, kind, False) for name, kind in parts])
    members = pa.list_(pa.field("element", member, False))
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string(), members)
    return pa.schema([pa.field(n, k, False) for n, k in zip(COLUMNS, kinds, strict=True)])


@functools.cache
def _stored_types() -> dict[str, pa.DataType]:
    """Return the types of the columns as they are read back."""
    import pyarrow as pa

    kinds = {field.name: field.type for field in schema()}
    return {**kinds, "shard": pa.dictionary(pa.int32(), pa.string())}


def _shard_record(item: dict[str, Any]) -> ShardRecord:
    return ShardRecord(
        name=str(item["name"]),
        size=int(item["size"]),
        version=str(item["version"]),
        rows=int(item["rows"]),
        dropped=int(item["dropped"]),
        set_aside={str(reason): int(count) for reason, count in item["set_aside"].items()},
        examples=tuple((str(key), str(reason)) for key, reason in item["examples"]),
        broken=item["broken"],
    )
