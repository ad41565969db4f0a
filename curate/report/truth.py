"""What single filters keep of the planted truth: which defect each of them catches."""

from __future__ import annotations

from typing import Any

from .markup import Html, breakable, decimal, el, join, percent, words
from .table import Column, Row, sortable

_CLEAN = "clean"


def against_truth(results: dict[str, Any]) -> Html | None:
    """Return the table of the filters that a study held against the truth, if there are any."""
    whole: dict[str, int] = results["study"]["pool"]["defects"] or {}
    rows: list[Row] = [
        {**row, "name": row["filter"]}
        for row in results.get("truth", ())
        if row["kept_defects"] is not None
    ]
    if not rows or not whole:
        return None
    defects = [name for name in whole if name != _CLEAN]
    columns = [
        Column("Filter", lambda row: row["name"], _name, "name", "ascending"),
        Column("Size", lambda row: row["size"], lambda row: f"{row['size']:,}"),
        _rated("Precision"),
        _rated("Recall"),
        *(_defect(name, whole[name]) for name in defects),
        Column("Time", lambda row: row["seconds"], lambda row: f"{row['seconds']:.1f} s",
               "number time", "ascending"),
    ]  # fmt: skip
    return join(
        el(
            "p",
            "Each filter alone on the whole pool, nothing trained on what it keeps. Under a "
            "defect stands how much of it stays: 0 % is caught entirely. No filter could read the "
            "truth. A filter that catches one defect leaves the others, so its precision says "
            "little by itself. Time is scoring and deciding, without scores computed before.",
            class_="note",
        ),
        sortable(rows, columns, "truth-table", "Filters against the truth"),
    )


def _name(row: Row) -> Html:
    return el("code", breakable(row["name"]), class_="fit")


def _rated(title: str) -> Column:
    key = title.lower()
    return Column(title, lambda row: row[key], lambda row: decimal(row[key]), rated=True)


def _defect(name: str, planted: int) -> Column:
    def left(row: Row) -> float:
        return row["kept_defects"].get(name, 0) / planted

    return Column(words(name), left, lambda row: percent(left(row)), first="ascending")
