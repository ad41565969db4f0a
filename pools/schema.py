"""The tables of a pool file and how older pools become current ones.

``samples`` holds what is known of each candidate. An image that is at hand lies at bytes
[``offset``, ``offset + length``) of the file ``shard``; what a source knows besides becomes
columns of its own. ``scores`` catalogues immutable score columns, each with the digest of
what produced it; their values stand in tables of their own (``score_values_N``). ``features``
catalogues what ``pool embed`` computed, in files of the folder ``file``; which row of which file
is a sample's stands in tables of their own (``feature_rows_N``).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import DataError

if TYPE_CHECKING:
    import duckdb

VERSION = 3
TRUTH = "truth"
"""A column of this name holds planted defects; no filter can read it."""

CORE_COLUMNS = {
    "uid": "UHUGEINT",
    "url": "VARCHAR",
    "text": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "sha256": "VARCHAR",
    "source": "INTEGER",
    "shard": "VARCHAR",
    "offset": "BIGINT",
    "length": "BIGINT",
}

_CREATE = f"""
CREATE TABLE pool (key VARCHAR PRIMARY KEY, value VARCHAR);
CREATE TABLE samples ({", ".join(f'"{name}" {kind}' for name, kind in CORE_COLUMNS.items())});
CREATE TABLE sources (id INTEGER, kind VARCHAR, path VARCHAR, options JSON, added TIMESTAMP,
    samples BIGINT, duplicates BIGINT, set_aside BIGINT);
CREATE TABLE set_aside (source INTEGER, item VARCHAR, reason VARCHAR, detail VARCHAR);
CREATE TABLE features (name VARCHAR, model VARCHAR, weights VARCHAR, preprocessing VARCHAR,
    dimension INTEGER, dtype VARCHAR, file VARCHAR, "precision" VARCHAR, parameters JSON,
    rows_table VARCHAR);
CREATE TABLE scores (name VARCHAR, parameters JSON, digest VARCHAR, values_table VARCHAR,
    created TIMESTAMP);
CREATE TABLE fetches (uid UHUGEINT, state VARCHAR, reason VARCHAR, attempts INTEGER,
    updated TIMESTAMP);
"""

MIGRATIONS = {
    1: "DROP TABLE IF EXISTS runs",
    2: 'ALTER TABLE features ADD COLUMN IF NOT EXISTS "precision" VARCHAR;'
    "ALTER TABLE features ADD COLUMN IF NOT EXISTS parameters JSON;"
    "ALTER TABLE features ADD COLUMN IF NOT EXISTS rows_table VARCHAR",
}
"""``MIGRATIONS[n]`` is the SQL that takes a pool of version n to version n + 1."""


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Lay out an empty pool."""
    connection.execute("BEGIN")
    connection.execute(_CREATE)
    connection.execute("INSERT INTO pool VALUES ('schema_version', ?)", [str(VERSION)])
    connection.execute("COMMIT")


def version_of(connection: duckdb.DuckDBPyConnection, path: str) -> int:
    """Return the schema version of an open pool, or raise DataError if it is no pool."""
    import duckdb

    try:
        rows = connection.execute("SELECT value FROM pool WHERE key = 'schema_version'").fetchall()
    except duckdb.Error:
        rows = []
    if not rows or not rows[0][0].isdigit():
        raise DataError(f"{path}: a DuckDB file, but not a datacomp pool")
    return int(rows[0][0])


def is_older(connection: duckdb.DuckDBPyConnection, path: str) -> bool:
    """Tell whether an open pool must be migrated; one that a later datacomp made is refused."""
    found = version_of(connection, path)
    if found > VERSION:
        raise too_new(found, path)
    return found < VERSION


def too_new(found: int, path: str, known: int = VERSION) -> DataError:
    """Return the error for a pool that a later datacomp made."""
    return DataError(
        f"{path}: pool of schema version {found}, but this datacomp knows up to {known}; "
        "update datacomp"
    )


def migrate(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    migrations: dict[int, str] | None = None,
    target: int = VERSION,
) -> None:
    """Bring a pool to the current version, one step per transaction."""
    import duckdb

    steps = MIGRATIONS if migrations is None else migrations
    found = version_of(connection, path)
    if found > target:
        raise too_new(found, path, target)
    for step in range(found, target):
        if step not in steps:
            raise DataError(f"{path}: pool of schema version {step}, which no datacomp made")
        connection.execute("BEGIN")
        try:
            connection.execute(steps[step])
            connection.execute(
                "UPDATE pool SET value = ? WHERE key = 'schema_version'", [str(step + 1)]
            )
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            raise
