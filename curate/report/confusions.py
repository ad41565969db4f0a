"""The page of a classification: what was taken for what, and the worst mistakes."""

from __future__ import annotations

import base64
import io
from collections import Counter

import numpy as np

from ...evaluate.evalsets import EvalSet
from ...evaluate.witness import Confusions, Mistake
from .markup import Html, el, join, percent, shorten
from .sheets import gallery, thumbnail_of
from .task_parts import section, table

LABELLED_CLASSES = 40
"""Up to so many classes the matrix has names and numbers; beyond, each cell is a pixel."""
CELL, LARGEST_CELL, MATRIX = 16, 32, 400
"""The side of a cell in px: as large as makes the matrix MATRIX px, within these bounds."""
NAME_WIDTH = 170
_PAIRS = 20
_HARDEST = 20
_NAME = 40
_ACCENT = (10, 100, 164)


def sections(evalset: EvalSet, witness: Confusions) -> tuple[str, list[Html]]:
    """Return what can be said in one line, and the sections of the page."""
    names, confusion = evalset.classnames, witness.confusion
    total = sum(confusion.values())
    right = sum(n for (label, guess), n in confusion.items() if label == guess)
    said = f"{right:,} of {total:,} images right ({percent(right / max(total, 1))})."
    return said, [
        section("matrix", "Confusion matrix", _matrix(names, confusion)),
        section("pairs", "Most frequent confusions", _pairs(names, confusion)),
        section("classes", "Hardest classes", _classes(names, confusion)),
        section("worst", "Worst mistakes", _worst(names, witness.worst)),
    ]


def _matrix(names: tuple[str, ...], confusion: Counter[tuple[int, int]]) -> Html:
    note = (
        "A row is a class, a column what it was taken for; the darker, the larger the share of "
        "the row. What is right lies on the diagonal."
    )
    shares = np.zeros((len(names), len(names)))
    for (label, guess), count in confusion.items():
        shares[label, guess] = count
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    labelled = len(names) <= LABELLED_CLASSES
    drawn = _cells(names, confusion, shares) if labelled else _pixels(shares)
    return join(el("p", note, class_="note"), el("div", drawn, class_="scroll"))


def _cells(names: tuple[str, ...], confusion: Counter[tuple[int, int]], shares: np.ndarray) -> Html:
    """Draw the matrix with the names of its rows; a cell tells its numbers when pointed at."""
    cell = min(max(MATRIX // len(names), CELL), LARGEST_CELL)
    side = len(names) * cell
    rows = [
        el(
            "text",
            shorten(name, 26),
            x=NAME_WIDTH - 8,
            y=i * cell + cell / 2 + 4,
            text_anchor="end",
        )
        for i, name in enumerate(names)
    ]
    cells = [
        el(
            "rect",
            el("title", f"{names[label]} taken for {names[guess]}: {count:,} "
                        f"({percent(shares[label, guess])})"),
            x=NAME_WIDTH + guess * cell, y=label * cell, width=cell - 1, height=cell - 1,
            fill="var(--accent)", fill_opacity=max(0.08, float(shares[label, guess])),
        )
        for (label, guess), count in sorted(confusion.items())
    ]  # fmt: skip
    frame = el("rect", x=NAME_WIDTH - 1, y=-1, width=side + 1, height=side + 1,
               fill="var(--track)")  # fmt: skip
    return el(
        "svg", frame, rows, cells, viewBox=f"0 -2 {NAME_WIDTH + side + 2} {side + 4}",
        width=NAME_WIDTH + side + 2, height=side + 4, role="img",
        aria_label="Confusion matrix; the table below lists its largest entries",
    )  # fmt: skip


def _pixels(shares: np.ndarray) -> Html:
    """Draw the matrix as a picture of one cell a pixel, enlarged to be seen."""
    from PIL import Image

    scale = max(1, 640 // len(shares))
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[:, :, :3] = _ACCENT
    pixels[:, :, 3] = np.where(shares > 0, 25 + 230 * np.sqrt(shares), 8).astype(np.uint8)
    picture = Image.fromarray(pixels).resize([side * scale for side in shares.shape], 0)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return el("img", src=uri, width=picture.width, height=picture.height,
              alt=f"Confusion matrix of {len(shares)} classes; tables below tell its largest "
                  "entries")  # fmt: skip


def _pairs(names: tuple[str, ...], confusion: Counter[tuple[int, int]]) -> Html:
    sizes = _sizes(confusion)
    wrong = [(n, label, guess) for (label, guess), n in confusion.items() if label != guess]
    wrong.sort(key=lambda row: (-row[0], row[1], row[2]))
    if not wrong:
        return el("p", "There are none: every image is right.", class_="note")
    rows = [
        (shorten(names[label], _NAME), shorten(names[guess], _NAME), f"{n:,}",
         percent(n / sizes[label]))
        for n, label, guess in wrong[:_PAIRS]
    ]  # fmt: skip
    return table(("class", "taken for", "images", "share of the class"), rows, ("taken for",))


def _classes(names: tuple[str, ...], confusion: Counter[tuple[int, int]]) -> Html:
    sizes = _sizes(confusion)
    recalls = sorted((confusion[label, label] / size, label) for label, size in sizes.items())
    rows = [
        (shorten(names[label], _NAME), percent(recall), f"{sizes[label]:,}")
        for recall, label in recalls[:_HARDEST]
    ]
    return table(("class", "right", "images"), rows)


def _sizes(confusion: Counter[tuple[int, int]]) -> dict[int, int]:
    sizes: Counter[int] = Counter()
    for (label, _), count in confusion.items():
        sizes[label] += count
    return sizes


def _worst(names: tuple[str, ...], worst: list[Mistake]) -> Html:
    if not worst:
        return el("p", "There are none: every image is right.", class_="note")
    note = (
        "Where the model is surest of the wrong class: the number is how much nearer the image "
        "lies to it, in cosine."
    )
    shown = [
        thumbnail_of(
            mistake.key,
            f"{names[mistake.label]}, taken for {names[mistake.prediction]}",
            mistake.image or None,
            f"by {mistake.margin:.3f}",
        )
        for mistake in worst
    ]
    return join(el("p", note, class_="note"), gallery(shown, detailed=True))
