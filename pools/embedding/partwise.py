"""Embed a folder of metadata file by file, without a pool of the whole.

Each file of metadata is one piece of work, for this process or a worker of a cluster. What comes
out is metadata of DataComp's layout again, in a folder of its own: ``NAME.parquet`` with the
columns it had, the similarities, and why a sample has no features; beside it ``NAME.npz``, whose
row i is that of row i. The footer of ``NAME.parquet`` says what it was made of, and is what a
later run goes by.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...durable import alone, atomic_path, fsync_directory, storage_errors, sweep_attempts
from ...errors import DataError, UsageError
from ...progress import Progress
from ..columns import literal
from ..engine import Engine, Local
from ..file_stamps import FileStamp
from ..images import EXTENSIONS
from ..parallel import default_workers
from ..partitions import Partition, open_partition, partition_name, partitions_of
from ..pool import HALVES, Pool
from ..reading import Place, PlacedBatch
from ..sources.commonpool import ROW
from ..uids import from_halves
from . import footers
from .drift import SAMPLE, Drift
from .embed import EmbedReport
from .embedded import Embedded
from .embedder import UNREADABLE, introduced, model_of_worker, threads_of
from .footers import FileDone
from .recipe import Recipe, check_name
from .score import score_column

NO_IMAGE = "no_image"
_PLACED = "to_embed_placed"
_CHUNK = 1 << 16
_EXAMPLES = 20


@dataclass(frozen=True)
class IndexedTars:
    """Tars below ``root``, and the ``index.parquet`` that says where their samples lie.

    ``state`` changes when a tar does; ``set_aside`` counts, by reason, the tars that could not be
    read.
    """

    root: Path
    index: Path
    state: str
    set_aside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Likely:
    """Tars, in stretches from one name to another, that should have all of a file's images.

    That is so for the file of this SHA-256: ``available`` samples have one there, and ``failed``
    ones are known to have none.
    """

    of: str
    tars: tuple[tuple[str, str], ...]
    available: int
    failed: int


@dataclass(frozen=True)
class FileWork:
    """A file of metadata to embed into ``out`` (a ``.parquet``), and how."""

    partition: Partition
    columns: dict[str, str]
    out: Path
    name: str
    recipe: Recipe
    identity: dict[str, Any]
    tars: IndexedTars
    device: str
    batch_size: int
    threads: int | None
    measure: bool
    likely: Likely | None


@dataclass(frozen=True)
class FileResult:
    """What stands there of a file now, whether it is ``new``, and what merging tokens changes."""

    done: FileDone
    new: bool
    drift: Drift | None = None


def embed_files(
    folder: Path,
    out: Path,
    tars: IndexedTars,
    recipe: Recipe,
    name: str | None = None,
    *,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    engine: Engine | None = None,
    likely: Callable[[Partition], Likely | None] = lambda partition: None,
) -> EmbedReport:
    """Write the metadata of ``folder`` with features ``NAME_img`` and ``NAME_txt`` to ``out``.

    Images are those of the tars, found by uid; captions are the metadata's. A sample without an
    image that can be decoded has a row of NaN, no similarity, and a reason in ``NAME_set_aside``.
    A file that is there, made of the same, is left as it is; one that cannot be read is set aside.
    ``workers`` are threads that decode here; a cluster as ``engine`` embeds one file in each
    worker. ``likely`` may know where a file's images are, which spares a look at those of all
    others.

    Raises UsageError for an ``out`` that has something else, StorageError for one that another
    process is writing, DataError for metadata that change meanwhile, and the errors of
    ``ClipModel.load``.
    """
    name = check_name(recipe.usual_name() if name is None else name)
    identity = recipe.identity()
    started = time.monotonic()
    with Pool.open(folder) as pool:
        partitions, columns = partitions_of(pool), pool.columns()
        aside = pool.sql("SELECT item, reason, detail FROM set_aside ORDER BY item").fetchall()
    _expect_new(folder, name, columns)
    report = EmbedReport(
        name, str(out), identity["model"], identity["weights_sha256"], identity["precision"],
        set_aside=dict(tars.set_aside),
    )  # fmt: skip
    for item, reason, detail in aside:
        report.set_aside[reason] = report.set_aside.get(reason, 0) + 1
        report.examples.append(f"{item}: {reason}: {detail}")
    places = {out / partition.name: partition for partition in partitions}
    with alone(out, f"{out}: another 'datacomp pool embed' is writing there; wait for it"):
        # What was made of a file that cannot be read now may be all there is of it.
        _expect_ours(
            folder, out, {*places, *(out / partition_name(Path(item)) for item, *_ in aside)}
        )
        done: list[FileDone] = []
        to_do: list[Path] = []
        for place, partition in places.items():
            found = footers.read(place, name, identity)
            if found is not None and found.tars == tars.state and found.is_of(partition.file):
                done.append(found)
                report.known += found.embedded
            else:
                to_do.append(place)
        # Here the threads of one process do it, with one model.
        chosen = engine if engine is not None and engine.distributed else Local(1)
        threads = None if chosen.distributed else workers or default_workers()
        work = [
            FileWork(
                places[place], {key: columns[key] for key in ("uid", "text", ROW)},
                place.absolute(), name, recipe, identity, tars, device, batch_size, threads,
                measure=recipe.tome > 0 and place == to_do[0], likely=likely(places[place]),
            )
            for place in to_do
        ]  # fmt: skip
        _prepare(out, places, tars, recipe, engine)
        with Progress(f"embedding {name}", len(work), "files") as progress:
            for result in chosen.map(embed_file, work, count=len(work), gpu=device != "cpu"):
                progress.advance()
                done.append(result.done)
                if result.new:
                    report.embedded += result.done.embedded
                else:
                    report.known += result.done.embedded
                report.drift = report.drift or result.drift
    for found in done:
        report.without_image += found.without_image
        for why, count in found.set_aside.items():
            report.set_aside[why] = report.set_aside.get(why, 0) + count
        report.examples += found.examples
    del report.examples[_EXAMPLES:]
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _expect_new(folder: Path, name: str, columns: dict[str, str]) -> None:
    for column in (score_column(name), _aside(name)):
        if column in columns:
            raise UsageError(
                f"{folder}: its metadata have a column {column} already; give these features "
                "another --name"
            )


def _expect_ours(folder: Path, out: Path, places: set[Path]) -> None:
    """Refuse a folder in which other metadata would stand among what is made."""
    for path in sorted(out.rglob("*.parquet")):
        if path not in places:
            raise UsageError(
                f"{path}: belongs to no file of {folder}; remove it, or choose another folder"
            )


def _prepare(
    out: Path, places: Mapping[Path, Partition], tars: IndexedTars, recipe: Recipe,
    engine: Engine | None,
) -> None:  # fmt: skip
    """Make the folders, and see that every worker has what it needs."""
    for parent in sorted({place.parent for place in places}):
        with storage_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
        sweep_attempts(parent)
    if engine is not None:
        engine.require("train", "torch", "open_clip")
        model = recipe.model
        engine.reach(
            out, *sorted({one.file.parent for one in places.values()}), tars.root, tars.index,
            model.checkpoint, *filter(None, [model.model_config]),
        )  # fmt: skip


def embed_file(work: FileWork) -> FileResult:
    """Embed a file of metadata, in a worker; one made of the same before is left as it is."""
    stamp = FileStamp.of(work.partition.file)
    before = footers.read(work.out, work.name, work.identity)
    with open_partition(work.partition, work.columns, work.threads or 1) as pool:
        rows, images = pool.count(), _place(pool, work, stamp)
        same = before is not None and (before.of.sha256, before.images) == (stamp.sha256, images)
        if before is not None and same and UNREADABLE not in before.set_aside:
            now = replace(before, of=stamp, tars=work.tars.state)
            footers.note(work.out, now)
            return FileResult(now, new=False)
        return _embed(work, pool, rows, stamp, images)


def _place(pool: Pool, work: FileWork, stamp: FileStamp) -> str:
    """List the samples whose images are there, in the order of the tars; return its digest.

    The digest is of all that features depend on but the captions and the model.
    """
    likely = work.likely
    if likely is None or likely.of != stamp.sha256 or not _is_all(pool, work, likely):
        _list(pool, work)
    found = hashlib.sha256()
    shards: set[str] = set()
    for part in _slices(pool, _CHUNK, "_row, _start, _size, _shard"):
        for name in ("_row", "_start", "_size"):
            found.update(part[name].to_numpy().tobytes())
        named = part["_shard"].to_pylist()
        found.update("\n".join(named).encode())
        shards.update(named)
    for shard in sorted(shards):
        with contextlib.suppress(OSError):  # told when its images are read
            stat = (work.tars.root / shard).stat()
            found.update(f"{shard} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _is_all(pool: Pool, work: FileWork, likely: Likely) -> bool:
    """List the samples whose images are in these tars; tell if no other tar can have one."""
    samples = pool.scalar("SELECT count(DISTINCT uid) FROM samples")
    listed = _list(pool, work, likely.tars)
    return listed == likely.available and listed + likely.failed == samples


def _list(pool: Pool, work: FileWork, tars: Sequence[tuple[str, str]] = ()) -> int:
    """List the samples whose images are in these tars, or in any; return how many samples."""
    members = ", ".join(
        f"list_filter(members, lambda m: m.extension = {literal(one)})[1]" for one in EXTENSIONS
    )
    named = " OR ".join(f"shard BETWEEN {literal(a)} AND {literal(b)}" for a, b in tars)
    pool.sql(
        f"CREATE OR REPLACE TEMP TABLE {_PLACED} AS "
        f"SELECT s.{ROW} AS _row, s.uid, s.text, i.shard AS _shard, "
        'i."offset" + i.image."offset" AS _start, i.image.size AS _size FROM samples s JOIN ('
        f'SELECT uid AS written, shard, "offset", coalesce({members}) AS image '
        f"FROM read_parquet({literal(str(work.tars.index))}) WHERE {named or 'true'}) i "
        "ON printf('%032x', s.uid) = i.written WHERE i.image IS NOT NULL "
        "ORDER BY _shard, _start, _row"
    )
    return pool.scalar(f"SELECT count(DISTINCT uid) FROM {_PLACED}")


def _slices(pool: Pool, size: int, columns: str) -> Iterator[pa.Table]:
    """Yield the list in order, some rows at a time."""
    total = pool.scalar(f"SELECT count(*) FROM {_PLACED}")
    for start in range(0, total, size):
        yield pool.table(
            f"SELECT {columns} FROM {_PLACED} WHERE rowid >= {start} AND rowid < {start + size} "
            "ORDER BY rowid"
        )


def _batches(pool: Pool, work: FileWork, rows: deque[NDArray[Any]]) -> Iterator[PlacedBatch]:
    """Yield what is to be embedded, and leave the rows of each batch in ``rows``."""
    size = work.batch_size
    chunk = max(size, _CHUNK // size * size)
    for part in _slices(pool, chunk, f"_row, text, _shard, _start, _size, {HALVES}"):
        uids = from_halves(part["high"].to_numpy(), part["low"].to_numpy())
        numbers = part["_row"].to_numpy()
        where = [part[name].to_pylist() for name in ("_shard", "_start", "_size")]
        places: list[Place | None] = [
            Place(str(work.tars.root / shard), start, length)
            for shard, start, length in zip(*where, strict=True)
        ]
        texts = part.select(["text"])
        for first in range(0, len(part), size):
            some = slice(first, first + size)
            rows.append(numbers[some])
            yield PlacedBatch(uids[some], texts.slice(first, size), places[some])


def _embed(work: FileWork, pool: Pool, count: int, stamp: FileStamp, images: str) -> FileResult:
    clip = model_of_worker(work.recipe, work.identity["weights_sha256"], work.device)
    threads = work.threads or threads_of(clip)
    few = None
    if work.measure:
        few = next(_batches(pool, replace(work, batch_size=SAMPLE), deque()), None)
    embedder, about = introduced(clip, threads, work.recipe.tome, few)
    reasons = np.full(count, NO_IMAGE.encode(), "S16")
    scores = np.full(count, np.nan, np.float32)
    waiting: deque[NDArray[Any]] = deque()
    with contextlib.ExitStack() as stack:
        shape = (count, about.dimension)
        vectors = [stack.enter_context(_on_disk(shape)) for _ in range(2)]
        for part in embedder.embedded(_batches(pool, work, waiting)):
            _scatter(part, waiting.popleft(), vectors, scores, reasons)
        counts = Counter(reasons.tolist())
        done = FileDone(
            stamp, work.tars.state, images, work.identity, about.preparation,
            counts.pop(b"", 0),
            {why.decode(): n for why, n in sorted(counts.items()) if why != NO_IMAGE.encode()},
            counts.get(NO_IMAGE.encode(), 0), _examples(work, reasons),
        )  # fmt: skip
        arrays = dict(zip((f"{work.name}_img", f"{work.name}_txt"), vectors, strict=True))
        with atomic_path(work.out.with_suffix(".npz")) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            # A footer of before must not stand beside these vectors, were it for a moment.
            footers.remove(work.out)
            fsync_directory(work.out.parent)
    _write_metadata(work, done, scores, reasons)
    return FileResult(done, new=True, drift=about.drift)


@contextlib.contextmanager
def _on_disk(shape: tuple[int, int]) -> Iterator[NDArray[np.float16]]:
    """Yield an array of NaN in a temporary file: those of a large file would fill the memory."""
    if 0 in shape:  # numpy maps no empty array
        yield np.full(shape, np.nan, np.float16)
        return
    with storage_errors(tempfile.gettempdir()), tempfile.TemporaryFile() as file:
        found = np.memmap(file, np.float16, "w+", shape=shape)
        for first in range(0, shape[0], _CHUNK):
            found[first : first + _CHUNK] = np.nan
        yield found


def _scatter(
    part: Embedded, rows: NDArray[Any], vectors: list[NDArray[np.float16]],
    scores: NDArray[np.float32], reasons: NDArray[np.bytes_],
) -> None:  # fmt: skip
    reasons[rows] = part.reasons
    used = rows[part.used]
    if len(used):
        vectors[0][used], vectors[1][used], scores[used] = part.images, part.texts, part.scores


def _examples(work: FileWork, reasons: NDArray[np.bytes_]) -> list[str]:
    """Name some of the samples that were set aside."""
    odd = np.flatnonzero((reasons != b"") & (reasons != NO_IMAGE.encode()))[:_EXAMPLES]
    told = zip(odd.tolist(), reasons[odd].tolist(), strict=True)
    return [f"{work.partition.name}: row {row + 1}: {why.decode()}" for row, why in told]


def _write_metadata(
    work: FileWork, done: FileDone, scores: NDArray[np.float32], reasons: NDArray[np.bytes_]
) -> None:
    """Write the file's own columns with two more; raise DataError if it is another one now."""
    fields = [
        pa.field(score_column(work.name), pa.float32()),
        pa.field(_aside(work.name), pa.string()),
    ]
    with atomic_path(work.out) as partial, pq.ParquetFile(work.partition.file) as file:
        own = file.schema_arrow
        schema = pa.schema([*own, *fields], {**(own.metadata or {}), **done.footer(work.name)})
        first = 0
        with pq.ParquetWriter(partial, schema) as writer:
            for batch in file.iter_batches(_CHUNK):
                rows = slice(first, first + len(batch))
                first += len(batch)
                why = [one.decode() or None for one in reasons[rows].tolist()]
                score = pa.array(scores[rows], mask=np.isnan(scores[rows]))
                columns = [*batch.columns, score, pa.array(why, pa.string())]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        if first != len(reasons) or not done.of.untouched(work.partition.file):
            raise DataError(
                f"{work.partition.file}: has changed while it was embedded; run the same command "
                "again"
            )


def _aside(name: str) -> str:
    return f"{name}_set_aside"
