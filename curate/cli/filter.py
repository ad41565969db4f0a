"""``datacomp filter``: list, show and run filters."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from .common import emit_json, emit_table, examples, json_option


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
    """Show what the filter NAME does, its parameters and where it comes from."""
    from ...filters import registry

    found = registry.get(name)
    parameters = registry.parameters(found)
    text = inspect.cleandoc(found.__doc__ or "")
    source = inspect.cleandoc(inspect.getmodule(found).__doc__ or "")  # pyright: ignore[reportOptionalMemberAccess]
    if as_json:
        emit_json({
            "name": name, "rule": text, "about": source, "origin": registry.origin(name),
            "parameters": [
                vars(p) | ({"default": None} if p.required else {}) for p in parameters
            ],
        })  # fmt: skip
        return
    click.echo(f"{name} ({registry.origin(name)})\n\n{text}\n\n{source}\n")
    if parameters:
        rows = [
            (
                p.name,
                p.type,
                "required" if p.required else str(p.default),
                p.help,
            )
            for p in parameters
        ]
        emit_table(rows, ["parameter", "type", "default", "meaning"])


@filter_.command(
    epilog=examples(
        "datacomp filter run pool.duckdb basic_filter -o basic.npy",
        "datacomp filter run pool.duckdb clip_score:arch=l14,fraction=0.3 -o clip.npy",
        "datacomp filter run pool.duckdb basic_filter exact_dedup --combine then -o clean.npy",
        "datacomp filter run pool.duckdb my_filter.py:Sharpness --reasons dropped.parquet -o s.npy",
    )
)
@click.argument("pool", type=click.Path(path_type=Path))
@click.argument("filters", nargs=-1, required=True, metavar="FILTER...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="Subset file to write (.npy); NAME.json beside it says how.")  # fmt: skip
@click.option("--combine", default="and", show_default=True,
              help="How several filters join: and, or, then.")  # fmt: skip
@click.option("--reasons", type=click.Path(path_type=Path),
              help="Write uid, filter and reason of every dropped sample (parquet).")  # fmt: skip
@json_option
def run(
    pool: Path,
    filters: tuple[str, ...],
    output: Path,
    combine: str,
    reasons: Path | None,
    as_json: bool,
) -> None:
    """Run FILTERs over POOL and write the subset they keep.

    A FILTER is NAME or NAME:parameter=value,... ; with --combine 'and' each judges the whole
    pool, with 'then' each sees what the one before it left.
    """
    from ...filters import parse
    from ...pools.pool import Pool
    from ..selection import select

    with Pool.open(pool) as opened:
        selected = select(opened, [parse(text) for text in filters], output, combine, reasons)
    chosen = selected.selection
    if as_json:
        seconds = round(chosen.seconds, 2)
        emit_json({**selected.sidecar, "path": str(output), "seconds": seconds})
        return
    rows = [
        (step.filter, step.before, step.after,
         ", ".join(f"{count:,} {reason}" for reason, count in step.reasons.items()) or "-")
        for step in chosen.steps
    ]  # fmt: skip
    emit_table(rows, ["filter", "before", "after", "dropped"])
    for score in chosen.scores:
        source = score.get("model") or f"digest {score['digest'][:16]}"
        click.echo(f"score {score['name']}: {source}", err=True)
    kept = f"{len(chosen.uids):,} of {chosen.total:,} samples ({selected.share:.1%})"
    click.echo(f"\n{output}: {kept}")
