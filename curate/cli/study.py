"""``datacomp demo`` and ``datacomp run``: a whole study."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ...progress import duration
from .common import SET_ASIDE, emit_json, emit_table, examples, json_option


@click.command(epilog=examples("datacomp demo", "datacomp demo /tmp/demo --json"))
@click.argument("directory", default="demo", type=click.Path(path_type=Path))
@json_option
def demo(directory: Path, as_json: bool) -> None:
    """Run the whole workflow on the built-in pool, in DIRECTORY (default: demo).

    Real characters of real fonts, half of them spoiled as a crawl would be, go through five
    ways of filtering; a small CLIP is trained on each, twice, and evaluated on five tasks.
    Takes minutes on two CPU cores and needs no network. Its configuration is copied into
    DIRECTORY as datacomp.toml: change it there and run 'datacomp run -c DIRECTORY/datacomp.toml'.
    DIRECTORY must be new, empty, or that of an earlier demo.
    """
    from ..workflow import load_study

    built_in = Path(__file__).parents[2] / "datacomp.toml"
    config = directory / "datacomp.toml"
    _check_own(directory, config)
    if not config.exists():
        from ...durable import write_text

        text = built_in.read_text().replace('output = "demo"', 'output = "."')
        write_text(config, text)
    _run(load_study(config), None, None, as_json)


def _check_own(directory: Path, config: Path) -> None:
    """Refuse a folder that holds something else: the demo would scatter its files among it."""
    from ..workflow import load_study

    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not directory.is_dir() or not config.exists():
        raise UsageError(f"{directory}: is there and is not the demo's; name a new folder")
    if load_study(config).output.resolve() != directory.resolve():
        raise UsageError(
            f"{config}: not the demo's configuration; name a new folder, or run that study with "
            f"'datacomp run -c {config}'"
        )


@click.command(
    epilog=examples(
        "datacomp run",
        "datacomp run -c study.toml --dry-run",
        "datacomp run --from filter",
        "datacomp run --only evaluate",
    )
)
@click.option("-c", "--config", default="datacomp.toml", show_default=True,
              type=click.Path(path_type=Path), help="Configuration of the study.")  # fmt: skip
@click.option("--from", "start", metavar="STAGE", help="Redo this stage and all after it.")
@click.option("--only", metavar="STAGE", help="Redo just this stage; what it needs must be done.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and run nothing.")
@json_option
def run(config: Path, start: str | None, only: str | None, dry_run: bool, as_json: bool) -> None:
    """Run all stages of a datacomp.toml: pool, filter, shards, train, evaluate, report.

    A stage that is done and whose inputs, settings and code have not changed is skipped; after
    any interruption the same command goes on where it stopped.
    """
    from ..workflow import load_study
    from ..workflow.study import describe_plan

    study = load_study(config)
    if not dry_run:
        _run(study, start, only, as_json)
        return
    lines = describe_plan(study, start, only)
    if as_json:
        emit_json([{"task": task, "state": state} for task, state in lines])
    else:
        emit_table(lines, ["task", "state"])


def _run(study: Any, start: str | None, only: str | None, as_json: bool) -> None:
    from ..workflow import run_study

    report = run_study(study, start, only)
    if report.results is None:
        if as_json:
            emit_json({"done": only, "output": str(report.output)})
        else:
            click.echo(f"done: {only} ({report.output})")
    elif as_json:
        emit_json(report.results)
    else:
        _show(report.results)
        if any(row["used"]["runs"] for row in report.results["datasets"]):
            click.echo("\n+ in the time: what was spent before on the run that scored")
        click.echo(f"\n{report.results['verdict']}")
        click.echo(f"results  {report.output / 'results.json'}")
        click.echo(f"report   {report.page}")
    for stage, count in report.set_aside.items():
        what = "sample was" if count == 1 else "samples were"
        click.echo(f"{count:,} {what} {_ASIDE[stage]}", err=True)
    if report.set_aside:
        sys.exit(SET_ASIDE)


_ASIDE = {
    "pool": "set aside; see the table set_aside with 'datacomp pool query'",
    "filter": "dropped, since their images cannot be read; the same command tries again",
    "shards": "not found in the sources' tars; see missing.txt of each view",
    "train": "left out of training; see set_aside in info.json of each run",
}


def _show(results: dict[str, Any]) -> None:
    from ..report.table import places

    def score(value: dict[str, Any]) -> str:
        spread = "" if value["spread"] is None else f" ±{value['spread']:.3f}"
        return f"{value['mean']:.3f}{spread}"

    def part(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def time(row: dict[str, Any]) -> str:
        own, used = duration(row["seconds"]["total"]), row["used"]
        return f"{own} + {duration(used['seconds'])}" if used["runs"] else own

    ranks = places(results["datasets"])
    rows = []
    for row in results["datasets"]:
        place, tied = ranks[row["name"]]
        rows.append([
            f"{place}{'=' * tied}", row["name"], f"{row['size']:,}", score(row["average"]),
            *(score(row["scores"][task["key"]]) for task in results["tasks"]),
            part(row["precision"]), part(row["recall"]), time(row),
        ])  # fmt: skip
    names = [task["name"] for task in results["tasks"]]
    header = ["rank", "dataset", "samples", "average", *names, "precision", "recall", "time"]
    if sum(len(name) + 8 for name in header) > shutil.get_terminal_size((160, 24)).columns:
        rows = [[*row[:4], *row[-3:]] for row in rows]
        header = [*header[:4], *header[-3:]]
    emit_table(rows, header)
