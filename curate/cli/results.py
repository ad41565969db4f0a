"""``datacomp results``: what runs scored, with intervals and averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...progress import warn
from .common import emit_json, examples, json_option
from .tabular import emit, emit_csv, format_option

if TYPE_CHECKING:
    from ...evaluate.comparing import Difference
    from ...evaluate.results import GroupScore, Result
    from ...evaluate.tasks import Suite


@click.group()
def results() -> None:
    """Show, average and compare results of runs."""


@results.command(
    epilog=examples(
        "datacomp results show runs/baseline",
        "datacomp results show runs/baseline runs/filtered --json",
        "datacomp results show runs/* --seeds",
        "datacomp results show runs/* --format csv",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Average what is there where tasks are missing.")
@click.option("--seeds", is_flag=True,
              help="Combine runs that differ in the seed only: mean and spread; * is best or "
              "tied with it.")  # fmt: skip
@format_option
@json_option
def show(runs: tuple[Path, ...], partial: bool, seeds: bool, form: str, as_json: bool) -> None:
    """Show the scores of runs (directories or results files) side by side."""
    from ...evaluate.results import check_comparable
    from ...evaluate.seeds import run_names
    from ...evaluate.tasks import load_suites

    found = _read(runs)
    check_comparable(found)
    suites = [
        suite
        for suite in load_suites().values()
        if any(key in run for run in found.values() for key in suite.groups["Average"])
    ]
    if seeds:
        from .results_seeds import show_seeds

        show_seeds(found, suites, partial, form, as_json)
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
                    "groups": _plain_groups(groups[run]),
                    "near_chance": [key for key in scores if is_near_chance(key)],
                }
                for run, scores in found.items()
            }
        )
        return
    names = run_names(list(found))
    if form == "csv":
        tasks = [
            [name, result.provenance.get("suite"), "task", key, *_figures(result),
             _yes(is_near_chance(key))]
            for name, scores in zip(names, found.values(), strict=True)
            for key, result in scores.items()
        ]  # fmt: skip
        emit_csv([*tasks, *_group_lines(groups)], _HEADER)
        return
    keys = list(dict.fromkeys(key for scores in found.values() for key in scores))
    header = ["task", *names]
    rows = [[task_label(key), *(_score(s.get(key)) for s in found.values())] for key in keys]
    emit(form, rows, header)
    _emit_groups(form, groups, suites, partial)


@results.command(
    epilog=examples(
        "datacomp results aggregate runs/baseline runs/filtered",
        "datacomp results aggregate leaderboard/small/*/*/results/0.jsonl --format latex",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--suite", "only", help="Only this suite: demo or datacomp.")
@click.option("--partial", is_flag=True, help="Average what is there where tasks are missing.")
@format_option
@json_option
def aggregate(
    runs: tuple[Path, ...], only: str | None, partial: bool, form: str, as_json: bool
) -> None:
    """Compute the averages of runs (directories or results files) anew, and nothing else.

    What counts in an average is told by the versions of suite and averages, which are printed.
    """
    from ...errors import UsageError, suggest
    from ...evaluate.leaderboard.record import AGGREGATE_VERSION
    from ...evaluate.results import check_comparable
    from ...evaluate.tasks import load_suites

    known = load_suites()
    if only is not None and only not in known:
        raise UsageError(
            f"unknown suite {only!r}{suggest(only, list(known))}; there are: {', '.join(known)}"
        )
    found = _read(runs)
    check_comparable(found)
    suites = [
        suite
        for suite in known.values()
        if suite.name == only
        or (only is None
            and any(key in run for run in found.values() for key in suite.groups["Average"]))
    ]  # fmt: skip
    groups = {
        run: {suite.name: _groups(scores, suite, partial) for suite in suites}
        for run, scores in found.items()
    }
    if as_json:
        emit_json({
            "aggregate_version": AGGREGATE_VERSION,
            "suites": {suite.name: suite.version for suite in suites},
            "runs": {run: _plain_groups(per_run) for run, per_run in groups.items()},
        })  # fmt: skip
        return
    if form == "csv":
        emit_csv(_group_lines(groups), _HEADER)
        return
    _emit_groups(form, groups, suites, partial)
    if form == "text":
        click.echo(f"\nAverages of version {AGGREGATE_VERSION}")


def _read(runs: Sequence[Path]) -> dict[str, dict[str, Result]]:
    """Read the results of runs; of several folders, as of ``runs/*``, leave out those without."""
    from ...errors import MissingError
    from ...evaluate.results import read_results

    found: dict[str, dict[str, Result]] = {}
    for number, run in enumerate(runs, 1):
        try:
            found[str(run)] = read_results(run)
        except MissingError as error:
            if not run.is_dir() or (number == len(runs) and not found):
                raise
            warn(f"left out: {error}")
    return found


_HEADER = ("run", "suite", "kind", "name", "value", "low", "high", "standard_error", "missing",
           "near_chance")  # fmt: skip
Groups = Mapping[str, Mapping[str, Mapping[str, "GroupScore"]]]


def _figures(score: Result | GroupScore) -> list[float | None]:
    low, high = score.interval or (None, None)
    return [score.value, low, high, score.standard_error, None]


def _group_lines(groups: Groups) -> list[list[Any]]:
    """Return one line for each average of each run: for CSV."""
    from ...evaluate.seeds import run_names

    return [
        [run, suite, "group", name, *_figures(score)[:-1], len(score.missing), None]
        for run, per_run in zip(run_names(list(groups)), groups.values(), strict=True)
        for suite, per_suite in per_run.items()
        for name, score in per_suite.items()
    ]


def _emit_groups(form: str, groups: Groups, suites: Sequence[Suite], partial: bool) -> None:
    """Print the averages of every suite, runs side by side."""
    from ...evaluate.results import group_names
    from ...evaluate.seeds import run_names

    names = run_names(list(groups))
    for suite in suites:
        comment = "% " if form == "latex" else ""
        click.echo(f"\n{comment}Suite {suite.name}, version {suite.version}")
        rows = [
            [name, *(_mean(per_run[suite.name][name], partial) for per_run in groups.values())]
            for name in group_names(suite)
        ]
        emit(form, rows, ["group", *names])
        for name, per_run in zip(names, groups.values(), strict=True) if partial else ():
            _name_missing(comment + name, per_run[suite.name]["Average"].missing)


@results.command(
    epilog=examples(
        "datacomp results compare runs/baseline runs/filtered",
        "datacomp results compare runs/baseline runs/filtered --partial --json",
        "datacomp results compare runs/baseline runs/filtered --format latex",
    )
)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Average what both have where tasks are missing.")
@format_option
@json_option
def compare(first: Path, second: Path, partial: bool, form: str, as_json: bool) -> None:
    """Compare run B with run A: differences over the same test images, ties marked as ties.

    The intervals say how a difference would vary with other test images, not how it would vary
    with the seed of the training; for that, see 'results show --seeds'.
    """
    from ...evaluate.comparing import compare_groups, compare_tasks
    from ...evaluate.results import read_results
    from ...evaluate.seeds import run_names
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
                "tasks": [
                    {**_plain_difference(one), "near_chance": is_near_chance(one.name)}
                    for one in tasks
                ],
                "groups": {
                    suite: [_plain_difference(one) for one in found]
                    for suite, found in groups.items()
                },
            }
        )
        return
    one_name, other_name = run_names([str(first), str(second)])
    names = one_name, other_name
    if form == "csv":
        lines = [("task", "", one) for one in tasks]
        lines += [("group", suite, one) for suite, found in groups.items() for one in found]
        emit_csv([[kind, suite, *_difference(one, names), _yes(is_near_chance(one.name))]
                  for kind, suite, one in lines],
                 ("kind", "suite", "name", "first", "second", "difference", "low", "high",
                  "higher", "near_chance"))  # fmt: skip
        return
    _emit_differences(form, "task", tasks, names)
    comment = "% " if form == "latex" else ""
    for suite, found in groups.items():
        click.echo(f"\n{comment}Suite {suite}")
        if found:
            _emit_differences(form, "group", found, names)
        else:
            click.echo(f"{comment}no group has all its tasks in both runs; see --partial")
        average = next((one for one in found if one.name == "Average"), None)
        _name_missing(f"{comment}both", average.missing if average else ())


def _difference(one: Difference, names: tuple[str, str]) -> list[Any]:
    low, high = one.interval or (None, None)
    return [one.name, one.first, one.second, one.difference, low, high, _verdict(one, names)]


def _emit_differences(
    form: str, what: str, found: Sequence[Difference], names: tuple[str, str]
) -> None:
    rows = [
        [
            task_label(one.name), f"{one.first:.4f}", f"{one.second:.4f}", f"{one.difference:+.4f}",
            "-" if one.interval is None else "{:+.4f} to {:+.4f}".format(*one.interval),
            _verdict(one, names),
        ]
        for one in found
    ]  # fmt: skip
    emit(form, rows, (what, *names, "difference", "95 % interval", "higher"))


def is_near_chance(key: str) -> bool:
    """Tell whether models stay so near to guessing on a task that its score says little."""
    from ...evaluate.tasks import load_tasks

    task = load_tasks().get(key)
    return task is not None and task.near_chance


def task_label(key: str) -> str:
    """Return how a table names a task."""
    return f"{key} (near chance)" if is_near_chance(key) else key


def _yes(mark: bool) -> str | None:
    return "yes" if mark else None


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


def _plain_groups(groups: Mapping[str, Mapping[str, GroupScore]]) -> dict[str, Any]:
    return {
        suite: {name: _plain(score) for name, score in per_suite.items()}
        for suite, per_suite in groups.items()
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
