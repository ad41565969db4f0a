"""``datacomp shards``: index, view, build and check WebDataset shards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .common import PLACE, SET_ASIDE, counted, emit_json, examples, json_option
from .engines import engine_options

if TYPE_CHECKING:
    from ...pools.engine import Engine
    from ..shards.check import Problem

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_workers_option = engine_options("Processes to use [default: all processors].")
LISTED = 50
"""How many lines of problems are printed; --json lists all."""
NAMED = 3
"""How many examples a line names."""


@click.group()
def shards() -> None:
    """Index, view, build and check WebDataset shards."""


@shards.command(
    epilog=examples(
        "datacomp shards index shards/",
        "datacomp shards index 'https://host/pool/{00000000..00001279}.tar' -o pool-index/",
        "datacomp shards index s3://bucket/pool -o s3://bucket/index",
    )
)
@click.argument("source", metavar="DIR")
@click.option(
    "-o", "--output", "out", type=PLACE, help="The folder of the index, where DIR is a URL."
)
@_workers_option
@click.option("--keep-going", is_flag=True, help="Set broken tars and repeated uids aside.")
@json_option
@click.pass_context
def index(
    ctx: click.Context,
    source: str,
    out: Path | str | None,
    workers: Engine,
    keep_going: bool,
    as_json: bool,
) -> None:
    """Write index.parquet: which sample lies where in the tars of DIR.

    DIR is a folder, a URL with a range of numbers, or the URL of a folder with a listing. Only tars
    that are new or have changed are read, and of those in a folder headers and small members only;
    over a network nearly everything, since many small requests cost more.
    """
    from ..shards import index_shards

    report = index_shards(source, workers, keep_going, out)
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"{report.path}: {_in_shards(report)} "
            f"({report.read:,} read, {report.unchanged:,} unchanged)"
        )
        for reason, count in sorted(report.set_aside.items()):
            click.echo(f"set aside: {count:,} {reason}")
        for example in report.examples:
            click.echo(f"  {example}")
        if report.duplicates:
            samples = counted(report.duplicates, "sample")
            click.echo(f"left out: {samples} whose uid stands earlier")
            for uid in report.duplicate_uids:
                click.echo(f"  {uid}")
    if not report.complete:
        ctx.exit(SET_ASIDE)


_subset_options = (
    click.argument("sources", type=PLACE, nargs=-1, required=True, metavar="SOURCE..."),
    click.argument("subset", type=PLACE),
    click.option("--weights", type=PLACE, metavar="FILE",
                 help="Parquet of (uid, weight): how often each sample stands there."),
    click.option("--mix", type=float, multiple=True, metavar="WEIGHT",
                 help="Weight of each SOURCE, in order; multiplies those of its samples."),
    click.option("--shard-size", type=click.IntRange(min=1), default=10_000, show_default=True,
                 help="Samples per shard."),
    click.option("--shuffle", type=click.IntRange(min=0), metavar="SEED",
                 help="Shuffle with a seed; the order is that of the tars otherwise."),
    _workers_option,
    click.option("--keep-going", is_flag=True, help="Leave out uids that cannot be had."),
    json_option,
)  # fmt: skip


def _with_subset(function: F) -> F:
    """Add the arguments and options that select and build share."""
    for option in reversed(_subset_options):
        function = option(function)
    return function


@shards.command(
    epilog=examples(
        "datacomp shards select shards/ clip30.npy -o clip30.view",
        "datacomp shards select a/ b/ both.npy -o mixed.view --mix 1 --mix 2.5 --shuffle 0",
    )
)
@click.option("-o", "--output", "out", type=PLACE, required=True, help="The folder of the view.")
@_with_subset
@click.pass_context
def select(
    ctx: click.Context, sources: tuple[Path | str, ...], subset: Path | str, out: Path | str, *,
    mix: tuple[float, ...], as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Make a view: the virtual shards of SUBSET, without copying a byte.

    SOURCE is a folder of WebDataset tars, or a folder with the index of URLs. That folder, SUBSET
    and the view may lie in an object store (s3://...). The view can be trained on, read from
    Python, or by WebDataset through the URL pattern that is printed.
    """
    from ..shards import select_shards

    report = select_shards(sources, subset, out, mix=mix, **options)
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"{report.path}: {_in_shards(report, 'virtual shard')}, "
            f"{report.bytes / 1e6:,.1f} MB not copied"
        )
        _say_missing(report, out)
        click.echo(report.urls)
    _exit(ctx, report, options["keep_going"])


@shards.command(epilog=examples("datacomp shards cat clip30.view 0"))
@click.argument("view", type=PLACE)
@click.argument("number", type=click.IntRange(min=0), metavar="K")
def cat(view: Path | str, number: int) -> None:
    """Write virtual shard K of a view to standard output, as a tar.

    It is, byte for byte, shard K of a build with the same options.
    """
    from ...pools.views import View

    if os.isatty(1):
        raise click.UsageError("a tar is nothing for a terminal: send it to a file or a command")
    with os.fdopen(os.dup(1), "wb", 1 << 20) as file:
        View.open(view).write_shard(number, file)


@shards.command(
    epilog=examples(
        "datacomp shards build shards/ clip30.npy -o clip30/",
        "datacomp shards build pool.duckdb clip30.npy -o clip30/ --shard-size 1000",
        "datacomp shards build shards/ clip30.npy -o blurred/ --blur boxes/",
    )
)
@click.option(
    "-o", "--output", "out", type=PLACE, required=True, help="The folder the shards go to."
)
@click.option("--pad", type=click.IntRange(min=512), metavar="BYTES",
              help="Pad every tar to a multiple of this, as a torrent's pieces.")  # fmt: skip
@click.option("--blur", type=_PATH, metavar="BOXES",
              help="Blur faces: parquet of (uid, face_bboxes), or a folder of it.")  # fmt: skip
@_with_subset
@click.pass_context
def build(
    ctx: click.Context, sources: tuple[Path | str, ...], subset: Path | str, out: Path | str, *,
    mix: tuple[float, ...], as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Copy the samples of SUBSET from SOURCE into shards of their own.

    SOURCE is a folder of WebDataset tars (or several) or a pool with images. The same input gives
    the same bytes, whatever the number of workers; after an interruption the same command goes on
    where it stopped, in a folder and in an object store (s3://...).
    """
    from ..shards import build_shards

    report = build_shards(sources, subset, out, mix=mix, **options)
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"{report.path}: {_in_shards(report)}, {report.bytes / 1e6:,.1f} MB"
            + (f" ({report.reused:,} of them were there)" if report.reused else "")
        )
        if report.blurred is not None:
            rest = report.samples - report.blurred
            click.echo(f"blurred: {counted(report.blurred, 'sample')} with faces; {rest:,} without")
        _say_missing(report, out)
        click.echo(f"digest {report.digest}")
    _exit(ctx, report, options["keep_going"])


@shards.command(epilog=examples("datacomp shards append clip30/ added/"))
@click.argument("directory", type=_PATH, metavar="DIR")
@click.argument("increment", type=_PATH, metavar="ADDED")
@json_option
def append(directory: Path, increment: Path, as_json: bool) -> None:
    """Append the shards of ADDED, a build of new samples, to those in DIR.

    They get the next numbers; the shards of DIR stay as they are, so that a release reads, and
    others fetch, the new ones only. After an interruption the same command goes on.
    """
    from ..shards import append_shards

    report = append_shards(directory, increment)
    if as_json:
        emit_json(report.to_dict())
        return
    click.echo(f"{report.path}: {_in_shards(report)}, {len(report.added):,} of them new")
    click.echo(f"digest {report.digest}")


def _in_shards(report: Any, noun: str = "shard") -> str:
    return f"{counted(report.samples, 'sample')} in {counted(report.shards, noun)}"


def _exit(ctx: click.Context, report: Any, keep_going: bool) -> None:
    if not report.complete or (keep_going and report.set_aside):
        ctx.exit(SET_ASIDE)


def _say_missing(report: Any, out: Path | str) -> None:
    for reason, count in sorted(report.missing.items()):
        click.echo(f"left out: {counted(count, 'uid')} {reason} (listed in {out}/missing.txt)")
    if report.weighed_out:
        click.echo(f"not there by its weight: {counted(report.weighed_out, 'uid')}")
    for reason, count in sorted(report.set_aside.items()):
        click.echo(f"left out of the sources: {count:,} {reason}")


@shards.command(
    epilog=examples("datacomp shards check clip30/", "datacomp shards check clip30/ --repair",
                    "datacomp shards check clip30/ --page check.html")
)  # fmt: skip
@click.argument("directory", type=_PATH, metavar="DIR")
@_workers_option
@click.option("--page", type=_PATH, help="Write a page of the problems and of some samples.")
@click.option("--repair", is_flag=True, help="Set bad samples aside and rewrite their shards.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    directory: Path,
    workers: Engine,
    page: Path | None,
    repair: bool,
    as_json: bool,
) -> None:
    """Decode every image of the shards in DIR and compare all counts and digests."""
    from ..shards import check_shards, repair_shards

    if repair:
        repaired = repair_shards(directory, workers, page)
        problems, document = repaired.remaining, repaired.to_dict()
        verdict = f"{repaired.path}: {counted(len(repaired.shards), 'shard')} rewritten"
        said = [f"set aside: {n:,} {kind}" for kind, n in sorted(repaired.set_aside.items())]
        if repaired.counted:
            said.append(f"counted: {counted(len(repaired.counted), 'shard')} without stats")
        if problems:
            tars = sorted({p.shard for p in problems if p.shard.endswith(".tar")})
            which = f": {', '.join(tars[:NAMED])}{', ...' if len(tars) > NAMED else ''}"
            said.append(
                "what remains cannot be repaired; fetch or build it again" + (which if tars else "")
            )
        bad = SET_ASIDE if repaired.set_aside or repaired.shards else 0
    else:
        report = check_shards(directory, workers, page)
        problems, document, said, bad = report.problems, report.to_dict(), [], 0
        verdict = f"{report.path}: {_in_shards(report)}"
    if as_json:
        emit_json(document)
    else:
        lines = _problem_lines(problems)
        for line in lines[:LISTED]:
            click.echo(line)
        if len(lines) > LISTED:
            click.echo(f"... and {len(lines) - LISTED:,} more (--json lists all)")
        for line in said:
            click.echo(line)
        click.echo(f"{verdict}, {counted(len(problems), 'problem') if problems else 'sound'}")
    if problems or bad:
        ctx.exit(1 if problems else bad)


def _problem_lines(problems: list[Problem]) -> list[str]:
    """Write a line for each problem; uids that a subset names and no tar has share one."""
    missing: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        if problem.kind == "missing_uid":
            missing.setdefault((problem.shard, problem.detail), []).append(problem.key)
    lines = [str(problem) for problem in problems if problem.kind != "missing_uid"]
    for (shard, detail), uids in missing.items():
        more = ", ..." if len(uids) > NAMED else ""
        named = ", ".join(uids[:NAMED])
        lines.append(f"missing_uid: {shard}: {counted(len(uids), 'uid')} {detail} ({named}{more})")
    return lines
