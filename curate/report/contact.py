"""The contact sheet of a pool: thumbnails to look at, and how the samples are distributed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from ...durable import write_text
from ...errors import UsageError
from ...pools.pool import Pool, pool_errors, quote
from ...pools.schema import TRUTH
from .charts import Part, bar, histogram
from .markup import Html, decimal, document, el, join, percent, shorten
from .sheets import gallery, order_by_hash, thumbnails

LIMIT = 10_000
"""Most thumbnails on one sheet: about 30 MB of page."""

_USERS_FAULT = (
    duckdb.ProgrammingError,
    duckdb.DataError,
    duckdb.NotSupportedError,
    duckdb.PermissionException,
)

_BINS = 24
_NAMES = 8
_NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL", "REAL")


@dataclass(frozen=True)
class _Measure:
    """A number per sample whose distribution is drawn; ``log`` spaces the bins by ratio."""

    title: str
    expression: str
    integer: bool = False
    log: bool = False


def write_contact_sheet(
    pool: Pool,
    path: Path,
    where: str = "true",
    limit: int = 200,
    seed: int = 0,
    *,
    title: str | None = None,
) -> int:
    """Write a page of thumbnails of the samples for which ``where`` holds; return how many.

    ``where`` is SQL over the columns of ``samples`` and the pool's scores, by name (a name that
    several scores share is ``name:`` and the first 8 digits of the digest). At most ``limit``
    samples are shown, picked by the seed; the distributions are of all that match. Same pool
    and arguments, same bytes. Raises UsageError for SQL that cannot be used, and for a pool
    that is not ``confined``: the SQL may be a stranger's.
    """
    if not pool.confined:
        raise UsageError(f"{pool.path}: open the pool with confined=True to show it")
    if not 1 <= limit <= LIMIT:
        raise UsageError(f"limit is {limit}; a contact sheet shows 1 to {LIMIT:,} samples")
    if not where.strip():
        raise UsageError("where is empty; 'true' matches every sample")
    with _matching(pool, where) as (relation, scores):
        total = pool.scalar(f"SELECT count(*) FROM {relation}")
        rows = pool.sql(
            f"SELECT hex FROM (SELECT printf('%032x', uid) AS hex FROM {relation}) "
            f"ORDER BY {order_by_hash('hex', seed)} LIMIT {limit}"
        ).fetchall()
        charts = list(_distributions(pool, relation, scores)) if total else []
    uids = [row[0] for row in rows]
    shown = thumbnails(pool, uids)
    heading = title or f"{pool.path.name}: contact sheet"
    body = join(
        _head(pool, heading, where, total, len(uids)),
        el(
            "main",
            _section("distributions", "Distributions", el("div", charts, class_="grid"))
            if charts
            else None,
            _section(
                "samples",
                "Samples",
                gallery([shown[uid] for uid in uids], detailed=True)
                if uids
                else el("p", "No sample matches.", class_="note"),
            ),
        ),
    )
    write_text(path, document(heading, body))
    return len(uids)


def _section(key: str, title: str, content: Html) -> Html:
    return el(
        "section", el("h2", title, id=f"{key}-title"), content,
        id=key, aria_labelledby=f"{key}-title",
    )  # fmt: skip


def _head(pool: Pool, heading: str, where: str, total: int, shown: int) -> Html:
    count = pool.count()
    condition = None if where.strip() == "true" else join(" where ", el("code", where))
    share = percent(total / count) if count else "none"
    text = join(f"{total:,} of {count:,} samples ({share})", condition, f"; {shown:,} shown.")
    return el(
        "header",
        el("p", "datacomp pool", class_="eyebrow"),
        el("h1", heading),
        el("p", text, class_="verdict"),
        class_="contact",
    )


# -- what matches ----------------------------------------------------------------------------


@contextlib.contextmanager
def _matching(pool: Pool, where: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield a table of the matching samples with their scores, and the scores' names and types."""
    joins, names, scores = [], [], []
    for number, (name, table, kind) in enumerate(_scores(pool)):
        joins.append(f"LEFT JOIN {quote(table)} t{number} ON t{number}.uid = s.uid")
        names.append(f", t{number}.value AS {quote(name)}")
        scores.append((name, kind))
    needed = ["uid", "text", "width", "height", *([TRUTH] if TRUTH in pool.columns() else [])]
    wanted = ", ".join(quote(name) for name in [*needed, *(name for name, _ in scores)])
    query = (
        f"SELECT {wanted} FROM (SELECT s.*{''.join(names)} FROM samples s {' '.join(joins)}) "
        # A line of its own, so that a comment at the end of the condition ends there too.
        f"AS samples WHERE (\n{where}\n)"
    )
    with pool_errors(pool.path), _user_errors(where):
        statements = pool.connection.extract_statements(query)
        if len(statements) != 1:
            raise UsageError(f"where: expected one SQL condition, found {shorten(where, 80)!r}")
        pool.connection.execute(f"CREATE OR REPLACE TEMP TABLE report_matching AS {query}")
    try:
        yield "report_matching", scores
    finally:
        pool.sql("DROP TABLE IF EXISTS report_matching")


def _scores(pool: Pool) -> list[tuple[str, str, str]]:
    """Return (column name, table, DuckDB type) of every score of the pool."""
    rows = pool.sql(
        "SELECT name, digest, values_table, json_extract_string(parameters, '$.type') FROM scores "
        "ORDER BY name, digest"
    ).fetchall()
    taken = {name.casefold() for name in pool.columns()}
    found = []
    for name, members in itertools.groupby(rows, key=lambda row: row[0]):
        versions = list(members)
        for _, digest, table, kind in versions:
            alone = len(versions) == 1 and name.casefold() not in taken
            found.append((name if alone else f"{name}:{digest[:8]}", table, kind or ""))
    return found


@contextlib.contextmanager
def _user_errors(where: str) -> Iterator[None]:
    """Blame the user's SQL for what DuckDB says, in one line."""
    try:
        yield
    except _USERS_FAULT as error:
        said = " ".join(str(error).split("\n\nLINE")[0].split())
        raise UsageError(f"where {shorten(where, 80)!r}: {said}") from error


# -- distributions ---------------------------------------------------------------------------


def _distributions(pool: Pool, relation: str, scores: list[tuple[str, str]]) -> Iterator[Html]:
    measures = [
        _Measure("width, px", "width", integer=True),
        _Measure("height, px", "height", integer=True),
        _Measure("aspect, width over height", "width::DOUBLE / nullif(height, 0)", log=True),
        _Measure("caption, words", "len(regexp_extract_all(text, '\\S+'))", integer=True),
    ]
    names = [TRUTH] if TRUTH in pool.columns() else []
    for name, kind in scores:
        if any(word in kind.upper() for word in _NUMBERS):
            measures.append(_Measure(name, quote(name), integer="INT" in kind.upper()))
        else:
            names.append(name)
    for measure in measures:
        chart = _histogram(pool, relation, measure)
        if chart is not None:
            yield chart
    for name in names:
        yield _shares(pool, relation, name)


def _histogram(pool: Pool, relation: str, measure: _Measure) -> Html | None:
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
    return el(
        "figure",
        el("figcaption", el("strong", measure.title), " ", el("small", facts)),
        histogram(edges, counts, f"Histogram of {measure.title}: {facts}", measure.integer),
        class_="chart",
    )


def _edges(low: float, high: float, integer: bool) -> list[float]:
    """Return bin edges, evenly spaced; whole numbers get bins of whole numbers."""
    if integer:
        step = max(1, -(-(int(high) - int(low) + 1) // _BINS))
        bins = -(-(int(high) - int(low) + 1) // step)
        return [float(int(low) + step * number) for number in range(bins + 1)]
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return [low + (high - low) * number / _BINS for number in range(_BINS + 1)]


def _shares(pool: Pool, relation: str, name: str) -> Html:
    """Draw how often each value of a text column occurs."""
    rows: list[tuple[Any, int]] = pool.sql(
        f"SELECT {quote(name)}::VARCHAR, count(*) AS n FROM {relation} GROUP BY 1 "
        "ORDER BY n DESC, 1 NULLS LAST"
    ).fetchall()
    total = sum(count for _, count in rows)
    shown = [("not known" if name is None else str(name), count) for name, count in rows[:_NAMES]]
    rest = total - sum(count for _, count in shown)
    if rest:
        shown.append((f"{len(rows) - _NAMES:,} others", rest))
    lines = [
        el(
            "li",
            el("div", el("span", shorten(value, 60), class_="name", dir="auto"),
               el("span", f"{count:,} ", el("small", percent(count / total)), class_="count"),
               class_="row"),
            bar([Part(count, value, "stay")], shown[0][1], f"{value}: {count:,}"),
        )
        for value, count in shown
    ]  # fmt: skip
    return el(
        "figure",
        el("figcaption", el("strong", name)),
        el("ul", lines, class_="stacks tight"),
        class_="chart",
    )
