"""``datacomp results``: what runs scored, with intervals and averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import emit_json, emit_table, examples, json_option

if TYPE_CHECKING:
    from ...evaluate.comparing import Difference
    from ...evaluate.results import Estimate, GroupScore, Result
    from ...evaluate.seeds import Seeds
    from ...evaluate.tasks import Suite

Runs = Mapping[str, Mapping[str, "Result"]]


@click.group()
def results() -> None:
    """Show and compare results of runs."""


@results.command(
    epilog=examples(
        "datacomp results show runs/baseline",
        "datacomp results show runs/baseline runs/filtered --json",
        "datacomp results show runs/* --seeds",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Average what is there where tasks are missing.")
@click.option("--seeds", is_flag=True,
              help="Combine runs that differ in the seed only: mean and spread; * is best or "
              "tied with it.")  # fmt: skip
@json_option
def show(runs: tuple[Path, ...], partial: bool, seeds: bool, as_json: bool) -> None:
    """Show the scores of runs (directories or results files) side by side."""
    from ...evaluate.results import check_comparable, group_names, read_results
    from ...evaluate.seeds import run_name
    from ...evaluate.tasks import load_suites

    found = {str(run): read_results(run) for run in runs}
    check_comparable(found)
    suites = [
        suite
        for suite in load_suites().values()
        if any(key in run for run in found.values() for key in suite.groups["Average"])
    ]
    if seeds:
        _show_seeds(found, suites, partial, as_json)
        return
    groups = {
        run: {suite.name: _groups(scores, suite, partial) for suite in suites}
        for run, scores in found.items()
    }
    if as_json:
        emit_json(
            {
                run: {
                    "results": [result.to_dict() for result in scores.values()],
                    "groups": {
                        suite: {name: _plain(score) for name, score in per_suite.items()}
                        for suite, per_suite in groups[run].items()
                    },
                }
                for run, scores in found.items()
            }
        )
        return
    keys = list(dict.fromkeys(key for scores in found.values() for key in scores))
    header = ["task", *(run_name(run) for run in found)]
    emit_table([[key, *(_score(s.get(key)) for s in found.values())] for key in keys], header)
    for suite in suites:
        click.echo(f"\nSuite {suite.name}, version {suite.version}")
        rows = [
            [name, *(_mean(groups[run][suite.name][name], partial) for run in found)]
            for name in group_names(suite)
        ]
        emit_table(rows, ["group", *header[1:]])
        for run in found if partial else ():
            _name_missing(run_name(run), groups[run][suite.name]["Average"].missing)


@results.command(
    epilog=examples(
        "datacomp results compare runs/baseline runs/filtered",
        "datacomp results compare runs/baseline runs/filtered --partial --json",
    )
)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Average what both have where tasks are missing.")
@json_option
def compare(first: Path, second: Path, partial: bool, as_json: bool) -> None:
    """Compare run B with run A: differences over the same test images, ties marked as ties.

    The intervals say how a difference would vary with other test images, not how it would vary
    with the seed of the training; for that, see 'results show --seeds'.
    """
    from ...evaluate.comparing import compare_groups, compare_tasks
    from ...evaluate.results import read_results
    from ...evaluate.seeds import run_name
    from ...evaluate.tasks import load_suites

    a, b = read_results(first), read_results(second)
    tasks = compare_tasks(a, b)
    groups = {
        suite.name: compare_groups(a, b, suite, partial)
        for suite in load_suites().values()
        if any(key in a and key in b for key in suite.groups["Average"])
    }
    if as_json:
        emit_json(
            {
                "tasks": [_plain_difference(one) for one in tasks],
                "groups": {
                    suite: [_plain_difference(one) for one in found]
                    for suite, found in groups.items()
                },
            }
        )
        return
    names = run_name(str(first)), run_name(str(second))
    names = names if names[0] != names[1] else (str(first), str(second))
    _emit_differences("task", tasks, names)
    for suite, found in groups.items():
        click.echo(f"\nSuite {suite}")
        if found:
            _emit_differences("group", found, names)
        else:
            click.echo("no group has all its tasks in both runs; see --partial")
        average = next((one for one in found if one.name == "Average"), None)
        _name_missing("both", average.missing if average else ())


def _emit_differences(what: str, found: Sequence[Difference], names: tuple[str, str]) -> None:
    rows = [
        [
            one.name, f"{one.first:.4f}", f"{one.second:.4f}", f"{one.difference:+.4f}",
            "-" if one.interval is None else "{:+.4f} to {:+.4f}".format(*one.interval),
            _verdict(one, names),
        ]
        for one in found
    ]  # fmt: skip
    emit_table(rows, (what, *names, "difference", "95 % interval", "higher"))


def _verdict(one: Difference, names: tuple[str, str]) -> str:
    if one.tie is None:
        return "unknown"
    return "tie" if one.tie else names[one.difference > 0]


def _plain_difference(one: Difference) -> dict[str, Any]:
    return {
        "name": one.name,
        "first": one.first,
        "second": one.second,
        "difference": one.difference,
        "interval": one.interval,
        "tie": one.tie,
        "missing": list(one.missing),
    }


def _name_missing(who: str, missing: Sequence[str]) -> None:
    """Say which tasks a partial average leaves out."""
    if missing:
        click.echo(f"{who}: without {', '.join(missing)}")


def _groups(scores: Mapping[str, Result], suite: Suite, partial: bool) -> dict[str, GroupScore]:
    """Return every group's score; an incomplete one has no value unless ``partial``."""
    from dataclasses import replace

    from ...evaluate.results import group_names, group_score

    found = {name: group_score(scores, suite, name, partial=True) for name in group_names(suite)}
    return {
        name: score if partial or not score.missing
        else replace(score, value=None, standard_error=None, interval=None)
        for name, score in found.items()
    }  # fmt: skip


def _show_seeds(found: Runs, suites: list[Suite], partial: bool, as_json: bool) -> None:
    """Show mean and spread over the seeds of each dataset."""
    from ...evaluate.results import group_names
    from ...evaluate.seeds import combine_seeds

    datasets = combine_seeds(found, suites, partial)
    if as_json:
        emit_json([_plain_seeds(dataset) for dataset in datasets])
        return
    header = [f"{d.name} ({len(d.runs)} {'seed' if len(d.runs) == 1 else 'seeds'})"
              for d in datasets]  # fmt: skip
    keys = list(dict.fromkeys(key for dataset in datasets for key in dataset.tasks))
    rows = [[key, *_estimates([d.tasks.get(key) for d in datasets])] for key in keys]
    emit_table(rows, ["task", *header])
    for suite in suites:
        click.echo(f"\nSuite {suite.name}, version {suite.version}")
        rows = [
            [group, *_estimates([d.groups[suite.name, group] for d in datasets])]
            for group in group_names(suite)
        ]
        emit_table(rows, ["group", *header])


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


def _plain(score: GroupScore) -> dict[str, Any]:
    return {
        "value": score.value,
        "standard_error": score.standard_error,
        "interval": score.interval,
        "tasks": len(score.keys),
        "missing": list(score.missing),
    }


def _score(result: Result | None) -> str:
    if result is None or result.value is None:
        return "-"
    interval = " ({:.3f} to {:.3f})".format(*result.interval) if result.interval else ""
    return f"{result.value:.4f}{interval}"


def _mean(score: GroupScore, partial: bool) -> str:
    have = len(score.keys) - len(score.missing)
    counted = f" ({have} of {len(score.keys)} tasks)" if score.missing else ""
    if score.value is None or (score.missing and not partial):
        return f"-{counted}"
    interval = " ({:.3f} to {:.3f})".format(*score.interval) if score.interval else ""
    return f"{score.value:.4f}{interval}{counted}"
