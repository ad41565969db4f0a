"""Which samples a condition of the user's picks, and how mistakes in it are told."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import duckdb

from ...errors import UsageError
from ...pools.pool import Pool, pool_errors, quote
from .markup import shorten

DRAWN_OF = 50_000
"""About how many samples distributions are drawn of; of up to twice as many, all are used."""

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
    scores = [(name, kind) for name, _, kind in scores_of(pool)]
    wanted = ", ".join(quote(name) for name in [*columns, *(name for name, _ in scores)])
    query = _query(pool, where, wanted)
    with pool_errors(pool.path), _user_errors(where):
        pool.connection.execute(f"CREATE OR REPLACE TEMP TABLE report_matching AS {query}")
    try:
        yield "report_matching", scores
    finally:
        pool.sql("DROP TABLE IF EXISTS report_matching")


def count_matching(pool: Pool, where: str) -> int:
    """Return how many samples match."""
    query = _query(pool, where, "count(*)")
    with pool_errors(pool.path), _user_errors(where):
        return pool.connection.execute(query).fetchall()[0][0]


def a_share_of(samples: int, uid: str = "uid") -> str:
    """Return SQL that picks what so many samples are drawn by: all of few, else some DRAWN_OF.

    Uids are digests, so that those that end alike are a fair share of all.
    """
    mask = (1 << max(0, (samples // DRAWN_OF).bit_length() - 1)) - 1
    return "true" if not mask else f"({uid} & {mask}::UHUGEINT) = 0"


def _query(pool: Pool, where: str, wanted: str) -> str:
    """Return a SELECT from the samples that match, with their scores; one statement for sure."""
    joins, names = [], []
    for number, (name, table, _) in enumerate(scores_of(pool)):
        joins.append(f"LEFT JOIN {quote(table)} t{number} ON t{number}.uid = s.uid")
        names.append(f", t{number}.value AS {quote(name)}")
    query = (
        f"SELECT {wanted} FROM (SELECT s.*{''.join(names)} FROM samples s {' '.join(joins)}) "
        # A line of its own, so that a comment at the end of the condition ends there too.
        f"AS samples WHERE (\n{where}\n)"
    )
    with pool_errors(pool.path), _user_errors(where):
        if len(pool.connection.extract_statements(query)) != 1:
            raise UsageError(f"where: expected one SQL condition, found {shorten(where, 80)!r}")
    return query


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
