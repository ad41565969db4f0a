"""``datacomp cid``: the name that IPFS gives a file or a folder."""

from __future__ import annotations

from pathlib import Path

import click

from ...distribution.ipfs.profiles import DEFAULT_PROFILE
from .common import emit_json, examples, json_option


@click.command(
    epilog=examples(
        "datacomp cid shards/",
        "datacomp cid shards/00000000.tar --profile legacy-256k",
    )
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--profile", default=DEFAULT_PROFILE, show_default=True, metavar="NAME",
    help="How files are cut: unixfs-v1-2025, unixfs-v0-2015, or legacy-256k, which is what "
    "'ipfs add --cid-version=1' did before there were profiles.",
)  # fmt: skip
@click.option("--hidden", is_flag=True, help="Count files in whose name a dot comes first, too.")
@json_option
def cid(path: Path, profile: str, hidden: bool, as_json: bool) -> None:
    """Print the CID of a file or a folder.

    It is the one that 'ipfs add' prints for the same profile. Nothing is written or sent; every
    byte is read once.
    """
    from ...distribution.ipfs.paths import name_path

    found = name_path(path, profile, hidden=hidden)
    if as_json:
        emit_json(
            {
                "path": str(path),
                "cid": found.cid,
                "profile": profile,
                "size": found.size,
                "dag_size": found.tsize,
            }
        )
    else:
        click.echo(found.cid)
