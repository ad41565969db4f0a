"""The temporary relations of one run of filters on a pool's connection."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from ..errors import DatacompError
from ..pools.linking import WRITTEN
from ..pools.pool import Pool, pool_errors, quote
from ..pools.schema import TRUTH
from ..pools.sources.base import UID_TEXT

CANDIDATES = "candidates"
"""What filters see: the samples without the truth, with a column more for each score."""


def record_batches(pool: Pool, query: str, size: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query as they are found, about ``size`` at a time.

    The pool's connection can run nothing else meanwhile.
    """
    with pool_errors(pool.path):
        reader = pool.connection.sql(query).to_arrow_reader(max(size, 1 << 11))
    while True:
        with pool_errors(pool.path):
            batch = next(reader, None)
        if batch is None:
            return
        yield batch


class Relations:
    """Makes temporary tables and views, and removes them all."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.types = {n: kind for n, kind in pool.columns().items() if n.lower() != TRUTH}
        self.columns = list(self.types)
        self._joined: dict[str, str] = {}
        self._defined: dict[str, str] = {}
        self._made: dict[str, str] = {}
        self._numbers = itertools.count(1)
        # DuckDB reads ahead whole columns of a group of rows, once for each thread: that is most
        # of the memory that a scan of linked files takes, and local disks read ahead anyway.
        self._set("SET disable_parquet_prefetching = true")

    def join(self, column: str, table: str) -> None:
        """Let the candidates have the values of a table (uid, value) under a name."""
        self._joined[column] = table

    def define(self, column: str, expression: str) -> str:
        """Let the candidates have, as a column, what SQL makes of the others; return its name."""
        self._defined[column] = expression
        self.show_candidates()
        return quote(column)

    def has(self, column: str) -> bool:
        """Tell whether the candidates have the values of a table under a name."""
        return column in self._joined

    def show_candidates(self) -> None:
        """(Re)create the view that filters see."""
        names = ", ".join(f"s.{quote(name)}" for name in self.columns)
        self.create("VIEW", CANDIDATES, self._candidates(names, "samples"))

    def show_written(self) -> str | None:
        """Create a view of the candidates that has their uids as text besides; return its name.

        None where there is no such text, or where scores are joined, which takes the numbers.
        """
        if self._joined or not self.pool.linked:
            return None
        names = ", ".join(f"s.{name}" for name in [*map(quote, self.columns), UID_TEXT])
        name, query = "candidates_written", self._candidates(names, WRITTEN)
        with pool_errors(self.pool.path):
            try:
                self.pool.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")
            except (duckdb.CatalogException, duckdb.BinderException):
                return None  # linked before there was such a view, or such a column
        self._made[name] = "VIEW"
        return name

    def _candidates(self, names: str, samples: str) -> str:
        values = "".join(f", {t}.value AS {quote(c)}" for c, t in self._joined.items())
        joins = " ".join(f"LEFT JOIN {t} ON {t}.uid = s.uid" for t in self._joined.values())
        query = f"SELECT {names}{values} FROM {samples} s {joins}"
        for column, expression in self._defined.items():
            query = f"SELECT *, {expression} AS {quote(column)} FROM ({query})"
        return query

    def create(self, kind: str, name: str, query: str) -> str:
        """(Re)create a temporary table or view; return its name."""
        self._made[name] = kind
        self.pool.sql(f"CREATE OR REPLACE TEMP {kind} {name} AS {query}")
        return name

    def create_next(self, stem: str, query: str) -> str:
        """Create a temporary table of a name that no other has; return it."""
        return self.create("TABLE", f"{stem}_{next(self._numbers)}", query)

    def clean(self) -> None:
        """Drop what the run left on the connection, so that the next one starts clean."""
        with contextlib.suppress(DatacompError):
            for name, kind in reversed(self._made.items()):
                self.pool.sql(f"DROP {kind} IF EXISTS temp.{name}")
        self._set("RESET disable_parquet_prefetching")

    def _set(self, setting: str) -> None:
        with contextlib.suppress(DatacompError):  # locked in a confined pool, unknown to another
            self.pool.sql(setting)
