"""``datacomp shards``: index, build and check WebDataset shards."""

from __future__ import annotations

from pathlib import Path

import click

from .common import SET_ASIDE, emit_json, examples, json_option

_PATH = click.Path(path_type=Path)
_workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Processes to use [default: all processors]."
)
LISTED = 50
"""How many problems are printed; --json lists all."""


@click.group()
def shards() -> None:
    """Index, build and check WebDataset shards."""


@shards.command(
    epilog=examples("datacomp shards index shards/", "datacomp shards index shards/ --workers 8")
)
@click.argument("directory", type=_PATH, metavar="DIR")
@_workers_option
@click.option("--keep-going", is_flag=True, help="Set broken tars and repeated uids aside.")
@json_option
@click.pass_context
def index(
    ctx: click.Context, directory: Path, workers: int | None, keep_going: bool, as_json: bool
) -> None:
    """Write index.parquet: which sample lies where in the tars of DIR.

    Only headers are read, and only of tars that are new or have changed.
    """
    from ..shards import index_shards

    report = index_shards(directory, workers, keep_going)
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"{report.path}: {report.samples:,} samples in {report.shards:,} shards "
            f"({report.read:,} read, {report.unchanged:,} unchanged)"
        )
        for reason, count in sorted(report.set_aside.items()):
            click.echo(f"set aside: {count:,} {reason}")
        for example in report.examples:
            click.echo(f"  {example}")
        if report.duplicates:
            click.echo(f"left out: {report.duplicates:,} samples whose uid stands earlier")
            for uid in report.duplicate_uids:
                click.echo(f"  {uid}")
    if not report.complete:
        ctx.exit(SET_ASIDE)


@shards.command(
    epilog=examples(
        "datacomp shards build shards/ clip30.npy -o clip30/",
        "datacomp shards build pool.duckdb clip30.npy -o clip30/ --shard-size 1000",
    )
)
@click.argument("source", type=_PATH)
@click.argument("subset", type=_PATH)
@click.option("-o", "--out", type=_PATH, required=True, help="The folder the shards go to.")
@click.option(
    "--shard-size", type=click.IntRange(min=1), default=10_000, show_default=True,
    help="Samples per shard.",
)  # fmt: skip
@_workers_option
@click.option(
    "--shuffle", type=click.IntRange(min=0), metavar="SEED",
    help="Shuffle with a seed; the order is that of the uids otherwise.",
)  # fmt: skip
@click.option("--keep-going", is_flag=True, help="Leave out uids that cannot be had.")
@json_option
@click.pass_context
def build(
    ctx: click.Context,
    *,
    source: Path,
    subset: Path,
    out: Path,
    shard_size: int,
    workers: int | None,
    shuffle: int | None,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Copy the samples of SUBSET from SOURCE into shards of their own.

    SOURCE is a folder of WebDataset tars or a pool with images. The same input gives the same
    bytes, whatever the number of workers; after an interruption the same command goes on where
    it stopped.
    """
    from ..shards import build_shards

    report = build_shards(
        source, subset, out, shard_size=shard_size, workers=workers, shuffle=shuffle,
        keep_going=keep_going,
    )  # fmt: skip
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"{report.path}: {report.samples:,} samples in {report.shards:,} shards, "
            f"{report.bytes / 1e6:,.1f} MB"
            + (f" ({report.reused:,} shards were there)" if report.reused else "")
        )
        for reason, count in sorted(report.missing.items()):
            click.echo(f"left out: {count:,} uids {reason} (listed in {out / 'missing.txt'})")
        click.echo(f"digest {report.digest}")
    if not report.complete:
        ctx.exit(SET_ASIDE)


@shards.command(epilog=examples("datacomp shards check clip30/", "datacomp shards check d/ --json"))
@click.argument("directory", type=_PATH, metavar="DIR")
@_workers_option
@json_option
@click.pass_context
def check(ctx: click.Context, directory: Path, workers: int | None, as_json: bool) -> None:
    """Decode every image of the shards in DIR and compare all counts and digests."""
    from ..shards import check_shards

    report = check_shards(directory, workers)
    if as_json:
        emit_json(report.to_dict())
    else:
        for problem in report.problems[:LISTED]:
            click.echo(str(problem))
        if len(report.problems) > LISTED:
            click.echo(f"... and {len(report.problems) - LISTED:,} more (--json lists all)")
        verdict = "sound" if report.sound else f"{len(report.problems):,} problems"
        click.echo(
            f"{report.path}: {report.samples:,} samples in {report.shards:,} shards, {verdict}"
        )
    if not report.sound:
        ctx.exit(1)
