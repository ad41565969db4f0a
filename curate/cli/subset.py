"""``datacomp subset``: set algebra on subset files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import counted, emit_json, emit_table, examples, json_option

_FILE = click.Path(path_type=Path)
_out_option = click.option(
    "-o",
    "--output",
    "out",
    type=_FILE,
    required=True,
    metavar="OUT.npy",
    help="Where the result goes.",
)


@click.group()
def subset() -> None:
    """Describe, combine and compare subset files (.npy).

    Uids may repeat: a uid that stands in a subset k times is to be seen k times.
    """


@subset.command(
    epilog=examples("datacomp subset info clip30.npy", "datacomp subset info a.npy --json")
)
@click.argument("file", type=_FILE)
@json_option
def info(file: Path, as_json: bool) -> None:
    """Count the uids of a subset and say where it is from."""
    from ..subset import info as describe

    found = describe(file)
    if as_json:
        emit_json(found.to_dict())
        return
    sidecar: dict[str, Any] = found.sidecar or {}
    rows = [
        ("uids", f"{found.count:,}"),
        ("distinct", f"{found.unique:,}"),
        *((f"seen {k} times", f"{n:,}") for k, n in found.multiplicities.items() if k > 1),
        ("first", found.first or "-"),
        ("last", found.last or "-"),
        ("digest", found.digest),
    ]
    pool = sidecar.get("pool")
    if pool:
        name = pool.get("digest") or pool.get("files")
        rows.append(("pool", f"{name} ({counted(pool['samples'], 'sample')})"))
    for step in sidecar.get("inputs") or []:
        rows.append(("made from", f"{step['file']} ({counted(step['count'], 'uid')})"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name.ljust(width)}  {value}")


def _combine(operation: str, files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    from ..subset import combine

    sidecar = combine(operation, files, out)
    if as_json:
        emit_json({"path": str(out), **sidecar})
    else:
        click.echo(f"{out}: {counted(sidecar['count'], 'uid')}")


@subset.command(epilog=examples("datacomp subset union a.npy b.npy -o both.npy"))
@click.argument("files", type=_FILE, nargs=-1, required=True)
@_out_option
@json_option
def union(files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Keep what is in any of the files, as often as in the one that has it most often."""
    _combine("union", files, out, as_json)


@subset.command(epilog=examples("datacomp subset intersect clip30.npy basic.npy -o best.npy"))
@click.argument("files", type=_FILE, nargs=-1, required=True)
@_out_option
@json_option
def intersect(files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Keep what is in all of the files, as often as in the one that has it least often."""
    _combine("intersect", files, out, as_json)


@subset.command(epilog=examples("datacomp subset minus all.npy removed.npy -o clean.npy"))
@click.argument("files", type=_FILE, nargs=-1, required=True)
@_out_option
@json_option
def minus(files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Keep what is in the first file and in none of the others."""
    _combine("minus", files, out, as_json)


@subset.command(
    epilog=examples(
        "datacomp subset diff old.npy new.npy", "datacomp subset diff a.npy b.npy -o d/"
    )
)
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option(
    "-o", "--output", "out", type=_FILE, metavar="DIR",
    help="Also write only_a.npy, only_b.npy and both.npy into this folder.",
)  # fmt: skip
@json_option
def diff(a: Path, b: Path, out: Path | None, as_json: bool) -> None:
    """Count what is only in A, only in B, and in both."""
    from ..subset import compare

    counts = compare(a, b, out)
    if as_json:
        emit_json(counts)
        return
    rows = [
        (f"only in {a}", counts["only_a"]),
        (f"only in {b}", counts["only_b"]),
        ("in both", counts["both"]),
    ]
    emit_table(rows, ("", "uids"))
