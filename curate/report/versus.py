"""The page that sets two subsets side by side: overlap, losses and their reasons, samples."""

from __future__ import annotations

from pathlib import Path

from ...durable import write_text
from ...errors import UsageError
from ...pools.pool import Pool, literal
from ..comparison import Comparison, Loss, halves
from .charts import Part, bar
from .contact import LIMIT
from .markup import Html, document, el, join, percent, words
from .sheets import Thumbnail, gallery, order_by_hash, thumbnails

_REASONS = 8
"""Most reasons that have a sheet of their own."""

Picks = list[tuple[str | None, str | None, int, list[str]]]


def write_comparison(
    pool: Pool, found: Comparison, path: Path, per_sheet: int = 24, seed: int = 0
) -> None:
    """Write the page; of each reason at most ``per_sheet`` samples are shown, picked by a hash.

    Same subsets, pool and arguments, same bytes.
    """
    if not 1 <= per_sheet <= LIMIT:
        raise UsageError(f"a sheet shows 1 to {LIMIT:,} samples, not {per_sheet}")
    picks = [_pick(pool, loss, per_sheet, seed) for loss in found.losses]
    uids = {uid for side in picks for sheet in side for uid in sheet[3]}
    shown = thumbnails(pool, sorted(uids))
    title = f"{found.a} and {found.b}"
    body = join(
        _head(found, title),
        el(
            "main",
            _overlap(found),
            _means(found) if found.means else None,
            *(
                _side(key, loss, sheets, shown)
                for key, loss, sheets in zip("ab", found.losses, picks, strict=True)
            ),
        ),
    )
    write_text(path, document(title, body))


def _pick(pool: Pool, loss: Loss, limit: int, seed: int) -> Picks:
    """Return sheets: filter, reason, how many, hex uids picked."""
    if not len(loss.uids):
        return []
    hexed = "printf('%016x%016x', high, low)"
    if loss.file is None:
        with pool.registered("lost", halves(loss.uids)):
            rows = pool.sql(
                f"SELECT uid FROM (SELECT {hexed} AS uid FROM lost) "
                f"ORDER BY {order_by_hash('uid', seed)} LIMIT {limit}"
            ).fetchall()
        return [(None, None, len(loss.uids), [row[0] for row in rows])]
    picks: Picks = []
    with pool.registered("lost", halves(loss.uids)):
        for step, reason, count in loss.reasons[:_REASONS]:
            rows = pool.sql(
                f"SELECT uid FROM (SELECT r.uid FROM read_parquet({literal(str(loss.file))}) r "
                f"JOIN lost ON r.uid = {hexed} WHERE r.filter = ? AND r.reason = ?) "
                f"ORDER BY {order_by_hash('uid', seed)} LIMIT {limit}",
                [step, reason],
            ).fetchall()
            picks.append((step, reason, count, [row[0] for row in rows]))
    return picks


def _head(found: Comparison, title: str) -> Html:
    text = (
        f"{found.both:,} samples in both: {percent(found.overlap)} of all that either has, "
        f"{_share(found.both, found.count_a)} of {found.a}, "
        f"{_share(found.both, found.count_b)} of {found.b}."
    )
    return el(
        "header",
        el("p", "datacomp comparison", class_="eyebrow"),
        el("h1", title),
        el("p", text, class_="verdict"),
        class_="contact",
    )


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "none"


def _overlap(found: Comparison) -> Html:
    only_a, only_b = (len(loss.uids) for loss in found.losses)
    parts = [
        Part(only_a, f"only {found.a}", "k0"),
        Part(found.both, "both", "k5"),
        Part(only_b, f"only {found.b}", "k1"),
    ]
    total = sum(part.value for part in parts)
    keys = [
        el("span", el("span", class_=f"key {part.kind}"), f"{part.label}: {part.value:,.0f}")
        for part in parts
    ]
    drawn = bar(parts, total, "how much the two subsets share")
    stack = el("ul", el("li", drawn), class_="stacks")
    return _section("overlap", "Overlap", join(stack, el("p", keys, class_="keys")))


def _means(found: Comparison) -> Html:
    head = [el("th", name, scope="col") for name in ("mean of", *_sides(found))]
    rows = [
        el("tr", el("th", words(name), scope="row"), el("td", str(one)), el("td", str(other)))
        for name, one, other in found.means
    ]  # fmt: skip
    table = el("table", el("thead", el("tr", head)), el("tbody", rows))
    return _section("means", "What sets them apart", el("div", table, class_="scroll"))


def _sides(found: Comparison) -> tuple[str, str]:
    return f"only {found.a}", f"only {found.b}"


def _side(key: str, loss: Loss, picks: Picks, shown: dict[str, Thumbnail]) -> Html:
    """Return the section of what one subset loses."""
    count = f"{len(loss.uids):,} samples of {loss.keeper} that {loss.loser} has not."
    content: list[Html] = [el("p", count, class_="note")]
    if loss.file is None and len(loss.uids):
        note = f"Why is not known: {loss.loser} has no list of reasons beside it."
        content.append(el("p", note, class_="note"))
    for step, reason, total, uids in picks:
        name = words(reason) if reason else f"only {loss.keeper}"
        label = el("h3", name, el("small", f" {total:,}", f" by {step}" if step else ""))
        samples = gallery([shown[uid] for uid in uids], detailed=True)
        content.append(el("div", label, samples, class_="sheet dropped"))
    return _section(f"only-{key}", f"What {loss.loser} loses", join(*content))


def _section(key: str, title: str, content: Html) -> Html:
    return el(
        "section", el("h2", title, id=f"{key}-title"), content,
        id=key, aria_labelledby=f"{key}-title",
    )  # fmt: skip
