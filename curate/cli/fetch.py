"""``datacomp pool fetch``: the images of a pool, from the web."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...progress import duration
from .common import SET_ASIDE, counted, emit_json, emit_table, examples, json_option
from .engines import engine_option

if TYPE_CHECKING:
    from ...pools.engine import Engine
    from ...pools.fetches import EffectivePool

HOSTS = 10
"""Hosts that are printed."""


@click.command(
    epilog=examples(
        "datacomp pool fetch small.duckdb shards",
        "datacomp pool fetch small.duckdb shards --subset clip30.npy",
        "datacomp pool fetch small.duckdb shards --retry dns,timeout,5xx",
        "datacomp pool fetch small.duckdb shards --verify sha256",
        "datacomp pool fetch metadata shards --engine ray",
        "datacomp pool fetch small.duckdb begun-with-img2dataset --adopt",
    )
)
@click.argument("pool")
@click.argument("out")
@click.option("--subset", type=click.Path(path_type=Path), metavar="FILE.npy",
              help="Fetch only these samples.")  # fmt: skip
@click.option("--retry", default="", metavar="REASON,...",
              help="Fetch what failed for these reasons instead of what is pending: dns, timeout, "
                   "404, 4xx, 5xx, http, all, ...")  # fmt: skip
@click.option("--verify", type=click.Choice(["sha256"]),
              help="Set aside an image whose bytes are not those the pool records; fetch only "
                   "samples with a record. What is at hand already is not compared.")  # fmt: skip
@click.option("--adopt", is_flag=True,
              help="OUT holds what img2dataset itself has begun, with uids, or a pool that is "
                   "lost: take over the whole shards, fetch the rest.")  # fmt: skip
@click.option("--size", default=512, show_default=True, type=click.IntRange(1),
              help="Longer side of the images in px; larger ones are made smaller.")  # fmt: skip
@click.option("--quality", default=95, show_default=True, type=click.IntRange(1, 100),
              help="Quality of the JPEGs.")  # fmt: skip
@click.option("--shard-size", default=10_000, show_default=True, type=click.IntRange(1),
              help="URLs for each shard.")  # fmt: skip
@click.option("--min-size", default=0, show_default=True, type=click.IntRange(0),
              help="Leave out images whose shorter side has fewer px.")  # fmt: skip
@click.option("--boxes", default="face_bboxes", show_default=True, metavar="COLUMN",
              help="The pool's column of faces to blur.")  # fmt: skip
@click.option("--no-blur", is_flag=True, help="Blur no faces.")
@click.option("--ignore-opt-out", is_flag=True,
              help="Keep images whose site says noai, noimageai, noindex, noimageindex, none or "
                   "TDM-Reservation in its headers.")  # fmt: skip
@click.option("--user-agent-token", metavar="NAME",
              help="Who we say we are; sites can opt out of it by name.")  # fmt: skip
@click.option("--allow-private", is_flag=True,
              help="Follow URLs to this machine and its own network, too.")  # fmt: skip
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS",
              type=click.FloatRange(0, min_open=True),
              help="Longest wait for bytes; a whole answer may take 6 times that.")  # fmt: skip
@click.option("--max-mb", default=64, show_default=True, type=click.IntRange(1, 1024),
              help="Largest image file, in MiB.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1), help="Processes; else one for each core.")
@click.option("--threads", default=128, show_default=True, type=click.IntRange(1),
              help="Downloads at a time in each process.")  # fmt: skip
@click.option("--per-host", default=16, show_default=True, type=click.IntRange(1),
              help="Downloads at a time from one host, of all processes together.")  # fmt: skip
@engine_option
@json_option
def fetch(
    *,
    pool: str,
    out: str,
    retry: str,
    boxes: str,
    no_blur: bool,
    shard_size: int,
    ignore_opt_out: bool,
    max_mb: int,
    engine: Engine | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Fetch the images of POOL into shards in the folder OUT, through img2dataset.

    POOL remembers what became of every URL. The same command again fetches only what is pending:
    after an interruption, or when samples were added. New images go to new shards. The exit code
    is 3 if a URL gave no image; 'datacomp pool info POOL' tells why, and how much of the pool is
    at hand.

    POOL may be a folder of metadata (parquet files): then each file is fetched into shards of its
    own, and OUT/outcomes remembers. A file that cannot be read is named; the exit code is 3, too.
    """
    from ..fetching import FetchOptions, fetch_pool

    options = FetchOptions(
        retry=tuple(name.strip() for name in retry.split(",") if name.strip()),
        boxes=None if no_blur else boxes,
        per_shard=shard_size,
        honour_opt_out=not ignore_opt_out,
        max_bytes=max_mb << 20,
        **given,
    )
    report = fetch_pool(pool, out, options, engine or "local")
    if as_json:
        emit_json(report.to_dict())
    else:
        if report.tried:
            click.echo(
                f"{out}: {report.fetched:,} of {counted(report.tried, 'URL')} fetched into "
                f"{counted(report.shards, 'new shard')} in {duration(report.seconds)}"
            )
        else:
            told = "; what failed before is fetched again with --retry REASON,..."
            failed = not retry and report.available < report.samples
            click.echo(f"{out}: no URL left to fetch{told if failed else ''}")
        for reason, count in report.failed.items():
            click.echo(f"  failed: {count:,} {reason}")
        for reason, count in report.set_aside.items():
            click.echo(f"  set aside: {counted(count, 'file')} of metadata, {reason}")
        click.echo(f"{report.available:,} of {counted(report.samples, 'sample')} at hand")
        if options.verify and report.before:
            click.echo(f"  {report.before:,} before; --verify compares only what it fetches")
    if report.failed or report.set_aside:
        sys.exit(SET_ASIDE)


def echo_effective(found: EffectivePool) -> None:
    """Print the effective pool, as part of ``datacomp pool info``."""
    total = found.total
    click.echo(f"\neffective pool: {total.available:,} of {total.samples:,} samples at hand "
               f"({total.share:.1%})\ndigest {found.digest}")  # fmt: skip
    if found.subsets:
        click.echo()
        rows = [[name, one.samples, one.available, f"{one.share:.1%}"]
                for name, one in found.subsets.items()]  # fmt: skip
        emit_table(rows, ["subset", "samples", "at hand", "coverage"])
    if found.reasons:
        click.echo()
        emit_table([list(item) for item in found.reasons.items()], ["not at hand", "samples"])
    if found.hosts:
        click.echo()
        rows = [[one.host, one.samples, one.available, one.failed, one.most or ""]
                for one in found.hosts[:HOSTS]]  # fmt: skip
        emit_table(rows, ["host", "samples", "at hand", "failed", "most often"])
        if found.host_count > len(rows):
            click.echo(f"and {counted(found.host_count - len(rows), 'more host')}")
