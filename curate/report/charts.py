"""Small charts as inline SVG, coloured by the page's style sheet so that they follow dark mode.

Text in a chart is never scaled: a chart that has to fit a phone is drawn a second time, narrow.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import NONE, Child, Html, decimal, el, join

_LETTER = 6.6
"""Width in px of an average letter at the charts' 12 px, on the safe side."""


@dataclass(frozen=True)
class Mark:
    """A dataset in a chart: its score with spread and the seeds' values; ``x`` is its size."""

    name: str
    mean: float
    spread: float | None = None
    values: tuple[float, ...] = ()
    x: float = 0.0
    kind: str = ""

    @property
    def low(self) -> float:
        """The lower end of the error bar."""
        return self.mean - (self.spread or 0.0)

    @property
    def high(self) -> float:
        """The upper end of the error bar."""
        return self.mean + (self.spread or 0.0)

    def tooltip(self) -> str:
        """Say name and score."""
        spread = f" ± {decimal(self.spread)}" if self.spread is not None else ""
        return f"{self.name}: {decimal(self.mean)}{spread}"


@dataclass(frozen=True)
class Part:
    """A segment of a bar: how much, what it is, and its class in the style sheet."""

    value: float
    label: str
    kind: str


# -- scales ----------------------------------------------------------------------------------


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = magnitude * next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within [low, high]; powers alone if many."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
        if len(found) <= 7:
            break
    return found or [low, high]


def short_count(value: float) -> str:
    """Write a count briefly: 950, 2.5k, 12.8M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """Widen a range on both sides, and a point into a range."""
    pad = (high - low) * share if high > low else max(abs(high) * 0.05, 0.01)
    return low - pad, high + pad


def text_width(text: str) -> float:
    """Estimate the width in px of a text at 12 px; East Asian wide letters count double."""
    return sum(
        _LETTER * (1.8 if unicodedata.east_asian_width(letter) in "WF" else 1.0)
        for letter in text
        if not unicodedata.combining(letter)
    )


def fit(text: str, width: float) -> str:
    """Cut a text in its middle so that it fits ``width`` px at 12 px: names differ at the ends."""
    if text_width(text) <= width:
        return text
    for kept in range(min(len(text) - 1, int(width)), 0, -1):
        cut = text[: (kept + 1) // 2].rstrip() + "…" + text[len(text) - kept // 2 :].lstrip()
        if text_width(cut) <= width:
            return cut
    return "…"


def _svg(width: float, height: float, label: str, *children: Child, class_: str = "") -> Html:
    return el(
        "svg", *children, class_=class_ or None, role="img", aria_label=label,
        viewBox=f"0 0 {width:g} {height:g}", width=f"{width:g}", height=f"{height:g}",
    )  # fmt: skip


def _text(x: float, y: float, text: Child, class_: str, anchor: str = "start") -> Html:
    return el("text", text, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return el("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


# -- average against size --------------------------------------------------------------------


def scatter(marks: Sequence[Mark], width: int, height: int, label: str) -> tuple[Html, list[str]]:
    """Draw scores against subset size; return the chart and the names of its numbered points.

    A point is named beside it where the name fits without touching anything; otherwise it gets
    a number, and its name stands in the list returned: number 1 is the first name.
    """
    left, right, top, bottom = 46.0, width - 12.0, 12.0, height - 40.0
    x_of, x_ticks = _size_scale([m.x for m in marks], left + 8, right - 8)
    low, high = padded(min(m.low for m in marks), max(m.high for m in marks), 0.12)
    places = _places(ticks(low, high, 6))

    def y_of(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    frame: list[Child] = [
        join(
            _line(left, y_of(tick), right, y_of(tick), "gridline"),
            _text(left - 8, y_of(tick) + 4, f"{tick:.{places}f}", "tick", "end"),
        )
        for tick in ticks(low, high, 6)
    ]
    frame += [
        join(
            _line(x_of(tick), bottom, x_of(tick), bottom + 4, "axis"),
            _text(x_of(tick), bottom + 18, short_count(tick), "tick", "middle"),
        )
        for tick in x_ticks
    ]
    frame.append(_line(left, bottom, right, bottom, "axis"))
    middle = (left + right) / 2
    frame.append(_text(middle, height - 4, "samples in the subset", "axis-name", "middle"))
    places_of = [(x_of(m.x), y_of(m.mean), y_of(m.high), y_of(m.low)) for m in marks]
    points = [_point(m, *place) for m, place in zip(marks, places_of, strict=True)]
    labels, numbered = _place_labels(marks, places_of, (left, top, right, bottom))
    return _svg(width, height, label, frame, list(reversed(points)), labels), numbered


def _size_scale(
    sizes: list[float], left: float, right: float
) -> tuple[Callable[[float], float], list[float]]:
    """Return the horizontal scale and its ticks: logarithmic from a factor of eight on."""
    low, high = min(sizes), max(sizes)
    if low > 0 and high / low >= 8:
        start, end = math.log(low) - 0.15, math.log(high) + 0.15
        scale = (right - left) / (end - start)
        marks = log_ticks(math.exp(start), math.exp(end))
        return lambda v: left + (math.log(v) - start) * scale, marks
    start, end = 0.0, high * 1.05 or 1.0
    scale = (right - left) / (end - start)
    return lambda v: left + (v - start) * scale, ticks(start, end)


def _places(values: list[float]) -> int:
    """Return how many decimals tell the ticks apart."""
    return next(
        (n for n in range(1, 5) if len({f"{v:.{n}f}" for v in values}) == len(values)
         and all(abs(round(v, n) - v) < 1e-9 for v in values)), 4,
    )  # fmt: skip


def _point(mark: Mark, x: float, y: float, y_high: float, y_low: float) -> Html:
    bar = None
    if mark.spread:
        bar = join(
            _line(x, y_high, x, y_low, "error"),
            _line(x - 4, y_high, x + 4, y_high, "error"),
            _line(x - 4, y_low, x + 4, y_low, "error"),
        )
    return el(
        "g",
        el("title", f"{mark.tooltip()}, {mark.x:,.0f} samples"),
        bar,
        el("circle", cx=float(x), cy=float(y), r=5, class_="dot"),
        class_=f"mark {mark.kind}".strip(),
    )


Box = tuple[float, float, float, float]


def _place_labels(
    marks: Sequence[Mark], places: list[tuple[float, float, float, float]], frame: Box
) -> tuple[list[Child], list[str]]:
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y, _, _ in places]
    taken += [
        (x - 5, high, x + 5, low)
        for mark, (x, _, high, low) in zip(marks, places, strict=True)
        if mark.spread
    ]
    labels: list[Child] = []
    numbered: list[str] = []
    for mark, (x, y, _, _) in zip(marks, places, strict=True):
        kind = f"label {mark.kind}".strip()
        box = _free_box(fit(mark.name, 190), x, y, taken, frame)
        text = fit(mark.name, 190)
        if box is None:
            numbered.append(mark.name)
            text = str(len(numbered))
            box = _free_box(text, x, y, taken, frame) or (x + 9, y - 8, x + 25, y + 6)
            kind += " number"
        taken.append(box)
        labels.append(_text(box[0], box[3] - 3, text, kind))
    return labels, numbered


def _free_box(text: str, x: float, y: float, taken: list[Box], frame: Box) -> Box | None:
    """Return a box for a label near its point that touches nothing, or None."""
    width, height = text_width(text), 14.0
    for dx, dy in (
        (9, -7), (-9 - width, -7), (-width / 2, -23), (-width / 2, 9),
        (9, -20), (9, 6), (-9 - width, -20), (-9 - width, 6),
    ):  # fmt: skip
        box = (x + dx, y + dy, x + dx + width, y + dy + height)
        within = frame[0] + 2 <= box[0] and box[2] <= frame[2]
        if (
            within
            and box[1] >= 0
            and box[3] <= frame[3]
            and not any(_overlap(box, other) for other in taken)
        ):
            return box
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# -- one task --------------------------------------------------------------------------------


def dots(
    marks: Sequence[Mark | None], names: Sequence[str], chance: float | None, label: str
) -> Html:
    """Draw one task: a row per dataset with its seeds, mean and spread, and the chance level."""
    width, row, top = 340.0, 20.0, 18.0
    left = min(max(text_width(name) for name in names) + 12, 150.0)
    right = width - 52.0
    height = top + row * len(names) + 22
    known = [mark for mark in marks if mark is not None]
    values = [v for m in known for v in (m.low, m.high, *m.values)]
    if chance is not None:
        values.append(chance)
    low, high = padded(min(values, default=0.0), max(values, default=1.0))

    def x_of(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    bottom = top + row * len(names)
    body: list[Child] = [_axis(ticks(low, high, 3), x_of, top, bottom)]
    if chance is not None:
        x = x_of(chance)
        anchor = "start" if x < left + 30 else "end" if x > right - 30 else "middle"
        body.append(_line(x, top - 4, x, bottom, "chance"))
        body.append(_text(x, top - 7, "chance", "chance-name", anchor))
    for number, (mark, name) in enumerate(zip(marks, names, strict=True)):
        y = top + row * (number + 0.5)
        body.append(_dot_row(mark, name, x_of, (left, y, width)))
    return _svg(width, height, label, body, class_="dots")


def _axis(values: list[float], x_of: Callable[[float], float], top: float, bottom: float) -> Html:
    places = _places(values)
    return join(
        [
            join(
                _line(x_of(value), top, x_of(value), bottom, "gridline"),
                _text(x_of(value), bottom + 16, f"{value:.{places}f}", "tick", "middle"),
            )
            for value in values
        ]
    )


def _dot_row(
    mark: Mark | None, name: str, x_of: Callable[[float], float], place: tuple[float, float, float]
) -> Html:
    left, y, width = place
    kind = mark.kind if mark else ""
    tooltip = mark.tooltip() if mark else f"{name}: not evaluated"
    parts: list[Child] = [
        el("title", tooltip),
        _text(left - 10, y + 4, fit(name, left - 10), "label", "end"),
        _text(width, y + 4, decimal(mark.mean) if mark else NONE, "value", "end"),
    ]
    if mark:
        parts += [el("circle", cx=x_of(v), cy=y, r=2.5, class_="seed") for v in mark.values]
        if mark.spread:
            parts.append(_line(x_of(mark.low), y, x_of(mark.high), y, "error"))
        parts.append(el("circle", cx=x_of(mark.mean), cy=y, r=4.5, class_="dot"))
    return el("g", parts, class_=f"mark {kind}".strip())


# -- bars ------------------------------------------------------------------------------------


def bar(parts: Sequence[Part], total: float, label: str) -> Html:
    """Draw one stacked bar as wide as its place; ``total`` is the full width."""
    x = 0.0
    pieces: list[Child] = []
    for part in parts:
        width = 100 * part.value / total if total else 0.0
        if width > 0:
            title = el("title", f"{part.label}: {part.value:,.0f}")
            size = f"{width:.5g}"
            pieces.append(
                el("rect", title, x=f"{x:.5g}", y=0, width=size, height=10, class_=part.kind)
            )
        x += width
    return el(
        "svg", pieces, class_="bar", role="img", aria_label=label,
        viewBox="0 0 100 10", preserveAspectRatio="none",
    )  # fmt: skip


def histogram(edges: Sequence[float], counts: Sequence[int], label: str, integer: bool) -> Html:
    """Draw a histogram: ``edges`` (n + 1) evenly spaced on the page, ``counts`` (n)."""
    width, height, bottom, top = 300.0, 132.0, 108.0, 14.0
    step = width / len(counts)
    tallest = max(counts) or 1
    body: list[Child] = []
    for i, count in enumerate(counts):
        tall = (bottom - top) * count / tallest
        if count:
            tall = max(tall, 1.0)
            span = f"{_edge(edges[i], integer)} to {_edge(edges[i + 1], integer)}: {count:,}"
            body.append(
                el("rect", el("title", span), x=i * step + 0.5, y=bottom - tall,
                   width=step - 1, height=tall, class_="column")
            )  # fmt: skip
    body.append(_line(0, bottom, width, bottom, "axis"))
    middle = len(counts) // 2
    for i, anchor in ((0, "start"), (middle, "middle"), (len(counts), "end")):
        body.append(_text(i * step, bottom + 17, _edge(edges[i], integer), "tick", anchor))
    body.append(_text(width, 9, f"tallest {tallest:,}", "tick", "end"))
    return _svg(width, height, label, body)


def _edge(value: float, integer: bool) -> str:
    return f"{value:,.0f}" if integer and abs(value) < 1e6 else f"{value:.3g}"
