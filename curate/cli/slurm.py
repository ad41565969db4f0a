"""``datacomp slurm``: a batch file for a training run on a Slurm cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import PLACE, examples


@click.command(
    epilog=examples(
        "datacomp slurm medium shards/ -o runs/medium",
        "datacomp slurm xlarge clip30.view -o runs/x --nodes 16 --gpus 8 --time 6-00:00:00 "
        "--partition gpu --evalsets evalsets",
    )
)
@click.argument("scale")
@click.argument("data", type=PLACE)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="The run's folder.")  # fmt: skip
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option(
    "--gpus", type=click.IntRange(1), default=8, show_default=True, help="In each machine."
)
@click.option("--cpus-per-gpu", type=click.IntRange(1), default=8, show_default=True,
              help="Processors for each.")  # fmt: skip
@click.option("--time", default="24:00:00", show_default=True, metavar="[D-]HH:MM:SS",
              help="Of one turn; the job goes back into the queue when it is over.")  # fmt: skip
@click.option("--partition", help="Slurm's partition.")
@click.option("--account", help="Who pays.")
@click.option("--setup", metavar="COMMAND", help="Run first, such as 'source .venv/bin/activate'.")
@click.option("--evalsets", type=PLACE, metavar="DIR_OR_URL",
              help="Also evaluate in the end, on these sets.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the run.")
def slurm(
    scale: str, data: Path | str, output: Path, evalsets: Path | str | None, seed: int,
    **where: Any,
) -> None:  # fmt: skip
    """Print a batch file that trains on DATA at SCALE: one torchrun a node, one process a GPU.

    Nothing is sent anywhere: look at it, and give it to sbatch. When its time is over, the job
    goes back into the queue and on from its last checkpoint.
    """
    from ...evaluate.scales import get_scale
    from ..slurm import Allocation, batch_file

    sets = None if evalsets is None else str(evalsets)
    found = batch_file(get_scale(scale), str(data), str(output), sets, seed, Allocation(**where))
    click.echo(found, nl=False)
