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
    wanted = "".join(f", {_column(name)} AS _c{n}" for n, name in enumerate(columns))
    listed = f"_reading_{next(_numbers)}"
    pool.sql(
        f"CREATE TEMP TABLE {listed} AS SELECT s.uid, s.source AS _source, s.shard AS _shard, "
        f's."offset" AS _offset, s.length AS _length, s.sha256 AS _sha256{wanted} '
        f"FROM samples s SEMI JOIN ({_relation(relation)}) r USING (uid) "
        'ORDER BY s.source, s.shard, s."offset", s.uid'
    )
    try:
        with _Files(pool.source_paths()) as files:
            for part in _slices(pool, listed, batch_size):
                uids = from_halves(part["high"].to_numpy(), part["low"].to_numpy())
                named = part.select([f"_c{n}" for n in range(len(columns))])
                read = [files.read(*place) for place in _places(part)] if images else []
                yield SampleBatch(uids, named.rename_columns(list(columns)), read)
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


class _Files:
    """Keeps the last file open: samples come in file order."""

    def __init__(self, roots: dict[int, Path]) -> None:
        self._roots = roots
        self._key: tuple[int, str] | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(
        self, source: int, shard: str | None, offset: int, length: int, sha256: str | None
    ) -> bytes | None:
        if shard is None:
            return None
        try:
            if self._key != (source, shard):
                if self._file is not None:
                    self._file.close()
                self._key, self._file = None, locate(self._roots[source], shard).open("rb")
                self._key = (source, shard)
            assert self._file is not None
            self._file.seek(offset)
            data = self._file.read(length)
        except (OSError, KeyError, DataError):
            return None
        if len(data) != length or (sha256 and hashlib.sha256(data).hexdigest() != sha256):
            return None
        return data


def read_place(
    pool: Pool, source: int, shard: str | None, offset: int, length: int, sha256: str | None
) -> bytes | None:
    """Return the bytes of one image by its place, None where they cannot be read."""
    with _Files(pool.source_paths()) as files:
        return files.read(source, shard, offset, length, sha256)


def locate(root: Path, shard: str) -> Path:
    """Return the file of a shard below its source's root; a name that leaves it is refused."""
    if root.is_file():
        return root
    path = root / shard
    if Path(shard).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{shard}: lies outside {root}")
    return path
