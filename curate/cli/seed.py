"""``datacomp seed``: a folder of releases over BitTorrent."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import click

from .common import counted, examples, json_option


@click.command(
    epilog=examples(
        "datacomp seed releases",
        "datacomp seed releases --listen 0.0.0.0:51413 --upload-limit 5000",
        "datacomp seed releases --status 127.0.0.1:8081",
        "datacomp seed releases --lan --listen 192.168.1.5:6881",
    )
)
@click.argument("releases", type=click.Path(path_type=Path))
@click.option("--listen", default="0.0.0.0:6881,[::]:6881", show_default=True,
              metavar="HOST:PORT",
              help="Addresses to listen on; port 0 is any free one.")  # fmt: skip
@click.option("--upload-limit", type=click.IntRange(0), default=0, metavar="KB",
              help="Most kilobytes a second to give.  [default: no limit]")  # fmt: skip
@click.option("--connections", type=click.IntRange(1), default=500, show_default=True,
              help="Most connections at a time.")  # fmt: skip
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE",
              help="The release key: keep the newest version's pointer in the DHT.")  # fmt: skip
@click.option("--dht-node", "bootstrap", metavar="HOST:PORT",
              help="Enter the DHT here.  [default: libtorrent's own nodes]")  # fmt: skip
@click.option("--peer", "peers", multiple=True, metavar="HOST:PORT",
              help="A peer to call; may be repeated.")  # fmt: skip
@click.option("--lan", is_flag=True,
              help="This network only: no DHT, no uTP, no opening of ports.")  # fmt: skip
@click.option("--every", type=click.FloatRange(0.2), default=10.0, show_default=True,
              metavar="SECONDS", help="How often to tell the status.")  # fmt: skip
@click.option("--status", "page", metavar="HOST:PORT",
              help="Show the status to browsers, too, at this address.")  # fmt: skip
@json_option
def seed(
    releases: Path, listen: str, upload_limit: int, connections: int, peers: tuple[str, ...],
    key: Path | None, bootstrap: str | None, lan: bool, every: float,
    page: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Seed every version in the folder RELEASES until interrupted.

    Each version is given in its v1 torrent, which every client reads, and in its hybrid one.
    What is known to be whole is not read again first. New versions are taken up by themselves.
    The status is told as it changes; with --json, as one line of JSON each time.
    """
    import contextlib
    import json

    from ...distribution.release import load_key
    from ...distribution.torrents import Net, Seeder
    from ...distribution.torrents.status import StatusPage
    from ...progress import say

    net = Net(listen, lan, upload_limit * 1000, connections=connections, bootstrap=bootstrap)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    shown = None if page is None else StatusPage(page)

    def tell(status: dict[str, Any]) -> None:
        if shown is not None:
            shown.tell(status)
        click.echo(json.dumps(status) if as_json else _line(status))

    signer = None if key is None else load_key(key)
    with contextlib.ExitStack() as stack:
        if shown is not None:
            stack.enter_context(shown)
            say(f"status: {shown.address}")
        seeder = stack.enter_context(Seeder(releases, net, peers, signer))
        seeder.run(stop, tell, every)
        tell(seeder.status())


def _line(status: dict[str, Any]) -> str:
    return (
        f"port {status['port']}: {counted(len(status['torrents']), 'torrent')}, "
        f"{counted(status['peers'], 'peer')}, {status['uploaded'] / 1e6:,.1f} MB given, "
        f"{status['upload_rate'] / 1e6:,.2f} MB/s"
    )
