"""Metadata that stay where they are: ``samples`` as a view over their files.

A pool file either holds its samples or links to them. A folder of metadata can be opened as if
it were a pool: it is linked in memory, and what filters compute is forgotten with it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from ..errors import UsageError
from ..progress import warn
from . import schema
from .adding import AddReport, expect_again, forget_results, number_of, register
from .columns import columns_of, quote
from .connection import connect, open_file, pool_errors
from .sources import LinkableSource, SetAside, source_class
from .sources.base import UID_TEXT, Scan
from .staging import put_aside_of

if TYPE_CHECKING:
    from .pool import Pool

WRITTEN = "samples_written"
"""A view of linked samples that has their uids as text besides (``UID_TEXT``)."""

_FILES_KEY = "linked_files_{}"
"""Key, in the table ``pool``, of a source's files: name, size and time when they were linked."""

FOLDER_KIND = "commonpool"
"""Kind of source that a folder given as a pool is."""


def open_pool(
    path: Path,
    read_only: bool = False,
    *,
    confined: bool = False,
    memory_limit: str | None = None,
    threads: int | None = None,
    beside: Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a pool file, or a folder of metadata as a pool in memory.

    A ``confined`` connection reaches the files that the pool links to, and no other. ``beside``
    is for pools that hold their samples (see ``connect``).
    """
    if path.is_dir():
        return _open_folder(path, confined, memory_limit, threads)
    connection = open_file(
        path, read_only, confined=confined, memory_limit=memory_limit, threads=threads,
        beside=beside,
    )  # fmt: skip
    if not confined or not is_linked(connection):
        return connection
    try:
        with pool_errors(path):
            reaching = _linked_files(connection, path)
    finally:
        connection.close()
    return open_file(path, read_only, confined=True, reaching=reaching,
                     memory_limit=memory_limit, threads=threads)  # fmt: skip


def _open_folder(
    path: Path, confined: bool, memory_limit: str | None, threads: int | None
) -> duckdb.DuckDBPyConnection:
    source = source_class(FOLDER_KIND).with_options(path, {"link": True})
    assert isinstance(source, LinkableSource)
    settings: dict[str, Any] = {"memory_limit": memory_limit, "threads": threads}
    # A database needs nothing of Python's to start, and files are listed by Python alone: where
    # this is done beside other work (``Pool.opening``), the database comes first.
    connection = None if confined else connect(None, **settings)
    try:
        files, aside = source.files()
        if connection is None:
            connection = connect(None, confined=True, reaching=files, **settings)
        with pool_errors(path):
            schema.create(connection)
            _link(connection, path, source, files, aside, linked=False)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def tell_of_left_out(
    connection: duckdb.DuckDBPyConnection, path: Path, place: str | None = None
) -> int:
    """Name the files of a folder of metadata that cannot be read; return how many there are.

    Those of a pool file were told when they were linked. ``place`` is what the folder is called.
    """
    if not path.is_dir():
        return 0
    with pool_errors(path):
        rows = connection.execute("SELECT item, detail FROM set_aside ORDER BY item").fetchall()
    if rows:
        item, detail = rows[0]
        more = f", and {len(rows) - 1:,} more files" if rows[1:] else ""
        warn(f"{place or path}: left out, for it cannot be read: {item} ({detail}){more}")
    return len(rows)


def is_linked(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether the samples of an open pool lie in other files."""
    # A table, then: to list views takes DuckDB ten times as long.
    held = (
        "SELECT 1 FROM duckdb_tables() WHERE table_name = 'samples' AND NOT temporary "
        "AND schema_name = 'main' AND database_name = current_database()"
    )
    return not connection.execute(held).fetchall()


def link_source(pool: Pool, source: LinkableSource) -> AddReport:
    """Let the pool show a source's samples without copying them.

    Linking again takes over files that have come, gone or changed; the report counts rows, but
    does not compare them: those that were linked before may be gone. So the samples of files that
    have come or changed lose scores and features, and what of them could not be fetched is to be
    fetched again. Raises UsageError for a pool that holds samples.
    """
    files, aside = source.files()
    with pool_errors(pool.path), pool.transaction():
        linked = pool.linked
        if not linked and pool.count():
            raise UsageError(
                f"{pool.path}: holds samples already, and a pool holds samples or links to them; "
                "link into a new pool, or add without link"
            )
        return _link(pool.connection, pool.path, source, files, aside, linked)


def _link(
    connection: duckdb.DuckDBPyConnection,
    home: Path,
    source: LinkableSource,
    files: list[Path],
    aside: list[SetAside],
    linked: bool,
) -> AddReport:
    """Let the pool at ``home`` show the files; ``linked`` if it is linked to some already."""
    stamps = _stamps(source.path, files)
    scan = source.scan(connection, files)
    known = number_of(connection, home, source) is not None
    number = register(connection, home, source)
    if known:
        stamped = linked_before(connection, number)
        others = [
            file for file, (name, stamp) in zip(files, stamps.items(), strict=True)
            if stamp != stamped.get(name)
        ]  # fmt: skip
        if others:
            with pool_errors(home):
                _forget(connection, source.scan(connection, others))
    connection.execute(
        "INSERT OR REPLACE INTO pool VALUES (?, ?)", [_FILES_KEY.format(number), json.dumps(stamps)]
    )
    connection.execute(f"CREATE OR REPLACE VIEW linked_{number} AS {scan.every()}")
    rows = connection.execute("SELECT id, samples FROM sources ORDER BY id").fetchall()
    before = dict(rows)[number]
    shown = [samples_of(connection, one) for one, _ in rows]
    plain, written = map(" UNION ALL BY NAME ".join, zip(*shown, strict=True))
    connection.execute(
        f"DROP {'VIEW' if linked else 'TABLE'} IF EXISTS samples;"
        f"CREATE VIEW samples AS {plain};"
        f"CREATE OR REPLACE VIEW {WRITTEN} AS {written}"
    )
    connection.execute(f"DELETE FROM set_aside WHERE source = {number}")
    put_aside_of(connection, number, aside)
    connection.execute(
        "UPDATE sources SET samples = ?, set_aside = ? WHERE id = ?",
        [scan.rows, len(aside), number],
    )
    name = f"{source.kind} {source.path}"
    if known:
        report = AddReport(name, None, None, None, None, None, rows_before=before)
    else:
        report = AddReport(name, added=scan.rows, duplicates=None)
    report.rows = scan.rows
    for item in aside:
        report.set_aside[item.reason] = report.set_aside.get(item.reason, 0) + 1
    return report


def _stamps(root: Path, files: list[Path]) -> dict[str, list[int]]:
    """Return what changes when a file below ``root`` does: its size and its time, in ns."""
    stamps: dict[str, list[int]] = {}
    for file in files:
        stat = file.stat()
        stamps[os.path.relpath(file, root.absolute())] = [stat.st_size, stat.st_mtime_ns]
    return stamps


def linked_before(connection: duckdb.DuckDBPyConnection, number: int) -> dict[str, list[int]]:
    """Return the files of a source as they were linked last; none if that was not written down."""
    rows = connection.execute(
        "SELECT value FROM pool WHERE key = ?", [_FILES_KEY.format(number)]
    ).fetchall()
    return json.loads(rows[0][0]) if rows else {}


def _forget(connection: duckdb.DuckDBPyConnection, scan: Scan) -> None:
    """Forget what is known of samples whose captions, images or URLs may be others now."""
    known = "SELECT 1 FROM scores UNION ALL SELECT 1 FROM features UNION ALL SELECT 1 FROM fetches"
    if connection.execute(f"{known} LIMIT 1").fetchall():
        uids = f"SELECT {scan.uid} AS uid FROM {scan.relation}"
        forget_results(connection, uids)
        expect_again(connection, uids)


def samples_of(connection: duckdb.DuckDBPyConnection, number: int) -> tuple[str, str]:
    """Return the SQL of the samples of one linked source, and one with uids as text besides.

    Parquet files note a column's smallest and largest number, but not that it has NaN, and
    DuckDB takes from that note that ``isnan`` is false. It knows nothing of what TRY gives.
    """
    linked = f"linked_{number}"
    columns = columns_of(connection, linked)
    exact = ", ".join(
        f"TRY({quote(name)}) AS {quote(name)}"
        for name, kind in columns.items()
        if kind in ("FLOAT", "DOUBLE")
    )
    # Pools that were linked before there was such a column have none.
    besides = f" EXCLUDE ({UID_TEXT})" if UID_TEXT.strip('"') in columns else ""
    replaced = f" REPLACE ({exact})" if exact else ""
    rest = f"{replaced}, {number}::INTEGER AS source FROM {linked}"
    return f"SELECT *{besides}{rest}", f"SELECT *{rest}"


def _linked_files(connection: duckdb.DuckDBPyConnection, home: Path) -> list[Path]:
    """Return the files that the pool's views may read: what is listed, not what the SQL says."""
    rows = connection.execute("SELECT kind, path, options FROM sources ORDER BY id").fetchall()
    found: list[Path] = []
    for kind, path, options in rows:
        source = source_class(kind).with_options(home.parent / path, json.loads(options))
        if isinstance(source, LinkableSource):
            found += source.listed()[0]
    return found
