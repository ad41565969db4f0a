"""The leaderboard: tables that sort by click and keyboard and show ties as ties.

What decides stands in the first, which fits a common screen; the scores on each task, of which
there may be many, have a table of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from ...progress import duration
from .markup import NONE, Child, Html, breakable, decimal, el, join, percent, words

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Column:
    """A column: its heading, what a row's cell sorts by, and what it shows."""

    title: str
    value: Callable[[Row], float | str | None]
    show: Callable[[Row], Child]
    kind: str = "number"
    first: str = "descending"
    rated: bool = False
    note: Child = None
    group: str = ""
    chance: float | None = None
    best: tuple[str, ...] | None = None
    """The datasets to mark as best, where more than the highest value may be."""


def places(datasets: list[Row]) -> dict[str, tuple[int, bool]]:
    """Return each dataset's place and whether it is tied with another.

    The place is one more than the number of datasets that rank better and are not tied with it.
    """
    return {
        d["name"]: (
            1 + sum(o["rank"] < d["rank"] and o["name"] not in d["tied_with"] for o in datasets),
            bool(d["tied_with"]),
        )
        for d in datasets
    }


def leaderboard(results: Row) -> Html:
    """Return the tables with their notes; rows in the order of ``results["datasets"]``."""
    datasets = results["datasets"]
    tasks = [_dataset(), *(_task(task) for task in results["tasks"])]
    return join(
        sortable(datasets, _columns(results), "board", "Leaderboard", results["best"]),
        el("h3", "Scores on each task") if len(tasks) > 1 else None,
        sortable(datasets, tasks, "scores", "Scores on each task", results["best"])
        if len(tasks) > 1
        else None,
        _notes(results),
    )


def sortable(
    datasets: list[Row], columns: list[Column], key: str, title: str, winner: str | None = None
) -> Html:
    """Return a table that sorts by its headings; ``winner`` is the name of the row to mark."""
    best = {column: _best(column, datasets) for column in columns if column.rated}
    rows = [
        el(
            "tr",
            [_cell(column, dataset, best.get(column, ())) for column in columns],
            class_="winner" if dataset["name"] == winner else None,
        )
        for dataset in datasets
    ]
    table = el(
        "table",
        el(
            "caption",
            "Headings sort the table. Bold: the best of a column and what ties with "
            "it, unless all do.",
        ),
        el("thead", _group_row(columns), el("tr", [_heading(column) for column in columns])),
        el("tbody", rows),
        _chance_row(columns),
        id=key,
        class_="sortable",
    )
    return el("div", table, class_="scroll", role="region", aria_label=title, tabindex=0)


def _columns(results: Row) -> list[Column]:
    ranks = places(results["datasets"])
    judged = [key for key in ("precision", "recall")
              if any(d[key] is not None for d in results["datasets"])]  # fmt: skip
    return [
        Column("Rank", lambda d: d["rank"], lambda d: _rank(d, ranks), "rank", "ascending"),
        _dataset(),
        Column("Average", lambda d: d["average"]["mean"], lambda d: _score(d["average"]),
               "number", rated=True, best=_leaders(results)),
        Column("Size", lambda d: d["size"], lambda d: f"{d['size']:,}"),
        Column("Share", lambda d: d["share"], lambda d: percent(d["share"])),
        *map(_rated, judged),
        Column("Time", lambda d: d["seconds"]["total"] + d["used"]["seconds"], _time,
               "number time", "ascending"),
        Column("Filters", lambda d: " ".join(d["filters"]), _filters, "filters", "ascending"),
    ]  # fmt: skip


def _dataset() -> Column:
    return Column("Dataset", lambda d: d["name"].casefold(), _name, "name", "ascending")


def _rated(key: str) -> Column:
    return Column(key.capitalize(), lambda d: d[key], lambda d: decimal(d[key]), rated=True)


def _task(task: Row) -> Column:
    empty = {"mean": None, "spread": None}
    notes: list[Child] = [words(task["main_metric"])]
    if task["chance"] is not None:
        notes += [el("br"), f"chance {decimal(task['chance'])}"]
    if task["near_chance"]:
        notes += [el("br"), el("span", "near chance", class_="badge")]
    return Column(
        task["name"],
        lambda d: d["scores"].get(task["key"], empty)["mean"],
        lambda d: _score(d["scores"].get(task["key"], empty)),
        "number score",
        rated=True,
        note=notes,
        group=task.get("group") or "",
        chance=task["chance"],
        best=tuple(task["best"]),
    )


def _rank(dataset: Row, ranks: dict[str, tuple[int, bool]]) -> Html:
    place, tied = ranks[dataset["name"]]
    if not tied:
        return join(place)
    others = ", ".join(dataset["tied_with"])
    return el(
        "span", f"{place}=", el("span", f" tied with {others}", class_="unseen"),
        title=f"tied with {others}",
    )  # fmt: skip


def _name(dataset: Row) -> Html:
    return el("span", breakable(dataset["name"]), class_="fit")


def _score(score: Row) -> Html:
    if score["mean"] is None:
        return join(NONE)
    return join(decimal(score["mean"]), el("small", f" ± {decimal(score['spread'])}"))


def _filters(dataset: Row) -> Html:
    joined = f" {dataset['combine']} "
    parts: list[Child] = []
    for label in dataset["filters"]:
        parts += [joined if parts else None, el("code", breakable(label))]
    return join(*parts) if parts else join(NONE)


def _leaders(results: Row) -> tuple[str, ...]:
    """Return the dataset of the highest average and those tied with it; none where all are."""
    datasets = results["datasets"]
    names = [d["name"] for d in datasets
             if d["name"] == results["best"] or results["best"] in d["tied_with"]]  # fmt: skip
    return tuple(names) if len(names) < len(datasets) else ()


def _time(dataset: Row) -> Html:
    """Show what a dataset itself took and, apart, what the models it used had taken before."""
    own, used = dataset["seconds"]["total"], dataset["used"]
    if not used["runs"]:
        return join(_duration(own))
    more = f"+ {duration(used['seconds'])} for {', '.join(used['runs'])}"
    return join(_duration(own), " ", el("small", breakable(more)))


def _duration(seconds: float | None) -> str:
    return NONE if seconds is None else duration(seconds)


def _known(value: float | str | None) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _best(column: Column, datasets: list[Row]) -> tuple[str, ...]:
    """Return the datasets to mark: of the highest value, or none with nothing to compare."""
    if column.best is not None:
        return column.best
    values = {d["name"]: value for d in datasets if _known(value := column.value(d))}
    highest = max(values.values(), default=None) if len(values) > 1 else None
    return tuple(name for name, value in values.items() if value == highest)


def _cell(column: Column, dataset: Row, best: tuple[str, ...]) -> Html:
    value = column.value(dataset)
    top = dataset["name"] in best
    shown = el("b", column.show(dataset)) if top else column.show(dataset)
    key = value if isinstance(value, str) else repr(value) if _known(value) else ""
    if column.kind == "name":
        return el("th", shown, scope="row", class_=column.kind, data_value=key)
    return el("td", shown, class_=f"{column.kind} top" if top else column.kind, data_value=key)


def _heading(column: Column) -> Html:
    sort = "ascending" if column.title == "Rank" else None
    button = el("button", column.title, el("i", aria_hidden="true"), type="button")
    note = el("small", column.note) if column.note else None
    return el(
        "th", button, note, scope="col", class_=column.kind, aria_sort=sort, data_first=column.first
    )


def _group_row(columns: list[Column]) -> Html | None:
    """Return a row that names the tasks' groups, if there is more than one."""
    if len({column.group for column in columns if column.group}) < 2:
        return None
    cells = []
    for name, members in itertools.groupby(columns, key=lambda column: column.group):
        span = len(list(members))
        cells.append(
            el("th", name, colspan=span, scope="colgroup", class_="group")
            if name
            else el("td", colspan=span)
        )
    return el("tr", cells)


def _chance_row(columns: list[Column]) -> Html | None:
    if all(column.chance is None for column in columns):
        return None
    cells = [
        el("th", "chance", scope="row", class_="name")
        if column.kind == "name"
        else el("td", None if column.chance is None else decimal(column.chance), class_=column.kind)
        for column in columns
    ]
    return el("tfoot", el("tr", cells))


def _notes(results: Row) -> Html:
    ties = [d for d in results["datasets"] if d["tied_with"]]
    near = [task["name"] for task in results["tasks"] if task["near_chance"]]
    notes: list[Child] = []
    if ties:
        notes.append(
            el("p", "“=” marks a tie: the averages differ by no more than the spread over seeds "
               "can explain.", class_="note")
        )  # fmt: skip
    if near:
        notes.append(
            el("p", "Near chance: models hardly rise above guessing there, so differences on "
               f"these tasks say little ({', '.join(near)}).", class_="note")
        )  # fmt: skip
    if any(d["used"]["runs"] for d in results["datasets"]):
        notes.append(
            el("p", "Time is that of the dataset’s own stages, scoring included; “+” is what was "
               "spent before on the run that scored.", class_="note")
        )  # fmt: skip
    if len(ties) > 1:
        lines = [el("li", el("b", d["name"]), " with ", ", ".join(d["tied_with"])) for d in ties]
        notes.append(el("details", el("summary", "Which datasets tie"), el("ul", lines)))
    return join(*notes)
