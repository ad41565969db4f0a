"""The page of one task: what a model took for what, and its worst mistakes with their images."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path

import numpy as np

from ...durable import write_text
from ...evaluate.evalsets import EvalSet
from ...evaluate.results import Result
from ...evaluate.tasks import Task, folder_name
from ...evaluate.witness import Mistake, Witness
from .markup import Html, decimal, document, el, join, percent, shorten
from .sheets import gallery, thumbnail_of

LABELLED_CLASSES = 40
"""Up to so many classes the matrix has names and numbers; beyond, each cell is a pixel."""
CELL = 16
NAME_WIDTH = 170
_PAIRS = 20
_HARDEST = 20
_NAME = 40
_ACCENT = (10, 100, 164)


def page_path(folder: Path, task: Task) -> Path:
    """Return where a task's page is written."""
    return folder / f"{folder_name(task.key)}.html"


def write_mistakes(folder: Path, evalset: EvalSet, witness: Witness, result: Result) -> Path:
    """Write the page of one task into ``folder``; same input, same bytes."""
    names, confusion = evalset.classnames, witness.confusion
    path = page_path(folder, evalset.task)
    sections = [_head(evalset.task, witness, result), el("main", [
        _section("matrix", "Confusion matrix", _matrix(names, confusion)),
        _section("pairs", "Most frequent confusions", _pairs(names, confusion)),
        _section("classes", "Hardest classes", _classes(names, confusion)),
        _section("worst", "Worst mistakes", _worst(names, witness.worst)),
    ])]  # fmt: skip
    write_text(path, document(f"{evalset.task.name}: mistakes", join(*sections)))
    return path


def _head(task: Task, witness: Witness, result: Result) -> Html:
    total = sum(witness.confusion.values())
    right = sum(n for (label, guess), n in witness.confusion.items() if label == guess)
    main = f"{task.main_metric} {decimal(result.value, 4)}" if task.main_metric else ""
    if result.interval is not None:
        main += " ({:.4f} to {:.4f})".format(*result.interval)
    made = result.provenance
    corrupted = f", corrupted by {made['corruption']}" if "corruption" in made else ""
    model = f"{made.get('model')}, checkpoint {str(made.get('checkpoint'))[:12]}{corrupted}"
    return el(
        "header",
        el("p", "datacomp evaluate", class_="eyebrow"),
        el("h1", task.name),
        el("p", f"{right:,} of {total:,} images right ({percent(right / max(total, 1))}). {main}",
           class_="verdict"),
        el("p", model, class_="note"),
        class_="contact",
    )  # fmt: skip


def _section(key: str, title: str, content: Html) -> Html:
    return el(
        "section", el("h2", title, id=f"{key}-title"), content,
        id=key, aria_labelledby=f"{key}-title",
    )  # fmt: skip


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
    side = len(names) * CELL
    rows = [
        el("text", shorten(name, 26), x=NAME_WIDTH - 8, y=i * CELL + CELL - 4, text_anchor="end")
        for i, name in enumerate(names)
    ]
    cells = [
        el(
            "rect",
            el("title", f"{names[label]} taken for {names[guess]}: {count:,} "
                        f"({percent(shares[label, guess])})"),
            x=NAME_WIDTH + guess * CELL, y=label * CELL, width=CELL - 1, height=CELL - 1,
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
    return _table(("class", "taken for", "images", "share of the class"), rows)


def _classes(names: tuple[str, ...], confusion: Counter[tuple[int, int]]) -> Html:
    sizes = _sizes(confusion)
    recalls = sorted((confusion[label, label] / size, label) for label, size in sizes.items())
    rows = [
        (shorten(names[label], _NAME), percent(recall), f"{sizes[label]:,}")
        for recall, label in recalls[:_HARDEST]
    ]
    return _table(("class", "right", "images"), rows)


def _sizes(confusion: Counter[tuple[int, int]]) -> dict[int, int]:
    sizes: Counter[int] = Counter()
    for (label, _), count in confusion.items():
        sizes[label] += count
    return sizes


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Html:
    texts = ["left" if name == "taken for" else None for name in header]
    head = [el("th", name, scope="col", class_=text)
            for name, text in zip(header, texts, strict=True)]  # fmt: skip
    body = [
        el("tr", el("th", row[0], scope="row", class_="name"),
           [el("td", cell, class_=text) for cell, text in zip(row[1:], texts[1:], strict=True)])
        for row in rows
    ]  # fmt: skip
    return el("div", el("table", el("thead", el("tr", head)), el("tbody", body)), class_="scroll")


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
