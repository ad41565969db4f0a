"""The page that puts two rows side by side, and the data its script shows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...evaluate.tasks import load_tasks
from ..report.markup import el, join, words
from .board import Board
from .page import (
    COMPARE,
    SCRIPT,
    Site,
    document,
    half_width,
    rank_text,
    scrolling,
    section,
)


def compare_page(site: Site, board: Board) -> str:
    """Return the page that puts two rows side by side; a script fills it."""
    head = join(
        el("p", el("a", f"Scale {board.scale}", href=f"{board.scale}.html"), class_="eyebrow"),
        el("h1", "Compare two"),
        el("p", "", class_="verdict", id="verdict", role="status", aria_live="polite"),
    )

    def choice(key: str, text: str):
        options = [
            el("option", f"{rank_text(place.rank, bool(place.ties))}  {row.method} ({row.author})",
               value=row.id)
            for row, place in zip(board.rows, board.places, strict=True)
        ]  # fmt: skip
        return el("label", el("span", text), el("select", options, id=key))

    main = join(
        section(
            "choose", "Two rows",
            el("div", choice("a", "A"), choice("b", "B"),
               el("button", "Swap", type="button", id="swap"), class_="filters-bar"),
            el("noscript", el("p", "This page needs its script, which asks nobody for anything.",
                              class_="note")),
        ),
        section("groups-section", "Averages", scrolling("Averages", el("table", id="groups"))),
        section(
            "tasks-section", "Task by task",
            el("p", "The dot is B − A, the line its 95 % interval as if both had been tested on "
               "different images, which is the careful side. ",
               el("code", "datacomp results compare"), " pairs the images and is sharper: its "
               "input stands under Files on each submission’s page.", class_="note"),
            scrolling("Task by task", el("table", id="task-table", class_="sortable")),
        ),
    )  # fmt: skip
    scripts = (f"data/{board.scale}.js", COMPARE, SCRIPT)
    return document(site, f"Compare at scale {board.scale}", head, main, scripts=scripts)


def plain_rows(board: Board) -> str:
    """Return a script that holds the rows of a board for the page that compares two."""
    tasks = load_tasks()
    keys = list(dict.fromkeys(key for row in board.rows for key in row.tasks))
    groups = list(dict.fromkeys(name for row in board.rows for name in row.averages))
    value = {
        "tasks": [
            {"name": tasks[key].name, "metric": words(tasks[key].main_metric or ""),
             "chance": tasks[key].chance, "near": tasks[key].near_chance}
            for key in keys
        ],
        "groups": groups,
        "rows": [
            {
                "id": row.id, "method": row.method, "author": row.author, "size": row.size,
                "rank": rank_text(place.rank, bool(place.ties)), "cited": row.is_reference,
                "average": round(row.average, 6), "half": _rounded(half_width(row)),
                "groups": [_rounded(row.averages.get(name)) for name in groups],
                "tasks": [_rounded(row.tasks[key].value) if key in row.tasks else None
                          for key in keys],
                "errors": [_rounded(row.tasks[key].standard_error) if key in row.tasks else None
                           for key in keys],
                "ties": _runs(place.ties),
            }
            for row, place in zip(board.rows, board.places, strict=True)
        ],
    }  # fmt: skip
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    escaped = text.replace("<", "\\u003c")  # safe even where a script would stand in a page
    return f"window.board={escaped};\n"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Write sorted numbers as ranges [first, last]: those that tie are mostly neighbours."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
