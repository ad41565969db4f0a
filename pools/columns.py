"""The SQL that several modules write: quoting, the halves of uids, columns that grow to fit."""

from __future__ import annotations

import duckdb

from ..progress import warn
from . import schema

MAX_COLUMNS = 512
"""A stranger's metadata must not make a pool of any number of columns."""

HALVES = '("uid" >> 64)::UBIGINT AS high, ("uid" & 18446744073709551615::UHUGEINT)::UBIGINT AS low'
"""SQL for the two halves of a uid: neither Arrow nor numpy has 128-bit integers."""

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def quote(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return name and DuckDB type of every column of a table or of a SELECT."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {relation}").fetchall()}


def add_columns(
    connection: duckdb.DuckDBPyConnection, table: str, incoming: dict[str, str]
) -> dict[str, str]:
    """Make a table able to hold ``incoming``: name and DuckDB type of each column.

    A new column is added; one that a source brought before with another type is widened, so
    that no value is rounded or lost. Returns the incoming columns that fit, with the types they
    have in the table: columns beyond MAX_COLUMNS are left out, with a warning.
    """
    known = columns_of(connection, table)
    fitted: dict[str, str] = {}
    left_out: list[str] = []
    for name, kind in incoming.items():
        if name not in known and len(known) >= MAX_COLUMNS:
            left_out.append(name)
            continue
        wide = _wider(known.get(name, kind), kind)
        if name not in known:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quote(name)} {kind}")
        elif name not in schema.CORE_COLUMNS and wide != known[name]:
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {quote(name)} TYPE {wide}")
        else:
            wide = known[name]
        known[name] = fitted[name] = wide
    warn_of_columns(left_out)
    return fitted


def warn_of_columns(left_out: list[str]) -> None:
    """Warn once of the columns that found no place."""
    if left_out:
        some = ", ".join(repr(name) for name in left_out[:3])
        more = f" and {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
        warn(f"more than {MAX_COLUMNS} columns; left out: {some}{more}")


def _wider(one: str, other: str) -> str:
    """Return the type that holds the values of both."""
    if one == other:
        return one
    if {one, other} <= set(_INTEGERS):
        return max(one, other, key=_INTEGERS.index)
    return "DOUBLE" if {one, other} <= {*_INTEGERS, "FLOAT", "DOUBLE"} else "VARCHAR"
