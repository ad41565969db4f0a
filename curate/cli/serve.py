"""``datacomp serve``: a folder of releases on the web."""

from __future__ import annotations

from pathlib import Path

import click

from .common import examples


@click.command(
    epilog=examples(
        "datacomp serve releases",
        "datacomp serve releases --host 0.0.0.0 --port 80 --base https://data.example.org/",
    )
)
@click.argument("releases", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; 0.0.0.0 is every network of this machine.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--base", metavar="URL", help="Address to write into pages, if a proxy has another.")
@click.option("--log", is_flag=True, help="Print a line for every request.")
def serve(releases: Path, host: str, port: int, base: str | None, log: bool) -> None:
    """Serve the folder RELEASES over HTTP until interrupted.

    Pages for people, files with ranges, web seeds for BitTorrent, and a trustless IPFS gateway.
    Only what a manifest lists is served. A new version is noticed by itself. The address and the
    brace URLs of the newest version's shards, which WebDataset streams, are printed.
    """
    from ...distribution.serving import brace_urls
    from ...distribution.serving import serve as run

    def ready(address: str) -> None:
        click.echo(address)
        for url in brace_urls(releases, address):
            click.echo(url)

    run(releases, host, port, base, log, ready)
