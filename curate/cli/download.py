"""``datacomp pool download`` and ``datacomp evalsets download``: files of the Hugging Face Hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ...progress import duration, warn
from .common import SET_ASIDE, counted, emit_json, emit_table, examples, json_option

if TYPE_CHECKING:
    from ...pools.hub.folder import Plan

YES = click.option("--yes", is_flag=True, help="Do not ask before it starts.")
SPEEDS = (100, 1000)
"""Megabits a second for which the time is told."""


@click.command(
    epilog=examples(
        "datacomp pool download small small",
        "datacomp pool download small small --features --yes",
        "datacomp pool download medium medium --metadata-only --parts 10",
    )
)
@click.argument("scale", metavar="small|medium|large|xlarge|datacomp_1b")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--metadata-only", is_flag=True, help="Bring the files, make no pool of them.")
@click.option("--features", is_flag=True, help="Bring the features (.npz) too.")
@click.option("--parts", type=click.IntRange(1), metavar="N",
              help="Only the first N files of metadata.")  # fmt: skip
@YES
@json_option
def pool_download(
    scale: str,
    folder: Path,
    *,
    metadata_only: bool,
    features: bool,
    parts: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Bring the metadata of one of DataComp's pools from the Hub, and link them as a pool.

    Files go to DIR/metadata, each verified by its digest; DIR/pool.duckdb links to them. Run the
    same command again to go on where it stopped. Images are fetched afterwards. HF_ENDPOINT names
    another server with the Hub's interface, HF_TOKEN who you are.
    """
    from ...pools.hub.commonpool import plan_pool
    from ...pools.hub.folder import carry_out
    from ...pools.pool import Pool
    from ...pools.sources import open_source

    found = plan_pool(scale, folder, features, parts)
    if features:
        metadata = [file.path for file in found.wanted if file.path.endswith(".parquet")]
        without = 2 * len(metadata) - len(found.wanted)
        if without:
            warn(f"{found.repository.name}: the Hub has no features (.npz) of {without:,} of "
                 f"{counted(len(metadata), 'file')} of metadata")  # fmt: skip
    _confirm([found], yes, as_json)
    carry_out(found)
    samples = None
    path = folder / "pool.duckdb"
    if not metadata_only:
        with Pool.open_or_create(path) as pool:
            try:
                pool.add(open_source("commonpool", folder, link=True))
                samples = pool.count()
            except BaseException:
                pool.withdraw()
                raise
    if as_json:
        emit_json(
            {"repository": found.repository.name, "commit": found.repository.commit,
             "files": len(found.wanted), "bytes": found.total,
             "pool": None if metadata_only else str(path), "samples": samples}
        )  # fmt: skip
        return
    click.echo(f"{folder / 'metadata'}: {counted(len(found.wanted), 'file')}, {_size(found.total)}")
    if samples is not None:
        click.echo(f"{path}: {counted(samples, 'sample')}, linked")


@click.command(
    epilog=examples(
        "datacomp evalsets download evalsets --tasks 'vtab/*,cifar10'",
        "datacomp evalsets download evalsets --suite datacomp --yes",
    )
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--tasks", metavar="GLOB,...", help="Only tasks whose keys match.")
@click.option("--suite", default="datacomp", show_default=True, help="The tasks of this suite.")
@YES
@json_option
def evalsets_download(
    folder: Path, *, tasks: str | None, suite: str, yes: bool, as_json: bool
) -> None:
    """Bring evaluation sets from the Hub to DIR, and pin them.

    Sizes and licences are shown before it starts. Each file is verified by its digest, each set
    checked as 'datacomp evalsets check' does, and its digest recorded in DIR/digests.jsonl the
    first time, compared ever after. Run the same command again to go on. Exit code 1 if every set
    failed, 3 if some did.
    """
    from dataclasses import asdict

    from ...evaluate.fetching import fetch_sets, plan_sets
    from ...evaluate.tasks import select_tasks

    patterns = [pattern.strip() for pattern in (tasks or "").split(",") if pattern.strip()]
    chosen = select_tasks(patterns, suite)
    if suite == "demo":
        raise UsageError("the demo suite is built, not brought: 'datacomp evalsets demo DIR'")
    plans = plan_sets(folder, chosen)
    if not as_json:
        emit_table(
            [
                (one.task.key, one.repository, "-" if one.found is None else _size(one.found.total),
                 one.licence, "" if one.found is None or one.found.missing else "here")
                for one in plans
            ],
            ("task", "repository", "size", "licence", ""),
        )  # fmt: skip
    _confirm([one.found for one in plans if one.found is not None], yes, as_json)
    fetched = fetch_sets(folder, plans)
    failed = [one for one in fetched if one.error is not None]
    if as_json:
        emit_json([asdict(one) for one in fetched])
    else:
        click.echo()
        emit_table(
            [
                (one.key, (one.digest or "")[:12],
                 "failed" if one.error else "as recorded" if one.known else "recorded now")
                for one in fetched
            ],
            ("task", "sha256", ""),
        )  # fmt: skip
    for one in failed:
        click.echo(f"error: {one.key}: {one.error}", err=True)
    if len(failed) == len(fetched):
        sys.exit(1)
    if failed or any(one.flawed for one in fetched):
        sys.exit(SET_ASIDE)


def _confirm(plans: Sequence[Plan], yes: bool, quiet: bool) -> None:
    """Say how much is to come and how long it takes, and ask."""
    left = sum(one.left for one in plans)
    if not any(one.missing for one in plans):
        return
    whole = sum(one.total for one in plans)
    files = sum(len(one.wanted) for one in plans)
    times = ", ".join(
        f"{duration(sum(one.seconds(speed) for one in plans))} at {speed:,} Mbit/s"
        for speed in SPEEDS
    )
    about = f"{counted(files, 'file')}, {_size(whole)}; {_size(left)} to get: {times}"
    names = sorted({f"{one.repository.name} at {one.repository.commit[:8]}" for one in plans})
    whence = names[0] if len(names) == 1 else f"{len(names)} repositories"
    click.echo(f"{whence}: {about}", err=quiet)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{about}; there is no terminal to ask: add --yes to start")
    click.confirm("Start?", default=True, abort=True, err=True)


def _size(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
