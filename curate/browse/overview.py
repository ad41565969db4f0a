"""What a pool looks like as a whole, in a second: exact counts, distributions of a share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...pools.linking import is_linked
from ...pools.pool import Pool
from ..report.distributions import columns_for, distributions
from ..report.markup import Html
from ..report.matching import matching, scores_of
from ..report.outliers import Extreme, extremes, repeated_captions

CARD = 'uid, text, width, height, shard, source, "offset", length, sha256'
"""The columns that a card of a sample, and its image, are made of."""

DRAWN_OF = 50_000
"""About how many samples distributions are drawn of; a pool of up to twice as many is all used."""


@dataclass(frozen=True)
class Overview:
    """Counts of the whole pool; charts and ends of ``drawn_of`` samples picked by their uids.

    ``rows`` are the samples at the ends, by hex uid.
    """

    samples: int
    at_hand: int
    sources: list[dict[str, Any]]
    set_aside: list[dict[str, Any]]
    drawn_of: int
    charts: list[Html]
    ends: list[Extreme]
    rows: dict[str, dict[str, Any]]


def drawn(samples: int, uid: str = "uid") -> str:
    """Return SQL that picks what a pool of so many samples is drawn of.

    Uids are digests, so that those that end alike are a fair share of all.
    """
    mask = (1 << max(0, (samples // DRAWN_OF).bit_length() - 1)) - 1
    return "true" if not mask else f"({uid} & {mask}::UHUGEINT) = 0"


def overview_of(pool: Pool, picked: str | None = None) -> Overview:
    """Draw a pool; ``picked`` is a table of the samples that ``drawn`` picks, if there is one."""
    samples = pool.count()
    with _picked(pool, samples, picked) as (relation, scores):
        drawn_of = pool.scalar(f"SELECT count(*) FROM {relation}")
        charts = list(distributions(pool, relation, scores)) if drawn_of else []
        repeated = repeated_captions(pool, relation)
        ends = extremes(pool, relation, scores)
    shown = rows_of(pool, (uid for end in ends for uid in end.uids))
    info = (
        "SELECT id, kind, path, samples, duplicates, set_aside FROM sources ORDER BY id",
        "SELECT source, reason, count(*) AS count, min(item) AS example FROM set_aside "
        "GROUP BY ALL ORDER BY source, count DESC, reason LIMIT 100",
    )
    sources, aside = (rows(pool, query) for query in info)
    at_hand = pool.scalar("SELECT count(shard) FROM samples")
    return Overview(samples, at_hand, sources, aside, drawn_of,
                    [*charts, *([repeated] if repeated else [])], ends, shown)  # fmt: skip


def _picked(
    pool: Pool, samples: int, picked: str | None
) -> contextlib.AbstractContextManager[tuple[str, list[tuple[str, str]]]]:
    if picked is None:
        return matching(pool, drawn(samples), columns_for(pool))
    return contextlib.nullcontext((picked, [(name, kind) for name, _, kind in scores_of(pool)]))


def rows_of(pool: Pool, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what a card shows of some samples, by hex uid."""
    wanted = ", ".join(f"{int(uid, 16)}::UHUGEINT" for uid in dict.fromkeys(uids))
    if not wanted:
        return {}
    query = f"SELECT {{}} FROM samples WHERE uid IN (SELECT unnest([{wanted}]))"
    if is_linked(pool.connection):
        found = rows(pool, query.format(CARD))
    else:  # uids are quick to look through, and rows to fetch; captions are not
        places = [row[0] for row in pool.sql(query.format("rowid")).fetchall()]
        found = rows_at(pool, places, CARD)
    return {f"{row['uid']:032x}": row for row in found}


def rows_at(pool: Pool, places: Sequence[int], columns: str) -> list[dict[str, Any]]:
    """Return some samples of a pool that holds them by their places there (``rowid``)."""
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
