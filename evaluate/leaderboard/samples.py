"""The lists of samples in a submission: what they hold, and whether they may be believed.

Subsets are read as DataComp's ``.npy``, without unpickling; parquet is read by DuckDB under a
memory limit, so that a file that unpacks to terabytes ends in an error and not in a crash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...durable import atomic_path
from ...errors import DataError, StorageError, UnsafeInputError
from ...pools.connection import connect
from ...pools.uids import UidArray, digest_of_uids, load_subset, to_hex
from .record import Samples

if TYPE_CHECKING:
    import duckdb

_MEMORY = "1GB"
_CHUNK = 1 << 20
_LEAST_BYTES = 2
"""Bytes of a row in a parquet file, at the least."""


def describe(path: Path, name: str) -> Samples:
    """Return what a list of samples holds; DataError says what is wrong with it.

    A ``.npy`` must be sorted and name each uid once; weights must be sorted by uid, unique and
    at least 1; captions need a url in every row.
    """
    if path.suffix == ".npy":
        uids = load_subset(path)
        repeated = first_repeated(uids)
        if repeated is not None:
            raise DataError(
                f"{name}: uid {repeated} stands there more than once; say how often in a parquet "
                "of uid and weight"
            )
        return Samples(
            file=name, kind="subset", count=len(uids), unique=len(uids),
            digest=digest_of_uids(uids),
        )  # fmt: skip
    with _parquet(path, name) as connection:
        _refuse_bomb(connection, path, name)
        columns = {
            row[0]: row[1] for row in connection.execute("DESCRIBE SELECT * FROM given").fetchall()
        }
        if set(columns) == {"uid", "weight"}:
            return _weights(connection, name)
        if columns.get("url") == columns.get("text") == "VARCHAR":
            return _captions(connection, name)
    raise DataError(
        f"{name}: has columns {', '.join(sorted(columns))[:200]}; expected uid and weight, or url "
        "and text"
    )


def _refuse_bomb(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Refuse more rows than the bytes can hold: uids do not compress, and addresses hardly.

    The rows are counted from the file's footer, without reading them.
    """
    row = connection.execute("SELECT count(*) FROM given").fetchone()
    size = path.stat().st_size
    if row is not None and row[0] * _LEAST_BYTES > size:
        raise UnsafeInputError(f"{name}: promises {row[0]:,} rows in {size:,} bytes; refused")


def first_repeated(ordered: UidArray) -> str | None:
    """Return the first uid, in hex, that a sorted array holds more than once."""
    same = (ordered["f0"][1:] == ordered["f0"][:-1]) & (ordered["f1"][1:] == ordered["f1"][:-1])
    at = int(np.argmax(same)) if len(same) else 0
    return to_hex(ordered[at : at + 1])[0] if len(same) and same[at] else None


def write_weights(path: Path, ordered: UidArray) -> None:
    """Write a sorted array with repetitions as a parquet of uid (hex) and weight, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = np.ones(len(ordered), bool)
    first[1:] = (ordered["f0"][1:] != ordered["f0"][:-1]) | (
        ordered["f1"][1:] != ordered["f1"][:-1]
    )
    starts = np.flatnonzero(first)
    weights = np.diff(np.append(starts, len(ordered)))
    schema = pa.schema([("uid", pa.string()), ("weight", pa.int64())])
    with atomic_path(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for at in range(0, len(starts), _CHUNK):
            uids = to_hex(ordered[starts[at : at + _CHUNK]])
            writer.write_table(pa.table([uids, weights[at : at + _CHUNK]], schema=schema))


def first_foreign(path: Path, kind: str, pool: UidArray) -> str | None:
    """Return the first uid of a subset or of weights that the sorted ``pool`` lacks."""
    high = np.ascontiguousarray(pool["f0"])
    for uids in _uids(path, kind):
        at = np.searchsorted(high, uids["f0"], "left")
        open_ones = np.arange(len(uids))
        while len(open_ones):
            here = at[open_ones]
            alive = here < len(high)
            alive[alive] = high[here[alive]] == uids["f0"][open_ones[alive]]
            if not alive.all():
                lost = open_ones[~alive][0]
                return to_hex(uids[lost : lost + 1])[0]
            other = pool["f1"][here] != uids["f1"][open_ones]
            open_ones = open_ones[other]
            at[open_ones] += 1
    return None


def _uids(path: Path, kind: str) -> Iterator[UidArray]:
    if kind == "subset":
        uids = load_subset(path)
        for at in range(0, len(uids), _CHUNK):
            yield uids[at : at + _CHUNK]
        return
    from ...pools.uids import from_hex

    with _parquet(path, path.name) as connection:
        for batch in connection.sql("SELECT uid FROM given").to_arrow_reader(_CHUNK):
            yield from_hex(batch["uid"].to_pylist())


@contextlib.contextmanager
def _parquet(path: Path, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a stranger's parquet file as the view ``given``; whatever fails is a DataError."""
    import duckdb

    with connect(
        None, confined=True, reaching=[path.absolute()], memory_limit=_MEMORY, threads=1
    ) as connection:
        try:
            quoted = str(path.absolute()).replace("'", "''")
            connection.execute(f"CREATE VIEW given AS SELECT * FROM read_parquet('{quoted}')")
            yield connection
        except duckdb.OutOfMemoryException:
            raise DataError(f"{name}: needs more than {_MEMORY} to be read; refused") from None
        except duckdb.IOException as error:
            raise StorageError(f"{name}: {str(error).splitlines()[0][:200]}") from None
        except (duckdb.Error, UnicodeDecodeError) as error:
            raise DataError(f"{name}: not readable: {str(error).splitlines()[0][:200]}") from None


def _weights(connection: duckdb.DuckDBPyConnection, name: str) -> Samples:
    row = connection.execute(
        "SELECT count(*), coalesce(sum(weight)::BIGINT, 0), "
        "count(*) FILTER (uid IS NULL OR NOT regexp_full_match(uid, '[0-9a-f]{32}')), "
        "count(*) FILTER (weight IS NULL OR weight < 1), "
        "count(*) FILTER (uid <= before) "
        "FROM (SELECT uid::VARCHAR AS uid, weight, lag(uid) OVER () AS before FROM given)"
    ).fetchone()
    assert row is not None
    rows, total, strange, none, disorder = row
    if strange or none or disorder:
        what = (
            f"{strange:,} rows have no uid" if strange
            else f"{none:,} weights are below 1" if none
            else f"{disorder:,} rows are not sorted by uid, or stand there twice"
        )  # fmt: skip
        raise DataError(f"{name}: {what}")
    return Samples(file=name, kind="weights", count=int(total), unique=rows)


def _captions(connection: duckdb.DuckDBPyConnection, name: str) -> Samples:
    row = connection.execute(
        "SELECT count(*), count(*) FILTER (url IS NULL OR length(url) = 0) FROM given"
    ).fetchone()
    assert row is not None
    rows, without = row
    if without:
        raise DataError(f"{name}: {without:,} rows have no url")
    return Samples(file=name, kind="captions", count=rows, unique=rows)
