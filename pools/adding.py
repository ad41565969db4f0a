"""Add a source to a pool: read all of it, then merge what it brought in one transaction.

The merge is a handful of SQL statements over what was staged, whatever its length, and happens
whole or not at all: a crash leaves the pool as it was. Two more temporary tables help:
``incoming_met`` holds every uid that came, its first row, and the source that has it already;
``incoming_twice`` the rows that repeat a uid.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from ..errors import DataError
from . import staging
from .columns import add_columns, columns_of, literal, quote
from .connection import pool_errors
from .sources.base import LinkableSource, RecordSource, Scan, SetAside, Source, SqlSource

if TYPE_CHECKING:
    from .pool import Pool

DUPLICATE, VANISHED = "duplicate_uid", "vanished"

_TABLES = (*staging.TABLES, "incoming_met", "incoming_twice", "incoming_changed")
_PLACE = (
    "CASE WHEN {0}.shard IS NULL THEN coalesce({0}.url, '') WHEN {0}.\"offset\" = 0 "
    "THEN {0}.shard ELSE {0}.shard || ' at byte ' || {0}.\"offset\" END"
)
"""SQL that says where a sample of the pool lies."""


@dataclass
class AddReport:
    """What became of a source's samples.

    ``changed`` ones have the same uid and other values than before; ``vanished`` ones are in
    the pool, but no longer in the source.

    Linking reads no rows: what it does not know is None. ``rows`` is how many are linked then, and
    ``rows_before`` how many were when the source was linked last.
    """

    source: str
    added: int | None = 0
    unchanged: int | None = 0
    changed: int | None = 0
    vanished: int | None = 0
    duplicates: int | None = 0
    set_aside: dict[str, int] = field(default_factory=dict)
    rows: int | None = None
    rows_before: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values; ``rows`` only of what is linked."""
        found = asdict(self)
        if self.rows is None:
            del found["rows"], found["rows_before"]
        return found


def add_source(pool: Pool, source: Source) -> AddReport:
    """Bring a source's samples in, as ``Pool.add`` says."""
    connection = pool.connection
    found: tuple[list[Path], list[SetAside]] = ([], [])
    if isinstance(source, LinkableSource):
        found = source.files()
        report = _add_in_bulk(pool, source, *found)
        if report is not None:
            return report
    try:
        with pool_errors(pool.path):
            staging.create_tables(connection)
        if isinstance(source, SqlSource):
            source.load(connection)
        elif isinstance(source, LinkableSource):
            staging.load_scans(connection, source, *found)
        elif isinstance(source, RecordSource):
            staging.read_records(connection, pool.path, source)
        else:
            raise TypeError(f"{source!r} is of no kind of source that can be added")
        with pool_errors(pool.path), pool.transaction():
            report = _Merge(pool, source).run()
        if isinstance(source, RecordSource):
            source.settle()
        return report
    finally:
        with contextlib.suppress(duckdb.Error):  # the connection may be closed by now
            for table in _TABLES:
                connection.execute(f"DROP TABLE IF EXISTS temp.{table}")


def register(connection: duckdb.DuckDBPyConnection, home: Path, source: Source) -> int:
    """Return the number a source has in the pool at ``home``, a new one if need be."""
    found = number_of(connection, home, source)
    if found is not None:
        return found
    rows = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM sources").fetchall()
    number = rows[0][0]
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?, 0, 0, 0)",
        [number, *_key(home, source), datetime.now(UTC).replace(tzinfo=None)],
    )
    return number


def number_of(connection: duckdb.DuckDBPyConnection, home: Path, source: Source) -> int | None:
    """Return the number a source has in the pool at ``home``, or None."""
    rows = connection.execute(
        "SELECT id FROM sources WHERE kind = ? AND path = ? AND options = ?", _key(home, source)
    ).fetchall()
    return rows[0][0] if rows else None


def _key(home: Path, source: Source) -> list[str]:
    """Return kind, path (relative to the pool's folder if it lies there) and options."""
    path, folder = source.path.resolve(), home.parent.resolve()
    stored = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
    return [source.kind, stored, json.dumps(source.options(), sort_keys=True)]


def forget_results(connection: duckdb.DuckDBPyConnection, uids: str) -> None:
    """Drop the scores and features of some samples, a SELECT of uids."""
    tables = "SELECT values_table FROM scores UNION SELECT rows_table FROM features"
    for (table,) in connection.execute(tables).fetchall():
        connection.execute(f"DELETE FROM {quote(table)} WHERE uid IN ({uids})")


def expect_again(connection: duckdb.DuckDBPyConnection, uids: str) -> None:
    """Let those of some samples, a SELECT of uids, that could not be fetched be fetched again."""
    connection.execute(
        f"UPDATE fetches SET state = 'pending' WHERE state = 'failed' AND uid IN ({uids})"
    )


class _NotAllNewError(Exception):
    """Rows that a plain copy would bring in twice."""


def _add_in_bulk(
    pool: Pool, source: LinkableSource, files: list[Path], aside: list[SetAside]
) -> AddReport | None:
    """Copy a source that the pool does not know yet, in one scan of its files.

    Returns None, and changes nothing, where that is not enough: a uid is there already or
    comes twice, or a file cannot be read to its end.
    """
    connection = pool.connection
    with pool_errors(pool.path):
        if number_of(connection, pool.path, source) is not None:
            return None
    try:
        with pool_errors(pool.path):
            scan = source.scan(connection, files)
            with pool.transaction():
                return _copy(pool, source, scan, aside)
    except (_NotAllNewError, DataError):
        return None


def _copy(pool: Pool, source: LinkableSource, scan: Scan, aside: list[SetAside]) -> AddReport:
    connection = pool.connection
    number = register(connection, pool.path, source)
    kept = add_columns(connection, "samples", columns_of(connection, scan.usable()))
    values = ", ".join(
        quote(name) if name == "uid" else f"TRY_CAST({quote(name)} AS {kind}) AS {quote(name)}"
        for name, kind in kept.items()
    )
    added = pool.scalar(
        f"INSERT INTO samples BY NAME SELECT {values}, {number} AS source FROM ({scan.usable()})"
    )
    alike, every = pool.sql("SELECT count(DISTINCT uid), count(*) FROM samples").fetchall()[0]
    if alike != every:
        raise _NotAllNewError
    reasons = Counter(item.reason for item in aside)
    staging.put_aside_of(connection, number, aside)
    if added < scan.rows:
        pool.sql(f"INSERT INTO set_aside SELECT {number}, * FROM ({scan.unusable()})")
        reasons = Counter(dict(pool.sql(
            f"SELECT reason, count(*) FROM set_aside WHERE source = {number} GROUP BY reason"
        ).fetchall()))  # fmt: skip
    pool.sql("UPDATE sources SET samples = ?, set_aside = ? WHERE id = ?",
             [added, reasons.total(), number])  # fmt: skip
    report = AddReport(f"{source.kind} {source.path}", added=added)
    report.set_aside = dict(sorted(reasons.items()))
    return report


class _Merge:
    """Brings what was read into the pool, inside a transaction of the caller."""

    def __init__(self, pool: Pool, source: Source) -> None:
        self.pool, self.source = pool, source
        self.report = AddReport(f"{source.kind} {source.path}")

    def run(self) -> AddReport:
        """Do all of it and say what became of the samples."""
        self.number = register(self.pool.connection, self.pool.path, self.source)
        incoming = columns_of(self.pool.connection, "incoming")
        brought = {name: kind for name, kind in incoming.items() if name not in ("_row", "_item")}
        kept = add_columns(self.pool.connection, "samples", brought)
        self.casts = {
            name: f"TRY_CAST(i.{quote(name)} AS {kind})"
            for name, kind in kept.items()
            if name not in ("uid", "source")
        }
        self._meet()
        self._list_left_out()
        self._find_changed()
        self._forget_scores()
        self._expect_moved()
        self._write()
        self._count()
        return self.report

    def _meet(self) -> None:
        """Find out of every uid where it came first, and which source has it already."""
        self.pool.sql(
            "CREATE TEMP TABLE incoming_met AS SELECT f.*, "
            "CASE WHEN s.uid IS NOT NULL THEN coalesce(s.source, 0) END AS owner "
            "FROM (SELECT uid, min(_row) AS first, count(*) AS copies FROM incoming "
            "GROUP BY uid) f LEFT JOIN samples s ON s.uid = f.uid"
        )
        self.pool.sql(
            "CREATE TEMP TABLE incoming_twice AS SELECT i._row, i._item, m.* "
            "FROM incoming i JOIN incoming_met m USING (uid) WHERE "
            f"(m.copies > 1 AND i._row <> m.first) OR m.owner <> {self.number}"
        )

    def _list_left_out(self) -> None:
        """List anew what of this source was set aside, is there twice, or has vanished."""
        number = self.number
        self.pool.sql(f"DELETE FROM set_aside WHERE source = {number}")
        # One INSERT: DuckDB 2.0.0 answers wrongly where an empty one comes before a long one.
        self.pool.sql(
            f"INSERT INTO set_aside SELECT {number}, item, reason, detail FROM ("
            "SELECT 0 AS part, rowid AS row, item, reason, detail FROM incoming_aside "
            f"UNION ALL SELECT 1, t._row, t._item, {literal(DUPLICATE)}, "
            f"CASE WHEN t.owner <> {number} "
            f"THEN 'first: source ' || t.owner || ', ' || {_PLACE.format('o')} "
            "ELSE 'first: ' || f._item END FROM incoming_twice t "
            "LEFT JOIN incoming f ON f._row = t.first LEFT JOIN samples o ON o.uid = t.uid "
            f"UNION ALL SELECT 2, row_number() OVER (ORDER BY s.uid), {_PLACE.format('s')}, "
            f"{literal(VANISHED)}, printf('%032x', s.uid) "
            f"FROM samples s ANTI JOIN incoming_met m USING (uid) WHERE s.source = {number}"
            ") ORDER BY part, row"
        )
        counts = dict(
            self.pool.sql(
                f"SELECT reason, count(*) FROM set_aside WHERE source = {number} "
                "GROUP BY reason ORDER BY reason"
            ).fetchall()
        )
        self.report.duplicates = counts.pop(DUPLICATE, 0)
        self.report.vanished = counts.pop(VANISHED, 0)
        self.report.set_aside = counts

    def _find_changed(self) -> None:
        """Find the samples of this source that have other values now; those are taken over."""
        values = ", ".join(f"{cast} AS {quote(name)}" for name, cast in self.casts.items())
        differ = {
            name: f"s.{quote(name)} IS DISTINCT FROM {cast}" for name, cast in self.casts.items()
        }
        self.pool.sql(
            f"CREATE TEMP TABLE incoming_changed AS SELECT s.* REPLACE ({values}), i._row, "
            f"({differ['text']} OR {differ['sha256']}) AS _other "
            "FROM incoming i JOIN incoming_met m ON m.first = i._row "
            "JOIN samples s ON s.uid = i.uid "
            f"WHERE m.owner = {self.number} AND ({' OR '.join(differ.values())})"
        )
        known = self.pool.scalar(f"SELECT count(*) FROM incoming_met WHERE owner = {self.number}")
        self.changed = self.pool.scalar("SELECT count(*) FROM incoming_changed")
        self.report.changed, self.report.unchanged = self.changed, known - self.changed

    def _forget_scores(self) -> None:
        """Drop scores and features of samples whose caption or image is another one now."""
        if self.pool.scalar("SELECT count(*) FROM incoming_changed WHERE _other"):
            forget_results(self.pool.connection, "SELECT uid FROM incoming_changed WHERE _other")

    def _expect_moved(self) -> None:
        """Let what could not be fetched, and has another URL now, be fetched again."""
        expect_again(
            self.pool.connection,
            "SELECT uid FROM incoming_changed c JOIN samples s USING (uid) "
            "WHERE c.url IS DISTINCT FROM s.url",
        )

    def _write(self) -> None:
        """Write what is new or has changed, in the order of the source."""
        # Not UPDATE: it holds old and new values in memory until the transaction ends.
        self.pool.sql("DELETE FROM samples WHERE uid IN (SELECT uid FROM incoming_changed)")
        values = ", ".join(f"{cast} AS {quote(name)}" for name, cast in self.casts.items())
        written = self.pool.scalar(
            "INSERT INTO samples BY NAME SELECT * EXCLUDE (_row) FROM ("
            "SELECT * EXCLUDE (_other) FROM incoming_changed UNION ALL BY NAME "
            f"SELECT i._row, i.uid, {self.number} AS source, {values} FROM incoming i "
            "JOIN incoming_met m ON m.first = i._row WHERE m.owner IS NULL) ORDER BY _row"
        )
        self.report.added = written - self.changed

    def _count(self) -> None:
        self.pool.sql(
            "UPDATE sources SET samples = (SELECT count(*) FROM samples WHERE source = $1), "
            "duplicates = $2, set_aside = $3 WHERE id = $1",
            [self.number, self.report.duplicates, sum(self.report.set_aside.values())],
        )
