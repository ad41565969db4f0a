"""The page of a comparison: how long, who sent what, how much work; one file that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...durable import write_text
from ..report.charts import Part, bar
from ..report.markup import NONE, Child, Html, document, el, join
from .compare import Comparison, Row

_WHOLE, _PARTIAL, _ORIGIN, _PEERS, _GET = "k3", "k7", "k1", "k0", "k2"
"""Colours of the style sheet."""


def write_page(found: Comparison, path: Path) -> None:
    """Write the plots and the table of a comparison as one HTML file; same input, same bytes."""
    sections = [
        ("time", "How long it takes", _times(found)),
        ("origin", "Who sends the bytes", _senders(found)),
        ("work", "What it costs the processors", _work(found)),
        ("energy", "What it costs in energy", _energy(found)),
        ("table", "All figures", _table(found)),
        ("making", "How this was measured", _making(found)),
    ]
    shown = [(key, title, content) for key, title, content in sections if content is not None]
    title = f"{found.name} {found.version} over every channel"
    links = [el("li", el("a", title, href=f"#{key}")) for key, title, _ in shown]
    body = join(
        _head(found, title),
        el("nav", el("ul", links), aria_label="Sections"),
        el("main", [
            el("section", el("h2", title, id=f"{key}-title"), content,
               id=key, aria_labelledby=f"{key}-title")
            for key, title, content in shown
        ]),
    )  # fmt: skip
    write_text(path, document(title, body))


def _head(found: Comparison, title: str) -> Html:
    conditions = found.conditions
    figures = [
        ("release", f"{found.bytes / 1e6:,.1f}", "MB"),
        ("files", f"{found.files:,}", ""),
        ("each holder gives", f"{conditions.rate / 1e6:g}" if conditions.rate else "all it can",
         "MB/s at most" if conditions.rate else ""),
        ("ping", f"{conditions.ping * 1e3:g}", "ms"),
        ("downloads of each case", str(conditions.repeats), ""),
    ]  # fmt: skip
    return el(
        "header",
        el("p", "datacomp channels", class_="eyebrow"),
        el("h1", title),
        el("p", _verdict(found), class_="verdict"),
        el("dl", [
            el("div", el("dt", term), el("dd", value, unit and el("small", f" {unit}")))
            for term, value, unit in figures
        ], class_="figures"),
    )  # fmt: skip


def _verdict(found: Comparison) -> str:
    """Say which was fastest, which spared the origin most, and what outlived it."""
    stays = [row for row in found.rows if not row.case.killed and row.whole == len(row.runs)]
    if not stays:
        return "No channel gave the whole release."
    fastest = min(stays, key=lambda row: row.mean(lambda run: run.seconds))
    spared = min(stays, key=_share)
    text = f"Fastest: {fastest.case.name}, {_seconds(fastest)}. "
    text += f"The origin sends least with {spared.case.name}: {100 * _share(spared):.0f}\u00a0%. "
    killed = [row for row in found.rows if row.case.killed]
    if killed:
        ended = sum(row.whole == len(row.runs) for row in killed)
        text += f"With the origin killed half-way, {ended} of {len(killed)} ended whole."
    return text


def _share(row: Row) -> float:
    sent = row.mean(lambda run: run.origin_bytes + run.peer_bytes)
    return row.mean(lambda run: run.origin_bytes) / sent if sent else 0.0


def _seconds(row: Row) -> str:
    spread = row.spread(lambda run: run.seconds)
    text = f"{row.mean(lambda run: run.seconds):.2f}"
    return f"{text} s" if spread is None else f"{text} ± {spread:.2f} s"


# -- charts ----------------------------------------------------------------------------------


def _times(found: Comparison) -> Html:
    def parts(row: Row) -> list[Part]:
        whole = row.whole == len(row.runs)
        kind, label = (_WHOLE, "whole") if whole else (_PARTIAL, "not whole")
        return [Part(row.mean(lambda run: run.seconds), label, kind)]

    def told(row: Row) -> str:
        missing = len(row.runs) - row.whole
        count = f"{missing} of {len(row.runs)} " if len(row.runs) > 1 else ""
        return _seconds(row) + (f", {count}not whole" if missing else "")

    keys = [(_WHOLE, "the release is whole"), (_PARTIAL, "given up: it is not")]
    note = "Seconds until every byte is verified and in place, or until the download gave up."
    return _chart(found, note, keys, parts, told)


def _senders(found: Comparison) -> Html:
    def parts(row: Row) -> list[Part]:
        return [
            Part(row.mean(lambda run: run.origin_bytes), "bytes of the origin", _ORIGIN),
            Part(row.mean(lambda run: run.peer_bytes), "bytes of other peers", _PEERS),
        ]

    def told(row: Row) -> str:
        origin, peers = (part.value / 1e6 for part in parts(row))
        return f"{origin:,.1f} + {peers:,.1f} MB"

    keys = [(_ORIGIN, "the origin"), (_PEERS, "other peers")]
    note = "Bytes on the line, with the overhead of each protocol and what was sent twice."
    return _chart(found, note, keys, parts, told)


def _work(found: Comparison) -> Html:
    roles = (("get", "the download", _GET), ("origin", "the origin", _ORIGIN),
             ("peers", "other peers", _PEERS))  # fmt: skip

    def parts(row: Row) -> list[Part]:
        return [
            Part(1000 * row.mean(lambda run, role=role: run.cpu[role]), f"ms, {label}", kind)
            for role, label, kind in roles
        ]

    def told(row: Row) -> str:
        return f"{row.mean(lambda run: run.cpu_seconds):.2f} s"

    note = (
        "CPU time of all processes, user and system. That of the download includes the start of "
        "the program, that of servers does not."
    )
    return _chart(found, note, [(kind, label) for _, label, kind in roles], parts, told)


def _energy(found: Comparison) -> Html | None:
    if found.energy is None:
        return None
    note = f"Of the whole machine during the download, as {found.energy} estimates it."
    return _chart(
        found, note, [],
        lambda row: [Part(row.joules or 0.0, "joules", _GET)],
        lambda row: NONE if row.joules is None else f"{row.joules:,.0f} J",
    )  # fmt: skip


def _chart(
    found: Comparison,
    note: str,
    keys: Sequence[tuple[str, str]],
    parts: Callable[[Row], list[Part]],
    told: Callable[[Row], str],
) -> Html:
    """Draw one bar for each case; what outlives the origin stands apart."""
    widest = max(sum(part.value for part in parts(row)) for row in found.rows)
    shown = [el("span", el("i", class_=f"key {kind}"), label) for kind, label in keys]
    content: list[Child] = [el("p", note, class_="note")]
    if shown:
        content.append(el("p", shown, class_="keys"))
    groups: list[Child] = []
    for killed, title in ((False, "The origin stays"), (True, "The origin is killed half-way")):
        rows = [row for row in found.rows if row.case.killed is killed]
        bars = [
            el("li",
               el("div", el("span", row.case.name, class_="name"),
                  el("span", told(row), class_="count"), class_="row"),
               bar(parts(row), widest, f"{row.case.name}: {told(row)}"))
            for row in rows
        ]  # fmt: skip
        if bars:
            groups.append(el("div", el("h3", title), el("ul", bars, class_="stacks funnel")))
    return join(*content, el("div", groups, class_="grid wide"))


# -- figures ---------------------------------------------------------------------------------


def _table(found: Comparison) -> Html:
    names = ["channel", "origin", "whole", "s", "sd", "origin MB", "peers MB", "CPU s"]
    if found.energy is not None:
        names.append("J")
    head = el("tr", [el("th", name, scope="col") for name in names])
    body = [
        el("tr", el("th", row.case.name, scope="row"), _cells(row, found)) for row in found.rows
    ]
    table = el(
        "table", el("caption", "Means over the downloads of a case"), el("thead", head),
        el("tbody", body),
    )  # fmt: skip
    return el("div", table, class_="scroll", role="region", aria_label="All figures", tabindex=0)


def _cells(row: Row, found: Comparison) -> list[Html]:
    spread = row.spread(lambda run: run.seconds)
    cells = [
        "killed" if row.case.killed else "stays",
        f"{row.whole} of {len(row.runs)}",
        f"{row.mean(lambda run: run.seconds):.2f}",
        NONE if spread is None else f"{spread:.2f}",
        f"{row.mean(lambda run: run.origin_bytes) / 1e6:,.1f}",
        f"{row.mean(lambda run: run.peer_bytes) / 1e6:,.1f}",
        f"{row.mean(lambda run: run.cpu_seconds):.2f}",
    ]
    if found.energy is not None:
        cells.append(NONE if row.joules is None else f"{row.joules:,.0f}")
    return [el("td", cell) for cell in cells]


_EXPLANATION = (
    "Every holder of the data and every download is a process of its own on one machine. Before "
    "each holder stands a relay that limits what it gives, delays what passes, and counts it; the "
    "same relay for every channel. It ends the connections it passes on, so the ping costs round "
    "trips, but no slow start of TCP. The origin is the web server, or the first peer where there "
    "is none; it is killed when half of the bytes have come. Finding peers takes no time here: the "
    "download is told where they are. Rates of one machine say nothing of your network; "
    "proportions may."
)


def _making(found: Comparison) -> Html:
    facts = [(name, str(value)) for name, value in found.machine.items()]
    facts.append(("energy", found.energy or "not known: pip install -e '.[energy]'"))
    return join(
        el("p", _EXPLANATION, class_="prose"),
        el("dl", [el("div", el("dt", term), el("dd", value)) for term, value in facts],
           class_="facts"),
    )  # fmt: skip
