"""``datacomp pool embed``: CLIP features of a pool's images and captions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from .common import SET_ASIDE, counted, emit_json, examples, json_option
from .engines import engine_option

if TYPE_CHECKING:
    from ...pools.engine import Engine

POOL = click.argument("pool")


@click.command(
    epilog=examples(
        "datacomp pool embed pool.duckdb --checkpoint runs/baseline",
        "datacomp pool embed small.duckdb --shards shards --model ViT-B-32 --checkpoint b32.pt",
        "datacomp pool embed pool.duckdb --model ViT-B-16 --checkpoint b16.pt --tome 13",
        "datacomp filter run pool.duckdb clip_score:features=vit_b_32,fraction=0.3 -o clip.npy",
        "datacomp pool embed metadata --shards shards --checkpoint b32 -o embedded --engine ray",
    )
)
@POOL
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path),
              help="Weights: a file, a run's folder, or a folder of the Hub's.")  # fmt: skip
@click.option("--model", metavar="NAME_OR_CONFIG.json",
              help="Architecture of a weights file; not needed where open_clip_config.json lies "
                   "beside it.")  # fmt: skip
@click.option("--name", help="What to call the features; else after the model.")
@click.option("--shards", type=click.Path(path_type=Path),
              help="Folder of tars that hold the images; else the pool's own.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Where a folder of metadata is written with its features.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, bf16 or fp16.")
@click.option("--tome", type=click.IntRange(1), metavar="R",
              help="Merge R tokens in each layer of the image tower (Token Merging): faster, and "
                   "scores change; both are measured.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Threads that decode images.")
@engine_option
@json_option
def embed(
    *,
    pool: str,
    checkpoint: Path,
    model: str | None,
    name: str | None,
    shards: Path | None,
    output: Path | None,
    device: str,
    precision: str,
    tome: int | None,
    batch_size: int,
    workers: int | None,
    engine: Engine | None,
    as_json: bool,
) -> None:
    """Compute CLIP features of POOL's images and captions, and their similarity.

    Features are float16, in POOL.features/NAME; filters find them as NAME_img and NAME_txt, and
    the similarity as clip_score:features=NAME. Run the same command again to go on where it
    stopped, or for samples added since. Exit code 3 if samples were set aside.

    POOL may be a folder of metadata (parquet files), whose images are in --shards: it is written
    to DIR file by file, with the features beside each, as DataComp has it.
    """
    from ...pools.clip_runs import model_of
    from ...pools.embedding.recipe import Recipe
    from ...pools.ranges import is_remote

    recipe = Recipe(model_of(checkpoint, model), precision, tome or 0)
    how: dict[str, Any] = {
        "device": device, "batch_size": batch_size, "workers": workers, "engine": engine
    }  # fmt: skip
    if Path(pool).is_dir() or is_remote(pool):
        from ..embedding import embed_metadata

        report = embed_metadata(pool, output, shards, recipe, name, **how)
    else:
        from ...pools.embedding.embed import embed_pool
        from ...pools.pool import Pool

        if output is not None and Path(pool).exists():
            raise UsageError("-o is for a folder of metadata; a pool's features lie beside it")
        with Pool.open(pool) as opened:
            report = embed_pool(opened, recipe, name, shards=shards, **how)
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"features {report.name}: {report.embedded:,} embedded, {report.known:,} known before"
        )
        if report.drift is not None:
            click.echo(report.drift.line(recipe.tome))
        for reason, count in sorted(report.set_aside.items()):
            click.echo(f"  set aside: {count:,} {reason}")
        for example in report.examples:
            click.echo(f"    {example}".rstrip())
        if report.without_image:
            click.echo(f"  {counted(report.without_image, 'sample')} without an image")
        click.echo(f"in {report.folder}")
    if report.set_aside:
        sys.exit(SET_ASIDE)
