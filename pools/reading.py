"""Read the images of a pool's samples from wherever they lie, in file order."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ..errors import DatacompError, DataError
from .pool import HALVES, Pool, quote
from .uids import UidArray, from_halves

_CHUNK = 65_536
"""About how many rows are held in memory at a time."""

_numbers = itertools.count()


@dataclass
class SampleBatch:
    """Some samples: uids (n,), the columns asked for, and image bytes (None where unreadable)."""

    uids: UidArray
    columns: pa.Table
    images: list[bytes | None]

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True)
class Place:
    """Where the bytes of an image lie: a range of a file, and their SHA-256 where it is known."""

    path: str
    offset: int
    length: int
    sha256: str | None = None


@dataclass
class PlacedBatch:
    """Some samples: uids (n,), the columns asked for, and the images' places (None: unreadable)."""

    uids: UidArray
    columns: pa.Table
    places: list[Place | None]

    def __len__(self) -> int:
        return len(self.uids)


def iterate(
    pool: Pool,
    relation: str = "samples",
    columns: tuple[str, ...] = (),
    images: bool = False,
    batch_size: int = 256,
) -> Iterator[SampleBatch]:
    """Yield the samples of ``relation`` (SQL with a ``uid`` column) in batches, in file order.

    The list of samples is fixed before the first batch, so the caller may write to the pool
    in between; it lies in a temporary table, which DuckDB moves to the disk when it is long.
    Bytes that differ from the SHA-256 the pool recorded count as unreadable.
    """
    with PlaceReader() as reader:
        for batch in iterate_places(pool, relation, columns, images, batch_size):
            read = [reader.read(place) for place in batch.places]
            yield SampleBatch(batch.uids, batch.columns, read)


def iterate_places(
    pool: Pool,
    relation: str = "samples",
    columns: tuple[str, ...] = (),
    images: bool = True,
    batch_size: int = 256,
) -> Iterator[PlacedBatch]:
    """Yield what ``iterate`` does, but for the images only where they lie."""
    wanted = "".join(f", {_column(name)} AS _c{n}" for n, name in enumerate(columns))
    listed = f"_reading_{next(_numbers)}"
    pool.sql(
        f"CREATE TEMP TABLE {listed} AS SELECT s.uid, s.source AS _source, s.shard AS _shard, "
        f's."offset" AS _offset, s.length AS _length, s.sha256 AS _sha256{wanted} '
        f"FROM samples s SEMI JOIN ({_relation(relation)}) r USING (uid) "
        'ORDER BY s.source, s.shard, s."offset", s.uid'
    )
    try:
        placing = _Placing(pool.source_paths())
        for part in _slices(pool, listed, batch_size):
            uids = from_halves(part["high"].to_numpy(), part["low"].to_numpy())
            named = part.select([f"_c{n}" for n in range(len(columns))])
            places = [placing.place(*found) for found in _places(part)] if images else []
            yield PlacedBatch(uids, named.rename_columns(list(columns)), places)
    finally:
        with contextlib.suppress(DatacompError):  # the pool may be closed by now
            pool.sql(f"DROP TABLE IF EXISTS {listed}")


def _column(name: str) -> str:
    """Return the SQL of a column; uids are written in hex, since Arrow has no such integers."""
    return "printf('%032x', s.uid)" if name == "uid" else f"s.{quote(name)}"


def _slices(pool: Pool, table: str, batch_size: int) -> Iterator[pa.Table]:
    """Yield the rows of a temporary table in order, some at a time."""
    total = pool.scalar(f"SELECT count(*) FROM {table}")
    chunk = max(batch_size, _CHUNK // batch_size * batch_size)
    for start in range(0, total, chunk):
        rows = pool.table(
            f"SELECT {HALVES}, * EXCLUDE (uid) FROM {table} "
            f"WHERE rowid >= {start} AND rowid < {start + chunk} ORDER BY rowid"
        )
        for first in range(0, len(rows), batch_size):
            yield rows.slice(first, batch_size)


def _places(part: pa.Table) -> Iterator[tuple[Any, ...]]:
    names = ("_source", "_shard", "_offset", "_length", "_sha256")
    return zip(*(part[name].to_pylist() for name in names), strict=True)


def _relation(text: str) -> str:
    return f"SELECT uid FROM {text}" if text.isidentifier() else text


class _Placing:
    """Finds the files of a pool's sources; those of neighbours are mostly the same."""

    def __init__(self, roots: dict[int, Path]) -> None:
        self._roots = roots
        self._last: tuple[int, str] | None = None
        self._path: str | None = None

    def place(
        self, source: int, shard: str | None, offset: int, length: int, sha256: str | None
    ) -> Place | None:
        if shard is None:
            return None
        if self._last != (source, shard):
            self._last, self._path = (source, shard), self._located(source, shard)
        return None if self._path is None else Place(self._path, offset, length, sha256)

    def _located(self, source: int, shard: str) -> str | None:
        try:
            return str(locate(self._roots[source], shard))
        except (OSError, KeyError, DataError):
            return None


class PlaceReader:
    """Reads images by their places, and keeps the last file open: they come in file order."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> PlaceReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, place: Place | None) -> bytes | None:
        """Return the bytes at a place, None where they cannot be read or are others."""
        if place is None:
            return None
        try:
            if self._path != place.path:
                if self._file is not None:
                    self._file.close()
                self._path, self._file = None, open(place.path, "rb")  # noqa: SIM115
                self._path = place.path
            assert self._file is not None
            self._file.seek(place.offset)
            data = self._file.read(place.length)
        except OSError:
            return None
        if len(data) != place.length:
            return None
        if place.sha256 and hashlib.sha256(data).hexdigest() != place.sha256:
            return None
        return data


def read_place(
    pool: Pool, source: int, shard: str | None, offset: int, length: int, sha256: str | None
) -> bytes | None:
    """Return the bytes of one image by its place, None where they cannot be read."""
    with PlaceReader() as reader:
        return reader.read(
            _Placing(pool.source_paths()).place(source, shard, offset, length, sha256)
        )


def locate(root: Path, shard: str) -> Path:
    """Return the file of a shard below its source's root; a name that leaves it is refused."""
    if root.is_file():
        return root
    path = root / shard
    if Path(shard).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{shard}: lies outside {root}")
    return path
