"""Scores that depend on the whole set: clusters, counts, neighbours.

A **set scorer** reads the samples as often as it likes, batch by batch, and gives each a value.
The set belongs to the name of the score: the same scorer on other samples is another score.
Nothing is stored before all values are there, so an interrupted run leaves no half set.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..durable import digest
from ..errors import DatacompError, DataError, RunError
from ..pools.features import Features
from ..pools.pool import HALVES, Pool, quote
from ..pools.uids import UidArray, from_halves
from ..progress import warn
from .contract import Batch, Scorer
from .predicates import number
from .registry import defined_at
from .together import Together
from .vectors import open_features

Values = Sequence[Any] | NDArray[Any] | pa.Array
"""Values of some samples; None or an Arrow null where there is none."""

_CHUNK = 1 << 20
"""How many rows of columns are held at a time."""

_NO_COLUMNS = pa.table({})
_STAGED = "set_scores"


class SetScorer(Scorer):
    """Gives each of a set of samples a value that depends on all of them.

    The values must depend neither on the order of the samples nor on batches or threads: what is
    drawn is drawn by uid, and ties are broken by uid. Of columns and features it can ask for one.
    """

    scores: tuple[Scorer, ...] = ()
    """Scorers of single samples whose values it needs: its batches have columns of their names."""
    batch_size = 4096

    def score(self, batch: Batch) -> Sequence[Any]:
        """Refuse: there is no value without the others."""
        raise TypeError(f"{self.name} scores whole sets, not {len(batch)} samples by themselves")

    @abstractmethod
    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield uids (n,) and a value for each, in any order; who is left out has no value."""


class SpreadScorer(SetScorer):
    """A set scorer for pools in partitions too."""

    @abstractmethod
    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the values of ``score_set`` for the samples of one partition.

        What depends on the others is asked ``together``; the work begins anew with each answer.
        """


Readers = Callable[[], Mapping[str, Features] | None]


class Samples:
    """The samples of a set, to be read as often as wanted, each time in the same order.

    ``readers`` opens their features, if not those of the pool; None is of no features.
    """

    def __init__(
        self, pool: Pool, members: str, scorer: SetScorer, readers: Readers | None = None
    ) -> None:
        self._pool, self._members, self._scorer = pool, members, scorer
        self._readers = readers or (lambda: open_features(pool, scorer.features, scorer.name))
        self._warned = False
        self.count: int = pool.scalar(f"SELECT count(*) FROM {members}")
        """How many there are, those without features included."""
        self.features = scorer.features
        """The features that batches come with."""

    def batches(self, size: int | None = None) -> Iterator[tuple[UidArray, Batch]]:
        """Yield uids (n,) and what the scorer asked for, n at most ``size``."""
        size = size or self._scorer.batch_size
        return self._features(size) if self._scorer.features else self._columns(size)

    def _columns(self, size: int) -> Iterator[tuple[UidArray, Batch]]:
        """Read columns in the order of the uids."""
        names = [*self._scorer.columns, *(scorer.name for scorer in self._scorer.scores)]
        wanted = "".join(f", {quote(name)}" for name in names)
        for start in range(0, self.count, _CHUNK):
            rows = self._pool.table(
                f"SELECT {HALVES}{wanted} FROM {self._members} "
                f"WHERE rowid >= {start} AND rowid < {start + _CHUNK} ORDER BY rowid"
            )
            for first in range(0, len(rows), size):
                part = rows.slice(first, size)
                uids = from_halves(part["high"].to_numpy(), part["low"].to_numpy())
                yield uids, Batch(part.select(names))

    def _features(self, size: int) -> Iterator[tuple[UidArray, Batch]]:
        """Read features in the order of the files, which is the quick one."""
        names = self._scorer.features
        readers = self._readers()
        if readers is None:
            return
        found = (reader.batches(self._members, size) for reader in readers.values())
        for parts in itertools.zip_longest(*found):
            if any(part is None or not np.array_equal(part[0], parts[0][0]) for part in parts):
                raise DataError(
                    f"{self._pool.path}: not every sample with the features {names[0]} has "
                    f"{' and '.join(names[1:])} too; get the .npz files again"
                )
            vectors = {name: rows for name, (_, rows) in zip(readers, parts, strict=True)}
            yield parts[0][0], Batch(_NO_COLUMNS, features=vectors)
        if not self._warned:
            self._warned = True
            aside = {a.item: a for reader in readers.values() for a in reader.left_out}
            for item, about in aside.items():
                warn(f"scoring {self._scorer.name}: left out {item}: {about.detail}")


def set_digest(pool: Pool, members: str, scorer: SetScorer) -> str:
    """Return the digest that names the score of a scorer on the uids of a table."""
    found = hashlib.sha256()
    rows = pool.connection.sql(f"SELECT {HALVES} FROM {members} ORDER BY uid").to_arrow_reader()
    for batch in rows:
        found.update(from_halves(batch["high"].to_numpy(), batch["low"].to_numpy()).tobytes())
    return name_of_set(scorer, found.hexdigest())


def name_of_set(scorer: SetScorer, uids: str) -> str:
    """Return the digest that names the score of a scorer on uids of a digest."""
    needed = [inner.digest() for inner in scorer.scores]
    return digest({"scorer": scorer.digest(), "set": uids, "scores": needed})


def copies_in(pool: Pool, members: str) -> tuple[int, str]:
    """Return how many uids of a table stand in several rows, and the first of them in hex."""
    found = pool.row(
        "SELECT count(*), coalesce(printf('%032x', min(uid)), '') FROM "
        f"(SELECT uid FROM {members} GROUP BY uid HAVING count(*) > 1)"
    )
    assert found is not None
    count, first = found
    return count, first


def refuse_copies(use: str, count: int, first: str) -> None:
    """Raise DataError if uids of a set stand in several rows: which of them has the value?"""
    if count:
        what = "uid stands" if count == 1 else "uids stand"
        raise DataError(
            f"filter {use}: {count:,} {what} in several rows, first {first}, and can have only one "
            "value; 'datacomp pool add' without --link keeps one row of each"
        )


def write_set_scores(
    pool: Pool, members: str, scorer: SetScorer, table: str, readers: Readers | None = None,
    together: Together | None = None,
) -> None:  # fmt: skip
    """Score the samples of the table ``members``, and fill ``table`` in one transaction.

    ``members`` has a row for each sample in the order of the uids, with ``uid`` and the columns
    and scores asked for. A sample without a value, or with NaN, gets NULL. A table that is filled
    stays. Those of a partition are scored ``together`` with the others.
    """
    samples = Samples(pool, members, scorer, readers)
    if together is None and pool.scalar(f"SELECT count(*) FROM {table}") == samples.count:
        return
    pool.sql(f"CREATE OR REPLACE TEMP TABLE {_STAGED} (uid UHUGEINT, value {scorer.type})")
    try:
        if together is None:
            found = scorer.score_set(samples)
        else:
            assert isinstance(scorer, SpreadScorer)
            found = scorer.score_apart(samples, together)
        for uids, values in found:
            if len(values) != len(uids):
                raise RunError(
                    f"scorer {scorer.name} ({defined_at(scorer)}) returned {len(values)} values "
                    f"for {len(uids)} samples"
                )
            pool.write_scores(_STAGED, uids, values)  # pyright: ignore[reportArgumentType]
        twice = pool.scalar(f"SELECT count(*) - count(DISTINCT uid) FROM {_STAGED}")
        if twice:
            raise RunError(
                f"scorer {scorer.name} ({defined_at(scorer)}) gave {twice} samples several values"
            )
        foreign = pool.scalar(f"SELECT count(*) FROM {_STAGED} ANTI JOIN {members} USING (uid)")
        if foreign:
            raise RunError(
                f"scorer {scorer.name} ({defined_at(scorer)}) gave values to {foreign} uids that "
                "are not among its samples"
            )
        with pool.transaction():
            pool.sql(f"DELETE FROM {table}")
            value = number("s.value", scorer.type)
            pool.sql(
                f"INSERT INTO {table} SELECT m.uid, {value} FROM {members} m "
                f"LEFT JOIN {_STAGED} s USING (uid)"
            )
    finally:
        with contextlib.suppress(DatacompError):
            pool.sql(f"DROP TABLE IF EXISTS temp.{_STAGED}")
