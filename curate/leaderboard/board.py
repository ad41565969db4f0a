"""The table of one scale: sortable, filterable, ties shown as ties, published rows always there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...evaluate.leaderboard.make import suite_of
from ...evaluate.leaderboard.standings import Place, Row, citation
from ...evaluate.results import TELLING
from ...evaluate.scales import SCALES
from ...evaluate.tasks import load_tasks
from ..report.markup import NONE, Child, Html, decimal, el, join, percent
from .page import (
    Site,
    count_noun,
    document,
    entry_link,
    figures,
    half_width,
    rank_text,
    scrolling,
    section,
    with_error,
)
from .plots import Point, both, plot

FIRST = 100
"""Rows that are laid out at once; a script shows the others when they are asked for."""
GROUPS = ("ImageNet", "ImageNet dist. shifts", "VTAB", "Retrieval")


@dataclass(frozen=True)
class Board:
    """The ranked rows of one scale, and each row's place."""

    scale: str
    rows: tuple[Row, ...]
    places: tuple[Place, ...]

    @property
    def submissions(self) -> list[Row]:
        """Return the rows that were submitted."""
        return [row for row in self.rows if not row.is_reference]

    @property
    def best_reference(self) -> Row | None:
        """Return the highest published row."""
        return next((row for row in self.rows if row.is_reference), None)

    def place(self, row: Row) -> Place:
        """Return a row's place."""
        return self.places[self.rows.index(row)]


def board_page(site: Site, board: Board) -> str:
    """Return the page of one scale."""
    scale = SCALES[board.scale]
    submissions = board.submissions
    head = join(
        el("p", site.title, class_="eyebrow"),
        el("h1", f"Scale {board.scale}"),
        el("p", verdict(board), class_="verdict"),
        figures([
            ("model", scale.model, ""),
            ("samples seen", f"{scale.samples_seen:,}", ""),
            ("submissions", f"{len(submissions):,}", ""),
            ("published baselines", f"{len(board.rows) - len(submissions)}", ""),
        ]),
    )  # fmt: skip
    more = [el("a", "Compare two submissions", href=f"{board.scale}-compare.html")]
    if len(submissions) > 2:
        more.append(el("a", "How the tasks go together", href=f"{board.scale}-tasks.html"))
    links = el("p", [join(" · " if n else None, link) for n, link in enumerate(more)])
    main = join(
        section("board-section", "Standings", _filters(board), _table(board), _notes(board), links),
        section("size", "Average against subset size", *_size(board)),
    )
    return document(site, f"Scale {board.scale}", head, main, here=f"{board.scale}.html")


def verdict(board: Board) -> str:
    """Say in one sentence who leads and how surely."""
    leaders = [r for r, p in zip(board.rows, board.places, strict=True) if p.rank == 1]
    first = board.rows[0]
    tied = [row for row in leaders if row is not first]
    known = sum(not row.is_reference for row in board.rows)
    if not known:
        return (
            f"No submission yet. The best published baseline is {first.method} with an average "
            f"of {first.average:.3f}."
        )
    text = f"{first.method} leads with an average of {first.average:.3f}"
    if tied:
        names = ", ".join(row.method for row in tied[:2])
        others = f" and {len(tied) - 2} more" if len(tied) > 2 else ""
        text += f", too close to call with {names}{others}"
    best = board.best_reference
    if best is not None and best is not first:
        text += f"; the best published baseline, {best.method}, has {best.average:.3f}"
    return text + "."


def _filters(board: Board) -> Html:
    cited = any(row.is_reference for row in board.rows)
    return el(
        "div",
        el("label", el("span", "Search"), el("input", type="search", id="find",
           placeholder="method or author", autocomplete="off")),
        el("label", el("span", "Track"),
           el("select", el("option", "all", value=""), el("option", "filtering"),
              el("option", "byod"), id="track")),
        el("label", el("input", type="checkbox", id="cited", checked=True),
           el("span", "published baselines"), class_="check") if cited else None,
        el("p", id="shown", role="status", aria_live="polite", class_="count"),
        class_="filters-bar", id="filters", data_total=str(len(board.rows)),
    )  # fmt: skip


def _table(board: Board) -> Html:
    groups = [g for g in GROUPS if any(g in row.averages for row in board.rows)]
    telling = any(TELLING in row.averages for row in board.rows)
    counted = suite_of(board.scale).groups["Average"]
    heads = [("Rank", "rank", "ascending", None), ("Method", "name", "ascending", None),
             ("Average", "number", "descending", count_noun(len(counted), "task"))]  # fmt: skip
    if telling:
        clear = sum(not load_tasks()[key].near_chance for key in counted)
        heads.append(("Clean average", "number", "descending", f"{clear} tasks"))
    heads += [(group, "number", "descending", None) for group in groups]
    heads += [
        ("Samples", "number", "descending", "in the subset"),
        ("Pool", "number", "descending", "fetched"),
        ("Seeds", "number", "descending", None),
        ("Track", "filters", "ascending", None),
        ("Date", "filters", "descending", None),
    ]
    head = el("tr", [_heading(*column) for column in heads])
    body = [
        _row(position, row, place, groups, telling)
        for position, (row, place) in enumerate(zip(board.rows, board.places, strict=True))
    ]
    caption = (
        "Headings sort the table. “=” marks a tie. After ± stands what other test images, or other "
        "seeds where there are several, would change."
    )
    table = el(
        "table", el("caption", caption), el("thead", head), el("tbody", body),
        id="board", class_="sortable",
    )  # fmt: skip
    more = el("button", "Show all", type="button", id="all", hidden=True)
    return join(scrolling(f"Standings at scale {board.scale}", table), more)


def _heading(title: str, kind: str, first: str, note: str | None) -> Html:
    button = el("button", title, el("i", aria_hidden="true"), type="button")
    return el(
        "th", button, el("small", note) if note else None, scope="col", class_=kind,
        aria_sort="ascending" if title == "Rank" else None, data_first=first,
    )  # fmt: skip


def _row(position: int, row: Row, place: Place, groups: Sequence[str], telling: bool) -> Html:
    record = row.record
    cells: list[Child] = [
        _cell("rank", position, _rank(place)),
        el("th", _name(row), scope="row", class_="name", data_value=row.method.casefold()),
        _cell("number", row.average, with_error(row.average, half_width(row))),
    ]
    if telling:
        value = row.averages.get(TELLING)
        cells.append(_cell("number", value, decimal(value)))
    for group in groups:
        value = row.averages.get(group)
        cells.append(_cell("number", value, decimal(value)))
    share = effective_pool(row)
    date = record.created[:10] if record else ""
    cells += [
        _cell("number", row.size, f"{row.size:,}"),
        _cell("number", share, percent(share)),
        _cell("number", len(record.runs) if record else None,
              str(len(record.runs)) if record else NONE),
        _cell("filters", row.track, row.track),
        _cell("filters", date, date or "2023"),
    ]  # fmt: skip
    kinds = ["cited"] * row.is_reference + ["later"] * (position >= FIRST)
    return el("tr", cells, class_=" ".join(kinds) or None,
              data_track=row.track, data_text=f"{row.method} {row.author}".casefold())  # fmt: skip


def _cell(kind: str, value: float | str | None, shown: Child) -> Html:
    text = "" if value is None else value if isinstance(value, str) else repr(value)
    return el("td", shown, class_=kind, data_value=text)


def _rank(place: Place) -> Html:
    text = rank_text(place.rank, bool(place.ties))
    if not place.ties:
        return join(text)
    return join(text, el("span", f" tied with {count_noun(len(place.ties), 'other')}",
                         class_="unseen"))  # fmt: skip


def _name(row: Row) -> Html:
    note = el("span", "published", class_="badge") if row.is_reference else None
    by = el("small", row.author, " " if note else None, note)
    star = el("sup", "*", title=row.note) if row.note else None
    return el("span", entry_link(row), star, by, class_="fit")


def effective_pool(row: Row) -> float | None:
    """Return which share of the pool could be fetched, None if it is not told."""
    pool = row.record.pool if row.record else None
    if pool is None or not pool.samples or pool.available is None:
        return None
    return pool.available / pool.samples


def _notes(board: Board) -> Html:
    notes: list[Child] = []
    marked = [row for row in board.rows if row.note]
    cited, url = citation()
    if any(row.is_reference for row in board.rows):
        notes.append(
            el("p", "Published baselines: ", el("a", cited, href=url), ". They stand as printed, "
               "without intervals; they were measured on pools of 2022 and 2023.", class_="note")
        )  # fmt: skip
    if marked:
        listed = [el("li", el("b", row.method), ": ", row.note) for row in marked]
        notes.append(
            el("details", el("summary", "* Where the paper contradicts itself"), el("ul", listed))
        )
    shares = [share for row in board.rows if (share := effective_pool(row)) is not None]
    if shares and max(shares) - min(shares) > 0.05:
        notes.append(
            el("p", "Submissions chose from pools of which between "
               f"{percent(min(shares))} and {percent(max(shares))} could be fetched. Images vanish "
               "from the web: whoever had more to choose from had an advantage.", class_="note")
        )  # fmt: skip
    return join(*notes)


def _size(board: Board) -> list[Child]:
    first = board.rows[0]
    best = first.id
    points = [
        Point(
            float(row.size), row.average,
            f"{row.method}: {row.average:.3f}, {row.size:,} samples",
            "cited" if row.is_reference else "best" if row.id == best else "",
            row.is_reference or row.id == best,
            half_width(row) if len(board.rows) <= 60 else None,
        )
        for row in sorted(board.rows, key=lambda row: (row.is_reference, row.average))
        if row.size
    ]  # fmt: skip
    label = (
        f"Average score against subset size of {count_noun(len(points), 'row')}; the highest is "
        f"{first.method} with {first.average:.3f} from {first.size:,} samples"
    )
    keys = [el("span", el("i", class_="key dot"), "submission"),
            el("span", el("i", class_="key dot best"), "highest")]  # fmt: skip
    if any(row.is_reference for row in board.rows):
        keys.append(el("span", el("i", class_="key diamond"), "published"))
    note = (
        "Every row trained on the same number of samples, so a smaller subset was seen more often."
    )
    return [
        el("p", note, " ", el("span", keys, class_="keys"), class_="note"),
        both(lambda w, h: plot(points, label, "samples in the subset", width=w, height=h)),
    ]
