"""What became of the URLs of one file of metadata: ``OUT/outcomes/NAME.parquet``.

It has the columns of a pool's table ``fetches`` (uids in hex, sorted). Its footer says of which
file it speaks, and sums up, so that what is done need not be read again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import atomic_path, sha256_file
from ...errors import DataError
from ...pools import fetches, schema
from ...pools.connection import connect
from ...pools.pool import Pool

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "outcomes"
_KEY = b"datacomp"
_COLUMNS = ("uid", "state", "reason", "attempts", "updated")


@dataclass(frozen=True)
class Metadata:
    """A file of metadata when its URLs were listed: size, time (ns), SHA-256, how many URLs."""

    size: int
    changed: int
    sha256: str
    urls: int

    def untouched(self, file: Path) -> bool:
        """Tell whether the file has the size and time it had."""
        stat = file.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed)


@dataclass(frozen=True)
class Summary:
    """The footer of outcomes: of which file, how many images are at hand, failures by reason."""

    of: Metadata
    available: int
    failed: dict[str, int] = field(default_factory=dict)


def identify(file: Path, urls: int) -> Metadata:
    """Return what a file of metadata is now; reads it once."""
    stat = file.stat()
    return Metadata(stat.st_size, stat.st_mtime_ns, sha256_file(file), urls)


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
        return Summary(Metadata(**found.pop("of")), **found)
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


def save(pool: Pool, path: Path, of: Metadata) -> None:
    """Write the outcomes that a pool has."""
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
    footer = json.dumps(asdict(Summary(of, available, dict(failed))), sort_keys=True)
    with atomic_path(path) as partial:
        pq.write_table(table.replace_schema_metadata({_KEY: footer.encode()}), partial)


def _damaged(path: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split())[:200]
    return DataError(f"{path}: damaged ({why}); remove it, and its URLs are fetched anew")
