"""What all pages of the site share: head, navigation, policy, small pieces of markup.

The pages ask nobody for anything: their policy allows the site's own style sheet and scripts
only. ``file:`` stands there for browsers to which a page on the disk has no origin of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...evaluate.leaderboard.standings import Row
from ..report.markup import NONE, Child, Html, decimal, el, join
from ..report.markup import asset as report_asset

POLICY = (
    "default-src 'none'; style-src 'self' file:; script-src 'self' file:; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
STYLE, SCRIPT, COMPARE = "style.css", "site.js", "compare.js"


@dataclass(frozen=True)
class Site:
    """What every page must know: the scales there are, in their order."""

    title: str
    scales: tuple[str, ...]


def asset(name: str) -> str:
    """Return the text of a file that lies beside this module."""
    return Path(__file__).with_name(name).read_text("utf-8")


def assets() -> dict[str, str]:
    """Return the site's style sheet and scripts by file name; they build on the report's."""
    return {
        STYLE: report_asset("page.css") + asset(STYLE),
        SCRIPT: report_asset("page.js") + asset(SCRIPT),
        COMPARE: asset(COMPARE),
    }


def document(
    site: Site,
    title: str,
    head: Html,
    main: Child,
    *,
    up: str = "",
    here: str = "",
    scripts: Sequence[str] = (SCRIPT,),
) -> str:
    """Return a whole page; ``up`` leads from it to the site's root, ``here`` marks its link."""
    page_head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", f"{title} · {site.title}" if title != site.title else title),
        el("link", rel="icon", href="data:,"),
        el("link", rel="stylesheet", href=f"{up}{STYLE}"),
        [el("script", src=f"{up}{name}", defer=True) for name in scripts],
    )
    links = [("index.html", "Overview")]
    links += [(f"{scale}.html", scale) for scale in site.scales]
    links += [("scaling.html", "Across scales"), ("about.html", "How to read it")]
    items = [
        el("li", el("a", text, href=up + href, aria_current="page" if href == here else None))
        for href, text in links
    ]
    body = el(
        "body",
        el("a", "Skip to the content", href="#content", class_="skip"),
        el("nav", el("ul", items), aria_label="Site"),
        el("header", head),
        el("main", main, id="content", tabindex=-1),
    )
    return f"<!doctype html>\n{el('html', page_head, body, lang='en')}\n"


def section(key: str, title: str, *children: Child) -> Html:
    """Return a section with its heading."""
    heading = el("h2", title, id=f"{key}-title")
    return el("section", heading, *children, id=key, aria_labelledby=f"{key}-title")


def scrolling(title: str, table: Html) -> Html:
    """Return a table that scrolls sideways by itself, with the keyboard too."""
    return el("div", table, class_="scroll", role="region", aria_label=title, tabindex=0)


def facts(rows: Sequence[tuple[str, Child]]) -> Html:
    """Return a list of terms and what they are."""
    return el("dl", [el("div", el("dt", term), el("dd", value)) for term, value in rows],
              class_="facts")  # fmt: skip


def figures(rows: Sequence[tuple[str, Child, str]]) -> Html:
    """Return the few large numbers of a page's head: term, value, unit."""
    return el(
        "dl",
        [
            el("div", el("dt", term), el("dd", value, el("small", f" {unit}") if unit else None))
            for term, value, unit in rows
        ],
        class_="figures",
    )


def entry_link(row: Row, up: str = "", text: Child = None) -> Html:
    """Return the name of a row, linked to its page if it has one."""
    shown = text if text is not None else row.method
    if row.is_reference:
        return el("span", shown)
    return el("a", shown, href=f"{up}entries/{row.id}.html")


def rank_text(rank: int, tied: bool) -> str:
    """Write a rank; ``=`` marks a tie."""
    return f"{rank}{'=' if tied else ''}"


def half_width(row: Row) -> float | None:
    """Return 1.96 standard errors of a row's average, None where none is known.

    For several seeds it is their spread that counts, for one the test images.
    """
    error = row.estimate.standard_error
    return None if error is None or not math.isfinite(error) else 1.96 * error


def with_error(value: float | None, half: float | None) -> Html:
    """Write a score with its uncertainty."""
    if value is None:
        return join(NONE)
    return join(decimal(value), el("small", f" ± {decimal(half)}") if half is not None else None)


def count_noun(number: int, noun: str) -> str:
    """Write a number of things: ``1 task``, ``1,200 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def minus(text: str) -> str:
    """Write a minus as a minus, not as a hyphen."""
    return text.replace("-", "−")


def size_text(size: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError
