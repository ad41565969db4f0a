"""What became of the URLs of one file of metadata: ``OUT/outcomes/NAME.parquet``.

It has the columns of a pool's table ``fetches`` (uids in hex, sorted). Its footer says of which
file it speaks, and sums up, so that what is done need not be read again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import atomic_path
from ...errors import DataError
from ...pools import fetches, schema
from ...pools.connection import connect
from ...pools.file_stamps import FileStamp
from ...pools.pool import Pool

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "outcomes"
_KEY = b"datacomp"
_COLUMNS = ("uid", "state", "reason", "attempts", "updated")


@dataclass(frozen=True)
class Metadata(FileStamp):
    """A file of metadata when its URLs were listed, and how many it had."""

    urls: int


@dataclass(frozen=True)
class Summary:
    """The footer of outcomes: of which file, how many images are at hand, failures by reason.

    ``shards`` are the numbers of the shards that have the images, in stretches (first, end).
    """

    of: Metadata
    available: int
    failed: dict[str, int] = field(default_factory=dict)
    shards: list[tuple[int, int]] = field(default_factory=list)


def read_summary(path: Path) -> Summary | None:
    """Return what outcomes sum up to, from their footer; None where there are none yet.

    Raises DataError where they are damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        found = json.loads((pq.read_schema(path).metadata or {})[_KEY])
        shards = [(first, end) for first, end in found.pop("shards")]
        return Summary(Metadata(**found.pop("of")), **found, shards=shards)
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise _damaged(path, error) from None


def no_samples(path: Path) -> Pool:
    """Return a pool in memory that has no samples, only what becomes of URLs."""
    connection = connect(None, threads=1)
    schema.create(connection)
    return Pool(connection, path)


def load(pool: Pool, path: Path) -> None:
    """Bring outcomes, if there are any, into a pool that has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as file:
            table: pa.Table = file.read(list(_COLUMNS))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise _damaged(path, error) from None
    with pool.registered("kept_arrow", table):
        pool.sql(
            "INSERT INTO fetches SELECT ('0x' || uid)::UHUGEINT, state, reason, attempts, updated "
            "FROM kept_arrow"
        )


def save(pool: Pool, path: Path, of: Metadata, shards: Sequence[tuple[int, int]] = ()) -> None:
    """Write the outcomes that a pool has, some of them of new ``shards``."""
    import pyarrow.parquet as pq

    table = pool.table(
        "SELECT printf('%032x', uid) AS uid, state, reason, attempts, updated FROM fetches "
        "ORDER BY uid"
    )
    failed = pool.sql(
        "SELECT reason, count(*) FROM fetches WHERE state = ? GROUP BY reason ORDER BY reason",
        [fetches.FAILED],
    ).fetchall()
    available = pool.scalar("SELECT count(*) FROM fetches WHERE state = ?", [fetches.OK])
    before = read_summary(path)
    known: list[tuple[int, int]] = [] if before is None else before.shards
    every = sorted({*known, *shards})
    footer = json.dumps(asdict(Summary(of, available, dict(failed), every)), sort_keys=True)
    with atomic_path(path) as partial:
        pq.write_table(table.replace_schema_metadata({_KEY: footer.encode()}), partial)


def _damaged(path: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split())[:200]
    return DataError(f"{path}: damaged ({why}); remove it, and its URLs are fetched anew")
