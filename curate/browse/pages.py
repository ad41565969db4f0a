"""The HTML of the live pages. They work without the script, which only adds comfort."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ...pools.neighbours import Neighbours, iterate_hex
from ..report.markup import NONE, Child, Html, asset, el, join, shorten
from .asking import ROWS, Answer
from .overview import Overview
from .searching import Asked, Found

CAPTION = 240
_EXAMPLES = (
    "SELECT uid, text, width, height FROM samples ORDER BY width DESC LIMIT 20",
    "SELECT text, count(*) AS n FROM samples GROUP BY text ORDER BY n DESC LIMIT 20",
    "SELECT reason, count(*) AS n FROM set_aside GROUP BY reason ORDER BY n DESC",
    "DESCRIBE samples",
)


@functools.cache
def style() -> str:
    """Return the style sheet: the reports', and what only live pages have."""
    return asset("page.css") + Path(__file__).with_name("browse.css").read_text("utf-8")


@functools.cache
def script() -> str:
    """Return the script."""
    return Path(__file__).with_name("browse.js").read_text("utf-8")


def page(pool: str, title: str, here: str, *body: Child) -> str:
    """Return a whole page: ``here`` is the path of the section it belongs to."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · {pool}" if title != pool else pool),
        el("link", rel="icon", href="data:,"),
        el("link", rel="stylesheet", href="/style.css"),
    )
    sections = (("/", "Samples"), ("/overview", "Overview"), ("/sql", "SQL"))
    links = [
        el("li", el("a", name, href=path, aria_current="page" if path == here else None))
        for path, name in sections
    ]
    content = el(
        "body",
        el("a", "Skip to the content", href="#content", class_="skip"),
        el("nav", el("ul", el("li", el("b", pool, class_="pool"), class_="whole"), links),
           class_="top", aria_label="Sections"),
        el("main", body, id="content"),
        el("script", src="/script.js"),
        class_="live",
    )  # fmt: skip
    return f"<!doctype html>\n{el('html', head, content, lang='en')}\n"


def trouble(pool: str, message: str, here: str = "") -> str:
    """Return the page that says what went wrong, in one line."""
    return page(pool, "Not possible", here, el("h1", "Not possible"),
                el("p", message, class_="error", role="alert"))  # fmt: skip


# -- samples ---------------------------------------------------------------------------------


def samples(
    pool: str, asked: Asked, found: Found | None, orders: Sequence[str], searches: bool,
    error: str | None = None, elapsed: float = 0.0,
) -> str:  # fmt: skip
    """Return the search page with a page of samples, or with what is wrong with the question."""
    return page(
        pool, asked.words or pool, "/", el("h1", "Samples", class_="unseen"),
        _search_form(asked, orders, searches),
        el("p", error, class_="error", role="alert") if error else None,
        _found(asked, found, elapsed) if found is not None else None,
    )  # fmt: skip


def _search_form(asked: Asked, orders: Sequence[str], searches: bool) -> Html:
    choices = [("", "as in the pool"), ("random", "random"), *((o, _order_name(o)) for o in orders)]
    meaning = None
    if searches:
        meaning = el(
            "div",
            el("form",
               el("label", "What is to be seen", for_="meaning"),
               el("span", el("input", id="meaning", name="text", type="search", maxlength=1000,
                             required=True), el("button", "Find by meaning"), class_="line"),
               action="/alike", method="get"),
            el("form",
               el("label", "Images like this file", for_="file"),
               el("input", id="file", type="file", accept="image/*"),
               id="upload", class_="script-only"),
            class_="by-model",
        )  # fmt: skip
    return join(
        el(
            "form",
            el("label", "Words in captions", for_="words"),
            el("span",
               el("input", id="words", name="words", type="search", value=asked.words,
                  placeholder='red "running shoes"', autocomplete="off", aria_keyshortcuts="/"),
               el("button", "Search"), class_="line"),
            el("details",
               el("summary", "Condition and order"),
               el("label", "Condition in SQL", for_="where"),
               el("input", id="where", name="where", value=asked.where, spellcheck="false",
                  placeholder="width >= 512 AND clip_l14_similarity_score > 0.3"),
               el("label", "Order", for_="order"),
               el("select", [el("option", name, value=value, selected=value == asked.order)
                             for value, name in choices], id="order", name="order"),
               open=bool(asked.where or asked.order)),
            action="/", method="get", role="search", class_="search",
        ),
        meaning,
    )  # fmt: skip


def _order_name(order: str) -> str:
    name = order.removeprefix("-")
    return f"{name}, largest first" if order.startswith("-") else f"{name}, smallest first"


def query_of(asked: Asked, **changes: Any) -> str:
    """Return a question as the query part of a URL."""
    values = {"words": asked.words, "where": asked.where, "order": asked.order,
              "seed": asked.seed or "", "after": asked.after or ""} | changes  # fmt: skip
    return urlencode({key: value for key, value in values.items() if value != ""})


def _found(asked: Asked, found: Found, elapsed: float) -> Html:
    everything = not asked.words.strip() and not asked.where.strip()
    if everything:
        told: Child = f"{found.total:,} samples"
    else:
        looked = found.looked if found.after is not None else found.total
        among = f"of the first {looked:,} of {found.total:,} samples"
        if looked >= found.total:
            among = f"of {found.total:,} samples"
        told = join(
            f"{len(found.rows):,} shown, {among} looked at. ",
            el("span", "All that match: ",
               el("a", "count", href=f"/count?{query_of(asked, after='', order='')}"),
               id="count"),
        )  # fmt: skip
    status = el("p", told, el("small", f" {elapsed:.2f} s"), class_="note", role="status")
    cards = el("ul", [card(row) for row in found.rows], class_="gallery live")
    again = None
    if found.after is not None:
        name = "Next page" if found.rows else "Look further"
        again = el("a", name, href=f"/?{query_of(asked, after=found.after)}", rel="next",
                   class_="button", aria_keyshortcuts="n")  # fmt: skip
    another = None
    if asked.order == "random":
        query = query_of(asked, seed=asked.seed + 1, after="")
        another = el("a", "Other samples", href=f"/?{query}", class_="button")
    nothing = None
    if not found.rows:
        nothing = el("p", "Nothing found there." if found.after else "Nothing found.")
    return join(status, cards, nothing, el("p", again, another, class_="pager"))


def card(row: dict[str, Any], note: str = "") -> Html:
    """Return one sample as it stands in a gallery."""
    uid = f"{row['uid']:032x}"
    text = str(row["text"] or "")
    caption = (
        el("span", shorten(text, CAPTION), class_="said", dir="auto")
        if text.strip() else el("span", "no caption", class_="said none")
    )  # fmt: skip
    size = f"{row['width']} × {row['height']} px" if row["width"] else "size unknown"
    return el(
        "li",
        el("a",
           el("figure", _frame(uid, row["shard"] is not None, 256),
              el("figcaption", el("b", note) if note else None, caption,
                 el("span", size, class_="fact"))),
           href=f"/sample/{uid}"),
    )  # fmt: skip


def _frame(uid: str, at_hand: bool, side: int) -> Html:
    if not at_hand:
        return el("div", el("span", "image not at hand"), class_="frame broken")
    image = el("img", src=f"/image/{uid}?side={side}", alt=f"sample {uid[:8]}", loading="lazy",
               decoding="async")  # fmt: skip
    return el("div", image, class_="frame")


# -- one sample ------------------------------------------------------------------------------


def sample(
    pool: str, row: dict[str, Any], scores: list[tuple[str, Any]], features: Sequence[str]
) -> str:
    """Return the page of one sample: image, caption, all that is known, ways to what is like it."""
    uid = f"{row['uid']:032x}"
    text = str(row["text"] or "")
    facts = [(name, value) for name, value in row.items() if name not in ("uid", "text")]
    alike = [
        el("li", el("a", f"Most like it by {name}", class_="button",
                    href=f"/alike?{urlencode({'uid': uid, 'features': name})}"))
        for name in features
    ]  # fmt: skip
    return page(
        pool, f"Sample {uid[:8]}", "",
        el("h1", shorten(text, 160) or "no caption", dir="auto", class_="caption"),
        el("div", _frame(uid, row["shard"] is not None, 1280), class_="large"),
        el("p", text, dir="auto", class_="whole-caption") if len(text) > 160 else None,
        el("ul", alike, class_="actions") if alike else None,
        el("h2", "What is known"),
        el("dl",
           el("div", el("dt", "uid"), el("dd", el("code", uid))),
           [el("div", el("dt", name), el("dd", _value(name, value)))
            for name, value in [*facts, *scores]],
           class_="facts"),
    )  # fmt: skip


def _value(name: str, value: Any) -> Child:
    if value is None:
        return NONE
    if name == "url" and str(value).startswith(("http://", "https://")):
        return el("a", str(value), href=str(value), rel="noreferrer noopener nofollow external")
    return f"{value:.6g}" if isinstance(value, float) else shorten(str(value), 2000)


# -- what is alike ---------------------------------------------------------------------------


def alike(
    pool: str, title: Child, features: str, found: Neighbours, rows: dict[str, dict[str, Any]],
    elapsed: float, others: Sequence[tuple[str, str]] = (),
) -> str:  # fmt: skip
    """Return the page of samples most like something; ``rows`` are the pool's, by hex uid."""
    cards = [card(rows[uid], f"{cosine:.3f}") for uid, cosine in iterate_hex(found) if uid in rows]
    way = "by their sketches, then exactly" if found.sketched else "exactly"
    return page(
        pool, "Alike", "", el("h1", title),
        el("p", f"By {features}: cosine, of {found.compared:,} samples compared {way}. ",
           el("small", f"{elapsed:.2f} s"), class_="note", role="status"),
        el("ul", [el("li", el("a", f"by {name}", href=href)) for name, href in others],
           class_="actions") if others else None,
        el("ul", cards, class_="gallery live"),
    )  # fmt: skip


# -- SQL -------------------------------------------------------------------------------------


def sql(
    pool: str, statement: str, answer: Answer | None, error: str | None = None,
    elapsed: float = 0.0,
) -> str:  # fmt: skip
    """Return the page where SQL is asked, with its answer."""
    form = el(
        "form",
        el("label", "One SELECT, in DuckDB's SQL", for_="q"),
        el("textarea", statement, id="q", name="q", rows=5, spellcheck="false",
           autocomplete="off", autocapitalize="off", aria_keyshortcuts="Control+Enter"),
        el("span", el("button", "Run"), el("small", "Ctrl + Enter", class_="script-only"),
           class_="line"),
        action="/sql", method="get", class_="search",
    )  # fmt: skip
    shown = None
    if answer is not None:
        cut = f" More rows are there; the first {ROWS:,} are shown." if answer.more else ""
        shown = join(
            el("p", f"{len(answer.rows):,} rows.{cut} ", el("small", f"{elapsed:.2f} s"),
               class_="note", role="status"),
            _table(answer),
        )  # fmt: skip
    examples = [
        el("li", el("a", el("code", text), href=f"/sql?{urlencode({'q': text})}"))
        for text in _EXAMPLES
    ]
    return page(
        pool, "SQL", "/sql", el("h1", "Ask in SQL"), form,
        el("p", error, class_="error", role="alert") if error else None, shown,
        el("details", el("summary", "Examples"), el("ul", examples), open=answer is None),
    )  # fmt: skip


def _table(answer: Answer) -> Html:
    heads = [
        el("th", name, scope="col", class_=None if number else "name")
        for name, number in zip(answer.names, answer.numbers, strict=True)
    ]
    lines = []
    for row in answer.rows:
        cells = []
        for value, number, uid in zip(row, answer.numbers, answer.uids, strict=True):
            shown: Child = value
            if uid and value != NONE:
                shown = el("a", el("code", value), href=f"/sample/{value}")
            cells.append(el("td", shown, class_=None if number else "words", dir="auto"))
        lines.append(el("tr", cells))
    return el(
        "div", el("table", el("thead", el("tr", heads)), el("tbody", lines)),
        class_="scroll", tabindex=0, role="region", aria_label="Answer",
    )  # fmt: skip


# -- overview --------------------------------------------------------------------------------


def overview(pool: str, seen: Overview) -> str:
    """Return the page of counts, distributions and outliers."""
    drawing = seen.drawing
    share = "all of them" if drawing.drawn_of == seen.samples else (
        f"{drawing.drawn_of:,} of them, picked by their uids"
    )  # fmt: skip
    ends = [
        el("div", el("h3", end.title),
           el("ul", [card(seen.rows[uid], value) for uid, value in
                     zip(end.uids, end.values, strict=True) if uid in seen.rows],
              class_="gallery live"), class_="sheet")
        for end in drawing.ends
    ]  # fmt: skip
    return page(
        pool, "Overview", "/overview", el("h1", "Overview"),
        el("p", f"{seen.samples:,} samples; the images of {seen.at_hand:,} are at hand.",
           class_="verdict"),
        _listing("Sources", seen.sources), _listing("Set aside", seen.set_aside),
        _part("distributions", "Distributions", el("p", f"Of {share}.", class_="note"),
              el("div", [figure.drawn() for figure in drawing.figures], class_="grid"))
        if drawing.figures else None,
        _part("outliers", "Outliers", el("p", f"Of {share}.", class_="note"), ends)
        if ends else None,
    )  # fmt: skip


def _part(key: str, title: str, *content: Child) -> Html:
    return el("section", el("h2", title, id=f"{key}-title"), content,
              aria_labelledby=f"{key}-title")  # fmt: skip


def _listing(title: str, rows: list[dict[str, Any]]) -> Html | None:
    if not rows:
        return None
    names = list(rows[0])
    numbers = [all(isinstance(row[name], int) for row in rows) for name in names]
    cells = [[NONE if v is None else f"{v:,}" if isinstance(v, int) else shorten(str(v), 200)
              for v in row.values()] for row in rows]  # fmt: skip
    answer = Answer(names, cells, numbers, [False] * len(names), False)
    return join(el("h2", title), _table(answer))
