"""The contact sheet of a pool: samples to look at, distributions, outliers, what is alike."""

from __future__ import annotations

from pathlib import Path

from ...durable import write_text
from ...errors import UsageError
from ...pools.neighbours import features_of, find, iterate_hex, vector_of
from ...pools.pool import Pool
from ...pools.uids import is_uid
from .distributions import columns_for, distributions
from .markup import Html, document, el, join, percent
from .matching import a_share_of, count_matching, matching
from .outliers import extremes, repeated_captions
from .sheets import gallery, order_by_hash, thumbnails

LIMIT = 10_000
"""Most thumbnails on one sheet: about 30 MB of page."""
ALIKE = 24
"""How many of the samples most like another are shown."""


def write_contact_sheet(
    pool: Pool,
    path: Path,
    where: str = "true",
    limit: int = 200,
    seed: int = 0,
    *,
    title: str | None = None,
    like: str | None = None,
    features: tuple[str, ...] = (),
) -> int:
    """Write a page of thumbnails of the samples for which ``where`` holds; return how many.

    ``where`` is SQL over the columns of ``samples`` and the pool's scores, by name (a name that
    several scores share is ``name:`` and the first 8 digits of the digest). At most ``limit``
    samples are shown, picked by the seed; distributions and outliers are of all that match, or,
    where these are more than 100,000, of some 50,000 picked by their uids.
    ``like`` is a uid in hex: for each of ``features`` (such as ``l14_img``) the samples of the
    whole pool are shown that are most like it. Same pool and arguments, same bytes. Raises
    UsageError for SQL that cannot be used, and for a pool that is not ``confined``: the SQL may
    be a stranger's; MissingError where the sample or its feature is not there.
    """
    if not pool.confined:
        raise UsageError(f"{pool.path}: open the pool with confined=True to show it")
    if not 1 <= limit <= LIMIT:
        raise UsageError(f"limit is {limit}; a contact sheet shows 1 to {LIMIT:,} samples")
    if not where.strip():
        raise UsageError("where is empty; 'true' matches every sample")
    if like is not None and not is_uid(like):
        raise UsageError(f"like is {like!r}, expected a uid: 32 hex digits")
    if bool(features) != (like is not None):
        raise UsageError("give a sample and the features by which others are like it, or neither")
    total = count_matching(pool, where)
    share = a_share_of(total)
    some = where if share == "true" else f"(\n{where}\n) AND {share}"
    with matching(pool, some, columns_for(pool)) as (relation, scores):
        drawn_of = pool.scalar(f"SELECT count(*) FROM {relation}")
        rows = pool.sql(
            f"SELECT hex FROM (SELECT printf('%032x', uid) AS hex FROM {relation}) "
            f"ORDER BY {order_by_hash('hex', seed)} LIMIT {limit}"
        ).fetchall()
        figures = distributions(pool, relation, scores, seed) if drawn_of else ()
        charts = [figure.drawn() for figure in figures]
        ends = _outliers(pool, relation, scores) if total > len(rows) else None
    said = None
    if drawn_of < total:
        said = el("p", f"Of {drawn_of:,} of them, picked by their uids.", class_="note")
    uids = [row[0] for row in rows]
    shown = thumbnails(pool, uids)
    alike = _alike(pool, like, features) if like is not None else None
    heading = title or f"{pool.path.name}: contact sheet"
    body = join(
        _head(pool, heading, where, total, len(uids)),
        el(
            "main",
            _section("distributions", "Distributions", join(said, el("div", charts, class_="grid")))
            if charts
            else None,
            _section("alike", f"Most like {like}", alike) if alike is not None else None,
            _section("outliers", "Outliers", join(said, ends)) if ends is not None else None,
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


def _outliers(pool: Pool, relation: str, scores: list[tuple[str, str]]) -> Html | None:
    """Show the samples at the ends of each measure, and captions that many share."""
    ends = extremes(pool, relation, scores)
    shown = thumbnails(pool, sorted({uid for end in ends for uid in end.uids}))
    parts = [
        el("div", el("h3", end.title),
           gallery([shown[uid] for uid in end.uids], notes=end.values), class_="sheet")
        for end in ends
    ]  # fmt: skip
    repeated = repeated_captions(pool, relation)
    return join(parts, repeated and repeated.drawn()) if parts or repeated else None


def _alike(pool: Pool, like: str, features: tuple[str, ...]) -> Html:
    """Show the samples most like one, by each of some features; the sample itself comes first."""
    parts = []
    for name in features:
        vector = vector_of(features_of(pool, name), int(like, 16))
        found = find(pool, name, vector, ALIKE)
        pairs = list(iterate_hex(found))
        shown = thumbnails(pool, [uid for uid, _ in pairs])
        way = "by sketches" if found.sketched else "all of them"
        parts.append(
            el("div", el("h3", f"by {name}"),
               el("p", f"Cosine, of {found.compared:,} samples, {way}.", class_="note"),
               gallery([shown[uid] for uid, _ in pairs], notes=[f"{c:.3f}" for _, c in pairs]),
               class_="sheet")
        )  # fmt: skip
    return join(parts)


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
