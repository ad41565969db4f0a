"""The index of a folder of WebDataset tars: which sample lies where.

``index.parquet`` has one row per sample: ``uid`` (32 hex digits), ``shard`` (file name),
``offset`` and ``length`` in bytes (from the sample's first header to the end of its last padded
member) and ``key``. Rows are in the order of shard name and offset. ``index.json`` beside it
remembers size and time of every tar, so that an unchanged tar is never read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...durable import atomic_path, sha256_file, write_json
from ...errors import DataError, MissingError, UnsafeInputError
from ...pools import tar
from ...pools.images import MAX_BYTES
from ...pools.sources.base import caption_of_sample, image_member, values_of_sample
from ...pools.uids import UID_DTYPE, UidArray, from_halves, is_uid, to_hex, uid_of_bytes
from ...progress import Progress
from .parallel import default_workers, map_ordered

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT = "datacomp-index"
VERSION = 1
PARQUET = "index.parquet"
METADATA = "index.json"
COLUMNS = ("uid", "shard", "offset", "length", "key")
ROW_GROUP = 100_000
MAX_METADATA_BYTES = 1 << 30
LISTED = 20
"""How many examples a report names."""


@dataclass
class IndexReport:
    """What was found in a folder of tars."""

    path: str
    shards: int = 0
    samples: int = 0
    read: int = 0
    unchanged: int = 0
    duplicates: int = 0
    duplicate_uids: list[str] = field(default_factory=list)
    set_aside: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every sample of every tar is in the index."""
        return not self.duplicates and not self.set_aside

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ShardRecord:
    """One tar of an index. ``dropped`` counts samples left out for their uid stood earlier."""

    name: str
    size: int
    mtime_ns: int
    rows: int
    dropped: int = 0
    set_aside: tuple[tuple[str, str], ...] = ()
    broken: str | None = None


@dataclass(frozen=True)
class Index:
    """An index that is there: its folder, its tars, and the digest of its rows."""

    directory: Path
    shards: tuple[ShardRecord, ...]
    sha256: str

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(shard.rows for shard in self.shards)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, some 100,000 at a time."""
        with _open_parquet(self.directory / PARQUET) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(COLUMNS))


# -- entry points ----------------------------------------------------------------------------


def index_shards(
    directory: Path | str, workers: int | None = None, keep_going: bool = False
) -> IndexReport:
    """Read the headers of every new or changed tar in a folder and write its index.

    A broken tar or two samples with one uid are an error; with ``keep_going`` they are counted,
    what can be read of the tar is kept, and the first sample of a uid wins. Samples without an
    image are set aside either way. Raises DataError, UnsafeInputError, MissingError.
    """
    directory = Path(directory)
    names = tar_names(directory)
    previous = _Previous.load(directory)
    report = IndexReport(str(directory / PARQUET), shards=len(names))
    records: list[ShardRecord] = []
    with atomic_path(directory / PARQUET) as partial:
        with _TableWriter(partial) as writer:
            for found in _read_all(directory, names, previous, workers or default_workers()):
                if found.broken and not keep_going:
                    raise found.error()
                records.append(found.record())
                report.read += not found.reused
                writer.write(found.table)
        repeated = _repeated(writer.uids())
        if len(repeated):
            report.duplicates = len(repeated)
            report.duplicate_uids = to_hex(writer.uids()[repeated[:LISTED]])
            if not keep_going:
                raise _duplicate_error(partial, repeated, report)
            records = _drop_rows(partial, records, repeated)
    report.unchanged = report.shards - report.read
    _save_metadata(directory, records)
    _count(report, records)
    return report


def load_index(directory: Path | str) -> Index | None:
    """Return the index of a folder if it is there and fits the tars as they are now."""
    directory = Path(directory)
    previous = _Previous.load(directory)
    if previous is None or [shard.name for shard in previous.shards] != tar_names(directory):
        return None
    if not all(_same_file(directory / shard.name, shard) for shard in previous.shards):
        return None
    return Index(directory, previous.shards, previous.sha256)


def ensure_index(
    directory: Path | str, workers: int | None = None, keep_going: bool = False
) -> Index:
    """Return the index of a folder, made or brought up to date first where needed."""
    found = load_index(directory)
    if found is None:
        index_shards(directory, workers, keep_going)
        found = load_index(directory)
    if found is None:
        raise DataError(f"{directory}: its tars change while they are being indexed; wait for that")
    return found


def tar_names(directory: Path) -> list[str]:
    """Return the names of the tars that lie directly in a folder, sorted."""
    if not directory.is_dir():
        raise MissingError(f"{directory}: no such folder")
    names = sorted(
        path.name for path in directory.glob("*.tar") if path.is_file() and path.name[0] != "."
    )
    if not names:
        raise DataError(f"{directory}: no .tar files found")
    for name in names:
        if not name.isprintable():
            raise UnsafeInputError(f"{directory}: tar name {name!r} is not printable; rename it")
    return names


def uid_records(column: pa.ChunkedArray | pa.Array, where: str) -> UidArray:
    """Turn a column of hex uids into records, shape (n,); raise DataError for anything else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    column = column.cast(pa.string())
    lengths = pc.min_max(pc.binary_length(column)).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    if len(column) == 0:
        return np.empty(0, UID_DTYPE)
    try:
        if column.null_count or lengths != {"min": 32, "max": 32}:
            raise ValueError
        start = column.offset * 32
        text = column.buffers()[2][start : start + len(column) * 32].to_pybytes()
        raw = np.frombuffer(bytes.fromhex(text.decode("ascii")), ">u8").reshape(len(column), 2)
    except ValueError:
        raise DataError(f"{where}: its uids are not 32 hex digits each; index again") from None
    return from_halves(raw[:, 0], raw[:, 1])


# -- reading one tar, in a worker ------------------------------------------------------------


@dataclass
class _Found:
    """The rows of one tar."""

    name: str
    size: int
    mtime_ns: int
    table: pa.Table
    set_aside: tuple[tuple[str, str], ...]
    broken: str | None
    unsafe: bool = False
    reused: bool = False

    def record(self) -> ShardRecord:
        return ShardRecord(
            self.name, self.size, self.mtime_ns, len(self.table), 0, self.set_aside, self.broken
        )

    def error(self) -> DataError:
        return (UnsafeInputError if self.unsafe else DataError)(self.broken)


def _read_tar(path: Path) -> _Found:
    import pyarrow as pa

    rows: list[tuple[str, str, int, int, str]] = []
    aside: list[tuple[str, str]] = []
    broken, unsafe = None, False
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        window = tar.Window(file.fileno())
        try:
            for sample in tar.samples_in(window, str(path)):
                try:
                    uid = identify(window, sample)
                except ValueError as error:
                    aside.append((sample.key, str(error)))
                    continue
                rows.append((uid, path.name, sample.start, sample.end - sample.start, sample.key))
        except DataError as error:
            broken, unsafe = str(error), isinstance(error, UnsafeInputError)
            if unsafe:
                rows, aside = [], []
        after = os.stat(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{path}: changed while it was read; wait until it is finished")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _schema(), strict=True)],
                     schema=_schema())  # fmt: skip
    return _Found(
        path.name, before.st_size, before.st_mtime_ns, table, tuple(aside), broken, unsafe
    )


def identify(window: tar.Window, sample: tar.TarSample) -> str:
    """Return a sample's uid: from its json, else computed as a pool would.

    Raises ValueError with a reason code for a sample that cannot be used.
    """
    image = image_member(sample)
    if image is None:
        raise ValueError("no_image")
    if image.size > MAX_BYTES:
        raise ValueError("image_unsafe")
    values = values_of_sample(window, sample)
    uid = values.get("uid")
    if isinstance(uid, str) and is_uid(uid):
        return uid
    caption = caption_of_sample(window, sample, values)
    if caption is None:
        raise ValueError("no_caption")
    return uid_of_bytes(window(image.data, image.size), caption.encode())


# -- putting the tars together ---------------------------------------------------------------


def _read_all(
    directory: Path, names: list[str], previous: _Previous | None, workers: int
) -> Iterator[_Found]:
    """Yield the rows of every tar in order, from the previous index where it is unchanged."""
    reusable = previous.reusable(directory) if previous else {}
    changed = [directory / name for name in names if name not in reusable]
    fresh = map_ordered(_read_tar, changed, min(workers, max(len(changed), 1)))
    with Progress("indexing", len(names), "shards") as progress:
        for name in names:
            if name in reusable and previous is not None:
                yield previous.found(name)
            else:
                yield next(fresh)
            progress.advance()


class _Previous:
    """The index a folder already has, row ranges of its tars at hand."""

    def __init__(self, directory: Path, shards: tuple[ShardRecord, ...], sha256: str) -> None:
        self.directory, self.shards, self.sha256 = directory, shards, sha256
        self._file: pq.ParquetFile | None = None
        self._group: tuple[int, pa.Table] | None = None
        self._ranges: dict[str, tuple[ShardRecord, int]] = {}
        first = 0
        for shard in shards:
            self._ranges[shard.name] = (shard, first)
            first += shard.rows

    @classmethod
    def load(cls, directory: Path) -> _Previous | None:
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
            with _open_parquet(parquet) as file:
                if file.metadata.num_rows != sum(shard.rows for shard in shards):
                    return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, DataError):
            return None
        return cls(directory, shards, value["index_sha256"])

    def reusable(self, directory: Path) -> dict[str, ShardRecord]:
        """Return the tars whose rows still hold.

        A tar that lost samples to an earlier one is read again: the earlier one may be gone.
        """
        return {
            shard.name: shard
            for shard in self.shards
            if not shard.dropped and not shard.broken and _same_file(directory / shard.name, shard)
        }

    def found(self, name: str) -> _Found:
        """Return the rows of an unchanged tar."""
        shard, first = self._ranges[name]
        table = self._rows(first, shard.rows)
        return _Found(name, shard.size, shard.mtime_ns, table, shard.set_aside, None, reused=True)

    def _rows(self, first: int, count: int) -> pa.Table:
        import pyarrow as pa

        if self._file is None:
            self._file = _open_parquet(self.directory / PARQUET)
        parts: list[pa.Table] = []
        while count:
            group, inside = divmod(first, ROW_GROUP)
            if self._group is None or self._group[0] != group:
                self._group = group, self._file.read_row_group(group).cast(_schema())
            part = self._group[1].slice(inside, count)
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return pa.concat_tables(parts) if parts else _schema().empty_table()


class _TableWriter:
    """Writes rows in groups of exactly ROW_GROUP and remembers their uids, 16 bytes each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.Table] = []
        self._uids: list[UidArray] = []

    def __enter__(self) -> _TableWriter:
        import pyarrow.parquet as pq

        options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": ["shard"],
            "write_statistics": ["uid", "offset"],
        }
        self._writer = pq.ParquetWriter(self._path, _schema(), **options)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is None:
            self._flush(everything=True)
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._uids.append(uid_records(table["uid"], str(self._path)))
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def uids(self) -> UidArray:
        """Return the uids of all rows, in their order."""
        self._uids = [np.concatenate(self._uids)] if self._uids else [np.empty(0, UID_DTYPE)]
        return self._uids[0]

    def _flush(self, everything: bool = False) -> None:
        import pyarrow as pa

        table = pa.concat_tables(self._waiting) if self._waiting else _schema().empty_table()
        ready = len(table) if everything else len(table) // ROW_GROUP * ROW_GROUP
        self._waiting = [table.slice(ready)]
        if ready:
            self._writer.write_table(table.slice(0, ready), row_group_size=ROW_GROUP)


def _repeated(uids: UidArray) -> np.ndarray:
    """Return the rows, in order, whose uid stands in an earlier row already."""
    order = np.lexsort((uids["f1"], uids["f0"]))  # stable: the first of equals stays first
    ordered = uids[order]
    same = (ordered["f0"][1:] == ordered["f0"][:-1]) & (ordered["f1"][1:] == ordered["f1"][:-1])
    return np.sort(order[1:][same])


def _duplicate_error(parquet: Path, repeated: np.ndarray, report: IndexReport) -> DataError:
    import pyarrow.parquet as pq

    rows = pq.read_table(parquet, columns=["shard", "key"]).take(repeated[:3]).to_pylist()
    places = [
        f"{uid} again in {row['shard']}/{row['key'][:80]}"
        for uid, row in zip(report.duplicate_uids, rows, strict=False)
    ]
    count = report.duplicates
    return DataError(
        f"{Path(report.path).parent}: {count:,} sample{'s have' if count > 1 else ' has'} a uid "
        f"that another one has already ({'; '.join(places)}{'; ...' if count > 3 else ''}); "
        "--keep-going keeps the first of each"
    )


def _drop_rows(parquet: Path, records: list[ShardRecord], rows: np.ndarray) -> list[ShardRecord]:
    """Rewrite the rows without some of them; return the records with what they lost."""
    import pyarrow.parquet as pq

    kept: list[ShardRecord] = []
    table = pq.read_table(parquet).cast(_schema())
    keep = np.ones(len(table), bool)
    keep[rows] = False
    first = 0
    with _TableWriter(parquet) as writer:
        for record in records:
            mask = keep[first : first + record.rows]
            writer.write(table.slice(first, record.rows).filter(mask))
            first += record.rows
            left = int(mask.sum())
            kept.append(
                ShardRecord(**{**asdict(record), "rows": left, "dropped": record.rows - left,
                               "set_aside": record.set_aside})
            )  # fmt: skip
    return kept


def _save_metadata(directory: Path, records: list[ShardRecord]) -> None:
    write_json(
        directory / METADATA,
        {
            "format": FORMAT,
            "version": VERSION,
            "index_sha256": sha256_file(directory / PARQUET),
            "shards": [asdict(record) for record in records],
        },
    )


def _count(report: IndexReport, records: list[ShardRecord]) -> None:
    report.samples = sum(record.rows for record in records)
    for record in records:
        reasons = [(f"{record.name}/{key}: {reason}", reason) for key, reason in record.set_aside]
        if record.broken:
            reasons.append((record.broken, "shard_broken"))
        for example, reason in reasons:
            report.set_aside[reason] = report.set_aside.get(reason, 0) + 1
            if len(report.examples) < LISTED:
                report.examples.append(example)


def _shard_record(item: dict[str, Any]) -> ShardRecord:
    aside = tuple((str(key), str(reason)) for key, reason in item["set_aside"])
    return ShardRecord(
        name=str(item["name"]),
        size=int(item["size"]),
        mtime_ns=int(item["mtime_ns"]),
        rows=int(item["rows"]),
        dropped=int(item["dropped"]),
        set_aside=aside,
        broken=item["broken"],
    )


def _same_file(path: Path, shard: ShardRecord) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (shard.size, shard.mtime_ns)


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.string())
    return pa.schema([pa.field(n, k, False) for n, k in zip(COLUMNS, kinds, strict=True)])


def _open_parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if not set(COLUMNS) <= set(file.schema_arrow.names):
            raise DataError(f"{path}: not an index of shards")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable index: {str(error).splitlines()[0]}") from None
    return file
