"""Which samples a condition of the user's picks, and how mistakes in it are told."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import duckdb

from ...errors import UsageError
from ...pools.pool import Pool, pool_errors, quote
from .markup import shorten

_USERS_FAULT = (
    duckdb.ProgrammingError,
    duckdb.DataError,
    duckdb.NotSupportedError,
    duckdb.PermissionException,
)


@contextlib.contextmanager
def matching(
    pool: Pool, where: str, columns: Sequence[str]
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield a table of the matching samples with their scores, and the scores' names and types.

    ``where`` is SQL over the columns of ``samples`` and the pool's scores; of the columns the
    table has those that are named.
    """
    joins, names, scores = [], [], []
    for number, (name, table, kind) in enumerate(scores_of(pool)):
        joins.append(f"LEFT JOIN {quote(table)} t{number} ON t{number}.uid = s.uid")
        names.append(f", t{number}.value AS {quote(name)}")
        scores.append((name, kind))
    wanted = ", ".join(quote(name) for name in [*columns, *(name for name, _ in scores)])
    query = (
        f"SELECT {wanted} FROM (SELECT s.*{''.join(names)} FROM samples s {' '.join(joins)}) "
        # A line of its own, so that a comment at the end of the condition ends there too.
        f"AS samples WHERE (\n{where}\n)"
    )
    with pool_errors(pool.path), _user_errors(where):
        statements = pool.connection.extract_statements(query)
        if len(statements) != 1:
            raise UsageError(f"where: expected one SQL condition, found {shorten(where, 80)!r}")
        pool.connection.execute(f"CREATE OR REPLACE TEMP TABLE report_matching AS {query}")
    try:
        yield "report_matching", scores
    finally:
        pool.sql("DROP TABLE IF EXISTS report_matching")


def scores_of(pool: Pool) -> list[tuple[str, str, str]]:
    """Return (column name, table, DuckDB type) of every score of the pool.

    A name that several scores share is ``name:`` and the first 8 digits of the digest.
    """
    rows = pool.sql(
        "SELECT name, digest, values_table, json_extract_string(parameters, '$.type') FROM scores "
        "ORDER BY name, digest"
    ).fetchall()
    taken = {name.casefold() for name in pool.columns()}
    found = []
    for name, members in itertools.groupby(rows, key=lambda row: row[0]):
        versions = list(members)
        for _, digest, table, kind in versions:
            alone = len(versions) == 1 and name.casefold() not in taken
            found.append((name if alone else f"{name}:{digest[:8]}", table, kind or ""))
    return found


@contextlib.contextmanager
def _user_errors(where: str) -> Iterator[None]:
    """Blame the user's SQL for what DuckDB says, in one line."""
    try:
        yield
    except _USERS_FAULT as error:
        said = " ".join(str(error).split("\n\nLINE")[0].split())
        raise UsageError(f"where {shorten(where, 80)!r}: {said}") from error
