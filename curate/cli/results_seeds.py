"""``datacomp results show --seeds``: runs that differ in the seed only, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .common import emit_json
from .tabular import emit, emit_csv

if TYPE_CHECKING:
    from ...evaluate.results import Estimate, Result
    from ...evaluate.seeds import Seeds
    from ...evaluate.tasks import Suite

Runs = Mapping[str, Mapping[str, "Result"]]


def show_seeds(found: Runs, suites: list[Suite], partial: bool, form: str, as_json: bool) -> None:
    """Show mean and spread over the seeds of each dataset."""
    from ...evaluate.results import group_names
    from ...evaluate.seeds import combine_seeds
    from .results import task_label

    datasets = combine_seeds(found, suites, partial)
    if as_json:
        emit_json([_plain_seeds(dataset) for dataset in datasets])
        return
    if form == "csv":
        _csv_seeds(datasets)
        return
    header = [f"{d.name} ({len(d.runs)} {'seed' if len(d.runs) == 1 else 'seeds'})"
              for d in datasets]  # fmt: skip
    keys = list(dict.fromkeys(key for dataset in datasets for key in dataset.tasks))
    rows = [[task_label(key), *_estimates([d.tasks.get(key) for d in datasets])] for key in keys]
    emit(form, rows, ["task", *header])
    for suite in suites:
        comment = "% " if form == "latex" else ""
        click.echo(f"\n{comment}Suite {suite.name}, version {suite.version}")
        rows = [
            [group, *_estimates([d.groups[suite.name, group] for d in datasets])]
            for group in group_names(suite)
        ]
        emit(form, rows, ["group", *header])


def _csv_seeds(datasets: Sequence[Seeds]) -> None:
    """Print mean and spread of every score, one a line."""
    lines: list[list[Any]] = []
    for dataset in datasets:
        scores = [("", "task", key, estimate) for key, estimate in dataset.tasks.items()]
        scores += [
            (suite, "group", name, estimate)
            for (suite, name), estimate in dataset.groups.items()
            if estimate is not None
        ]
        lines += [
            [dataset.name, suite, kind, name, e.mean, e.deviation, e.standard_error, e.n]
            for suite, kind, name, e in scores
        ]
    emit_csv(lines, ("dataset", "suite", "kind", "name", "mean", "deviation", "standard_error",
                     "seeds"))  # fmt: skip


def _estimates(row: list[Estimate | None]) -> list[str]:
    """Write mean and spread; the best and what ties with it are marked, if others do not."""
    from ...evaluate.results import tied_best

    known = {str(place): estimate for place, estimate in enumerate(row) if estimate is not None}
    best = tied_best(known)
    marked = best if len(best) < len(known) else frozenset()
    cells: list[str] = []
    for place, estimate in enumerate(row):
        if estimate is None:
            cells.append("-")
            continue
        spread = "" if estimate.deviation is None else f" ± {estimate.deviation:.4f}"
        cells.append(f"{estimate.mean:.4f}{spread}{' *' if str(place) in marked else ''}")
    return cells


def _plain_seeds(dataset: Seeds) -> dict[str, Any]:
    from dataclasses import asdict

    groups: dict[str, dict[str, Any]] = {}
    for (suite, group), estimate in dataset.groups.items():
        groups.setdefault(suite, {})[group] = None if estimate is None else asdict(estimate)
    return {
        "dataset": dataset.name,
        "runs": list(dataset.runs),
        "results": {key: asdict(estimate) for key, estimate in dataset.tasks.items()},
        "groups": groups,
    }
