"""The page that says which tasks rank submissions alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...evaluate.leaderboard.scaling import average_ranks, task_correlation
from ...evaluate.tasks import load_tasks
from ..report.markup import Html, decimal, el, join
from .board import Board
from .page import Site, count_noun, document, minus, scrolling, section

_CELL = 15


def tasks_page(site: Site, board: Board) -> str:
    """Return the page that says which tasks rank submissions alike."""
    rows = board.submissions
    keys = list(rows[0].tasks)
    scores = np.array([[row.tasks[key].value for key in keys] for row in rows])
    matrix = task_correlation(scores)
    averages = average_ranks(np.array([row.average for row in rows]))
    with_average = task_correlation(np.column_stack([scores, averages]))[-1, :-1]
    head = join(
        el("p", el("a", f"Scale {board.scale}", href=f"{board.scale}.html"), class_="eyebrow"),
        el("h1", "How the tasks go together"),
        el("p", _alike(keys, with_average, len(rows)), class_="verdict"),
    )
    note = (
        "Rank correlation of every two tasks over the submissions of this scale. Blue: they rank "
        "submissions alike; orange: one ranks them the other way round; pale: one says nothing of "
        "the other. The darker, the stronger. Numbers count the tasks in the order of the rows."
    )
    main = join(
        section("map", "Every task against every other", el("p", note, class_="note"),
                el("div", _map(keys, matrix), class_="scroll map", role="region",
                   aria_label="Correlation of tasks", tabindex=0)),
        section("with-average", "Each task against the average",
                _with_average(keys, with_average, scores)),
    )  # fmt: skip
    return document(site, f"Tasks at scale {board.scale}", head, main)


def _alike(keys: Sequence[str], values: np.ndarray, count: int) -> str:
    tasks = load_tasks()
    known = [i for i in range(len(keys)) if math.isfinite(float(values[i]))]
    order = sorted(known, key=lambda i: -float(values[i]))
    best = ", ".join(tasks[keys[i]].name for i in order[:3])
    weak = ", ".join(tasks[keys[i]].name for i in order[-3:])
    return (
        f"Over {count_noun(count, 'submission')}, {best} rank them most as the average does; "
        f"{weak} least."
    )


def _map(keys: Sequence[str], matrix: np.ndarray) -> Html:
    tasks = load_tasks()
    left, top = 172, 24
    width, height = left + _CELL * len(keys) + 4, top + _CELL * len(keys) + 4
    parts: list[str] = []
    for i, key in enumerate(keys):
        y = top + i * _CELL
        mark = " °" if tasks[key].near_chance else ""
        parts.append(
            el("text", f"{tasks[key].name}{mark} {i + 1}", x=left - 6, y=y + 11, class_="tick",
               text_anchor="end")
        )  # fmt: skip
        if i == 0 or (i + 1) % 5 == 0:
            parts.append(
                el("text", str(i + 1), x=left + i * _CELL + 7, y=top - 8, class_="tick",
                   text_anchor="middle")
            )  # fmt: skip
        for j, other in enumerate(keys):
            value = float(matrix[i, j])
            if not math.isfinite(value):
                continue
            step = min(4, int(abs(value) * 5))
            kind = f"{'p' if value >= 0 else 'n'}{step}"
            title = f"{tasks[key].name} and {tasks[other].name}: {value:.2f}"
            parts.append(
                f'<rect x="{left + j * _CELL}" y="{y}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'class="{kind}">{el("title", title)}</rect>'
            )
    label = (
        "Rank correlation of every two tasks; the table below tells each task's with the average"
    )
    return el("svg", Html("".join(parts)), role="img", aria_label=label, width=str(width),
              height=str(height), viewBox=f"0 0 {width} {height}")  # fmt: skip


def _with_average(keys: Sequence[str], values: np.ndarray, scores: np.ndarray) -> Html:
    tasks = load_tasks()
    heads = (("Task", "name"), ("With the average", "number"), ("Mean score", "number"),
             ("Spread", "number"), ("Chance", "number"))  # fmt: skip
    head = [
        el("th", el("button", name, el("i", aria_hidden="true"), type="button"), scope="col",
           class_=kind, data_first="ascending" if kind == "name" else "descending")
        for name, kind in heads
    ]  # fmt: skip
    body = [
        el(
            "tr",
            el("th", el("span", tasks[key].name, " ", el("span", "near chance", class_="badge")
                        if tasks[key].near_chance else None, class_="fit"),
               scope="row", class_="name", data_value=tasks[key].name.casefold()),
            _number(float(value), 2), _number(float(scores[:, i].mean())),
            _number(float(scores[:, i].std(ddof=1))), _number(tasks[key].chance),
        )
        for i, (key, value) in enumerate(zip(keys, values, strict=True))
    ]  # fmt: skip
    caption = "Rank correlation with the average; mean and standard deviation over submissions."
    table = el("table", el("caption", caption), el("thead", el("tr", head)), el("tbody", body),
               class_="sortable")  # fmt: skip
    return scrolling("Tasks against the average", table)


def _number(value: float | None, places: int = 3) -> Html:
    known = value is not None and math.isfinite(value)
    return el("td", minus(decimal(value, places)), data_value=repr(value) if known else "")
