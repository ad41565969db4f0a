"""The page that looks across scales: whether they agree, and what a power law foretells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...evaluate.leaderboard.scaling import PowerLaw, agreement, fit_power_law
from ...evaluate.leaderboard.standings import Row, compute_of
from ..report.markup import Child, Html, breakable, decimal, el, join
from .board import Board
from .page import Site, document, entry_link, minus, scrolling, section
from .plots import Line, Point, both, plot


def scaling_page(site: Site, boards: Sequence[Board]) -> str:
    """Return the page that follows methods from scale to scale."""
    told = [board for board in boards if compute_of(board.scale) is not None]
    lines = methods(told)
    head = join(
        el("p", site.title, class_="eyebrow"),
        el("h1", "Across scales"),
        el("p", _summary(told), class_="verdict"),
    )
    main = join(
        section("compute", "Average against compute", *_compute(told, lines)),
        section("agreement", "Do the scales agree?", *_agreement(told)),
        section("law", "What a power law foretells", *_laws(lines)),
    )
    return document(site, "Across scales", head, main, here="scaling.html")


Method = list[Row]


def methods(boards: Sequence[Board]) -> list[Method]:
    """Return the rows of each method and author that stand at several scales, small scales first.

    Of several submissions of one name at one scale the highest counts.
    """
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for board in boards:
        for row in board.rows:  # the highest first
            found.setdefault((row.author.casefold(), row.method.casefold()), {}).setdefault(
                board.scale, row
            )
    return [list(rows.values()) for rows in found.values() if len(rows) > 1]


def _by_method(board: Board) -> dict[str, float]:
    scores: dict[str, float] = {}
    for row in board.rows:
        scores.setdefault(f"{row.author.casefold()}\0{row.method.casefold()}", row.average)
    return scores


def _summary(boards: Sequence[Board]) -> str:
    pairs = [
        agreement(a.scale, b.scale, _by_method(a), _by_method(b))
        for a, b in itertools.pairwise(boards)
    ]
    told = [f"{p.correlation:.2f} from {p.first} to {p.second}" for p in pairs
            if p.correlation is not None]  # fmt: skip
    if not told:
        return "Too few methods stand at two scales to say whether their rankings agree."
    return f"Ranks at one scale correlate with those at the next: {', '.join(told)}."


def _compute(boards: Sequence[Board], lines: Sequence[Method]) -> list[Child]:
    points = [
        Point(_compute_at(row), row.average, f"{row.method}: {row.average:.3f} at {board.scale}",
              "cited" if row.is_reference else "")
        for board in boards
        for row in reversed(board.rows[:200])
    ]  # fmt: skip
    drawn = [
        Line(tuple((_compute_at(row), row.average) for row in rows), "trend", rows[0].method)
        for rows in lines[:60]
    ]
    label = "Average score against multiply-accumulates of the training, by scale: " + "; ".join(
        f"{b.scale} up to {b.rows[0].average:.3f}" for b in boards
    )
    note = (
        "Lines join the rows of one method at several scales. Compute is that of the training, as "
        "the paper gives it, the same for all rows of a scale."
    )
    if any(len(board.rows) > 200 for board in boards):
        note += " The 200 highest rows of each scale are drawn."
    return [
        el("p", note, class_="note"),
        both(lambda w, h: plot(points, label, "multiply-accumulates of one training", width=w,
                               height=h, lines=drawn, x_text=_power)),
    ]  # fmt: skip


def _compute_at(row: Row) -> float:
    compute = compute_of(row.scale)
    assert compute is not None
    return compute


def _power(value: float) -> str:
    return f"{value:.0e}".replace("e+", "e")


def _agreement(boards: Sequence[Board]) -> list[Child]:
    heads = ("Scales", "Shared methods", "Rank correlation", "95 % interval")
    head = el("tr", [el("th", name, scope="col") for name in heads])
    body: list[Child] = []
    for a, b in itertools.combinations(boards, 2):
        found = agreement(a.scale, b.scale, _by_method(a), _by_method(b))
        span = "{:.2f} to {:.2f}".format(*found.interval) if found.interval else "too few"
        body.append(
            el("tr", el("th", f"{a.scale} and {b.scale}", scope="row"), el("td", found.methods),
               el("td", minus(decimal(found.correlation, 2))), el("td", minus(span)))
        )  # fmt: skip
    note = (
        "Spearman’s rank correlation over the methods that stand at both scales; the interval is "
        "from resampling methods. With few methods it is wide: a winner at a small scale need not "
        "win at a large one."
    )
    table = el("table", el("caption", "Agreement of rankings."), el("thead", head),
               el("tbody", body), class_="plain")  # fmt: skip
    return [el("p", note, class_="note"), scrolling("Agreement of scales", table)]


def _laws(lines: Sequence[Method]) -> list[Child]:
    note = (
        "The error, 1 − average, is taken to fall as a power of compute (“Scaling Vision "
        "Transformers” fits such laws with two parameters more, for saturation; three or four "
        "scales cannot tell those). The law is fitted to all scales of a method but its last; "
        "beside what it foretells for the last stands what was measured there. The interval is "
        "Student’s 95 % prediction interval; with three points it has one degree of freedom, and "
        "is as wide as that deserves."
    )
    heads = ("Method", "Fitted to", "Exponent", "Foretold", "95 % interval", "Measured", "At")
    head = el("tr", [el("th", name, scope="col", class_="name" if name == "Method" else None)
                     for name in heads])  # fmt: skip
    body: list[Child] = []
    charts: list[Child] = []
    for rows in sorted(lines, key=lambda rows: (-len(rows), -rows[-1].average))[:40]:
        known, last = rows[:-1], rows[-1]
        law = fit_power_law([(_compute_at(row), row.average) for row in known])
        if law is None:
            continue
        compute = _compute_at(last)
        span = law.interval(compute)
        shown = "{:.3f} to {:.3f}".format(*span) if span else "two points, unknown"
        body.append(
            el("tr",
               el("th", el("span", entry_link(last, text=breakable(last.method)), el("br"),
                           el("small", last.author), class_="fit"), scope="row", class_="name"),
               el("td", ", ".join(row.scale for row in known)),
               el("td", minus(f"{law.slope:.4f}")),
               el("td", decimal(law.score(compute))), el("td", shown),
               el("td", el("b", decimal(last.average))), el("td", last.scale))
        )  # fmt: skip
        if span and not charts:
            charts.append(_law_chart(rows, law))
    if not body:
        return [el("p", "No method stands at three scales yet.", class_="note")]
    table = el("table", el("caption", "Foretold and measured."), el("thead", head),
               el("tbody", body))  # fmt: skip
    return [el("p", note, class_="note"), *charts, scrolling("Power laws", table)]


def _law_chart(rows: Method, law: PowerLaw) -> Html:
    """Draw the law of one method, its band, and the point it was not shown."""
    low, high = _compute_at(rows[0]), _compute_at(rows[-1]) * 2
    steps = np.geomspace(low, high, 40)
    line = Line(tuple((float(x), law.score(float(x))) for x in steps), "law")
    band = [(float(x), max(-0.2, span[0]), min(1.0, span[1])) for x in steps
            if (span := law.interval(float(x)))]  # fmt: skip
    points = [
        Point(_compute_at(row), row.average, f"{row.scale}: {row.average:.3f}",
              "best" if row is rows[-1] else "", True)
        for row in rows
    ]  # fmt: skip
    label = f"Power law of {rows[0].method}; " + "; ".join(p.name for p in points)
    return join(
        el("h3", rows[0].method, " ", el("small", rows[0].author)),
        el("p", "Grey: the law’s 95 % prediction interval. The highlighted point was not fitted.",
           class_="note"),
        both(lambda w, h: plot(points, label, "multiply-accumulates of one training", width=w,
                               height=h, lines=[line], bands=[band], x_text=_power), (920, 320)),
    )  # fmt: skip
