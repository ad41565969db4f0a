"""``datacomp filter``: list, show and run filters."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import SET_ASIDE, counted, emit_json, emit_table, examples, json_option

if TYPE_CHECKING:
    from ...filters.published import Published
    from ..selection import Selected


@click.group("filter")
def filter_() -> None:
    """List, show and run filters."""


@filter_.command("list", epilog=examples("datacomp filter list", "datacomp filter list --json"))
@json_option
def list_(as_json: bool) -> None:
    """List the filters there are: built in, and from installed packages."""
    from ...filters import registry

    rows = [_describe(name) for name in registry.names()]
    if as_json:
        emit_json([{"name": n, "rule": rule, "origin": origin} for n, rule, origin in rows])
    else:
        emit_table(rows, ["filter", "rule", "origin"])


def _describe(name: str) -> tuple[str, str, str]:
    """Return name, rule and origin; a plug-in that is broken must not hide the others."""
    from ...errors import UsageError
    from ...filters import registry

    try:
        return name, registry.get(name).rule(), registry.origin(name)
    except UsageError as error:
        return name, f"broken: {error}", "-"


@filter_.command(
    epilog=examples("datacomp filter show clip_score", "datacomp filter show my.py:Mine")
)
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the filter NAME does, its parameters, and what its papers report for it."""
    from ...filters import registry
    from ...filters.assets import ASSETS, assets_of

    found = registry.get(name)
    parameters = registry.parameters(found)
    text = inspect.cleandoc(found.__doc__ or "")
    source = inspect.cleandoc(inspect.getmodule(found).__doc__ or "")  # pyright: ignore[reportOptionalMemberAccess]
    assets = [ASSETS[asset] for asset in assets_of(found).values()]
    if as_json:
        emit_json({
            "name": name, "rule": text, "about": source, "origin": registry.origin(name),
            "parameters": [
                vars(p) | ({"default": None} if p.required else {}) for p in parameters
            ],
            "assets": [vars(asset) for asset in assets],
            "published": [vars(row) for row in found.published],
        })  # fmt: skip
        return
    # The first paragraph of a module says what the rule says, in other words.
    more = source.partition("\n\n")[2] or source
    click.echo(f"{name} ({registry.origin(name)})\n\n{_plain(text)}\n\n{_plain(more)}\n")
    if parameters:
        rows = [
            (p.name, p.type, "required" if p.required else _written(p.default), _plain(p.help))
            for p in parameters
        ]
        emit_table(rows, ["parameter", "type", "default", "meaning"])
    for asset in assets:
        click.echo(f"\nasset {asset.name}: {asset.what}\n  get it from {asset.get}")
    if found.published:
        click.echo()
        emit_table(_published(found.published), ["reported", "scale", "kept", "ImageNet",
                                                 "average 38", "source"])  # fmt: skip


def _published(rows: Sequence[Published]) -> list[tuple[str, ...]]:
    """Return what papers report as cells of a table."""
    return [
        (row.variant or "as published", row.scale, row.samples or "-", _fraction(row.imagenet),
         _fraction(row.average), f"{row.source} ({row.note})" if row.note else row.source)
        for row in rows
    ]  # fmt: skip


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """Return a docstring without the marks that only a page of HTML can show."""
    return re.sub(r"``(.+?)``", r"\1", text)


def _written(default: Any) -> str:
    """Write a default as one would give it."""
    if isinstance(default, bool):
        return str(default).lower()
    return "-" if default is None else str(default)


@filter_.command(
    epilog=examples(
        "datacomp filter run pool.duckdb basic_filter -o basic.npy",
        "datacomp filter run pool.duckdb clip_score:arch=l14,fraction=0.3 -o clip.npy",
        "datacomp filter run pool.duckdb basic_filter exact_dedup --combine then -o clean.npy",
        "datacomp filter run metadata/ text_based --asset wordnet=/usr/share/wordnet -o text.npy",
        "datacomp filter run pool.duckdb my_filter.py:Sharpness --reasons dropped.parquet -o s.npy",
    )
)
@click.argument("pool", type=click.Path(path_type=Path))
@click.argument("filters", nargs=-1, required=True, metavar="FILTER...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="Subset file to write (.npy); NAME.json beside it says how.")  # fmt: skip
@click.option("--combine", default="and", show_default=True,
              help="How several filters join: and, or, then.")  # fmt: skip
@click.option("--asset", "assets", multiple=True, metavar="NAME=PATH",
              help="Where an asset lies that filters need; 'filter show' names them.")  # fmt: skip
@click.option("--reasons", type=click.Path(path_type=Path),
              help="Write uid, filter and reason of every dropped sample (parquet).")  # fmt: skip
@json_option
def run(
    pool: Path,
    filters: tuple[str, ...],
    output: Path,
    combine: str,
    assets: tuple[str, ...],
    reasons: Path | None,
    as_json: bool,
) -> None:
    """Run FILTERs over POOL and write the subset they keep.

    POOL is a pool file, or a folder of DataComp's metadata (parquet, with features in .npz). A
    FILTER is NAME or NAME:parameter=value,... ; with --combine 'and' each judges the whole
    pool, with 'then' each sees what the one before it left. Samples whose images cannot be read
    drop out under the reason 'unreadable' and are read again next time; the exit code is then 3.
    """
    from ...filters import parse
    from ...filters.assets import parse_assets, with_assets
    from ...pools.pool import Pool
    from ..selection import select

    given = parse_assets(assets)
    specs = [with_assets(parse(text), given) for text in filters]
    with Pool.open(pool) as opened:
        selected = select(opened, specs, output, combine, reasons)
    chosen = selected.selection
    if as_json:
        seconds = round(chosen.seconds, 2)
        emit_json({**selected.sidecar, "path": str(output), "seconds": seconds})
    else:
        _tell(selected)
    if chosen.unreadable is not None:
        click.echo(f"warning: {chosen.unreadable}", err=True)
        sys.exit(SET_ASIDE)


def _tell(selected: Selected) -> None:
    """Print the funnel, what scored, and how much is left."""
    chosen = selected.selection
    rows = [
        (step.filter, step.before, step.after,
         ", ".join(f"{count:,} {reason}" for reason, count in step.reasons.items()) or "-")
        for step in chosen.steps
    ]  # fmt: skip
    emit_table(rows, ["filter", "before", "after", "dropped"])
    for score in chosen.scores:
        source = score.get("model") or f"digest {score['digest'][:16]}"
        click.echo(f"score {score['name']}: {source}", err=True)
    kept = f"{len(chosen.uids):,} of {counted(chosen.total, 'sample')} ({selected.share:.1%})"
    click.echo(f"\n{selected.path}: {kept}")
