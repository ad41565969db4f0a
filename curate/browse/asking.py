"""A stranger's SELECT, with limits of rows and of what a cell may hold."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from ...errors import UsageError
from ...pools.asking import only_statement, question_errors
from ...pools.pool import Pool
from ..report.markup import NONE, shorten

ROWS = 500
CELL = 2_000
"""Most characters of a value that are shown."""
COLUMNS = 100
MAX_STATEMENT = 20_000


@dataclass(frozen=True)
class Answer:
    """Names of the columns, rows of text, which columns are numbers and which are uids."""

    names: list[str]
    rows: list[list[str]]
    numbers: list[bool]
    uids: list[bool]
    more: bool


_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_WHOLE, *(f"U{name}" for name in _WHOLE), "FLOAT", "DOUBLE")


def ask(pool: Pool, statement: str) -> Answer:
    """Run one SELECT. Raises UsageError for what cannot be run, or is too wide to show.

    No more than is shown ever leaves DuckDB, whose memory is bounded: neither rows beyond ROWS,
    nor what a value has beyond CELL characters.
    """
    if len(statement) > MAX_STATEMENT:
        raise UsageError(f"SQL of more than {MAX_STATEMENT:,} characters")
    _, parsed = only_statement(pool.connection, pool.path, statement)
    with question_errors(pool.path):
        relation = pool.connection.sql(_without_end(parsed.query))
        described = list(zip(relation.columns, map(str, relation.types), strict=True))
        if len(described) > COLUMNS:
            raise UsageError(f"{len(described):,} columns; at most {COLUMNS} can be shown")
        shown = [_bounded(f"#{place}", *one) for place, one in enumerate(described, 1)]
        found = relation.project(", ".join(shown)).limit(ROWS + 1).fetchall()
    return Answer(
        [name for name, _ in described],
        [[_cell(value) for value in row] for row in found[:ROWS]],
        [kind in _NUMBERS and not _is_uid(name, kind) for name, kind in described],
        [_is_uid(name, kind) for name, kind in described],
        len(found) > ROWS,
    )


def _without_end(statement: str) -> str:
    """Cut a statement before the semicolons that end it: what is cut holds comments besides."""
    text = statement.encode()
    for offset, _ in reversed(duckdb.tokenize(statement)):  # in bytes
        if text[offset : offset + 1] == b";":
            text = text[:offset]
        elif not text[offset:].startswith((b"--", b"/*")):
            break
    return text.decode()


def _bounded(place: str, name: str, kind: str) -> str:
    if _is_uid(name, kind):
        return f"printf('%032x', {place})"
    return place if kind in _NUMBERS else f"left({place}::VARCHAR, {CELL + 1})"


def _is_uid(name: str, kind: str) -> bool:
    return (name.lower(), kind) == ("uid", "UHUGEINT")


def _cell(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.6g}"
    return shorten(str(value), CELL)
