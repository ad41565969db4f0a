"""Find samples by words of their captions, by a condition, in an order: a page at a time.

In the order in which a pool holds its samples, a page begins where the last one ended, and looks
through as many samples as it can in the time it has: among 12.8 million a rare word takes some
pages, a common one milliseconds. In any other order all samples are looked at. With an index (see
``index.py``) every search looks at all that is needed, in a fraction of a second.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from ...errors import UsageError
from ...pools.columns import literal, quote
from ...pools.connection import one_line
from ...pools.interrupts import interruptible
from ...pools.pool import Pool
from ..report.matching import scores_of
from .index import INDEX
from .overview import rows_at

PAGE = 48
BUDGET = 0.6
"""Seconds after which a page in the order of the pool is given out as it is."""
DEEPEST = 10_000
"""How many samples can be turned over in another order."""
MAX_TERMS = 16
MAX_TERM = 200
MAX_QUESTION = 10_000

_STRING = re.compile(r"'(?:[^']|'')*'")
_FIRST_WINDOW = 1 << 18
_LARGEST_WINDOW = 1 << 21
_PLACE = '_row, uid, text, width, height, url, source, shard, "offset", length, sha256'


@dataclass(frozen=True)
class Asked:
    """What to look for: words (a phrase in double quotes), an SQL condition, and an order.

    ``order`` is empty for that of the pool, ``random``, or a column, with ``-`` before it for
    the largest first. ``after`` is where the page begins, ``seed`` picks the random order.
    """

    words: str = ""
    where: str = ""
    order: str = ""
    after: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """A page of samples as rows of ``Row``; ``after`` is where the next one begins, if any.

    ``looked`` is the number of samples looked at, of ``total``.
    """

    rows: list[dict[str, Any]]
    after: int | None
    looked: int
    total: int


def search(pool: Pool, asked: Asked, page: int = PAGE, *, indexed: bool = False) -> Found:
    """Return a page of the samples that match. Raises UsageError for what cannot be asked.

    ``indexed`` says that the pool's index lies beside it.
    """
    condition = condition_of(asked)
    if indexed:
        found = _by_index(pool, asked, page)
        if found is not None:
            return found
    linked = pool.linked
    relation = _relation(pool, asked, linked)
    total = pool.count()
    if asked.order or linked:
        order = _order(pool, asked, "uid" if linked else "_row")
        _check_depth(asked)
        rows = _rows(pool, f"SELECT {_PLACE} FROM {relation} WHERE {condition} "
                                  f"AND {_share(asked, total, page)} {order} "
                                  f"LIMIT {page + 1} OFFSET {asked.after}")  # fmt: skip
        more = asked.after + page if len(rows) > page and asked.after + page <= DEEPEST else None
        return Found(rows[:page], more, total, total)
    return _in_order(pool, asked, relation, condition, total, page)


def count(pool: Pool, asked: Asked, *, indexed: bool = False) -> int:
    """Return how many samples match."""
    if indexed:
        rows = _first_bound(
            pool,
            [f"SELECT count(*) AS n FROM {relation} WHERE {condition}"
             for relation, condition, _ in _indexed(pool, asked)],
        )  # fmt: skip
        if rows is not None:
            return rows[0]["n"]
    relation = _relation(pool, asked, pool.linked)
    query = f"SELECT count(*) AS n FROM {relation} WHERE {condition_of(asked)}"
    return _rows(pool, query)[0]["n"]


def condition_of(asked: Asked) -> str:
    """Return the SQL of what matches."""
    if len(asked.words) + len(asked.where) > MAX_QUESTION:
        raise UsageError(f"a question of more than {MAX_QUESTION:,} characters")
    parts = [_holds(term) for term in terms_of(asked.words)]
    if asked.where.strip():
        # A line of its own, so that a comment at the end of the condition ends there too.
        parts.append(f"(\n{asked.where}\n)")
    return " AND ".join(parts) or "true"


def terms_of(words: str) -> list[str]:
    """Split words at white space, but for what stands in double quotes; each must be there."""
    terms = []
    for number, piece in enumerate(words.split('"')):
        terms += [piece.strip()] if number % 2 else piece.split()
    terms = [term for term in dict.fromkeys(terms) if term]
    if any(len(term) > MAX_TERM or "\0" in term for term in terms):
        raise UsageError(f"a word of more than {MAX_TERM} characters, or of what no caption has")
    if len(terms) > MAX_TERMS:
        raise UsageError(f"{len(terms)} words; at most {MAX_TERMS} can be searched for at once")
    # The longest first: it rules out most.
    return sorted(terms, key=len, reverse=True)


def _holds(term: str) -> str:
    if term.lower() == term.upper():  # no letters with two cases: nothing to fold
        return f"contains(text, {literal(term)})"
    # Less than half of what lower() costs where captions are not ASCII, hardly more where they are.
    return f"regexp_matches(text, {literal('(?i)' + re.escape(term))})"


def _relation(pool: Pool, asked: Asked, linked: bool) -> str:
    """Return the samples with their place, and with the scores that are asked for."""
    joins, names = [], []
    wanted = f"{asked.where} {asked.order}".casefold()
    for number, (name, table, _) in enumerate(scores_of(pool)):
        if name.casefold() in wanted:
            joins.append(f"LEFT JOIN {quote(table)} t{number} ON t{number}.uid = s.uid")
            names.append(f", t{number}.value AS {quote(name)}")
    row = "0" if linked else "s.rowid"
    return (
        f"(SELECT s.*{''.join(names)}, {row} AS _row FROM samples s {' '.join(joins)}) AS samples"
    )


def _check_depth(asked: Asked) -> None:
    if not 0 <= asked.after <= DEEPEST:
        raise UsageError(f"only the first {DEEPEST:,} samples of an order can be shown")


def _order(pool: Pool, asked: Asked, last: str, length: str = "strlen(text)") -> str:
    """Return the ORDER BY; ``last`` decides among equals, ``length`` is that of a caption."""
    if not asked.order:
        return ""
    if asked.order == "random":
        return f"ORDER BY {_stirred(asked.seed)}, uid"
    name = asked.order.removeprefix("-")
    if name == "caption":
        key = length
    elif name == "aspect":
        key = "width::DOUBLE / nullif(height, 0)"
    elif name in pool.columns() or name in {score for score, _, _ in scores_of(pool)}:
        key = quote(name)
    else:
        raise UsageError(f"no column {name!r} to order by")
    way = "DESC" if asked.order.startswith("-") else "ASC"
    return f"ORDER BY {key} {way} NULLS LAST, {last}"


def _stirred(seed: int) -> str:
    """Return SQL for digits of the uid, stirred: a hash of every uid would take seconds."""
    odd = (seed * 2 + 1) * 2_654_435_761 % (1 << 31) | 1
    return f"((uid & 4294967295::UHUGEINT)::UBIGINT * {odd}) % 4294967291"


def _share(asked: Asked, total: int, page: int) -> str:
    """Return a condition that is quick to test and leaves enough for pages of a random order.

    Uids are digests, so that those that end alike are a fair share of all.
    """
    bits = (total // (page * 40)).bit_length() - 1
    if asked.order != "random" or asked.words.strip() or asked.where.strip() or bits < 1:
        return "true"
    mask = (1 << bits) - 1
    return f"(uid & {mask}::UHUGEINT) = {asked.seed & mask}"


def _in_order(
    pool: Pool, asked: Asked, relation: str, condition: str, total: int, page: int
) -> Found:
    (end,) = pool.sql("SELECT coalesce(max(rowid) + 1, 0) FROM samples").fetchall()[0]
    start, window = max(asked.after, 0), _FIRST_WINDOW
    stop = time.monotonic() + BUDGET
    rows: list[dict[str, Any]] = []
    at = start
    while at < end and len(rows) <= page:
        until = min(at + window, end)
        rows += _rows(
            pool, f"SELECT {_PLACE} FROM {relation} WHERE _row >= {at} AND _row < {until} "
            f"AND {condition} ORDER BY _row LIMIT {page + 1 - len(rows)}",
        )  # fmt: skip
        at, window = until, min(window * 2, _LARGEST_WINDOW)
        if time.monotonic() > stop:
            break
    if len(rows) > page:
        rows = rows[:page]
        at = rows[-1]["_row"] + 1
    return Found(rows, at if at < end else None, at, max(total, end))


# -- by the index ----------------------------------------------------------------------------


def _indexed(pool: Pool, asked: Asked) -> Iterator[tuple[str, str, str]]:
    """Yield relation, condition and order of what to ask, the quickest first.

    The index itself answers, unless the condition or the order names what it does not have;
    then it says only which captions have the words.
    """
    words = [f"contains(_folded, lower({literal(term)}))" for term in terms_of(asked.words)]
    holds = " AND ".join(words) or "true"
    where = f"(\n{asked.where}\n)" if asked.where.strip() else "true"
    folded = f"(\n{_folded(asked.where)}\n)" if asked.where.strip() else "true"
    if asked.order == "random":
        odd = (asked.seed * 2 + 1) * 2_654_435_761 % (1 << 31) | 1
        order = f"ORDER BY (_row * {odd}) % 4294967291, _row"
    else:
        order = _order(pool, asked, "_row", "_caption")
    yield f"(SELECT * FROM {INDEX}) AS samples", f"{holds} AND {folded}", order
    if words:
        yield (
            _relation(pool, asked, linked=False),
            f"_row IN (SELECT _row FROM {INDEX} WHERE {holds}) AND {where}",
            _order(pool, asked, "_row"),
        )


def _folded(where: str) -> str:
    """Let a condition ask the captions in lower case that an index has: folding takes seconds.

    ``text ILIKE '...'`` becomes ``_folded LIKE lower('...')``, which is how DuckDB defines it.
    """
    text = where.encode()
    starts = [start for start, _ in duckdb.tokenize(where)]  # in bytes
    pieces = [text[a:b].decode() for a, b in itertools.pairwise([*starts, len(text)])]
    words = [piece.strip() for piece in pieces]
    lower = [word.lower() for word in words]
    for at, word in enumerate(lower):
        ilike = at + 1 + (lower[at + 1 : at + 2] == ["not"])
        if word != "text" or lower[ilike : ilike + 1] != ["ilike"]:
            continue
        # Anything else, such as a comment in between or ESCAPE, stays as it is.
        pattern = words[ilike + 1 : ilike + 2]
        if pattern and _STRING.fullmatch(pattern[0]) and lower[ilike + 2 : ilike + 3] != ["escape"]:
            pieces[at] = "_folded "
            pieces[ilike] = "LIKE "
            pieces[ilike + 1] = f"lower({pattern[0]}) "
    return "".join([text[: starts[0]].decode(), *pieces]) if starts else where


def _by_index(pool: Pool, asked: Asked, page: int) -> Found | None:
    """Return a page of what matches by the index, None where it cannot help."""
    start = max(asked.after, 0)
    skip = ""
    if asked.order:
        _check_depth(asked)
        skip = f" OFFSET {start}"
    # Without an order, the first ones are those that stand first.
    found = _first_bound(
        pool,
        [f"SELECT _row FROM {relation} WHERE {'' if asked.order else f'_row >= {start} AND '}"
         f"{condition} {order} LIMIT {page + 1}{skip}"
         for relation, condition, order in _indexed(pool, asked)],
    )  # fmt: skip
    if found is None:
        return None
    places = [row["_row"] for row in found]
    if not asked.order:
        places.sort()
    by_place = {row["_row"]: row for row in rows_at(pool, places[:page], f"rowid AS {_PLACE}")}
    rows = [by_place[place] for place in places[:page]]
    total = pool.count()
    more = len(places) > page
    if asked.order:
        deeper = more and asked.after + page <= DEEPEST
        return Found(rows, asked.after + page if deeper else None, total, total)
    after = places[page - 1] + 1 if more else None
    return Found(rows, after, total if after is None else after, max(total, after or 0))


def _first_bound(pool: Pool, queries: list[str]) -> list[dict[str, Any]] | None:
    """Return the rows of the first query whose names are all known, None if that is none."""
    for query in queries:
        try:
            return _rows(pool, query)
        except UsageError as error:
            if not isinstance(error.__cause__, duckdb.BinderException):
                raise
    return None


def _rows(pool: Pool, query: str) -> list[dict[str, Any]]:
    try:
        with interruptible():
            if len(pool.connection.extract_statements(query)) != 1:
                raise UsageError("expected one SQL condition")
            cursor = pool.connection.execute(query)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        said = one_line(str(error).split("\n\nLINE")[0])  # pyright: ignore[reportArgumentType]
        raise UsageError(said) from error
