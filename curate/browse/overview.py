"""What a pool looks like as a whole, in a second: exact counts, distributions of a share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from ...errors import DataError
from ...pools.pool import Pool
from ..report.distributions import columns_for, distributions
from ..report.figures import Figure
from ..report.markup import escape
from ..report.matching import a_share_of, matching, scores_of
from ..report.outliers import Extreme, extremes, repeated_captions

CARD = 'uid, text, width, height, shard, source, "offset", length, sha256'
"""The columns that a card of a sample, and its image, are made of."""


@dataclass(frozen=True)
class Drawing:
    """What takes longest of an overview: figures and ends of ``drawn_of`` samples.

    ``places`` are those of the samples at the ends, in a pool that holds its samples.
    """

    drawn_of: int
    figures: list[Figure]
    ends: list[Extreme]
    places: list[int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        figures = [[type(figure).__name__, asdict(figure)] for figure in self.figures]
        ends = [asdict(end) for end in self.ends]
        return {**asdict(self), "figures": figures, "ends": ends}

    @classmethod
    def from_dict(cls, found: Any) -> Drawing:
        """Take back what ``to_dict`` gave. Raises DataError for anything else."""
        kinds = {kind.__name__: kind for kind in get_args(Figure)}
        try:
            figures = [kinds[name](**fields) for name, fields in found["figures"]]
            ends = [Extreme(**fields) for fields in found["ends"]]
            drawing = cls(int(found["drawn_of"]), figures, ends, list(map(int, found["places"])))
            for figure in figures:
                figure.drawn()
            [[int(uid, 16), escape(value)] for end in ends
             for uid, value in zip(end.uids, end.values, strict=True)]  # fmt: skip
        except (TypeError, KeyError, ValueError, IndexError, AttributeError, ArithmeticError):
            raise DataError("not what an overview is drawn of") from None
        return drawing


@dataclass(frozen=True)
class Overview:
    """Counts of the whole pool, and the drawing of a share of it, picked by uids.

    ``rows`` are the samples at the ends, by hex uid.
    """

    samples: int
    at_hand: int
    sources: list[dict[str, Any]]
    set_aside: list[dict[str, Any]]
    drawing: Drawing
    rows: dict[str, dict[str, Any]]


def draw(pool: Pool, picked: str | None = None) -> Drawing:
    """Draw a pool; ``picked`` is a table of what ``a_share_of`` picks, if there is one."""
    with _picked(pool, pool.count(), picked) as (relation, scores):
        drawn_of = pool.scalar(f"SELECT count(*) FROM {relation}")
        figures = list(distributions(pool, relation, scores)) if drawn_of else []
        repeated = repeated_captions(pool, relation)
        ends = extremes(pool, relation, scores)
    places: list[int] = []
    if not pool.linked:
        places = places_of(pool, [uid for end in ends for uid in end.uids])
    return Drawing(drawn_of, [*figures, *([repeated] if repeated else [])], ends, places)


def overview_of(pool: Pool, drawing: Drawing | None = None) -> Overview:
    """Look at a pool as a whole; ``drawing`` is one that was made of it before, if there is."""
    drawing = drawing or draw(pool)
    if pool.linked:
        shown = rows_of(pool, (uid for end in drawing.ends for uid in end.uids))
    else:
        shown = by_uid(rows_at(pool, drawing.places, CARD))
    info = (
        "SELECT id, kind, path, samples, duplicates, set_aside FROM sources ORDER BY id",
        "SELECT source, reason, count(*) AS count, min(item) AS example FROM set_aside "
        "GROUP BY ALL ORDER BY source, count DESC, reason LIMIT 100",
    )
    sources, aside = (rows(pool, query) for query in info)
    at_hand = pool.scalar("SELECT count(shard) FROM samples")
    return Overview(pool.count(), at_hand, sources, aside, drawing, shown)


def _picked(
    pool: Pool, samples: int, picked: str | None
) -> contextlib.AbstractContextManager[tuple[str, list[tuple[str, str]]]]:
    if picked is None:
        return matching(pool, a_share_of(samples), columns_for(pool))
    return contextlib.nullcontext((picked, [(name, kind) for name, _, kind in scores_of(pool)]))


def rows_of(pool: Pool, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what a card shows of some samples, by hex uid."""
    wanted = list(dict.fromkeys(uids))
    if not wanted:
        return {}
    if pool.linked:
        return by_uid(rows(pool, f"SELECT {CARD} FROM samples WHERE {_among(wanted)}"))
    # uids are quick to look through, and rows to fetch; captions are not
    return by_uid(rows_at(pool, places_of(pool, wanted), CARD))


def places_of(pool: Pool, uids: Sequence[str]) -> list[int]:
    """Return where samples of a pool that holds them stand (``rowid``), by their hex uids."""
    if not uids:
        return []
    found = pool.sql(f"SELECT rowid FROM samples WHERE {_among(uids)} ORDER BY rowid").fetchall()
    return [row[0] for row in found]


def by_uid(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows by their uids in hex."""
    return {f"{row['uid']:032x}": row for row in rows}


def _among(uids: Sequence[str]) -> str:
    wanted = ", ".join(f"{int(uid, 16)}::UHUGEINT" for uid in dict.fromkeys(uids))
    return f"uid IN (SELECT unnest([{wanted}]))"


def rows_at(pool: Pool, places: Sequence[int], columns: str) -> list[dict[str, Any]]:
    """Return some samples of a pool that holds them by their places there (``rowid``)."""
    if not places:
        return []
    # A list of numbers in the condition itself would be compared with every row.
    return rows(
        pool,
        f"SELECT {columns} FROM samples "
        f"WHERE rowid IN (SELECT unnest({list(places)}::BIGINT[]))",
    )  # fmt: skip


def rows(pool: Pool, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query by their columns' names."""
    cursor = pool.sql(query)
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
