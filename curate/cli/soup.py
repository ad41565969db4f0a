"""``datacomp soup``: average the checkpoints of several runs."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import UsageError
from .common import emit_json, examples, json_option


@click.command(
    epilog=examples(
        "datacomp soup runs/clip-seed0 runs/clip-seed1 -o runs/clip-soup",
        "datacomp soup runs/* -o runs/best-soup --greedy --data heldout --tasks cifar10",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="Folder of the new run.")  # fmt: skip
@click.option(
    "--greedy",
    is_flag=True,
    help="Add runs from the best on, and keep those with which the score does not fall.",
)
@click.option("--data", type=click.Path(path_type=Path),
              help="Evaluation sets that a greedy soup is chosen on.")  # fmt: skip
@click.option("--tasks", metavar="GLOB,...", help="Only tasks whose keys match.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
def soup(
    runs: tuple[Path, ...], output: Path, greedy: bool, data: Path | None, tasks: str | None,
    device: str, as_json: bool,
) -> None:  # fmt: skip
    """Average the checkpoints of RUNs of one architecture into a new run.

    The new run is evaluated and compared like any other. Tasks that a greedy soup is chosen on
    must not judge it.
    """
    from ...evaluate.soup import make_soup
    from ...evaluate.tasks import select_tasks

    if greedy and data is None:
        raise UsageError("--greedy needs --data, evaluation sets to choose on")
    if not greedy and (data is not None or tasks is not None):
        raise UsageError("--data and --tasks belong to --greedy")
    patterns = [part for part in tasks.split(",") if part] if tasks else []
    chosen = select_tasks(patterns, data=data) if greedy else []
    info = make_soup(
        runs, output, "greedy" if greedy else "uniform", data=data, tasks=chosen, device=device
    )
    if as_json:
        emit_json(info)
        return
    kept = info["soup"].get("kept")
    of = f"{len(kept)} of {len(runs)}" if kept is not None else str(len(runs))
    click.echo(f"{output}: the mean of {of} checkpoints; 'datacomp evaluate {output}' measures it")
