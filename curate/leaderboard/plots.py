"""Charts of many submissions, as SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..report.charts import fit, log_ticks, padded, short_count, text_width, ticks
from ..report.markup import Child, Html, el, join


@dataclass(frozen=True)
class Point:
    """A point: where, what it is called, its class in the style sheet, and whether to name it."""

    x: float
    y: float
    name: str
    kind: str = ""
    named: bool = False
    half: float | None = None


@dataclass(frozen=True)
class Line:
    """A line through points, with its class in the style sheet."""

    points: tuple[tuple[float, float], ...]
    kind: str = "trend"
    title: str = ""


Scale = Callable[[float], float]


def plot(
    points: Sequence[Point],
    label: str,
    x_name: str,
    *,
    width: int = 920,
    height: int = 400,
    lines: Sequence[Line] = (),
    bands: Sequence[Sequence[tuple[float, float, float]]] = (),
    x_text: Callable[[float], str] = short_count,
) -> Html:
    """Draw scores against a logarithmic axis; ``bands`` are (x, low, high) along a line."""
    left, right, top, bottom = 46.0, width - 14.0, 12.0, height - 40.0
    xs = [p.x for p in points] + [x for line in lines for x, _ in line.points]
    xs += [x for band in bands for x, _, _ in band]
    ys = [p.y + (p.half or 0) * sign for p in points for sign in (-1, 1)]
    ys += [y for line in lines for _, y in line.points]
    ys += [y for band in bands for _, low, high in band for y in (low, high)]
    low, high = padded(min(ys), max(ys), 0.06)
    start, end = math.log(min(xs)) - 0.12, math.log(max(xs)) + 0.12
    if end - start < 0.5:
        start, end = start - 0.4, end + 0.4

    def x_of(value: float) -> float:
        return left + (math.log(value) - start) / (end - start) * (right - left)

    def y_of(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    x_ticks = [t for t in log_ticks(math.exp(start), math.exp(end)) if left <= x_of(t) <= right]
    body: list[Child] = [_grid(ticks(low, high, 6), y_of, left, right)]
    body += [
        join(
            _line(x_of(tick), bottom, x_of(tick), bottom + 4, "axis"),
            _text(x_of(tick), bottom + 18, x_text(tick), "tick", "middle"),
        )
        for tick in _apart(x_ticks, x_of, x_text)
    ]
    body.append(_line(left, bottom, right, bottom, "axis"))
    body.append(_text((left + right) / 2, height - 4, x_name, "axis-name", "middle"))
    body += [_band(band, x_of, y_of) for band in bands]
    body += [_path(line, x_of, y_of) for line in lines]
    body += [_point(point, x_of(point.x), y_of(point.y), y_of) for point in points]
    body += _labels(points, x_of, y_of, (left, top, right, bottom))
    return el(
        "svg", body, role="img", aria_label=label, viewBox=f"0 0 {width} {height}",
        width=str(width), height=str(height), class_="plot",
    )  # fmt: skip


def both(draw: Callable[[int, int], Html], wide: tuple[int, int] = (920, 400)) -> Html:
    """Draw a chart twice, wide and for a phone: text in a chart is never scaled."""
    return el(
        "figure",
        el("div", draw(*wide), class_="wide"),
        el("div", draw(346, 360), class_="narrow"),
        class_="chart",
    )


def _grid(values: list[float], y_of: Scale, left: float, right: float) -> Html:
    places = next((n for n in (1, 2, 3, 4) if all(abs(round(v, n) - v) < 1e-9 for v in values)), 4)
    return join(
        [
            join(
                _line(left, y_of(value), right, y_of(value), "gridline"),
                _text(left - 8, y_of(value) + 4, f"{value:.{places}f}", "tick", "end"),
            )
            for value in values
        ]
    )


def _apart(values: list[float], x_of: Scale, text: Callable[[float], str]) -> list[float]:
    """Leave out ticks whose texts would touch."""
    kept: list[float] = []
    for value in values:
        if (
            not kept
            or x_of(value) - x_of(kept[-1])
            > 8 + (text_width(text(value)) + text_width(text(kept[-1]))) / 2
        ):
            kept.append(value)
    return kept


def _point(point: Point, x: float, y: float, y_of: Scale) -> Html:
    error = None
    if point.half:
        high, low = y_of(point.y + point.half), y_of(point.y - point.half)
        error = _line(x, high, x, low, "error")
    if "cited" in point.kind:
        d = f"M{x:.1f} {y - 6:.1f}L{x + 6:.1f} {y:.1f}L{x:.1f} {y + 6:.1f}L{x - 6:.1f} {y:.1f}Z"
        shape = el("path", d=d, class_="dot")
    else:
        shape = el("circle", cx=x, cy=y, r=4.5, class_="dot")
    return el("g", el("title", point.name), error, shape, class_=f"mark {point.kind}".strip())


def _band(band: Sequence[tuple[float, float, float]], x_of: Scale, y_of: Scale) -> Html:
    upper = [f"{x_of(x):.1f} {y_of(high):.1f}" for x, _, high in band]
    lower = [f"{x_of(x):.1f} {y_of(low):.1f}" for x, low, _ in reversed(band)]
    return el("path", d=f"M{'L'.join(upper + lower)}Z", class_="band")


def _path(line: Line, x_of: Scale, y_of: Scale) -> Html:
    d = "M" + "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in line.points)
    return el("path", el("title", line.title) if line.title else None, d=d, class_=line.kind)


Box = tuple[float, float, float, float]


def _labels(points: Sequence[Point], x_of: Scale, y_of: Scale, frame: Box) -> list[Child]:
    """Name the points that are to be named, where a name touches no other and no named point."""
    named = [point for point in points if point.named]
    taken: list[Box] = [(x_of(p.x) - 7, y_of(p.y) - 7, x_of(p.x) + 7, y_of(p.y) + 7) for p in named]
    labels: list[Child] = []
    room = frame[2] - frame[0]
    for point in named:
        text = fit(point.name.split(":")[0], min(230.0, room * 0.55))
        x, y, w = x_of(point.x), y_of(point.y), text_width(text)
        for dx, dy in ((10, -7), (-10 - w, -7), (-w / 2, -24), (-w / 2, 9), (10, 7), (-10 - w, 7)):
            box = (x + dx, y + dy, x + dx + w, y + dy + 14)
            inside = frame[0] + 2 <= box[0] and box[2] <= frame[2] + 10
            inside = inside and box[1] >= 0 and box[3] <= frame[3]
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                labels.append(_text(box[0], box[3] - 3, text, f"label {point.kind}".strip()))
                break
    return labels


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text(x: float, y: float, text: str, class_: str, anchor: str = "start") -> Html:
    return el("text", text, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return el("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)
