"""How samples come to scorers, and how scores come to the pool: a little at a time."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import DatacompError, DataError
from ..pools.features import Features
from ..pools.pool import HALVES, Pool, quote
from ..pools.uids import UidArray, from_halves
from ..progress import warn
from .blaming import blaming_scorer
from .contract import Batch, Scorer
from .predicates import number
from .relations import record_batches
from .spec import FilterSpec

_NO_COLUMNS = pa.table({})
_WRITTEN_ROWS, _WRITTEN_SECONDS = 1 << 16, 5.0
"""Scores go to the pool when there are so many, or after so long."""


class ScoreWriter:
    """Gathers scores and writes many in one transaction, also when the work breaks off.

    It has a connection of its own, for the pool's may be in the midst of reading.
    """

    def __init__(self, pool: Pool, table: str, spec: FilterSpec, scorer: Scorer) -> None:
        self._pool = Pool(pool.connection.cursor(), pool.path)
        self._table, self._spec, self._scorer = table, spec, scorer
        self._waiting: list[tuple[UidArray, Sequence[Any] | pa.Array]] = []
        self._rows, self._since = 0, time.monotonic()

    def __enter__(self) -> ScoreWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._flush()
        except DatacompError:
            if exc_info[0] is None:
                raise
        finally:
            self._pool.close()

    def write(self, uids: UidArray, values: Sequence[Any] | pa.Array) -> None:
        """Take in the scores of a batch."""
        self._waiting.append((uids, values))
        self._rows += len(uids)
        if self._rows >= _WRITTEN_ROWS or time.monotonic() - self._since > _WRITTEN_SECONDS:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._rows = self._waiting, [], 0
        self._since = time.monotonic()
        if not waiting:
            return
        with blaming_scorer(self._spec, self._scorer), contextlib.ExitStack() as registered:
            for place, (uids, values) in enumerate(waiting):
                arrow = pa.table({"high": uids["f0"], "low": uids["f1"], "value": values})
                registered.enter_context(self._pool.registered(f"scored_{place}", arrow))
            with self._pool.transaction():
                for place in range(len(waiting)):
                    self._pool.sql(
                        f"INSERT INTO {self._table} SELECT (high::UHUGEINT << 64) + low::UHUGEINT,"
                        f" {number('value', self._scorer.type)} FROM scored_{place}"
                    )


def stream_columns(pool: Pool, scorer: Scorer, rows: str) -> Iterator[tuple[UidArray, Batch]]:
    """Yield the columns that a scorer asks for as they are read: no list of samples is made."""
    wanted = "".join(
        f", {_hex_or(name)} AS _c{number}" for number, name in enumerate(scorer.columns)
    )
    names = [f"_c{number}" for number in range(len(scorer.columns))]
    size = scorer.batch_size
    for part in record_batches(pool, f"SELECT {HALVES}{wanted} {rows}", size):
        table = pa.Table.from_batches([part])
        for first in range(0, len(table), size):
            some = table.slice(first, size)
            uids = from_halves(some["high"].to_numpy(), some["low"].to_numpy())
            yield uids, Batch(some.select(names).rename_columns(list(scorer.columns)))


def _hex_or(column: str) -> str:
    """Return the SQL of a column; uids are written in hex, since Arrow has no such integers."""
    return "printf('%032x', c.uid)" if column == "uid" else f"c.{quote(column)}"


def read_features(
    pool: Pool, scorer: Scorer, readers: Mapping[str, Features]
) -> Iterator[tuple[UidArray, Batch]]:
    """Yield the features that a scorer asks for of the samples to score."""
    found = (reader.batches("to_score", scorer.batch_size) for reader in readers.values())
    for parts in itertools.zip_longest(*found):
        if any(part is None or not np.array_equal(part[0], parts[0][0]) for part in parts):
            raise DataError(
                f"{pool.path}: not every sample with the features {scorer.features[0]} has "
                f"{' and '.join(scorer.features[1:])} too; get the .npz files again"
            )
        vectors = {name: rows for name, (_, rows) in zip(readers, parts, strict=True)}
        yield parts[0][0], Batch(_NO_COLUMNS, features=vectors)
    left_out = {aside.item: aside for reader in readers.values() for aside in reader.left_out}
    for aside in left_out.values():
        warn(f"scoring {scorer.name}: left out {aside.item}: {aside.detail}")
