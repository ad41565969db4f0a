"""``datacomp release push``: hand a release to IPFS nodes and pinning services."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import MissingError, UsageError
from .common import counted, emit_json, examples, json_option

MAX_TOKEN = 1 << 16

_FOLDER = click.Path(path_type=Path)
_version_option = click.option(
    "--version", metavar="V", help="The version to push; the newest, unless given."
)


@click.group()
def push() -> None:
    """Have a release kept on IPFS, by a node of yours or by a pinning service."""


@push.command(
    epilog=examples(
        "datacomp release push ipfs releases",
        "datacomp release push ipfs releases --api https://node.example.org --token-file token",
    )
)
@click.argument("releases", type=_FOLDER)
@click.option(
    "--api", default="http://127.0.0.1:5001", show_default=True, metavar="URL",
    help="Where Kubo's RPC answers.",
)  # fmt: skip
@click.option("--token-file", type=_FOLDER, help="A file with the access token of the RPC.")
@_version_option
@json_option
def ipfs(
    releases: Path, api: str, token_file: Path | None, version: str | None, as_json: bool
) -> None:
    """Import a version into a Kubo node, pin it and publish its IPNS name.

    Only files that the node lacks are sent. Versions of which samples were taken back are
    unpinned. Broke off? Run it again.
    """
    from ...distribution.ipfs.kubo import Kubo
    from ...distribution.ipfs.push import push_to_kubo
    from ...distribution.release import Releases

    kubo = Kubo(api, _token(token_file) if token_file else None)
    done = push_to_kubo(Releases(releases), kubo, version)
    if as_json:
        emit_json(done.to_dict())
        return
    click.echo(f"version {done.version}: ipfs://{done.root_cid} is pinned")
    sent = f"{counted(done.files_sent, 'file')}, {counted(done.bytes_sent, 'byte')} sent"
    click.echo(
        sent + (f"; the rest was there with {done.updated_from}" if done.updated_from else "")
    )
    for cid in done.unpinned:
        click.echo(f"unpinned {cid}, of which samples were taken back")
    if done.name:
        click.echo(f"ipns://{done.name} points there")


@push.command(
    epilog=examples(
        "datacomp release push pin releases --service https://pins.example.org --token-file token"
    )
)
@click.argument("releases", type=_FOLDER)
@click.option("--service", required=True, metavar="URL", help="Address of the pinning service.")
@click.option(
    "--token-file", type=_FOLDER, required=True, help="A file with the access token of the service."
)
@click.option(
    "--origin", "origins", multiple=True, metavar="MULTIADDR",
    help="Where the service can get the blocks, as /ip4/203.0.113.5/tcp/4001/p2p/12D3...; may be "
    "given several times.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the pin of the version before, too.")
@_version_option
@json_option
def pin(
    releases: Path,
    service: str,
    token_file: Path,
    origins: tuple[str, ...],
    keep: bool,
    version: str | None,
    as_json: bool,
) -> None:
    """Have a version pinned by a service, in place of the version before.

    The service gets the blocks from a node that has them. Run it again to see how far it is.
    """
    from ...distribution.ipfs.pinning import PinningService
    from ...distribution.ipfs.push import push_to_service
    from ...distribution.release import Releases

    there = PinningService(service, _token(token_file))
    found = push_to_service(Releases(releases), there, version, origins, keep)
    if as_json:
        emit_json(
            {"cid": found.cid, "status": found.status, "request": found.request,
             "delegates": list(found.delegates)}
        )  # fmt: skip
    else:
        click.echo(f"{found.cid}: {found.status}")


def _token(path: Path) -> str:
    """Read an access token: one line."""
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN).decode("ascii").strip()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; put the access token there") from None
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise UsageError(f"{path}: not an access token; expected one line without spaces")
    return token
