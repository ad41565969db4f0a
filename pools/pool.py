"""A pool: one DuckDB file of candidate samples, where they came from and what is known of them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from ..durable import partial_path
from ..errors import DataError, MissingError, StorageError, UsageError
from ..progress import Progress, warn
from . import schema
from .uids import UidArray, digest_of_uids, from_halves

if TYPE_CHECKING:
    from .sources.base import Record, SetAside, Source

BATCH = 4096
MAX_COLUMNS = 512
"""A stranger's metadata must not make a pool of any number of columns."""

_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": False,  # nothing is fetched over the network
    "python_enable_replacements": False,  # an unknown table is never a Python variable
}
_READ_STRANGERS_SQL = {**_CONFIG, "enable_external_access": False, "lock_configuration": True}

HALVES = '("uid" >> 64)::UBIGINT AS high, ("uid" & 18446744073709551615::UHUGEINT)::UBIGINT AS low'
"""SQL for the two halves of a uid: neither Arrow nor numpy has 128-bit integers."""


@dataclass
class AddReport:
    """What became of a source's samples."""

    source: str
    added: int = 0
    unchanged: int = 0
    duplicates: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


class Pool:
    """One DuckDB file of candidate samples.

    >>> with Pool.create("pool.duckdb") as pool:
    ...     pool.add(open_source("folder", "photos"))
    ...     pool.sql("SELECT count(*), avg(width) FROM samples").fetchone()
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.connection, self.path = connection, path

    # -- opening ---------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path | str) -> Pool:
        """Make an empty pool at ``path``; it must not exist yet."""
        path = Path(path)
        if path.exists():
            raise UsageError(
                f"{path} exists already; add to it with 'datacomp pool add {path} ...'"
            )
        partial = partial_path(path)
        with pool_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for stale in (partial, partial.with_name(partial.name + ".wal")):
                stale.unlink(missing_ok=True)
            with _connect(partial) as connection:
                schema.create(connection)
            partial.rename(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str, read_only: bool = False) -> Pool:
        """Open the pool at ``path``; older schema versions are brought up to date."""
        path = Path(path)
        if not path.is_file():
            raise MissingError(f"{path}: no such pool; make one with 'datacomp pool create {path}'")
        with pool_errors(path):
            connection = _connect(path, read_only)
            try:
                if read_only:
                    _check_version(connection, path)
                else:
                    schema.migrate(connection, str(path))
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    @classmethod
    def open_or_create(cls, path: Path | str) -> Pool:
        """Open the pool at ``path``, or make an empty one."""
        return cls.open(path) if Path(path).exists() else cls.create(path)

    def close(self) -> None:
        """Close the file; further use is an error."""
        self.connection.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- asking ----------------------------------------------------------------------------

    def sql(self, query: str, parameters: list[Any] | None = None) -> duckdb.DuckDBPyConnection:
        """Run SQL on the pool and return DuckDB's result."""
        with pool_errors(self.path):
            return self.connection.execute(query, parameters or [])

    def table(self, query: str) -> pa.Table:
        """Run SQL on the pool and return an Arrow table."""
        with pool_errors(self.path):
            return self.connection.sql(query).to_arrow_table()

    def scalar(self, query: str, parameters: list[Any] | None = None) -> Any:
        """Return the first value of the first row."""
        rows = self.sql(query, parameters).fetchall()
        return rows[0][0] if rows else None

    def count(self) -> int:
        """Return the number of samples."""
        return self.scalar("SELECT count(*) FROM samples")

    def columns(self) -> dict[str, str]:
        """Return name and DuckDB type of every column of ``samples``."""
        return {row[0]: row[1] for row in self.sql("DESCRIBE samples").fetchall()}

    def uids(self, where: str = "true") -> UidArray:
        """Return the sorted uids of the samples for which the SQL predicate holds."""
        found = self.table(f"SELECT {HALVES} FROM samples WHERE {where} ORDER BY uid")
        return from_halves(found["high"].to_numpy(), found["low"].to_numpy())

    def digest(self) -> str:
        """Return the SHA-256 over the sorted uids: the name of this set of candidates."""
        return digest_of_uids(self.uids())

    def source_paths(self) -> dict[int, Path]:
        """Return where each source's files lie."""
        rows = self.sql("SELECT id, path FROM sources").fetchall()
        return {number: self.path.parent / path for number, path in rows}

    def info(self) -> dict[str, Any]:
        """Return counts, columns, sources, scores and what was set aside, as plain values."""
        return {
            "path": str(self.path),
            "schema_version": schema.VERSION,
            "samples": self.count(),
            "digest": self.digest(),
            "columns": self.columns(),
            "sources": self._rows(
                "SELECT id, kind, path, options, samples, duplicates, set_aside FROM sources "
                "ORDER BY id"
            ),
            "set_aside": self._rows(
                "SELECT source, reason, count(*) AS count, min(item) AS example FROM set_aside "
                "GROUP BY ALL ORDER BY source, count DESC, reason"
            ),
            "scores": self._rows(
                "SELECT name, parameters, digest FROM scores ORDER BY name, digest"
            ),
        }

    def _rows(self, query: str) -> list[dict[str, Any]]:
        cursor = self.sql(query)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    # -- adding ----------------------------------------------------------------------------

    def add(self, source: Source) -> AddReport:
        """Bring a source's samples in; what is there already stays as it is.

        Batches are committed as they come: after a crash the same call goes on where it
        stopped. A sample that cannot be used is set aside under a reason and listed in the
        table ``set_aside``; it never stops the run.
        """
        from .sources.base import RecordSource, SqlSource

        report = AddReport(f"{source.kind} {source.path}")
        if isinstance(source, SqlSource):
            with pool_errors(self.path):
                aside = source.load(self.connection, 0)
            with self._transaction():
                number = self._register(source)
                self._note_set_aside(number, aside, report)
                self._insert(number, report)
                self._count(number, report)
        elif isinstance(source, RecordSource):
            with Progress(f"adding {source.kind}", source.estimate()) as progress:
                batches = _batched(source.records(), BATCH)
                # A source that cannot be read at all raises here and leaves no trace.
                batch = next(batches, [])
                with self._transaction():
                    number = self._register(source)
                while batch:
                    with self._transaction():
                        self._add_batch(number, batch, report)
                    progress.advance(len(batch))
                    batch = next(batches, [])
            with self._transaction():
                self._count(number, report)
        else:
            raise TypeError(f"{source!r} is neither a RecordSource nor an SqlSource")
        return report

    def _count(self, number: int, report: AddReport) -> None:
        self.sql(
            "UPDATE sources SET samples = (SELECT count(*) FROM samples WHERE source = $1), "
            "duplicates = $2, set_aside = $3 WHERE id = $1",
            [number, report.duplicates, sum(report.set_aside.values())],
        )

    def _register(self, source: Source) -> int:
        """Return the source's number, a new one if need be, and forget what it had set aside."""
        path = Path(source.path).resolve()
        home = self.path.parent.resolve()
        stored = str(path.relative_to(home)) if path.is_relative_to(home) else str(path)
        options = json.dumps(source.options(), sort_keys=True)
        found = self.scalar(
            "SELECT id FROM sources WHERE kind = ? AND path = ? AND options = ?",
            [source.kind, stored, options],
        )
        if found is not None:
            self.sql("DELETE FROM set_aside WHERE source = ?", [found])
            return found
        number = self.scalar("SELECT coalesce(max(id), 0) + 1 FROM sources")
        self.sql(
            "INSERT INTO sources VALUES (?, ?, ?, ?, ?, 0, 0, 0)",
            [number, source.kind, stored, options, datetime.now(UTC).replace(tzinfo=None)],
        )
        return number

    def _add_batch(self, number: int, batch: list[Record | SetAside], report: AddReport) -> None:
        from .sources.base import Record, SetAside

        self._note_set_aside(number, [item for item in batch if isinstance(item, SetAside)], report)
        records = [item for item in batch if isinstance(item, Record)]
        if not records:
            return
        with self._registered("incoming_arrow", _to_arrow(records)):
            self.sql(
                "CREATE OR REPLACE TEMP TABLE incoming AS "
                "SELECT ('0x' || uid)::UHUGEINT AS uid, * EXCLUDE (uid) FROM incoming_arrow"
            )
        self._insert(number, report)

    def _insert(self, number: int, report: AddReport) -> None:
        """Move the temporary table ``incoming`` into ``samples``: the first of each uid wins."""
        incoming = {row[0]: row[1] for row in self.sql("DESCRIBE incoming").fetchall()}
        known = self.columns()
        with pool_errors(self.path):
            kept = add_columns(self.connection, "samples", known, incoming)
        names = [name for name in kept if name not in ("uid", "source")]
        casts = [f"TRY_CAST(i.{quote(n)} AS {kept[n]}) AS {quote(n)}" for n in names]
        total = self.scalar("SELECT count(*) FROM incoming")
        unchanged = self.scalar(
            "SELECT count(DISTINCT uid) FROM incoming i JOIN samples s USING (uid) "
            "WHERE s.source = ? AND s.url IS NOT DISTINCT FROM i.url "
            "AND s.shard IS NOT DISTINCT FROM i.shard "
            'AND s."offset" IS NOT DISTINCT FROM i."offset"',
            [number],
        )
        added = self.scalar(
            f"INSERT INTO samples BY NAME SELECT i.uid, {number} AS source, {', '.join(casts)} "
            "FROM incoming i ANTI JOIN samples s USING (uid) "
            "QUALIFY row_number() OVER (PARTITION BY i.uid ORDER BY i.rowid) = 1"
        )
        self.sql("DROP TABLE incoming")
        report.added += added
        report.unchanged += unchanged
        report.duplicates += total - added - unchanged

    def _note_set_aside(self, number: int, items: list[SetAside], report: AddReport) -> None:
        if not items:
            return
        table = pa.table(
            {name: [getattr(item, name) for item in items] for name in ("item", "reason", "detail")}
        )
        with self._registered("aside_arrow", table):
            self.sql(f"INSERT INTO set_aside SELECT {number}, * FROM aside_arrow")
        for item in items:
            report.set_aside[item.reason] = report.set_aside.get(item.reason, 0) + 1

    @contextlib.contextmanager
    def _registered(self, name: str, table: pa.Table) -> Iterator[None]:
        """Let SQL see an Arrow table under a name for a while."""
        self.connection.register(name, table)
        try:
            yield
        finally:
            self.connection.unregister(name)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.sql("BEGIN")
        try:
            yield
            self.sql("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self.connection.execute("ROLLBACK")
            raise

    # -- scores ----------------------------------------------------------------------------

    def score_table(self, name: str, digest: str, parameters: dict[str, Any]) -> str:
        """Return the table of the immutable score ``name``/``digest``, made empty if new.

        Its rows are (uid UHUGEINT, value); samples without a row are not scored yet.
        """
        found = self.scalar(
            "SELECT values_table FROM scores WHERE name = ? AND digest = ?", [name, digest]
        )
        if found is not None:
            return found
        with self._transaction():
            number = self.scalar("SELECT count(*) + 1 FROM scores")
            table = f"score_values_{number}"
            self.sql(f"CREATE TABLE {table} (uid UHUGEINT, value {parameters['type']})")
            self.sql(
                "INSERT INTO scores VALUES (?, ?, ?, ?, ?)",
                [name, json.dumps(parameters, sort_keys=True), digest, table,
                 datetime.now(UTC).replace(tzinfo=None)],
            )  # fmt: skip
        return table

    def write_scores(self, table: str, uids: UidArray, values: list[Any]) -> None:
        """Append the scores of a batch, shapes (n,) and n, in one transaction."""
        arrow = pa.table({"high": uids["f0"], "low": uids["f1"], "value": values})
        with self._registered("scored_arrow", arrow), self._transaction():
            self.sql(
                f"INSERT INTO {table} SELECT (high::UHUGEINT << 64) + low::UHUGEINT, value "
                "FROM scored_arrow"
            )


def query(path: Path | str, statement: str) -> duckdb.DuckDBPyConnection:
    """Run one SELECT of a stranger: read-only, without access to files or the network.

    The result is a cursor of a connection of its own; use it as a context manager, so that it
    is closed. Raises UsageError for SQL that cannot be run.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"{path}: no such pool; make one with 'datacomp pool create {path}'")
    with pool_errors(path):
        connection = _connect(path, True, _READ_STRANGERS_SQL)
    try:
        with pool_errors(path):
            _check_version(connection, path)
        return _run_select(connection, path, statement)
    except BaseException:
        connection.close()
        raise


def _run_select(
    connection: duckdb.DuckDBPyConnection, path: Path, statement: str
) -> duckdb.DuckDBPyConnection:
    try:
        statements = connection.extract_statements(statement)
        kinds = [found.type.name for found in statements]
        if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
            found = ", ".join(kinds) if kinds else "nothing"
            raise UsageError(f"{path}: expected one SELECT, found {found}")
        return connection.execute(statements[0])
    except duckdb.Error as error:
        raise UsageError(f"{path}: {_one_line(error)}") from error


def add_columns(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    known: dict[str, str],
    incoming: dict[str, str],
) -> dict[str, str]:
    """Make a table able to hold ``incoming``: name and DuckDB type of each column.

    A new column is added; one that a source brought before with another type is widened, so
    that no value is rounded or lost. Returns the incoming columns that fit, with the types they
    have in the table: columns beyond MAX_COLUMNS are left out, with a warning.
    """
    fitted: dict[str, str] = {}
    for name, kind in incoming.items():
        if name not in known and len(known) >= MAX_COLUMNS:
            warn(f"more than {MAX_COLUMNS} columns; {name!r} is left out")
            continue
        wide = _wider(known.get(name, kind), kind)
        if name not in known:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quote(name)} {kind}")
        elif name not in schema.CORE_COLUMNS and wide != known[name]:
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {quote(name)} TYPE {wide}")
        else:
            wide = known[name]
        known[name] = fitted[name] = wide
    return fitted


_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


def _wider(one: str, other: str) -> str:
    """Return the type that holds the values of both."""
    if one == other:
        return one
    if {one, other} <= set(_INTEGERS):
        return max(one, other, key=_INTEGERS.index)
    return "DOUBLE" if {one, other} <= {*_INTEGERS, "FLOAT", "DOUBLE"} else "VARCHAR"


def _connect(
    path: Path, read_only: bool = False, config: dict[str, Any] = _CONFIG
) -> duckdb.DuckDBPyConnection:
    # An absolute path: DuckDB takes names such as "md:x" for services.
    return duckdb.connect(str(path.absolute()), read_only=read_only, config=config)


def _check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    found = schema.version_of(connection, str(path))
    if found > schema.VERSION:
        raise schema.too_new(found, str(path))
    if found < schema.VERSION:
        raise DataError(
            f"{path}: pool of schema version {found} opened read-only, but version "
            f"{schema.VERSION} is needed; open it once for writing to bring it up to date"
        )


def quote(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote an SQL string."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def pool_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's failures about a pool file into one clear line."""
    try:
        yield
    except duckdb.Error as error:
        text = _one_line(error)
        holder = re.search(r"PID (\d+)", text)
        if "Could not set lock" in text:
            who = f"process {holder[1]}" if holder else "another process"
            raise StorageError(f"{path}: held by {who}; wait for it or stop it") from error
        if "different configuration" in text:
            raise StorageError(f"{path}: this process holds it open already") from error
        if "not a valid DuckDB database" in text:
            raise DataError(f"{path}: not a datacomp pool (no DuckDB file)") from error
        if _DISK_FULL.search(text):
            raise StorageError(
                f"{path}: the disk is full; free some space and run the same command again"
            ) from error
        raise DataError(f"{path}: {text}") from error


_DISK_FULL = re.compile(
    r"No space left|[Cc]ould not write|File too large|Disk quota|Out of (disk|storage)"
)


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _to_arrow(records: list[Record]) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "uid": pa.array([r.uid for r in records], pa.string()),
        "url": pa.array([r.url for r in records], pa.string()),
        "text": pa.array([r.text for r in records], pa.string()),
        "width": pa.array([r.width for r in records], pa.int32()),
        "height": pa.array([r.height for r in records], pa.int32()),
        "sha256": pa.array([r.sha256 for r in records], pa.string()),
        "shard": pa.array([r.shard for r in records], pa.string()),
        "offset": pa.array([r.offset for r in records], pa.int64()),
        "length": pa.array([r.length for r in records], pa.int64()),
    }
    for name in sorted({name for record in records for name in record.extra}):
        columns[name] = _extra_array([record.extra.get(name) for record in records])
    return pa.table(columns)


def _extra_array(values: list[Any]) -> pa.Array:
    """Type a column of a stranger's JSON values: all alike, or all text."""
    kinds = {type(value) for value in values if value is not None}
    with contextlib.suppress(OverflowError, pa.ArrowInvalid):  # integers of any length
        if kinds <= {int}:
            return pa.array(values, pa.int64())
        if kinds <= {int, float}:
            return pa.array([None if v is None else float(v) for v in values], pa.float64())
        if kinds <= {bool}:
            return pa.array(values, pa.bool_())
    return pa.array([None if v is None else str(v) for v in values], pa.string())
