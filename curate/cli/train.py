"""``datacomp train``: CLIP on shards with a fixed recipe."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .common import PLACE, SET_ASIDE, emit_json, emit_table, examples, json_option


@click.command(
    epilog=examples(
        "datacomp train shards -o runs/mine --scale small",
        "datacomp train shards -o runs/seed1 --scale demo --seed 1 --workers 0",
        "torchrun --nproc_per_node 4 -m datacomp.curate.cli train shards -o run --scale medium",
        "datacomp train good-pairs -o runs/dfn --objective dfn",
        "datacomp train class-captions -o runs/dfn2 --objective dfn --init runs/dfn "
        "--learning-rate 1e-5",
        "datacomp train --list-scales",
    )
)
@click.argument("data", nargs=-1, type=PLACE, metavar="SHARDS...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--scale", default="small", show_default=True,
              help="Recipe: demo, debug, small, medium, large or xlarge.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--samples-seen",
    type=click.IntRange(min=1),
    help="Override the scale's budget of samples seen.",
)
@click.option("--weight", "weights", type=float, multiple=True,
              help="Sampling weight of each SHARDS folder, in order.")  # fmt: skip
@click.option(
    "--workers",
    default=2,
    show_default=True,
    type=click.IntRange(min=0),
    help="Loader processes per process.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of each process (default: torch's)."
)
@click.option("--precision", help="fp32, amp, amp_bf16, bf16 or fp16 (default: amp on a GPU).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--accumulation",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Gradient accumulation steps.",
)
@click.option("--grad-clip-norm", type=float, help="Clip gradients to this norm.")
@click.option("--objective", default="clip", show_default=True,
              help="clip: a run to compare; dfn: a network for the filter 'dfn'.")  # fmt: skip
@click.option("--init", type=click.Path(path_type=Path),
              help="Run or weights file to begin with; needs --objective dfn.")  # fmt: skip
@click.option("--learning-rate", type=float,
              help="Override the scale's; needs --objective dfn.")  # fmt: skip
@click.option("--list-scales", is_flag=True, help="List the recipes and stop.")
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    *,
    data: tuple[Path | str, ...],
    output: Path | None,
    scale: str,
    seed: int,
    samples_seen: int | None,
    weights: tuple[float, ...],
    workers: int,
    threads: int | None,
    precision: str | None,
    device: str,
    accumulation: int,
    grad_clip_norm: float | None,
    objective: str,
    init: Path | None,
    learning_rate: float | None,
    list_scales: bool,
    as_json: bool,
) -> None:
    """Train CLIP on SHARDS (folders of WebDataset tars, or views) with a scale's fixed recipe.

    Calls open_clip's own trainer. An interrupted run goes on from its last checkpoint when the
    same command is given again; it refuses data that changed. Under torchrun the global batch
    of the scale is split over the processes. Exit code 3 if samples were set aside (under
    torchrun, which takes that for a crash, 0).

    With --objective dfn the run is a data filtering network, for the filter 'dfn': it may begin
    with other weights and learn at another rate, and cannot be submitted.
    """
    from ...evaluate.scales import SCALES, get_scale

    if list_scales:
        scales = [recipe.to_dict() for recipe in SCALES.values()]
        if as_json:
            emit_json(scales)
        else:
            keys = ["name", "model", "samples_seen", "batch_size", "learning_rate", "warmup"]
            emit_table([[recipe[key] for key in keys] for recipe in scales], keys)
        return
    if not data or output is None:
        raise click.UsageError("give SHARDS and --output (or --list-scales)")
    from ...evaluate.objectives import first_weights, slowed
    from ...evaluate.set_aside import FILE
    from ...evaluate.training import finished
    from ...evaluate.training import train as train_run
    from ...pools.stores import copied_view

    data = tuple(
        copied_view(one, output / f"view-{n}") if isinstance(one, str) else one
        for n, one in enumerate(data)
    )
    before = finished(output)
    recipe = slowed(get_scale(scale, samples_seen), objective, learning_rate)
    info = train_run(
        list(data), output, recipe, seed=seed, workers=workers,
        threads=threads, precision=precision, device=device, accumulation=accumulation,
        weights=list(weights) or None, grad_clip_norm=grad_clip_norm, objective=objective,
        init=None if init is None else first_weights(init, recipe),
    )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        emit_json(info)
    else:
        spent = "done before" if before is not None else f"{info['seconds']:.0f} s"
        click.echo(f"{output / info['checkpoint']}: {spent}")
    aside: dict[str, int] = info["set_aside"]
    if aside:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in aside.items())
        listed = output / FILE
        click.echo(f"{sum(aside.values()):,} set aside ({reasons}); see {listed}", err=True)
        ctx.exit(0 if "TORCHELASTIC_RUN_ID" in os.environ else SET_ASIDE)
