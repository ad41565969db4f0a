"""What became of the URLs of one file of metadata: ``OUT/outcomes/NAME.parquet``.

It has the columns of a pool's table ``fetches`` (uids in hex, sorted). Its footer says of which
file it speaks, and sums up, so that what is done need not be read again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import fsync_directory, partial_path, storage_errors, sync
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

    @classmethod
    def from_dict(cls, found: Any) -> Metadata:
        """Return what JSON says; raise ValueError where it has another form."""
        match found:
            case {"size": int(size), "changed": int(changed), "sha256": str(sha), "urls": int(n)}:
                return cls(size, changed, sha, n)
            case _:
                raise ValueError("no stamp of a file of metadata")


@dataclass(frozen=True)
class Summary:
    """The footer of outcomes: of which file, how many images are at hand, failures by reason.

    ``shards`` are the numbers of the shards that have the images, in stretches (first, end).
    """

    of: Metadata
    available: int
    failed: dict[str, int] = field(default_factory=dict)
    shards: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, found: Any) -> Summary:
        """Return what JSON says; raise ValueError where it has another form."""
        match found:
            case {"of": of, "available": int(n), "failed": dict(failed), "shards": list(shards)}:
                counts = {why: count for why, count in failed.items() if isinstance(count, int)}
                stretches: list[tuple[int, int]] = []
                for stretch in shards:
                    match stretch:
                        case [int(first), int(end)]:
                            stretches.append((first, end))
                        case _:
                            raise ValueError("a stretch of shards is two numbers")
                if len(counts) < len(failed):
                    raise ValueError("a failure is counted by no number")
                return cls(Metadata.from_dict(of), n, counts, stretches)
            case _:
                raise ValueError("no summary of outcomes")


def read_summary(path: Path) -> Summary | None:
    """Return what outcomes sum up to, from their footer; None where there are none yet.

    Raises DataError where they are damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        return Summary.from_dict(json.loads((pq.read_schema(path).metadata or {})[_KEY]))
    except (pa.ArrowException, KeyError, ValueError, RecursionError, OSError) as error:
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


def save(pool: Pool, made: Path, of: Metadata, shards: list[tuple[int, int]]) -> None:
    """Write the outcomes that a pool has, those of ``shards``, to ``made``: a place of its own.

    The folder has to be there: a worker that comes late, when its work was taken over, makes none.
    """
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
    footer = json.dumps(asdict(Summary(of, available, dict(failed), shards)), sort_keys=True)
    partial = partial_path(made)  # two workers may be at the same outcomes
    with storage_errors(made):
        pq.write_table(table.replace_schema_metadata({_KEY: footer.encode()}), partial)
        sync(partial)
        partial.replace(made)


def take(made: Path, path: Path) -> None:
    """Let outcomes that a worker has made be those of their file from now on."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        made.replace(path)
        fsync_directory(path.parent)


def _damaged(path: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split())[:200]
    return DataError(f"{path}: damaged ({why}); remove it, and its URLs are fetched anew")
