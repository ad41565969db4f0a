"""``datacomp pretrain`` and ``datacomp finetune``: vision encoders on class labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .common import SET_ASIDE, emit_json, examples, json_option

F = TypeVar("F", bound=Callable[..., Any])


def _settings(function: F) -> F:
    """Add the options that both commands share."""
    for option in reversed(
        (
            click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
                         help="Folder of the run."),
            click.option("--seed", default=0, show_default=True,
                         help="Seed of everything random."),
            click.option("--model", help="Another timm architecture than the recipe's."),
            click.option("--image-size", type=click.IntRange(1), help="Side of the images in px."),
            click.option("--epochs", type=click.IntRange(1), help="Override the recipe's."),
            click.option("--batch-size", type=click.IntRange(1),
                         help="Global batch; override the recipe's."),
            click.option("--learning-rate", type=float, help="Override the recipe's."),
            click.option("--workers", default=2, show_default=True, type=click.IntRange(0),
                         help="Loader processes per process."),
            click.option("--threads", type=click.IntRange(1),
                         help="CPU threads of each process (default: torch's)."),
            click.option("--precision",
                         help="fp32, amp or amp_bf16 (default: amp on a GPU)."),
            click.option("--device", default="auto", show_default=True,
                         help="auto, cpu or cuda."),
            json_option,
        )
    ):  # fmt: skip
        function = option(function)
    return function


@click.command(
    epilog=examples(
        "datacomp pretrain visualatom-1k -o runs/visualatom",
        "datacomp pretrain atoms -o runs/atoms --recipe demo",
        "torchrun --nproc_per_node 8 -m datacomp.curate.cli pretrain visualatom-21k -o run "
        "--model deit_base_patch16_224",
    )
)
@click.argument("data", metavar="SHARDS", type=click.Path(path_type=Path))
@click.option("--recipe", default="deit", show_default=True,
              help="deit (the published one) or demo (minutes on two cores).")  # fmt: skip
@_settings
def pretrain(data: Path, output: Path, recipe: str, as_json: bool, **options: Any) -> None:
    """Pre-train a vision transformer on the class labels (KEY.cls) of SHARDS.

    An interrupted run goes on when the same command is given again. Under torchrun the global
    batch is split over the processes.
    """
    from ...evaluate.vision.recipes import PRETRAINING, get_recipe
    from ...evaluate.vision.training import pretrain as run

    seed, changes, settings = _parsed(options)
    info = run(data, output, get_recipe(PRETRAINING, recipe, **changes), seed, settings)
    _tell(output, info, as_json)


@click.command(
    epilog=examples(
        "datacomp finetune runs/visualatom evalsets/wds_vtab-dtd_test -o runs/dtd",
        "datacomp finetune runs/atoms evalsets/wds_demo-digits_test -o runs/digits "
        "--recipe demo --train 10",
        "datacomp finetune --scratch evalsets/wds_demo-digits_test -o runs/scratch --recipe demo",
    )
)
@click.argument("paths", nargs=-1, metavar="[RUN] SHARDS", type=click.Path(path_type=Path))
@click.option("--scratch", is_flag=True, help="Begin with random weights instead of a RUN's.")
@click.option("--train", default="0.5", show_default=True,
              help="Images of each class to train on: a share or a number; "
              "the others measure.")  # fmt: skip
@click.option("--recipe", default="deit", show_default=True,
              help="deit (the published one) or demo (a minute on two cores).")  # fmt: skip
@_settings
def finetune(
    paths: tuple[Path, ...],
    scratch: bool,
    train: str,
    output: Path,
    recipe: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Fine-tune a pre-trained RUN on the labelled images of SHARDS, and measure it.

    SHARDS is any folder of tars with class labels, an evaluation set for example. It is split
    by the seed: one part trains, accuracy is measured on the other.
    """
    from ...evaluate.vision.recipes import FINETUNING, get_recipe
    from ...evaluate.vision.training import finetune as run

    if len(paths) != (1 if scratch else 2):
        raise click.UsageError("give RUN and SHARDS, or --scratch and SHARDS")
    try:
        part: float | int = int(train) if train.isdigit() else float(train)
    except ValueError:
        raise click.UsageError(f"--train {train!r}: expected a share or a number") from None
    seed, changes, settings = _parsed(options)
    info = run(
        None if scratch else paths[0], paths[-1], output,
        get_recipe(FINETUNING, recipe, **changes), part, seed, settings,
    )  # fmt: skip
    _tell(output, info, as_json)


def _parsed(options: dict[str, Any]) -> tuple[int, dict[str, Any], Any]:
    """Return seed, changes of the recipe, and settings."""
    from ...evaluate.vision.training import Settings

    names = ("device", "precision", "workers", "threads")
    changes = {k: options[k] for k in ("image_size", "epochs", "batch_size", "learning_rate")}
    if options["model"] is not None:
        changes |= {"model": options["model"].removeprefix("timm:"), "model_args": {}}
    return options["seed"], changes, Settings(**{name: options[name] for name in names})


def _tell(output: Path, info: dict[str, Any], as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        emit_json(info)
    elif "accuracy" in info:
        click.echo(f"{output}: accuracy {info['accuracy']:.4f} on "
                   f"{info['split']['held_out']:,} images held out")  # fmt: skip
    else:
        click.echo(f"{output / info['checkpoint']}: {info['seconds']:.0f} s")
    if any(info["set_aside"].values()):
        raise click.exceptions.Exit(SET_ASIDE)
