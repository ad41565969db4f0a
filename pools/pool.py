"""A pool: one DuckDB file of candidate samples, where they came from and what is known of them."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ..durable import fsync_directory, storage_errors
from ..errors import DatacompError, StorageError, UsageError
from ..progress import warn, warnings_held
from . import schema
from .adding import AddReport, add_source
from .asking import query
from .columns import HALVES, literal, quote
from .connection import connect, pool_errors
from .interrupts import watch
from .linking import is_linked, link_source, open_pool
from .sources.base import LinkableSource, Source
from .uids import UID_DTYPE, UidArray, from_halves

__all__ = ["HALVES", "AddReport", "Pool", "literal", "pool_errors", "query", "quote"]

_BATCH = 1 << 16
_ABANDONED = 3600
"""Seconds after which a pool half made is nobody's any more."""


class Pool:
    """One DuckDB file of candidate samples.

    >>> with Pool.create("pool.duckdb") as pool:
    ...     pool.add(open_source("folder", "photos"))
    ...     pool.row("SELECT count(*), avg(width) FROM samples")
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.connection, self.path = connection, path
        self._made_here = False

    # -- opening ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path | str, *, memory_limit: str | None = None, threads: int | None = None
    ) -> Pool:
        """Make an empty pool at ``path``; it must not exist yet. Settings are those of ``open``."""
        path = Path(path)
        if not _lay_out(path, memory_limit, threads):
            raise UsageError(
                f"{path} exists already; add to it with 'datacomp pool add {path} ...'"
            )
        made = cls.open(path, memory_limit=memory_limit, threads=threads)
        made._made_here = True
        return made

    @classmethod
    def open(
        cls,
        path: Path | str,
        read_only: bool = False,
        *,
        confined: bool = False,
        memory_limit: str | None = None,
        threads: int | None = None,
        beside: Path | None = None,
    ) -> Pool:
        """Open the pool at ``path``; older schema versions are brought up to date.

        A folder of metadata (DataComp's parquet files) is linked and opened in memory: what is
        computed on it is forgotten when it is closed.

        DuckDB takes at most ``memory_limit`` (``2GB``, ``25%``; else the environment's
        DATACOMP_MEMORY, else half of the memory) and ``threads`` (else every core); what does
        not fit goes to a folder beside the pool. A ``confined`` pool can run SQL of strangers:
        it reaches no file but those the pool links to, and no network. SQL can read another
        DuckDB file, ``beside``, under the name that ``connection.BESIDE`` is.
        """
        path = Path(path)
        return cls(
            open_pool(
                path, read_only, confined=confined, memory_limit=memory_limit, threads=threads,
                beside=beside,
            ),
            path,
        )  # fmt: skip

    @classmethod
    def opening(cls, folder: Path) -> Callable[[], Pool]:
        """Begin to open a folder of metadata; what is returned waits for the pool and gives it.

        A database takes as long to start as a command takes to load what it runs. A pool that is
        not asked for is not waited for either, and says nothing.
        """
        coming: Future[tuple[Pool, list[str]]] = Future()

        def begin() -> None:
            try:
                with warnings_held() as warnings:
                    coming.set_result((cls.open(folder), warnings))
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                coming.set_exception(error)

        def wait() -> Pool:
            pool, warnings = coming.result()
            for warning in warnings:
                warn(warning)
            watch(pool.connection)  # only the main thread can hear of Ctrl-C
            return pool

        Thread(target=begin, name="opening", daemon=True).start()
        return wait

    @classmethod
    def open_or_create(
        cls, path: Path | str, *, memory_limit: str | None = None, threads: int | None = None
    ) -> Pool:
        """Open the pool at ``path``, or make an empty one.

        Of several processes that make it at once one succeeds; the others open what that one
        made, or are told that it is held.
        """
        path = Path(path)
        made = _lay_out(path, memory_limit, threads)
        pool = cls.open(path, memory_limit=memory_limit, threads=threads)
        pool._made_here = made
        return pool

    def withdraw(self) -> None:
        """Close the pool, and remove it if it was made by this object and nothing was added."""
        # Nobody else can have added anything since: this connection holds the pool alone.
        with contextlib.suppress(DatacompError, OSError):
            if self._made_here and not self.scalar("SELECT count(*) FROM sources"):
                self.path.unlink(missing_ok=True)
        self.close()

    @property
    def linked(self) -> bool:
        """Whether the samples lie in other files."""
        return self.path.is_dir() or is_linked(self.connection)

    @property
    def confined(self) -> bool:
        """Whether SQL run here reaches nothing but the pool."""
        return not self.scalar("SELECT current_setting('enable_external_access')")

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

    def row(self, query: str, parameters: list[Any] | None = None) -> tuple[Any, ...] | None:
        """Return the first row. All are fetched: DuckDB lends no connection with rows left."""
        rows = self.sql(query, parameters).fetchall()
        return rows[0] if rows else None

    def scalar(self, query: str, parameters: list[Any] | None = None) -> Any:
        """Return the first value of the first row."""
        row = self.row(query, parameters)
        return row[0] if row else None

    def count(self) -> int:
        """Return the number of samples."""
        if self.path.is_dir():  # its files were counted when it was opened
            return self.scalar("SELECT coalesce(sum(samples), 0)::BIGINT FROM sources")
        return self.scalar("SELECT count(*) FROM samples")

    def columns(self) -> dict[str, str]:
        """Return name and DuckDB type of every column of ``samples``."""
        return {row[0]: row[1] for row in self.sql("DESCRIBE samples").fetchall()}

    def uids(self, where: str = "true") -> UidArray:
        """Return the sorted uids of the samples for which the SQL predicate holds."""
        return np.concatenate([np.empty(0, UID_DTYPE), *self._uid_batches(where)])

    def digest(self) -> str:
        """Return the SHA-256 over the sorted uids: the name of this set of candidates.

        It equals ``digest_of_uids(self.uids())``, but never holds them all.
        """
        found = hashlib.sha256()
        for batch in self._uid_batches("true"):
            found.update(batch.tobytes())
        return found.hexdigest()

    def _uid_batches(self, where: str) -> Iterator[UidArray]:
        with pool_errors(self.path):
            found = self.connection.sql(
                f"SELECT {HALVES} FROM samples WHERE {where} ORDER BY uid"
            ).to_arrow_reader(_BATCH)
            for batch in found:
                yield from_halves(batch["high"].to_numpy(), batch["low"].to_numpy())

    def source_paths(self) -> dict[int, Path]:
        """Return where each source's files lie."""
        rows = self.sql("SELECT id, path FROM sources").fetchall()
        return {number: self.path.parent / path for number, path in rows}

    def info(self) -> dict[str, Any]:
        """Return counts, columns, sources, scores, features and what was set aside."""
        from .features import published  # it reads pools

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
            "features": self._rows(
                'SELECT name, model, weights, "precision", dimension, dtype, file FROM features '
                "ORDER BY name"
            )
            + published(self),
        }

    def _rows(self, query: str) -> list[dict[str, Any]]:
        cursor = self.sql(query)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    # -- adding ----------------------------------------------------------------------------

    def add(self, source: Source) -> AddReport:
        """Bring a source's samples in, all in one transaction.

        The first sample of a uid stays; the others are counted and listed in the table
        ``set_aside``. A sample that this source brought before takes over changed values, and
        loses its scores if caption or image are others now. One that has vanished from the
        source is kept and listed. A sample that cannot be used is set aside under a reason; it
        never stops the run.
        """
        if self.path.is_dir():
            raise UsageError(
                f"{self.path}: a folder opened as a pool cannot be added to; make a pool of a file"
            )
        if isinstance(source, LinkableSource) and source.link:
            return link_source(self, source)
        if self.linked:
            raise UsageError(
                f"{self.path}: links to its samples, and a pool holds samples or links to them; "
                "add to a new pool, or link what can be linked"
            )
        return add_source(self, source)

    @contextlib.contextmanager
    def registered(self, name: str, table: pa.Table) -> Iterator[None]:
        """Let SQL see an Arrow table under a name for a while."""
        self.connection.register(name, table)
        try:
            yield
        finally:
            self.connection.unregister(name)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes inside visible together, or none of them."""
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
        with self.transaction():
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
        with self.registered("scored_arrow", arrow), self.transaction():
            self.sql(
                f"INSERT INTO {table} SELECT (high::UHUGEINT << 64) + low::UHUGEINT, value "
                "FROM scored_arrow"
            )


def _lay_out(path: Path, memory_limit: str | None, threads: int | None) -> bool:
    """Put an empty pool at ``path``; return False, and change nothing, if something is there."""
    if path.exists():
        return False
    log = path.with_name(path.name + ".wal")
    if log.exists() and not path.exists():
        # DuckDB would take it for the new pool's.
        raise StorageError(f"{log}: left of a pool that is no longer there; remove it first")
    with pool_errors(path), storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_partials(path)
        # A name of its own: another process may be making the same pool.
        partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
        try:
            with connect(partial, memory_limit=memory_limit, threads=threads) as connection:
                schema.create(connection)
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            for left in (partial, partial.with_name(partial.name + ".wal")):
                left.unlink(missing_ok=True)
        fsync_directory(path.parent)
    return True


def _sweep_partials(path: Path) -> None:
    """Remove what processes killed while they made this pool have left; it takes them a moment."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial*"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < time.time() - _ABANDONED:
                left.unlink()
