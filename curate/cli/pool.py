"""``datacomp pool``: make, fill, ask and look at pools."""

from __future__ import annotations

import contextlib
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...progress import say
from .browse import browse
from .common import SET_ASIDE, counted, emit_json, emit_table, examples, json_option, parse_options
from .download import pool_download
from .embed import embed
from .fetch import echo_effective, fetch

if TYPE_CHECKING:
    from ...pools.adding import AddReport

POOL = click.argument("pool", type=click.Path(path_type=Path))
MEMORY = click.option(
    "--memory", metavar="SIZE",
    help="Most memory DuckDB may take, such as 2GB or 25%; more goes to a folder beside the pool. "
         "Else DATACOMP_MEMORY, else half of the memory.",
)  # fmt: skip


@click.group()
def pool() -> None:
    """Make, fill, ask and look at pools of candidate samples."""


pool.add_command(browse)


@pool.command(epilog=examples("datacomp pool create pool.duckdb"))
@POOL
@json_option
def create(pool: Path, as_json: bool) -> None:
    """Make an empty POOL: one DuckDB file."""
    from ...pools.pool import Pool

    Pool.create(pool).close()
    if as_json:
        emit_json({"pool": str(pool)})
    else:
        click.echo(f"made {pool}")


@pool.command(
    epilog=examples(
        "datacomp pool add pool.duckdb photos",
        "datacomp pool add pool.duckdb metadata --kind commonpool --link",
        "datacomp pool add pool.duckdb shards --kind webdataset --option verify=false",
        "datacomp pool add pool.duckdb urls.csv --kind csv --option url_column=link",
        "datacomp pool add pool.duckdb s3://bucket/metadata",
        "datacomp pool add pool.duckdb glyphs --kind glyphs --option samples=5000",
    )
)
@POOL
@click.argument("path")
@click.option("--kind",
              help="Kind of source: folder, webdataset, commonpool, parquet, csv, jsonl, coco, "
                   "huggingface, glyphs, visualatom, rcdb, fractaldb or exfractaldb. Else it "
                   "is guessed.")  # fmt: skip
@click.option("--link", is_flag=True,
              help="Leave the rows where they are, copy nothing (kind commonpool).")  # fmt: skip
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE",
              help="An option of the source; may be repeated.")  # fmt: skip
@MEMORY
@json_option
def add(
    pool: Path,
    path: str,
    kind: str | None,
    link: bool,
    options: tuple[str, ...],
    memory: str | None,
    as_json: bool,
) -> None:
    """Add the samples at PATH to POOL (made if it is not there).

    PATH is a file or folder, or a URL (https://..., s3://..., whatever fsspec knows): its files
    are copied to POOL.sources first, and only what has changed the next time.
    Adding a source again brings in what is new and takes over what has changed; what has
    vanished is kept. A sample that cannot be used is set aside under a reason; the exit code is
    then 3. The table set_aside lists these, the duplicates and the vanished.
    """
    from ...pools.copying import copies_of, unpacked_beside
    from ...pools.linking import FOLDER_KIND
    from ...pools.pool import Pool
    from ...pools.ranges import is_remote
    from ...pools.sources import open_source
    from ...pools.sources.guessing import guess_kind

    with contextlib.ExitStack() as stack:
        copies = stack.enter_context(copies_of(path, pool)) if is_remote(path) else None
        here = Path(path) if copies is None else copies.path
        given: dict[str, Any] = {}
        if kind is None:
            kind, telling = guess_kind(here)
            if link and kind == "parquet":  # of tables only metadata can be linked
                kind, telling = FOLDER_KIND, "--link"
            say(f"kind {kind}, judging by {telling}")
            if kind == "huggingface":
                given, here = {"data": str(here.resolve())}, unpacked_beside(here, pool)
                say(f"its images are unpacked into {here}")
        given |= parse_options(options) | ({"link": True} if link else {})
        source = open_source(kind, here, **given)
        with Pool.open_or_create(pool, memory_limit=memory) as opened:
            try:
                with contextlib.nullcontext() if copies is None else copies.taken_over(opened):
                    report = opened.add(source)
            except BaseException:
                opened.withdraw()
                raise
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(f"{report.source}: {_counts(report)}")
        for reason, count in sorted(report.set_aside.items()):
            click.echo(f"  set aside: {count:,} {reason}")
    if report.set_aside:
        sys.exit(SET_ASIDE)


def _counts(report: AddReport) -> str:
    if report.rows is None:
        names = ("added", "unchanged", "changed", "vanished", "duplicates")
        return ", ".join(f"{getattr(report, name):,} {name}" for name in names)
    before = report.rows_before
    told = "" if before is None else f" ({before:,} before), not compared"
    return f"linked, {counted(report.rows, 'row')}{told}"


@pool.command(
    epilog=examples(
        "datacomp pool info pool.duckdb",
        "datacomp pool info pool.duckdb --json",
        "datacomp pool info pool.duckdb --subset clip30.npy --at-hand effective.npy",
    )
)
@POOL
@click.option("--subset", "subsets", multiple=True, type=click.Path(path_type=Path),
              metavar="FILE.npy",
              help="Tell how much of this subset is at hand; may be repeated.")  # fmt: skip
@click.option("--at-hand", type=click.Path(path_type=Path), metavar="FILE.npy",
              help="Write the samples at hand, the effective pool, as a subset.")  # fmt: skip
@MEMORY
@json_option
def info(
    pool: Path, subsets: tuple[Path, ...], at_hand: Path | None, memory: str | None, as_json: bool
) -> None:
    """Show what is in POOL: counts, columns, sources, scores, features, what was set aside.

    Once images were fetched, or for a --subset, also the effective pool: how many samples are at
    hand, why others are not, and the digest that names those that are.
    """
    from ...pools.fetches import available_uids, effective_pool, was_fetched
    from ...pools.pool import Pool
    from ...pools.uids import load_subset, save_subset

    wanted = {str(path): load_subset(path) for path in subsets}
    with Pool.open(pool, read_only=True, memory_limit=memory) as opened:
        found = opened.info()
        effective = effective_pool(opened, wanted) if wanted or was_fetched(opened) else None
        if at_hand is not None:
            save_subset(at_hand, available_uids(opened))
    found["effective"] = effective and effective.to_dict()
    if as_json:
        emit_json(found)
        return
    click.echo(f"{found['path']}: {found['samples']:,} samples, schema {found['schema_version']}")
    click.echo(f"digest {found['digest']}\n")
    columns = found["columns"]
    emit_table(list(columns.items()), ["column", "type"])
    for key in ("sources", "set_aside", "scores", "features"):
        rows = found[key]
        if rows:
            click.echo(f"\n{key.replace('_', ' ')}")
            emit_table([list(row.values()) for row in rows], list(rows[0]))
    if effective:
        echo_effective(effective)


@pool.command(epilog=examples("datacomp pool check metadata", "datacomp pool check pool.duckdb"))
@POOL
@MEMORY
@json_option
def check(pool: Path, memory: str | None, as_json: bool) -> None:
    """Check that POOL's uids are unique and its features fit, which linking does not look at.

    The exit code is 3 if something is wrong.
    """
    from ...pools.checking import check_pool
    from ...pools.pool import Pool

    with Pool.open(pool, read_only=True, memory_limit=memory) as opened:
        report = check_pool(opened)
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(f"{pool}: {report.samples:,} samples checked")
        for reason, count in report.problems.items():
            click.echo(f"  {count:,} {reason}")
        for example in report.examples[:20]:
            click.echo(f"  {example.reason}: {example.item}  {example.detail}".rstrip())
    if report.problems:
        sys.exit(SET_ASIDE)


@pool.command(
    epilog=examples(
        'datacomp pool query pool.duckdb "SELECT text, width FROM samples LIMIT 5"',
        'datacomp pool query pool.duckdb "FROM set_aside" --limit 10 --json',
        'datacomp pool query pool.duckdb "SELECT uid, url FROM samples" --csv --limit 1000000',
    )
)
@POOL
@click.argument("sql")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Print at most this many rows.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@MEMORY
@json_option
def query(
    pool: Path, sql: str, limit: int, as_csv: bool, memory: str | None, as_json: bool
) -> None:
    """Ask POOL in SQL, read-only and without access to other files.

    Uids are printed as 32 hex digits. In JSON, other 128-bit integers are text,
    bytes are hex digits, and NaN and infinity are null.
    """
    from ...pools.asking import query as run_query
    from ...pools.asking import question_errors

    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    with run_query(pool, sql, memory_limit=memory) as cursor:
        names = [column[0] for column in cursor.description or []]
        kinds = [column[1] for column in cursor.description or []]
        with question_errors(pool):
            found = cursor.fetchmany(limit)
            more = cursor.fetchone() is not None
    uids = [(n.lower(), str(k)) == ("uid", "UHUGEINT") for n, k in zip(names, kinds, strict=True)]
    rows = [[_hex(v) if u else v for v, u in zip(row, uids, strict=True)] for row in found]
    if as_json:
        emit_json(
            [{n: _plain(v, k) for n, v, k in zip(names, row, kinds, strict=True)} for row in rows]
        )
    elif as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
    else:
        emit_table([[_cell(value) for value in row] for row in rows], names)
    if more:
        click.echo(f"(more rows; --limit {limit})", err=True)


def _hex(uid: int | None) -> str | None:
    return None if uid is None else f"{uid:032x}"


def _plain(value: object, kind: Any) -> object:
    """Return a value of a DuckDB type for JSON: 128-bit integers are text, bytes hex digits.

    ``kind`` is None where it is not known, within a union: only large integers are text there.
    """
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int):
        wide = str(kind) in ("HUGEINT", "UHUGEINT")
        return str(value) if wide or not -(1 << 63) <= value < 1 << 64 else value
    if not isinstance(value, list | tuple | dict):
        return value
    of = kind.id if kind is not None and kind.id in _NESTED else None
    children: list[tuple[str, Any]] = kind.children if kind is not None and of else []
    inner = [one for _, one in children]
    if isinstance(value, list | tuple):
        kinds = inner if of == "tuple" else [inner[0] if of else None] * len(value)
        return [_plain(one, of_it) for one, of_it in zip(value, kinds, strict=True)]
    if of != "map":
        named = dict(children)
        return {str(name): _plain(one, named.get(name)) for name, one in value.items()}
    if inner[0].id in _NO_KEYS and isinstance(value.get("key"), list):
        return {part: [_plain(one, of_it) for one in value[part]]
                for part, of_it in zip(("key", "value"), inner, strict=True)}  # fmt: skip
    return {str(_plain(key, inner[0])): _plain(one, inner[1]) for key, one in value.items()}


_NESTED = ("list", "array", "struct", "tuple", "map")
"""Types whose values are of types that are known; within a union or a variant they are not."""
_NO_KEYS = (*_NESTED, "union")
"""Types that are no keys in Python: a map of these comes as lists of keys and values."""


def _cell(value: object) -> object:
    """Return a value for a terminal: a stranger's caption must not steer it."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)


@pool.command(
    epilog=examples(
        "datacomp pool show pool.duckdb -o pool.html",
        'datacomp pool show pool.duckdb --where "width < 64" --limit 100 -o small.html',
        "datacomp pool show metadata --like 80f3b1c2a5d94e7f80f3b1c2a5d94e7f --features l14_img",
    )
)
@POOL
@click.option("-o", "--output", default="pool.html", show_default=True,
              type=click.Path(path_type=Path), help="Page to write.")  # fmt: skip
@click.option("--where", default="true", help="SQL condition on the samples shown.")
@click.option("--limit", default=200, show_default=True, help="How many samples to show.")
@click.option("--seed", default=0, show_default=True, help="Another seed shows other samples.")
@click.option("--like", metavar="UID", help="Show also the samples most like this one.")
@click.option("--features", metavar="NAME,...",
              help="By which features they are like it, such as l14_img,l14_txt.")  # fmt: skip
@MEMORY
@json_option
def show(
    pool: Path, output: Path, where: str, limit: int, seed: int, like: str | None,
    features: str | None, memory: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a page with a contact sheet of POOL, its distributions and its outliers."""
    from ...pools.pool import Pool
    from ..report import write_contact_sheet

    with Pool.open(pool, read_only=True, confined=True, memory_limit=memory) as opened:
        names = tuple(name for name in (features or "").split(",") if name)
        shown = write_contact_sheet(opened, output, where, limit, seed, like=like, features=names)
    if as_json:
        emit_json({"page": str(output), "samples": shown})
    else:
        click.echo(f"{output}: {shown:,} samples")


pool.add_command(fetch)
pool.add_command(embed)
pool.add_command(pool_download, "download")
