"""Where the samples of a build come from: a folder of tars, or a pool.

An *origin* finds uids and cuts the work into *slices*: what a worker needs to know to read the
samples of one output shard, small enough to send to it.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...durable import canonical_json
from ...errors import DataError, IntegrityError, MissingError
from ...pools import tar
from ...pools.images import probe
from ...pools.reading import locate
from ...pools.uids import UidArray, to_hex
from ..subset import Lookup
from .index import Index, ensure_index, uid_records

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pools.pool import Pool

OPEN_FILES = 128
PLAN_BATCH = 100_000
EXTENSIONS = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
}  # fmt: skip

NOT_IN_SOURCE = "not_in_source"
NO_IMAGE = "no_image"
UNREADABLE = "unreadable"

Members = list[tuple[str, bytes | memoryview]]
"""Extension and bytes of the members of one sample, in alphabetical order."""


class Slice(ABC):
    """The samples of one output shard, in order; travels to a worker."""

    @abstractmethod
    def samples(self) -> Iterator[Members]:
        """Read the samples."""


class Origin(ABC):
    """A place whose samples can be found by uid."""

    kind: str

    @property
    @abstractmethod
    def digest(self) -> str:
        """The name of what was found: it changes when the samples change."""

    @abstractmethod
    def find(self, uids: UidArray) -> dict[str, NDArray[np.bool_]]:
        """Look up sorted uids without repetitions, shape (n,).

        Returns for each reason why a uid cannot be used a mask of shape (n,). Called once, before
        ``slices``.
        """

    @abstractmethod
    def slices(self, order: NDArray[np.int64], parts: list[tuple[int, int]]) -> Iterator[Slice]:
        """Yield a slice for each part [first, last) of ``order``.

        ``order`` holds places in the array of uids that ``find`` was given.
        """

    def close(self) -> None:  # noqa: B027
        """Let go of what the origin holds open."""


# -- a folder of tars ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """A source file as it was when the build was planned."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class TarSlice(Slice):
    """Byte ranges of indexed tars: ``file`` numbers into ``files``; all arrays of shape (n,)."""

    files: tuple[Stamp, ...]
    file: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    key: pa.Array

    def samples(self) -> Iterator[Members]:
        """Read each range with one call and take its members apart."""
        places = zip(
            self.file.tolist(), self.offset.tolist(), self.length.tolist(),
            self.key.to_pylist(), strict=True,
        )  # fmt: skip
        with OpenFiles() as opened:
            for file, offset, length, key in places:
                stamp = self.files[file]
                data = opened.read(stamp.path, offset, length, stamp)
                sample = tar.parse_sample(data, f"{stamp.path} at byte {offset}")
                if sample.key != key:
                    raise DataError(
                        f"{stamp.path}: holds {sample.key[:80]!r} at byte {offset} where the index "
                        f"says {key[:80]!r}; remove its index.parquet and run the command again"
                    )
                view = memoryview(data)
                yield [
                    (extension, view[member.data : member.data + member.size])
                    for extension, member in sorted(sample.members.items())
                ]


class TarOrigin(Origin):
    """A folder of tars with an index."""

    kind = "shards"

    def __init__(self, index: Index) -> None:
        self._index = index
        self._stamps = tuple(
            Stamp(str(index.directory / shard.name), shard.size, shard.mtime_ns)
            for shard in index.shards
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of the index."""
        return self._index.sha256

    def find(self, uids: UidArray) -> dict[str, NDArray[np.bool_]]:
        """Read through the index once; keep the places of what is wanted."""
        import pyarrow as pa
        import pyarrow.compute as pc

        lookup = Lookup(uids)
        names = pa.array([shard.name for shard in self._index.shards], pa.string())
        self._file = np.full(len(uids), -1, np.int32)
        self._offset, self._length = np.zeros((2, len(uids)), np.int64)
        found: list[NDArray[np.int64]] = []
        keys: list[pa.Array] = []
        for table in self._index.tables():
            places = lookup.find(uid_records(table["uid"], str(self._index.directory)))
            rows = np.flatnonzero(places >= 0)
            places, part = places[rows], table.take(rows)
            self._file[places] = pc.index_in(part["shard"].cast(pa.string()), names).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
            self._offset[places] = part["offset"].to_numpy()
            self._length[places] = part["length"].to_numpy()
            found.append(places)
            keys.extend(part["key"].cast(pa.large_string()).chunks)
        # keys stay in the order of the index; _key_row says where each uid's key stands
        self._keys = pa.concat_arrays(keys) if keys else pa.array([], pa.large_string())
        self._key_row = np.zeros(len(uids), np.int64)
        every = np.concatenate(found) if found else np.zeros(0, np.int64)
        self._key_row[every] = np.arange(len(every))
        return {NOT_IN_SOURCE: self._file < 0}

    def slices(self, order: NDArray[np.int64], parts: list[tuple[int, int]]) -> Iterator[Slice]:
        """Cut the places found into slices."""
        for first, last in parts:
            places = order[first:last]
            numbers, file = np.unique(self._file[places], return_inverse=True)
            yield TarSlice(
                files=tuple(self._stamps[number] for number in numbers),
                file=file.astype(np.int32),
                offset=self._offset[places],
                length=self._length[places],
                key=self._keys.take(self._key_row[places]),
            )


# -- a pool ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoolSlice(Slice):
    """Rows of a pool: uid, url, text, width, height, sha256, root, shard, offset, length."""

    rows: pa.Table

    def samples(self) -> Iterator[Members]:
        """Read each image as it lies and write its caption and metadata anew."""
        with OpenFiles() as opened:
            for row in self.rows.to_pylist():
                path = str(locate(Path(row["root"]), row["shard"]))
                image = opened.read(path, row["offset"], row["length"])
                recorded = row["sha256"]
                if recorded and hashlib.sha256(image).hexdigest() != recorded:
                    raise IntegrityError(
                        f"{path}: the image of sample {row['uid']} is not the one that was added "
                        "to the pool (SHA-256 differs); restore it or make the pool again"
                    )
                yield sorted(
                    [
                        (EXTENSIONS[probe(image).format], image),
                        ("json", _sample_json(row)),
                        ("txt", (row["text"] or "").encode()),
                    ]
                )


class PoolOrigin(Origin):
    """A pool whose samples have their images at hand."""

    kind = "pool"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._roots = pool.source_paths()
        self._uids: UidArray | None = None
        self._digest = ""

    @property
    def digest(self) -> str:
        """A digest over all that goes from the pool into the shards."""
        return self._digest

    def find(self, uids: UidArray) -> dict[str, NDArray[np.bool_]]:
        """Look the uids up in the pool, and their images in the file system."""
        import pyarrow as pa

        self._uids = uids
        wanted = pa.table({"high": uids["f0"], "low": uids["f1"], "place": np.arange(len(uids))})
        self._register("build_wanted_uids", wanted)
        self._pool.sql(
            "CREATE OR REPLACE TEMP TABLE build_wanted AS SELECT place, "
            "(high::UHUGEINT << 64) + low::UHUGEINT AS uid FROM build_wanted_uids"
        )
        self._register("build_files", self._files())
        found = self._pool.table(
            "SELECT w.place, s.uid IS NOT NULL AS known, s.shard IS NOT NULL AS located, "
            's."offset" >= 0 AND s.length >= 0 AND s."offset" + s.length <= f.size AS readable '
            "FROM build_wanted w LEFT JOIN samples s USING (uid) LEFT JOIN build_files f "
            "ON s.source = f.source AND s.shard = f.shard ORDER BY w.place"
        )
        known, located, readable = (
            found[name].fill_null(False).to_numpy().astype(bool)
            for name in ("known", "located", "readable")
        )
        self._digest = self._content_digest()
        return {
            NOT_IN_SOURCE: ~known,
            NO_IMAGE: known & ~located,
            UNREADABLE: located & ~readable,
        }

    def slices(self, order: NDArray[np.int64], parts: list[tuple[int, int]]) -> Iterator[Slice]:
        """Stream the rows in the order of the output and cut them into slices."""
        import pyarrow as pa

        if not parts:
            return
        places = np.concatenate([order[first:last] for first, last in parts])
        self._register("build_output", pa.table({"place": places, "rank": np.arange(len(places))}))
        reader = self._pool.connection.sql(
            "SELECT o.place, s.url, s.text, s.width, s.height, s.sha256, s.source, s.shard, "
            's."offset", s.length FROM build_output o JOIN build_wanted w USING (place) '
            "JOIN samples s USING (uid) ORDER BY o.rank"
        ).to_arrow_reader(PLAN_BATCH)
        waiting = reader.schema.empty_table()
        for first, last in parts:
            while len(waiting) < last - first:
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([next(reader)])])
            yield PoolSlice(self._prepared(waiting.slice(0, last - first)))
            waiting = waiting.slice(last - first)

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()

    def _register(self, name: str, table: pa.Table) -> None:
        self._pool.connection.register(name, table)

    def _files(self) -> pa.Table:
        """Return (source, shard, size) of every file that holds wanted images."""
        import pyarrow as pa

        rows = self._pool.sql(
            "SELECT DISTINCT source, shard FROM samples SEMI JOIN build_wanted USING (uid) "
            "WHERE shard IS NOT NULL"
        ).fetchall()
        sizes = [_size(self._roots.get(source), shard) for source, shard in rows]
        return pa.table(
            {
                "source": pa.array([row[0] for row in rows], pa.int32()),
                "shard": pa.array([row[1] for row in rows], pa.string()),
                "size": pa.array(sizes, pa.int64()),
            }
        )

    def _content_digest(self) -> str:
        columns = ("uid", "url", "text", "width", "height", "sha256", "shard", "offset", "length")
        values = ", ".join(f"coalesce(s.\"{name}\"::VARCHAR, '-')" for name in columns)
        rows = self._pool.sql(
            f"SELECT count(*), bit_xor(md5_number(md5(concat_ws(chr(31), {values})))) "
            "FROM samples s SEMI JOIN build_wanted USING (uid)"
        ).fetchall()
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def _prepared(self, rows: pa.Table) -> pa.Table:
        """Put uid and root where place and source stood; copy, so that only this slice travels."""
        import pyarrow as pa

        assert self._uids is not None
        uids = to_hex(self._uids[rows["place"].to_numpy()])
        roots = [str(self._roots[source]) for source in rows["source"].to_pylist()]
        rows = rows.drop_columns(["place", "source"])
        rows = rows.append_column("uid", pa.array(uids, pa.string()))
        rows = rows.append_column("root", pa.array(roots, pa.string()).dictionary_encode())
        return rows.take(np.arange(len(rows)))


def _size(root: Path | None, shard: str) -> int | None:
    if root is None:
        return None
    try:
        return locate(root, shard).stat().st_size
    except (OSError, DataError):
        return None


def _sample_json(row: dict[str, Any]) -> bytes:
    return canonical_json(
        {
            "uid": row["uid"],
            "url": row["url"],
            "caption": row["text"],
            "width": row["width"],
            "height": row["height"],
            "sha256": row["sha256"],
        }
    )


# -- either ----------------------------------------------------------------------------------


def open_origin(source: Path, workers: int, keep_going: bool) -> Origin:
    """Return the origin at ``source``: a folder of tars (indexed first if need be) or a pool."""
    if source.is_dir():
        return TarOrigin(ensure_index(source, workers, keep_going))
    if source.is_file():
        from ...pools.pool import Pool

        return PoolOrigin(Pool.open(source, read_only=True))
    raise MissingError(f"{source}: no such folder of tars and no such pool")


class OpenFiles:
    """Keeps the files used last open, and makes sure that none changes meanwhile."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, tuple[int, Stamp]] = OrderedDict()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *exc_info: object) -> None:
        changed = None
        while self._files:
            changed = self._close_oldest() or changed
        if changed and exc_info[0] is None:
            raise _changed(changed)

    def read(self, path: str, offset: int, length: int, stamp: Stamp | None = None) -> bytes:
        """Return ``length`` bytes at ``offset``; a file that is not as stamped is a DataError."""
        if path in self._files:
            self._files.move_to_end(path)
        else:
            self._open(path, stamp)
        descriptor, found = self._files[path]
        if offset < 0 or length < 0 or offset + length > found.size:
            raise _changed(path)
        data = os.pread(descriptor, length, offset)
        if len(data) < length:
            raise _changed(path)
        return data

    def _open(self, path: str, stamp: Stamp | None) -> None:
        if len(self._files) >= OPEN_FILES:
            changed = self._close_oldest()
            if changed:
                raise _changed(changed)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        found = _stamp(path, descriptor)
        self._files[path] = (descriptor, found)
        if stamp is not None and stamp != found:
            raise _changed(path)

    def _close_oldest(self) -> str | None:
        """Close the file not used for longest; return its path if it has changed."""
        path, (descriptor, before) = self._files.popitem(last=False)
        after = _stamp(path, descriptor)
        os.close(descriptor)
        return None if after == before else path


def _stamp(path: str, descriptor: int) -> Stamp:
    status = os.fstat(descriptor)
    return Stamp(path, status.st_size, status.st_mtime_ns)


def _changed(path: str) -> DataError:
    return DataError(f"{path}: changed while it was read; run the same command again")
