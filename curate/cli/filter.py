"""``datacomp filter``: list, show, run and compare filters."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import PLACE, SET_ASIDE, counted, emit_json, emit_table, examples, json_option
from .engines import choice_options

if TYPE_CHECKING:
    from ...filters import FilterGroup
    from ...filters.plan import FilterPlan
    from ...filters.published import Published
    from ...pools.engine import Engine
    from ..comparison import Comparison
    from ..selection import Selected


@click.group("filter")
def filter_() -> None:
    """List, show, run and compare filters."""


@filter_.command(
    "list",
    epilog=examples(
        "datacomp filter list",
        "datacomp filter list my.py:Mine",
        "datacomp filter list --json",
    ),
)
@click.argument("own", nargs=-1, metavar="[FILE.py:CLASS]...")
@json_option
def list_(own: tuple[str, ...], as_json: bool) -> None:
    """List the filters there are: built in, from installed packages, and those in files named.

    The origin of one of your own is the file and line of its class.
    """
    from ...filters import registry

    rows = [_describe(name) for name in registry.names()]
    # One that is named and cannot be used is an error, not a line of the list.
    rows += [
        (name, registry.get(name).rule(), registry.origin(name))
        for name in dict.fromkeys(own)
        if name not in registry.names()
    ]
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
            "not_reported": found.not_reported or None,
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
    elif found.not_reported:
        click.echo(f"\nnot reported on DataComp: {found.not_reported}")


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
        "datacomp filter assets",
        "datacomp filter assets fasttext_lid -o assets",
        "datacomp filter assets pool_centroids --file small_centroids_l14.pt -o assets",
    )
)
@click.argument("name", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder to download NAME into.")  # fmt: skip
@click.option("--file", "only", help="Which of its files, where there is a choice.")
@json_option
def assets(name: str | None, output: Path | None, only: str | None, as_json: bool) -> None:
    """List the files that filters need, or download NAME: its bytes are checked."""
    from ...errors import UsageError
    from ...filters.asset_download import download_asset
    from ...filters.assets import ASSETS, check_name, needing

    if name is None:
        found = [
            {"name": a.name, "what": a.what, "get": a.get, "download": a.address is not None,
             "serves": needing(a.name)}
            for a in ASSETS.values()
        ]  # fmt: skip
        if as_json:
            emit_json(found)
            return
        for asset in found:
            how = "downloaded by this command" if asset["download"] else f"from {asset['get']}"
            click.echo(f"{asset['name']}: {asset['what']}; {how}")
            click.echo(f"  serves {', '.join(asset['serves'])}")
        return
    check_name(name)
    if output is None:
        raise UsageError(f"give -o DIR, the folder to download {name} into")
    path = download_asset(name, output, only)
    if as_json:
        emit_json({"name": name, "path": str(path)})
    else:
        click.echo(f"{path}\ngive it as --asset {name}={path}")


@filter_.command(
    epilog=examples(
        "datacomp filter run pool.duckdb basic_filter -o basic.npy",
        "datacomp filter run pool.duckdb clip_score:arch=l14,fraction=0.3 -o clip.npy",
        "datacomp filter run pool.duckdb basic_filter exact_dedup --combine then -o clean.npy",
        "datacomp filter run pool.duckdb basic_filter not language:language=de -o some.npy",
        "datacomp filter run pool.duckdb basic_filter and '(' exact_dedup or min_ink ')' -o a.npy",
        "datacomp filter run pool.duckdb basic_filter clip_score:arch=l14,fraction=0.3 --explain",
        "datacomp filter run metadata/ text_based --asset wordnet=/usr/share/wordnet -o text.npy",
        "datacomp filter run s3://pools/metadata exact_dedup -o s3://pools/clean.npy --workers 8",
        "datacomp filter run pool.duckdb my_filter.py:Sharpness --reasons dropped.parquet -o s.npy",
    )
)
@click.argument("pool", type=PLACE)
@click.argument("filters", nargs=-1, required=True, metavar="FILTER...")
@click.option("-o", "--output", type=PLACE,
              help="Subset file to write (.npy); NAME.json beside it says how.")  # fmt: skip
@click.option("--combine", help="How filters side by side join: and (default), or, minus, then.")
@click.option("--asset", "assets", multiple=True, metavar="NAME=PATH",
              help="Where an asset lies that filters need; 'filter show' names them.")  # fmt: skip
@click.option("--reasons", type=PLACE,
              help="Write uid, filter and reason of every dropped sample (parquet).")  # fmt: skip
@choice_options
@click.option("--explain", is_flag=True, help="Print plan and cost; score and write nothing.")
@json_option
def run(
    pool: Path | str,
    filters: tuple[str, ...],
    output: Path | str | None,
    combine: str | None,
    assets: tuple[str, ...],
    reasons: Path | str | None,
    engine: Engine | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Run FILTERs over POOL and write the subset they keep.

    POOL is a pool file, or a folder of DataComp's metadata (parquet, with features in .npz). A
    FILTER is NAME or NAME:parameter=value,... ; the word 'not' before it keeps what it would
    drop. The words 'and', 'or', 'minus' and 'then' between filters say how they join (or --combine
    does for all), '(' and ')' make a group: with 'and' and 'or' each judges the whole pool, with
    'minus' what a later one keeps goes away, with 'then' each sees what the one before it left.
    Samples whose images cannot be read drop out under the reason 'unreadable' and are read again
    next time; the exit code is then 3, as it is where files of a folder of metadata cannot be read
    and are left out. With --workers or --engine each file of a folder is judged
    by itself, on processors unless a filter says device=cuda, which gives the same bytes. POOL may
    be a folder of metadata in an object store (s3://...), which is always judged so; what is
    written may go to a store too.
    """
    from ...errors import UsageError
    from ...pools.pool import Pool

    if output is None and not explain:
        raise UsageError("give -o NAME.npy, where the subset goes, or --explain")
    # Meanwhile filters are loaded, which takes as long.
    wait = Pool.opening(pool) if isinstance(pool, Path) and pool.is_dir() and not explain else None

    from ...filters.assets import parse_assets, with_assets
    from ...filters.expression import parse_all
    from ..selection import select, select_remote

    given = parse_assets(assets)
    group = parse_all(filters, combine).map(lambda spec: with_assets(spec, given))
    if explain:
        if isinstance(pool, str):
            raise UsageError(f"{pool}: --explain reads the samples; give a folder or a pool file")
        if output is not None or reasons is not None:
            click.echo("warning: --explain writes nothing: no subset, no reasons", err=True)
        _explain(pool, group, as_json)
        return
    assert output is not None
    if isinstance(pool, str):
        selected = select_remote(pool, group.filters, output, group.combine, reasons, engine)
    else:
        with wait() if wait is not None else Pool.open(pool) as opened:
            selected = select(opened, group.filters, output, group.combine, reasons, engine)
    chosen = selected.selection
    if as_json:
        seconds = round(chosen.seconds, 2)
        emit_json({**selected.sidecar, "path": str(output), "seconds": seconds})
    else:
        _tell(selected)
    if chosen.unreadable is not None:
        click.echo(f"warning: {chosen.unreadable}", err=True)
    if chosen.unreadable is not None or selected.left_out:
        sys.exit(SET_ASIDE)


def _explain(path: Path, group: FilterGroup, as_json: bool) -> None:
    """Print what a run would do."""
    from ...filters.plan import explain
    from ...pools.linking import tell_of_left_out
    from ...pools.pool import Pool

    with Pool.open(path) as pool:
        tell_of_left_out(pool.connection, path)
        plan = explain(pool, group.filters, group.combine)
    if as_json:
        emit_json(asdict(plan))
        return
    samples = counted(plan.samples, "sample")
    click.echo(f"{samples}; filters in this order, joined by '{plan.combine}':")
    _tell_plans(plan.filters, "")
    click.echo(
        f"\nAll decisions together are one scan of {samples}, after those that fractions and "
        "duplicates need."
    )


def _tell_plans(plans: Sequence[FilterPlan], above: str) -> None:
    """Print what filters would do, numbered; those of a group under its number."""
    from ...progress import duration

    for number, one in enumerate(plans, 1):
        click.echo(f"\n{above}{number}. {one.filter}")
        if one.members:
            click.echo(f"   the following, joined by '{one.combine}'")
            _tell_plans(one.members, f"{above}{number}.")
            continue
        for scorer in one.scorers:
            left = scorer.samples - scorer.scored
            cost = "not measured yet" if scorer.seconds is None else duration(scorer.seconds)
            cost = cost if left else "nothing to do"
            click.echo(
                f"   score {scorer.name} from {scorer.reads}: at most {scorer.samples:,} samples, "
                f"{scorer.scored:,} scored already; {cost}"
            )
        for reason, predicate in one.decisions:
            click.echo(f"   drop as {reason} unless {' '.join(predicate.split())}")
        if not one.known:
            click.echo("   the rest is decided once the scores are there")


@filter_.command(
    epilog=examples(
        "datacomp filter compare basic.npy clip30.npy",
        "datacomp filter compare basic.npy clip30.npy --pool pool.duckdb -o compare.html",
    )
)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--pool", "pool", type=click.Path(path_type=Path),
              help="Pool both are of: what sets apart what only one has.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PAGE.html",
              help="Also write a page with samples of the differences; needs --pool.")  # fmt: skip
@click.option("--samples", default=24, show_default=True, type=click.IntRange(1, 1000),
              help="Most samples of each reason on the page.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Another seed shows others.")
@json_option
def compare(
    a: Path,
    b: Path,
    pool: Path | None,
    output: Path | None,
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare what filters kept: the subsets A and B, what each loses to the other, and why.

    Why a sample was dropped stands in NAME.reasons.parquet beside NAME.npy: a study writes it,
    and 'filter run ... -o NAME.npy --reasons NAME.reasons.parquet' does.
    """
    from ...errors import UsageError
    from ...pools.linking import tell_of_left_out
    from ...pools.pool import Pool
    from ..comparison import compare_subsets

    if pool is None:
        if output is not None:
            raise UsageError("a page shows samples: give --pool too")
        found = compare_subsets(a, b)
    else:
        with Pool.open(pool, read_only=not pool.is_dir()) as opened:
            tell_of_left_out(opened.connection, pool)
            found = compare_subsets(a, b, opened)
            if output is not None:
                from ..report import write_comparison

                write_comparison(opened, found, output, samples, seed)
    if as_json:
        emit_json(found.to_dict())
        return
    _tell_comparison(found)
    if output is not None:
        click.echo(f"\n{output}")


def _tell_comparison(found: Comparison) -> None:
    rows = [
        (found.a, found.count_a, found.both, len(found.losses[0].uids)),
        (found.b, found.count_b, found.both, len(found.losses[1].uids)),
    ]
    emit_table(rows, ("subset", "uids", "in both", "only here"))
    click.echo(f"overlap: {found.overlap:.1%} of all that either has")
    for loss in found.losses:
        if loss.reasons:
            click.echo(f"\nwhat {loss.loser} dropped and {loss.keeper} has:")
            emit_table([(count, reason, step) for step, reason, count in loss.reasons],
                       ("uids", "reason", "filter"))  # fmt: skip
    if found.means:
        rows = [(name, str(one), str(other)) for name, one, other in found.means]
        click.echo()
        emit_table(rows, ("mean of", f"only {found.a}", f"only {found.b}"))


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
    kept = f"{chosen.kept:,} of {counted(chosen.total, 'sample')} ({selected.share:.1%})"
    times = chosen.gathered.count
    seen = "" if chosen.kept == times else f", to be seen {times:,} times"
    click.echo(f"\n{selected.path}: {kept}{seen}")
