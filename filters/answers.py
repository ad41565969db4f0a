"""What filters ask about all candidates at once, and who answers.

A filter that judges the pool as a whole asks how many candidates there are, or which value stands
at a place of their order. Where the pool is one database it answers (``Whole``). Where it is in
partitions, nobody can: a partition tells its share of the answer (``Share``), the driver puts the
shares together (``filters/narrowing.py``) and the partition is judged again with the answer known.
Filters are the same for either, for scores are kept and decisions cost little. What is more than a
value is found out by joint work (``filters/together.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..durable import atomic_path
from ..errors import DataError, MissingError, UsageError
from ..pools.features import Features
from ..pools.pool import HALVES, Pool, literal, quote
from ..pools.uids import UidArray, from_halves, from_hex, save_subset, to_hex
from ..progress import warn
from .contract import Scorer
from .relations import CANDIDATES, Relations, record_batches
from .together import FirstOfEach, Joint, Members, Of, Place, keyed, share_once, uids_of
from .vectors import need_features, open_features

_HALF = (1 << 64) - 1

FIRST = "group:first:"
"""Begins the names of columns that tell what is the first of its kind."""


@dataclass(frozen=True)
class Question:
    """How many candidates (``count``), the value at a ``place`` (``nth``), or what ``features``.

    ``value`` and ``where`` are SQL over the ``relation``. Places count from 0, from the largest
    if ``descending``, and only among candidates for which ``where`` holds and that have a value.
    """

    kind: str
    relation: str = ""
    value: str = ""
    where: str = "true"
    place: int = 0
    descending: bool = False


@dataclass(frozen=True)
class Bounds:
    """Between which values the one looked for lies: above ``low``, at most ``high``.

    ``place`` is its place in ascending order, once that is known.
    """

    low: Any = None
    high: Any = None
    place: int | None = None

    def sql(self, value: str) -> str:
        """Return SQL that is true for what lies between."""
        limits = [f"{value} IS NOT NULL"]
        if self.low is not None:
            limits.append(f"{value} > {sql_value(self.low)}")
        if self.high is not None:
            limits.append(f"{value} <= {sql_value(self.high)}")
        return " AND ".join(limits)


@dataclass(frozen=True)
class Steps:
    """A partition's share of an order: how many values are below the bounds, and some of those
    within, each with how many stand at or before it. ``every`` says whether it is all of them.
    """

    below: int
    values: list[tuple[Any, int]]
    every: bool


class UnansweredError(BaseException):
    """A partition was asked what only all of them together can tell.

    No Exception, so that no filter and nobody who blames one takes it for a failure.
    """

    def __init__(
        self, question: Question | Joint, share: Callable[[], Any] | None = None
    ) -> None:  # fmt: skip
        super().__init__(question)
        self.question, self.share = question, share


class AsWholeError(BaseException):
    """A filter looks at the pool in a way that partitions cannot answer; says which, and how."""


class Answers(ABC):
    """Answers what filters ask about all candidates."""

    whole: bool
    """Whether the pool at hand is all of it."""

    @abstractmethod
    def ask(self, pool: Pool, question: Question, repeated: bool = False) -> Any:
        """Answer a question; values that are ``repeated`` many times are counted, not sorted."""

    @abstractmethod
    def features(self, pool: Pool, scorer: Scorer) -> dict[str, Features] | None:
        """Return readers of a scorer's features, or None where only other partitions have them."""

    @abstractmethod
    def first(self, relations: Relations, relation: str, columns: Sequence[str]) -> str:
        """Return SQL that is true of the first of those that are the same in the columns."""

    def recall(self, pool: Pool, table: str, digest: str) -> None:  # noqa: B027
        """Fill the table of a score with what is remembered of it elsewhere."""

    def remember(self, pool: Pool, table: str, digest: str) -> None:  # noqa: B027
        """Keep what the table of a score holds, where the pool itself does not."""


class Whole(Answers):
    """The pool is one database."""

    whole = True

    def ask(self, pool: Pool, question: Question, repeated: bool = False) -> Any:
        """Ask the database."""
        return pool.scalar(query_of(question, repeated))

    def features(self, pool: Pool, scorer: Scorer) -> dict[str, Features] | None:
        """Open the features."""
        return open_features(pool, scorer.features, scorer.name)

    def first(self, relations: Relations, relation: str, columns: Sequence[str]) -> str:
        """Number the copies of each."""
        return first_here(columns)


class Share(Answers):
    """The pool is a partition; ``known`` are the answers so far, ``scores`` a folder of its own.

    The scores of a partition are files there, each written at once when all its values are there:
    no other machine ever finds a part of them.
    """

    whole = False

    def __init__(
        self, known: Mapping[Question | Joint, Any], scores: Path, place: Place
    ) -> None:  # fmt: skip
        self._known, self._scores, self.place = known, scores, place
        self._recalled: dict[str, int] = {}
        self._firsts = self._sets = 0

    def ask(self, pool: Pool, question: Question, repeated: bool = False) -> Any:
        """Return the answer, or raise UnansweredError."""
        if question not in self._known:
            raise UnansweredError(question)
        return self._known[question]

    def knows(self, joint: Joint) -> bool:
        """Tell whether a joint is settled."""
        return joint in self._known

    def join(self, joint: Joint, share: Callable[[], Any]) -> Any:
        """Return what a joint came to, or raise UnansweredError with the work to be done for it."""
        if joint not in self._known:
            raise UnansweredError(joint, lambda: share_once(self.place, joint, share))
        return self._known[joint]

    def members(self, pool: Pool, scorer: str, members: str) -> tuple[str, int, int, str]:
        """Return the digest of the uids of a set in all partitions, and how many they are.

        And how many of them stand in several rows, with the first of these in hex.
        """
        self._sets += 1
        joint = Members(scorer, f"{members} {self._sets}")

        def share() -> None:
            rows = pool.table(f"SELECT {HALVES} FROM {members}")
            uids = from_halves(rows["high"].to_numpy(), rows["low"].to_numpy())
            save_subset(self.place.file(joint), uids)

        digest, total, copies, first = self.join(joint, share)
        return digest, total, copies, first

    def first(self, relations: Relations, relation: str, columns: Sequence[str]) -> str:
        """Let the relation have a column for it: what is first here, and nowhere else.

        Files send the first of each key that they have, by a hash of it that nobody can make
        collide; of each key all but one come back.
        """
        pool, key = relations.pool, key_of(columns)
        joint = FirstOfEach(relation, tuple(columns))

        def share() -> None:
            query = (
                f"SELECT {HALVES}, key FROM (SELECT min(uid) AS uid, {key} AS key "
                f"FROM {relation} GROUP BY key)"
            )
            uids, keys = [], []
            for batch in record_batches(pool, query, 1 << 16):
                uids.append(from_halves(batch["high"].to_numpy(), batch["low"].to_numpy()))
                keys.append(from_hex(batch["key"].to_pylist()))
            nothing = from_hex([])
            found = keyed(np.concatenate([nothing, *keys]), np.concatenate([nothing, *uids]))
            joint.share(self.place, found)

        self.join(joint, share)
        found = np.concatenate(list(joint.answers(self.place)))
        keys = to_hex(from_halves(found["k0"], found["k1"]))
        uids = uids_of(found)
        arrow = pa.table(
            {"high": uids["f0"], "low": uids["f1"], "key": pa.array(keys, pa.string())}
        )
        with pool.registered("elsewhere", arrow):
            later = relations.create_next(
                "later",
                "SELECT (high::UHUGEINT << 64) + low::UHUGEINT AS uid, key FROM elsewhere",
            )
        self._firsts += 1
        name = f"{FIRST}{self._firsts}"
        is_first = f"{first_here(columns)} AND (uid, {key}) NOT IN (SELECT (uid, key) FROM {later})"
        if relation == CANDIDATES:
            return relations.define(name, is_first)
        relations.create(
            "TABLE", relation, f"SELECT *, {is_first} AS {quote(name)} FROM {relation}"
        )
        return quote(name)

    def recall(self, pool: Pool, table: str, digest: str) -> None:
        """Read the scores of an earlier round, or of a run that broke off."""
        file = self._scores / f"{digest}.parquet"
        if file.is_file() and not pool.scalar(f"SELECT count(*) FROM {table}"):
            pool.sql(
                f"INSERT INTO {table} SELECT (high::UHUGEINT << 64) + low::UHUGEINT, value "
                f"FROM read_parquet({literal(str(file))})"
            )
            self._recalled[digest] = pool.scalar(f"SELECT count(*) FROM {table}")

    def remember(self, pool: Pool, table: str, digest: str) -> None:
        """Write the scores; a file has halves of uids, for parquet has no such integers."""
        if pool.scalar(f"SELECT count(*) FROM {table}") == self._recalled.get(digest):
            return
        with atomic_path(self._scores / f"{digest}.parquet") as partial:
            pool.sql(
                f"COPY (SELECT {HALVES}, value FROM {table}) TO {literal(str(partial))} "
                "(FORMAT parquet)"
            )

    def features(self, pool: Pool, scorer: Scorer) -> dict[str, Features] | None:
        """Open the features if they are as those of the other partitions."""
        readers: dict[str, Features] = {}
        trouble: list[str] = []
        for name in scorer.features:
            like = self.ask(pool, Question("features", value=name))
            if isinstance(like, str):
                raise need_features(like, scorer.features, scorer.name)
            found = features_of(pool, name)
            if isinstance(found, str):
                trouble.append(found)
            elif found == like:
                readers[name] = Features(pool, name, (found[0], np.dtype(found[1])))
            else:
                trouble.append(f"{name} has {found[0]} {found[1]} a row, other files {like[0]} "
                               f"{like[1]}")  # fmt: skip
        if readers and trouble:
            raise DataError(
                f"{pool.path}: not every sample with the features {next(iter(readers))} has the "
                f"others too ({trouble[0]}); get the .npz files again"
            )
        if trouble:
            warn(f"scoring {scorer.name}: left out {trouble[0]}")
        return readers or None


class Asking:
    """A set scorer's way to ask the other partitions (``together.Together``)."""

    def __init__(self, share: Share, pool: Pool, digest: str, total: int) -> None:
        self._share, self._pool, self._digest = share, pool, digest
        self._set = digest[:24]
        self.place, self.total = share.place.of(self._set), total

    def ask(self, joint: Joint, share: Callable[[], Any]) -> Any:
        """Return what a joint came to."""
        return self._share.join(Of(self._set, joint), share)

    def lowest(self, what: str, uids: UidArray, values: NDArray[Any], keep: int) -> NDArray[Any]:
        """Find the value at the place, and among its like the uid."""
        name = f"lowest_{self._digest[:16]}_{what}"
        arrow = pa.table({"high": uids["f0"], "low": uids["f1"], "value": values})
        with self._pool.registered("values_here", arrow):  # the table ends with the partition
            self._pool.sql(
                f"CREATE OR REPLACE TEMP TABLE {name} AS "
                "SELECT (high::UHUGEINT << 64) + low::UHUGEINT AS uid, value FROM values_here"
            )

        def ask(kind: str, **about: Any) -> Any:
            return self._share.ask(self._pool, Question(kind, name, **about))

        limit = ask("nth", value="value", place=keep - 1)
        below = ask("count", where=f"value < {sql_value(limit)}")
        equal = f"value = {sql_value(limit)}"
        last = ask("nth", value="uid", where=equal, place=keep - below - 1)
        high, low = np.uint64(last >> 64), np.uint64(last & _HALF)
        before = (uids["f0"] < high) | ((uids["f0"] == high) & (uids["f1"] <= low))
        return (values < limit) | ((values == limit) & before)


def first_here(columns: Sequence[str]) -> str:
    """Return SQL that is true of the smallest uid of those that are the same in the columns."""
    return f"row_number() OVER (PARTITION BY {', '.join(map(quote, columns))} ORDER BY uid) = 1"


def key_of(columns: Sequence[str]) -> str:
    """Return SQL of 32 hex digits that are the same only for the same values in the columns."""
    parts = (
        f"coalesce('v' || length({quote(c)}::VARCHAR) || ':' || {quote(c)}::VARCHAR, 'n')"
        for c in columns
    )
    return f"substr(sha256({' || '.join(parts)}), 1, 32)"


def query_of(question: Question, repeated: bool = False) -> str:
    """Return the SQL that answers a question about one database."""
    value, where = question.value, question.where
    if question.kind == "count":
        return f"SELECT count(*) FROM {question.relation} WHERE {where}"
    order = "DESC" if question.descending else "ASC"
    found = f"SELECT {value} AS value FROM {question.relation} WHERE ({where})"
    if not repeated:
        return (
            f"{found} AND {value} IS NOT NULL ORDER BY value {order} LIMIT 1 "
            f"OFFSET {question.place}"
        )
    # What has no value is counted with the rest and left out then: each row is asked once.
    return (
        f"SELECT value FROM (SELECT value, sum(n) OVER (ORDER BY value {order}) AS reached FROM "
        f"(SELECT value, count(*) AS n FROM ({found}) GROUP BY ALL) WHERE value IS NOT NULL) "
        f"WHERE reached > {question.place} ORDER BY value {order} LIMIT 1"
    )


def share_of(pool: Pool, question: Question, bounds: Bounds, most: int) -> Any:
    """Return a partition's share of an answer; of an order, at most ``most`` steps."""
    if question.kind == "features":
        return features_of(pool, question.value)
    if question.kind == "count":
        return pool.scalar(query_of(question))

    def grouped(where: str) -> str:
        return (
            f"SELECT value, count(*) AS n FROM (SELECT {question.value} AS value FROM "
            f"{question.relation} WHERE {question.where}) WHERE {where} GROUP BY value"
        )

    below = 0
    if bounds.low is not None:
        under = f"value IS NOT NULL AND value <= {sql_value(bounds.low)}"
        below = pool.scalar(f"SELECT coalesce(sum(n), 0)::BIGINT FROM ({grouped(under)})")
    rows = pool.sql(
        "SELECT max(value), max(reached)::BIGINT, any_value(groups) FROM "
        "(SELECT value, sum(n) OVER (ORDER BY value) AS reached, "
        "row_number() OVER (ORDER BY value) AS place, count(*) OVER () AS groups FROM "
        f"({grouped(bounds.sql('value'))})) "
        f"GROUP BY CASE WHEN groups <= {most} THEN place ELSE (place - 1) * {most} // groups END "
        "ORDER BY 2"
    ).fetchall()
    every = not rows or rows[0][2] <= most
    return Steps(below, [(value, reached) for value, reached, _ in rows], every)


def features_of(pool: Pool, name: str) -> tuple[int, str] | str:
    """Return dimension and dtype of a partition's features, or why it has none."""
    try:
        found = Features(pool, name)
    except (DataError, MissingError) as error:
        return str(error)
    return found.dimension, str(found.dtype)


def sql_value(value: Any) -> str:
    """Write a value for SQL so that it reads back exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UsageError(f"{value!r} is not a number or a text, which is what an order is made of")
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, float):
        return f"'{value!r}'::DOUBLE"
    return f"'{value}'::{'HUGEINT' if value < 0 else 'UHUGEINT'}"
