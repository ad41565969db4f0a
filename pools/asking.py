"""A stranger's question to a pool: one SELECT, read-only, without access to anything else."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb

from ..errors import UsageError
from .connection import one_line, pool_errors
from .interrupts import interruptible
from .linking import open_pool, tell_of_left_out

_CHANGING = re.compile(r'"type":"([A-Z]+)_QUERY_NODE"')
"""In a syntax tree, what is no mere reading: a WITH can hold INSERT, UPDATE, DELETE and COPY."""


def query(
    path: Path | str, statement: str, *, memory_limit: str | None = None, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Run one SELECT of a stranger: read-only, without access to files or the network.

    The result is a cursor of a connection of its own; use it as a context manager, so that it
    is closed. Raises UsageError for SQL that cannot be run.
    """
    path = Path(path)
    connection = open_pool(path, True, confined=True, memory_limit=memory_limit, threads=threads)
    try:
        tell_of_left_out(connection, path)
        _, parsed = only_statement(connection, path, statement)
        with question_errors(path):
            return connection.execute(parsed)
    except BaseException:
        connection.close()
        raise


def only_statement(
    connection: duckdb.DuckDBPyConnection, path: Path, statement: str
) -> tuple[str, duckdb.Statement]:
    """Return kind (SELECT or EXPLAIN) and parsed form of the one statement of a stranger.

    Raises UsageError for any other, for none and for several.
    """
    with question_errors(path):
        statements = connection.extract_statements(statement)
    kinds = [found.type.name for found in statements]
    if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
        found = ", ".join(kinds) if kinds else "nothing"
        raise UsageError(f"{path}: expected one SELECT, found {found}")
    asked = statement if kinds[0] == "SELECT" else _explained(connection, statement)
    # A pool that is open to read only keeps no one from writing the files that it links to.
    with question_errors(path):
        tree = connection.execute("SELECT json_serialize_sql(?)", [asked]).fetchall()[0][0]
    if changing := _CHANGING.search(tree):
        raise UsageError(f"{path}: expected one SELECT, found {changing[1]} in it")
    if tree.startswith('{"error":true'):
        raise UsageError(f"{path}: expected one SELECT, found EXPLAIN of something else")
    return kinds[0], statements[0]


def _explained(connection: duckdb.DuckDBPyConnection, statement: str) -> str:
    """Return what an EXPLAIN is about: what is whole SQL from some word on."""
    text = statement.encode()
    for offset, _ in duckdb.tokenize(statement)[1:]:  # in bytes
        with contextlib.suppress(duckdb.Error):
            found = text[offset:].decode()
            statements = connection.extract_statements(found)
            if statements and statements[0].type.name != "EXPLAIN":
                return found
    return statement


@contextlib.contextmanager
def question_errors(path: Path) -> Iterator[None]:
    """Blame the question for what DuckDB says, in one line; some errors show only on fetching."""
    try:
        with interruptible():
            yield
    except duckdb.OutOfMemoryException:
        with pool_errors(path):
            raise
    except duckdb.Error as error:
        raise UsageError(f"{path}: {one_line(error)}") from error
