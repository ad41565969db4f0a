"""Compare two subsets of a pool: what they share, and what each loses to the other and why.

Why a sample is not in a subset stands in the subset's list of reasons, ``NAME.reasons.parquet``
beside ``NAME.npy``, which a study writes for each dataset and ``filter run --reasons`` on demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..pools.connection import connect
from ..pools.merging import walk
from ..pools.pool import Pool, literal, pool_errors, quote
from ..pools.schema import TRUTH
from ..pools.subset_files import SubsetFile
from ..pools.uids import UID_DTYPE, UidArray, joined_uids
from ..progress import warn
from .subset import read_sidecar, tally

UID = "(high::UHUGEINT << 64) + low::UHUGEINT"
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE")
_PLACES = ("source", "offset", "length", "metadata_row")


@dataclass(frozen=True)
class Loss:
    """What one subset has and the other (``loser``) has not: distinct uids (n,), sorted.

    ``reasons`` says why, as (filter, reason, how many), most first; it is empty where the
    loser has no list of reasons. ``file`` is that list.
    """

    keeper: str
    loser: str
    uids: UidArray
    reasons: tuple[tuple[str, str, int], ...]
    file: Path | None


@dataclass(frozen=True)
class Mean:
    """The mean of a number over some samples, None where there is no mean; NaN is no number.

    ``without`` is how many samples have no number.
    """

    value: float | None
    without: int

    def __str__(self) -> str:
        """Write it for tables."""
        text = "-" if self.value is None else f"{self.value:,.4g}"
        return f"{text} ({self.without:,} without)" if self.without else text


@dataclass(frozen=True)
class Comparison:
    """Two subsets side by side; counts are of distinct uids."""

    a: str
    b: str
    count_a: int
    count_b: int
    both: int
    losses: tuple[Loss, Loss]
    means: tuple[tuple[str, Mean, Mean], ...] = ()
    """Of each number that the pool knows: name, mean over only A, mean over only B."""

    @property
    def overlap(self) -> float:
        """Jaccard's index: the shared part of all that either has."""
        either = self.count_a + self.count_b - self.both
        return self.both / either if either else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "a": self.a, "b": self.b, "in_a": self.count_a, "in_b": self.count_b,
            "both": self.both, "overlap": self.overlap,
            **{
                f"only_{side}": {
                    "count": len(loss.uids),
                    "dropped_by_the_other": [
                        {"filter": step, "reason": reason, "count": count}
                        for step, reason, count in loss.reasons
                    ],
                }
                for side, loss in zip("ab", self.losses, strict=True)
            },
            "means": [
                {"column": name, "only_a": one.value, "only_b": other.value,
                 "without_a": one.without, "without_b": other.without}
                for name, one, other in self.means
            ],
        }  # fmt: skip


def compare_subsets(a: Path, b: Path, pool: Pool | None = None) -> Comparison:
    """Compare two subset files; a pool adds the means of its numbers over what only one has."""
    names = (a.stem, b.stem) if a.stem != b.stem else (str(a), str(b))
    files = [SubsetFile.of(path) for path in (a, b)]
    for file in files:
        file.verify()
    count_a = count_b = both = 0
    only_a, only_b = ([np.empty(0, UID_DTYPE)] for _ in range(2))
    for first, second in walk(files):
        uids, in_a, in_b = tally(first, second)
        count_a, count_b = count_a + len(first[0]), count_b + len(second[0])
        both += int(np.count_nonzero((in_a > 0) & (in_b > 0)))
        only_a.append(uids[in_b == 0])
        only_b.append(uids[in_a == 0])
    losses = (
        _loss(names[0], names[1], joined_uids(only_a), b),
        _loss(names[1], names[0], joined_uids(only_b), a),
    )
    means = () if pool is None else tuple(_means(pool, losses))
    return Comparison(*names, count_a, count_b, both, losses, means)


def _loss(keeper: str, loser: str, uids: UidArray, path: Path) -> Loss:
    file = path.with_suffix(".reasons.parquet")
    if not file.is_file():
        return Loss(keeper, loser, uids, (), None)
    funnel = (read_sidecar(path) or {}).get("funnel")
    with connect(None) as connection:
        connection.register("lost", halves(uids))
        try:
            with pool_errors(file):
                if not _is_of(connection, file, funnel):
                    warn(
                        f"{file}: left out, for it is of another run than {path.name}; make both "
                        "by one 'datacomp filter run' with --reasons"
                    )
                    return Loss(keeper, loser, uids, (), None)
                rows = connection.execute(
                    "SELECT r.filter, r.reason, count(*) AS n FROM lost JOIN "
                    f"read_parquet({literal(str(file))}) r "
                    "ON r.uid = printf('%016x%016x', high, low) "
                    "GROUP BY ALL ORDER BY n DESC, r.filter, r.reason"
                ).fetchall()
        except DataError as error:
            raise DataError(f"{file}: not a list of reasons: {error}") from None
    return Loss(keeper, loser, uids, tuple((str(f), str(r), n) for f, r, n in rows), file)


def _is_of(connection: duckdb.DuckDBPyConnection, file: Path, funnel: Any) -> bool:
    """Tell whether a list of reasons has as many of each as a subset's funnel, if it has one."""
    if not isinstance(funnel, list):
        return True
    dropped: Counter[str] = Counter()
    try:
        for step in funnel:
            dropped.update(step["reasons"])
    except (TypeError, KeyError, ValueError):
        return False
    query = f"SELECT reason, count(*) FROM read_parquet({literal(str(file))}) GROUP BY reason"
    return dict(connection.execute(query).fetchall()) == dict(dropped)


def halves(uids: UidArray) -> pa.Table:
    """Return uids as an Arrow table of their halves."""
    return pa.table({
        "high": pa.array(np.ascontiguousarray(uids["f0"])),
        "low": pa.array(np.ascontiguousarray(uids["f1"])),
    })  # fmt: skip


def _means(pool: Pool, losses: tuple[Loss, Loss]) -> Iterator[tuple[str, Mean, Mean]]:
    """Yield the means of the pool's numbers, and of how many words captions have."""
    numbers = {
        name: f"s.{quote(name)}"
        for name, kind in pool.columns().items()
        if kind in _NUMBERS and name not in (*_PLACES, TRUTH)
    }
    numbers["words of the caption"] = "len(string_split(trim(s.text), ' '))"
    asked = ", ".join(
        f"avg({value}) FILTER (isfinite(({value})::DOUBLE)), "
        f"count(*) - count(*) FILTER (isfinite(({value})::DOUBLE))"
        for value in numbers.values()
    )
    found = []
    with registered(pool, losses):
        for side in range(2):
            rows = pool.sql(
                f"SELECT {asked} FROM samples s "
                f"SEMI JOIN (SELECT {UID} AS uid FROM lost_{side}) USING (uid)"
            ).fetchall()
            found.append([Mean(*pair) for pair in zip(rows[0][::2], rows[0][1::2], strict=True)])
    for name, one, other in zip(numbers, *found, strict=True):
        if one.value is not None or other.value is not None:
            yield name, one, other


@contextmanager
def registered(pool: Pool, losses: tuple[Loss, Loss]) -> Iterator[None]:
    """Let a pool's SQL see what each side has alone, as ``lost_0`` and ``lost_1``."""
    with ExitStack() as seen:
        for side, loss in enumerate(losses):
            seen.enter_context(pool.registered(f"lost_{side}", halves(loss.uids)))
        yield
