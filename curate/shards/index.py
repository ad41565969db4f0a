"""The index of WebDataset tars: which sample lies where.

The tars lie in a folder, on a web server or in an object store; only headers and small members
are read, and only of tars that are new or have changed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...durable import atomic_path
from ...errors import DataError, UsageError
from ...pools.engine import Workers, engine_of
from ...pools.parallel import default_workers, map_threads
from ...pools.ranges import Stamp, is_remote, join
from ...pools.stores import copied_folder, require_stores, staged
from ...progress import Progress
from .columns import uid_records
from .folder import none_empty
from .reading import Found, read_tar
from .repeats import RepeatFinder
from .storage import (
    METADATA,
    PARQUET,
    REQUESTS,
    ROW_GROUP,
    ShardRecord,
    StoredIndex,
    TableWriter,
    is_same,
    open_parquet,
    read_rows,
    save_metadata,
    schema,
)
from .tars import Tars, find_tars, holes, numbered, tar_names

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")

WORTH_A_WORKER = 512 << 20
"""Bytes of tars whose headers take longer to read than a process to start."""
SCANNED = 1 << 14
"""Rows looked at at a time; larger batches are no faster and take more memory."""
LISTED = 20
"""How many examples a report names."""
_STATS = "_stats.json"


@dataclass
class IndexReport:
    """What was found in a folder of tars.

    ``bytes_read`` is what was read of the tars, in so many ``requests``.
    """

    path: str
    shards: int = 0
    samples: int = 0
    read: int = 0
    unchanged: int = 0
    bytes_read: int = 0
    requests: int = 0
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
class Index:
    """An index that is there: its folder, where its tars lie, and the digest of its rows."""

    directory: Path
    root: str
    shards: tuple[ShardRecord, ...]
    sha256: str
    gaps: Mapping[str, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(shard.rows for shard in self.shards)

    @property
    def set_aside(self) -> Counter[str]:
        """How many samples and tars were set aside or missing, by reason."""
        counts: Counter[str] = Counter(self.gaps)
        for shard in self.shards:
            counts.update(shard.set_aside)
            counts.update(duplicate_uid=shard.dropped, shard_broken=shard.broken is not None)
        return +counts

    @property
    def stamps(self) -> list[Stamp]:
        """The tars as they were when they were read."""
        return [shard.stamp(self.root) for shard in self.shards]

    def scan(self, columns: tuple[str, ...], use: Callable[[pa.RecordBatch], R]) -> Iterator[R]:
        """Yield what ``use`` makes of the rows, some SCANNED at a time and in order.

        It is called in threads.
        """
        import pyarrow as pa

        with open_parquet(self.directory / PARQUET) as file:
            groups, metadata = file.num_row_groups, file.metadata

        def read(group: int) -> list[R]:
            with open_parquet(self.directory / PARQUET, metadata) as file:
                rows = file.iter_batches(SCANNED, [group], list(columns), use_threads=False)
                found = [use(batch) for batch in rows]
            pa.default_memory_pool().release_unused()  # each thread would keep its own
            return found

        yield from itertools.chain.from_iterable(map_threads(read, range(groups)))


def index_shards(
    source: Path | str,
    workers: Workers = None,
    keep_going: bool = False,
    out: Path | str | None = None,
) -> IndexReport:
    """Read the headers of every new or changed tar and write the index.

    ``source`` is a folder, a URL with a range as ``{00000..00009}.tar``, or a URL of a folder
    with a listing; the index of URLs goes to the folder ``out``. A broken tar or two samples
    with one uid are an error; with ``keep_going`` they are counted, what can be read of the tar
    is kept, and the first sample of a uid wins. Samples without an image are set aside either
    way. Raises DataError, UnsafeInputError, MissingError, UsageError.
    """
    if out is not None and is_remote(str(out)):
        with staged(out, (PARQUET, METADATA)) as folder:
            report = index_shards(source, workers, keep_going, folder)
        report.path = join(str(out), PARQUET)
        return report
    if is_remote(str(source)) and out is None:
        raise UsageError(f"{source}: the index of a URL needs a folder to stand in (--output)")
    if not is_remote(str(source)) and out is not None:
        raise UsageError(f"{source}: the index of a folder stands in it; --output is for URLs")
    require_stores(engine_of(workers), source)
    tars = find_tars(source)
    gaps, lacking = _gaps(tars)
    if gaps and not keep_going:
        made = (
            ", 'datacomp shards check --repair' makes it"
            if gaps.keys() == {"stats_missing"}
            else ""
        )
        raise DataError(f"{tars.root}: {lacking[0]}; --keep-going goes on without{made}")
    directory = Path(tars.root if out is None else out)
    previous = StoredIndex.load(directory)
    if previous is not None and previous.root != tars.root:
        previous = None
    report = IndexReport(str(directory / PARQUET))
    records: list[ShardRecord] = []
    finder = RepeatFinder(directory)
    with (
        none_empty(directory),
        atomic_path(directory / PARQUET) as partial,
    ):
        with TableWriter(partial) as writer:

            def write(table: pa.Table) -> None:
                writer.write(table)
                finder.add(uid_records(table["uid"], str(partial)))

            for found in _read_all(tars, previous, workers):
                if isinstance(found, _Kept):
                    records += found.records
                    for table in found.tables:
                        write(table)
                    continue
                if found.record.broken and not keep_going:
                    raise found.error()
                if found.missing:
                    gaps["shard_missing"] += 1
                    lacking.append(str(found.record.broken))
                    continue
                records.append(found.record)
                report.read += 1
                report.bytes_read += found.bytes_read
                report.requests += found.requests
                write(found.table)
        repeated = finder.repeated()
        if len(repeated):
            report.duplicates = len(repeated)
            examples = read_rows(partial, repeated[:LISTED].tolist())
            report.duplicate_uids = [row["uid"] for row in examples]
            if not keep_going:
                raise _duplicate_error(examples[:3], report)
            records = _drop_rows(partial, records, repeated)
    report.shards = len(records)
    report.unchanged = report.shards - report.read
    save_metadata(directory, tars.root if tars.remote else None, records, gaps)
    report.set_aside, report.examples = dict(gaps), lacking[:LISTED]
    _count(report, records)
    return report


def load_index(directory: Path | str) -> Index | None:
    """Return the index of a folder if it is there and fits the tars as they are now."""
    directory = Path(directory)
    found = StoredIndex.load(directory)
    if found is None:
        return None
    if not is_remote(found.root):
        names = tuple(tar_names(directory))
        if tuple(shard.name for shard in found.shards) != names:
            return None
        if not all(is_same(found.root, shard) for shard in found.shards):
            return None
        if _gaps(Tars(found.root, names))[0] != found.gaps:
            return None
    return _index_of(found)


def _index_of(found: StoredIndex) -> Index:
    return Index(found.directory, found.root, found.shards, found.sha256, found.gaps)


@contextlib.contextmanager
def index_folder(source: Path | str) -> Iterator[Path]:
    """Yield the folder of an index; of one in an object store, a copy of the index."""
    what = f"no index there; make one with 'datacomp shards index URL -o {source}'"
    with copied_folder(source, (METADATA, PARQUET), what) as folder:
        if is_remote(str(source)):
            found = StoredIndex.load(folder)
            if found is None or found.root == str(folder):
                raise DataError(
                    f"{source}: not the index of tars at a URL; index the URL again with --output"
                )
        yield folder


def ensure_index(directory: Path | str, workers: Workers = None, keep_going: bool = False) -> Index:
    """Return the index of a folder, made or brought up to date first where needed.

    With ``keep_going`` a tar that changes meanwhile is set aside.
    """
    directory = Path(directory)
    found = load_index(directory)
    if found is None:
        files = (directory / METADATA, directory / PARQUET)
        if any(file.exists() for file in files) and not any(directory.glob("*.tar")):
            raise DataError(
                f"{directory}: has no tars, and its index is damaged, of another version, or of "
                "tars that are gone; run 'datacomp shards index' again (of a URL with -o)"
            )
        index_shards(directory, workers, keep_going)
        found = load_index(directory)
    if found is None and keep_going:
        stored = StoredIndex.load(directory)
        found = None if stored is None else _index_of(stored)
    if found is None:
        raise DataError(f"{directory}: its tars change while they are being indexed; wait for that")
    return found


# -- putting the tars together ---------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """Unchanged tars that follow one another in the previous index too, and their rows."""

    records: list[ShardRecord]
    tables: Iterator[pa.Table]


def _read_all(
    tars: Tars, previous: StoredIndex | None, workers: Workers
) -> Iterator[Found | _Kept]:
    """Yield the rows of every tar in order, from the previous index where it is unchanged."""
    reusable = previous.reusable() if previous else {}
    before = [shard.name for shard in previous.shards] if previous else []
    places = {name: place for place, name in enumerate(before) if name in reusable}
    changed = [join(tars.root, name) for name in tars.names if name not in reusable]
    engine = engine_of(workers)
    if tars.remote:
        fresh = engine.map(read_tar, changed, worth=REQUESTS, threads=REQUESTS)
    else:
        engine.reach(tars.root)
        worth = _enough_workers(changed)
        fresh = engine.map(read_tar, changed, count=len(changed), worth=worth)
    with Progress("indexing", len(tars.names), "shards") as progress:
        for kept, names in _runs(tars.names, places):
            if kept and previous is not None:
                records = [reusable[name] for name in names]
                yield _Kept(records, previous.rows(records))
                progress.advance(len(records))
                continue
            for _ in names:
                found = next(fresh)
                yield found if tars.remote else _against_stats(Path(tars.root), found)
                progress.advance()


def _runs(names: Sequence[str], places: Mapping[str, int]) -> Iterator[tuple[bool, list[str]]]:
    """Part names into those that follow one another by their places, and those without one."""

    def run(item: tuple[int, str]) -> int | None:
        number, name = item
        return places[name] - number if name in places else None

    for key, items in itertools.groupby(enumerate(names), run):
        yield key is not None, [name for _, name in items]


def _enough_workers(places: list[str]) -> int:
    """Return how many processes are worth their start."""
    size = sum(os.path.getsize(place) for place in places)
    return min(default_workers(), size // WORTH_A_WORKER + 1)


def _duplicate_error(rows: list[dict[str, Any]], report: IndexReport) -> DataError:
    places = [f"{row['uid']} again in {row['shard']}/{row['key'][:80]}" for row in rows]
    count = report.duplicates
    return DataError(
        f"{Path(report.path).parent}: {count:,} sample{'s have' if count > 1 else ' has'} a uid "
        f"that another one has already ({'; '.join(places)}{'; ...' if count > 3 else ''}); "
        "--keep-going keeps the first of each"
    )


def _drop_rows(
    parquet: Path, records: list[ShardRecord], dropped: NDArray[np.int64]
) -> list[ShardRecord]:
    """Rewrite the rows without some of them; return the records with what they lost."""
    with (
        open_parquet(parquet) as file,
        atomic_path(parquet) as partial,
        TableWriter(partial) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).cast(schema())
            first = group * ROW_GROUP
            here = dropped[slice(*np.searchsorted(dropped, (first, first + len(table))))]
            keep = np.ones(len(table), bool)
            keep[here - first] = False
            writer.write(table.filter(keep))
    ends = np.cumsum([record.rows for record in records])
    lost = np.diff(np.searchsorted(dropped, ends), prepend=0).tolist()
    return [
        replace(record, rows=record.rows - count, dropped=count)
        for record, count in zip(records, lost, strict=True)
    ]


def _gaps(tars: Tars) -> tuple[Counter[str], list[str]]:
    """Return how many tars and stats are missing, by reason, and some of them in words.

    Tars that are numbered have no holes; img2dataset writes stats for every tar or for none. Of
    tars on another machine only the names are looked at, unless they are those that were asked for.
    """
    counts: Counter[str] = Counter()
    examples: list[str] = []
    missing = [] if tars.expected else holes(tars.names)
    counts["shard_missing"] = sum(hole.stop - hole.start for hole in missing)
    for number in itertools.islice(itertools.chain.from_iterable(missing), LISTED):
        examples.append(f"{numbered(number, tars.names)} is missing (a hole in the numbering)")
    if not tars.remote:
        names = set(tars.names)
        stats = {path.name for path in Path(tars.root).glob("*_stats.json")}
        alone = sorted(name for name in stats if name.replace(_STATS, ".tar") not in names)
        for name in alone:
            stem = name.removesuffix(_STATS)
            if not (missing and stem.isascii() and stem.isdigit() and int(stem) < missing[-1].stop):
                counts["shard_missing"] += 1
                examples.append(f"{stem}.tar is missing ({name} is there)")
        if stats:
            lacking = [stem for name in tars.names if f"{(stem := name[:-4])}{_STATS}" not in stats]
            counts["stats_missing"] = len(lacking)
            examples += [f"{stem}{_STATS} is missing" for stem in lacking]
    return +counts, examples


def _against_stats(directory: Path, found: Found) -> Found:
    """Compare the samples of a tar with what its stats promise, if it has any.

    A tar cut off between two samples looks whole otherwise.
    """
    record = found.record
    path = directory / f"{record.name.removesuffix('.tar')}_stats.json"
    if record.broken or not path.is_file():
        return found
    try:
        promised = json.loads(path.read_bytes())["successes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        promised = None
    there = record.rows + sum(record.set_aside.values()) + record.dropped
    if promised == there:
        return found
    said = f"{there:,} samples, but {path.name} says {promised!r}"
    broken = f"{directory / record.name}: {said}; fetch or build it again"
    return replace(found, record=replace(record, broken=broken))


def _count(report: IndexReport, records: list[ShardRecord]) -> None:
    report.samples = sum(record.rows for record in records)
    for record in records:
        counts = dict(record.set_aside)
        examples = [f"{record.name}/{key}: {reason}" for key, reason in record.examples]
        if record.broken:
            counts["shard_broken"] = 1
            examples.append(record.broken)
        for reason, count in counts.items():
            report.set_aside[reason] = report.set_aside.get(reason, 0) + count
        report.examples += examples[: max(LISTED - len(report.examples), 0)]
