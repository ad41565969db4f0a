"""``datacomp pool``: make, fill, ask and look at pools."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ...errors import DatacompError
from .common import SET_ASIDE, emit_json, emit_table, examples, json_option, parse_options

POOL = click.argument("pool", type=click.Path(path_type=Path))


@click.group()
def pool() -> None:
    """Make, fill, ask and look at pools of candidate samples."""


@pool.command(epilog=examples("datacomp pool create pool.duckdb"))
@POOL
def create(pool: Path) -> None:
    """Make an empty POOL: one DuckDB file."""
    from ...pools.pool import Pool

    with Pool.create(pool):
        click.echo(f"made {pool}")


@pool.command(
    epilog=examples(
        "datacomp pool add pool.duckdb photos --kind folder",
        "datacomp pool add pool.duckdb shards --kind webdataset --option verify=false",
        "datacomp pool add pool.duckdb urls.csv --kind csv --option url_column=link",
        "datacomp pool add pool.duckdb glyphs --kind glyphs --option samples=5000",
    )
)
@POOL
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--kind", required=True,
              help="Kind of source: folder, webdataset, parquet, csv or glyphs.")  # fmt: skip
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE",
              help="An option of the source; may be repeated.")  # fmt: skip
@json_option
def add(pool: Path, path: Path, kind: str, options: tuple[str, ...], as_json: bool) -> None:
    """Add the samples at PATH to POOL (made if it is not there).

    Adding a source again brings in what is new. A sample that cannot be used is set aside
    under a reason and listed in the table set_aside; the exit code is then 3.
    """
    from ...pools.pool import Pool
    from ...pools.sources import open_source

    source = open_source(kind, path, **parse_options(options))
    new = not pool.exists()
    try:
        with Pool.open_or_create(pool) as opened:
            report = opened.add(source)
    except DatacompError:
        if new:  # nothing came of it: leave nothing behind
            pool.unlink(missing_ok=True)
        raise
    if as_json:
        emit_json(report.to_dict())
    else:
        click.echo(
            f"{report.source}: {report.added:,} added, {report.unchanged:,} there already, "
            f"{report.duplicates:,} duplicates"
        )
        for reason, count in sorted(report.set_aside.items()):
            click.echo(f"  set aside: {count:,} {reason}")
    if report.set_aside:
        sys.exit(SET_ASIDE)


@pool.command(
    epilog=examples("datacomp pool info pool.duckdb", "datacomp pool info pool.duckdb --json")
)
@POOL
@json_option
def info(pool: Path, as_json: bool) -> None:
    """Show what is in POOL: counts, columns, sources, scores, what was set aside."""
    from ...pools.pool import Pool

    with Pool.open(pool, read_only=True) as opened:
        found = opened.info()
    if as_json:
        emit_json(found)
        return
    click.echo(f"{found['path']}: {found['samples']:,} samples, schema {found['schema_version']}")
    click.echo(f"digest {found['digest']}\n")
    columns = found["columns"]
    emit_table(list(columns.items()), ["column", "type"])
    for key, title in (("sources", "sources"), ("set_aside", "set aside"), ("scores", "scores")):
        rows = found[key]
        if rows:
            click.echo(f"\n{title}")
            emit_table([list(row.values()) for row in rows], list(rows[0]))


@pool.command(
    epilog=examples(
        'datacomp pool query pool.duckdb "SELECT text, width FROM samples LIMIT 5"',
        'datacomp pool query pool.duckdb "FROM set_aside" --limit 10 --json',
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
@json_option
def query(pool: Path, sql: str, limit: int, as_json: bool) -> None:
    """Ask POOL in SQL, read-only and without access to other files."""
    import duckdb

    from ...errors import UsageError
    from ...pools.pool import query as run_query

    with run_query(pool, sql) as cursor:
        names = [column[0] for column in cursor.description or []]
        try:
            rows = cursor.fetchmany(limit)
            more = cursor.fetchone() is not None
        except duckdb.Error as error:  # some errors show only when the rows are computed
            raise UsageError(f"{pool}: {' '.join(str(error).split())}") from None
    if as_json:
        emit_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    emit_table([[_cell(value) for value in row] for row in rows], names)
    if more:
        click.echo(f"(more rows; --limit {limit})", err=True)


def _cell(value: object) -> object:
    """Return a value for a terminal: a stranger's caption must not steer it."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)


@pool.command(
    epilog=examples(
        "datacomp pool show pool.duckdb -o pool.html",
        'datacomp pool show pool.duckdb --where "width < 64" --limit 100 -o small.html',
    )
)
@POOL
@click.option("-o", "--output", default="pool.html", show_default=True,
              type=click.Path(path_type=Path), help="Page to write.")  # fmt: skip
@click.option("--where", default="true", help="SQL condition on the samples shown.")
@click.option("--limit", default=200, show_default=True, help="How many samples to show.")
@click.option("--seed", default=0, show_default=True, help="Another seed shows other samples.")
def show(pool: Path, output: Path, where: str, limit: int, seed: int) -> None:
    """Write a page with a contact sheet of POOL and its distributions."""
    from ...pools.pool import Pool
    from ..report import write_contact_sheet

    with Pool.open(pool, read_only=True) as opened:
        shown = write_contact_sheet(opened, output, where, limit, seed)
    click.echo(f"{output}: {shown:,} samples")
