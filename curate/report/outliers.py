"""Samples at the ends of every distribution, and captions that many samples share."""

from __future__ import annotations

from dataclasses import dataclass

from ...pools.pool import Pool, quote
from .distributions import score_columns
from .figures import Repeated
from .markup import decimal, shorten

SHOWN = 8
"""How many samples are shown of each end."""
REPEATED = 12


@dataclass(frozen=True)
class Extreme:
    """One end of a measure: what it is, and the hex uids there with their values, utmost first."""

    title: str
    uids: list[str]
    values: list[str]


_ENDS = (
    ("the widest for their height", "width::DOUBLE / nullif(height, 0)", "DESC", 3),
    ("the tallest for their width", "width::DOUBLE / nullif(height, 0)", "ASC", 3),
    ("the fewest pixels", "width::BIGINT * height", "ASC", 0),
    ("the most pixels", "width::BIGINT * height", "DESC", 0),
    ("the longest captions, in characters", "length(text)", "DESC", 0),
)


def extremes(
    pool: Pool, relation: str, scores: list[tuple[str, str]], shown: int = SHOWN
) -> list[Extreme]:
    """Return the ends of every measure of ``relation`` that can be told apart from the rest."""
    ends = list(_ENDS)
    numeric = [n for n, kind in scores if kind.upper() in ("FLOAT", "DOUBLE")]
    for name in [*score_columns(pool.columns()), *numeric]:
        ends.append((f"the lowest {name}", quote(name), "ASC", 3))
        ends.append((f"the highest {name}", quote(name), "DESC", 3))
    found = []
    for title, expression, way, places in ends:
        value = f"({expression})::DOUBLE"
        low, high = pool.sql(
            f"SELECT min({value}), max({value}) FROM {relation} WHERE isfinite({value})"
        ).fetchall()[0]
        if low is None or low == high:
            continue
        rows = pool.sql(
            f"SELECT printf('%032x', uid), {value} AS v FROM {relation} WHERE isfinite(v) "
            f"ORDER BY v {way}, uid LIMIT {shown}"
        ).fetchall()
        values = [f"{v:,.0f}" if not places else decimal(v, places) for _, v in rows]
        found.append(Extreme(title, [uid for uid, _ in rows], values))
    return found


def repeated_captions(pool: Pool, relation: str) -> Repeated | None:
    """Return the captions that most samples share: boilerplate, as a rule."""
    rows = pool.sql(
        f"SELECT text, count(*) AS n FROM {relation} WHERE text <> '' GROUP BY text "
        f"HAVING n > 1 ORDER BY n DESC, text LIMIT {REPEATED}"
    ).fetchall()
    if not rows:
        return None
    return Repeated([shorten(text, 120) for text, _ in rows], [count for _, count in rows])
