"""The partitions of a linked pool: one for each file of metadata, opened as if it were the pool.

A partition has the columns of the whole pool, under the same types: what its file lacks is NULL
there, as it is in the pool.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ..errors import UsageError
from .columns import quote
from .connection import connect, pool_errors
from .linking import WRITTEN, linked_before, samples_of
from .pool import Pool
from .schema import create
from .sources import source_class
from .sources.base import UID_TEXT
from .sources.commonpool import CommonPoolSource


@dataclass(frozen=True)
class Partition:
    """One file of metadata: its number among all of the pool, and where the pool is."""

    number: int
    pool: Path
    root: Path
    source: int
    file: Path

    @property
    def name(self) -> str:
        """What the file is called below the folder that has the metadata."""
        return partition_name(self.file.relative_to(self.root.absolute()))


def partition_name(path: Path) -> str:
    """Return the name of the partition that a file, relative to its source, is."""
    # DataComp's own download has the same files one folder deeper.
    return str(path.relative_to("metadata") if path.parts[0] == "metadata" else path)


def partitions_of(pool: Pool) -> list[Partition]:
    """Return the partitions of a pool, in the order of its sources and their files.

    Raises UsageError for a pool that holds its samples: it is one file, and one machine's.
    """
    if not pool.linked:
        raise UsageError(
            f"{pool.path}: holds its samples, so it cannot be worked on in partitions; give a "
            "folder of metadata, or a pool that links to one ('datacomp pool add ... --link')"
        )
    found: list[Partition] = []
    rows = pool.sql("SELECT id, kind, path, options FROM sources ORDER BY id").fetchall()
    for number, kind, path, options in rows:
        source = source_class(kind).with_options(pool.path.parent / path, json.loads(options))
        assert isinstance(source, CommonPoolSource)
        for file in _files_of(pool, number, source):
            found.append(Partition(len(found), pool.path, source.path, number, file))
    return found


def _files_of(pool: Pool, number: int, source: CommonPoolSource) -> list[Path]:
    """Return the files of a source that the pool shows: none that has come since."""
    linked = linked_before(pool.connection, number)
    if linked:
        here = source.path.absolute()  # as it is: what comes before ".." may be a link
        return [here / name for name in linked]
    rows = pool.sql("SELECT item FROM set_aside WHERE source = ?", [number]).fetchall()
    aside = {item for (item,) in rows}
    return [f for f in source.listed()[0] if str(f.relative_to(source.root)) not in aside]


def open_partition(
    partition: Partition, columns: dict[str, str], threads: int | None = None
) -> Pool:
    """Open a partition in memory as a pool that has these columns and types."""
    connection = connect(None, threads=threads)
    try:
        with pool_errors(partition.pool):
            create(connection)
            _link(connection, partition, columns)
    except BaseException:
        connection.close()
        raise
    return Pool(connection, partition.pool)


def _link(
    connection: duckdb.DuckDBPyConnection, partition: Partition, columns: dict[str, str]
) -> None:
    source = CommonPoolSource(partition.root, link=True)
    scan = source.scan(connection, [partition.file])
    number = partition.source
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, '{}', now(), ?, 0, 0)",
        [number, source.kind, str(source.path.absolute()), scan.rows],
    )
    connection.execute(f"CREATE VIEW linked_{number} AS {scan.every()}")
    own = connection.execute(f"DESCRIBE linked_{number}").fetchall()
    there = {row[0] for row in own} | {"source"}
    values = ", ".join(
        f"{quote(name) if name in there else 'NULL'}::{kind} AS {quote(name)}"
        for name, kind in columns.items()
    )
    plain, written = samples_of(connection, number)
    connection.execute(
        f"DROP TABLE samples; CREATE VIEW samples AS SELECT {values} FROM ({plain});"
        f"CREATE VIEW {WRITTEN} AS SELECT {values}, {UID_TEXT} FROM ({written})"
    )
