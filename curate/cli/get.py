"""``datacomp get``: a dataset from all who have it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import SET_ASIDE, counted, emit_json, emit_table, examples, json_option

if TYPE_CHECKING:
    from ...distribution.getting import GetReport, Options


@click.command(
    epilog=examples(
        "datacomp get https://data.example.org/ birds",
        "datacomp get https://data.example.org/ birds --update",
        "datacomp get birds-2.torrent birds --mirror https://mirror.example.net/birds/",
        "datacomp get https://data.example.org/ few --subset chosen.npy",
    )
)
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--update", is_flag=True, help="Make the version that is there the newest one.")
@click.option("--key", metavar="HEX", help="The keeper's public key; else the first one is kept.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL",
              help="Another server of these releases or files; may be repeated.")  # fmt: skip
@click.option("--gateway", "gateways", multiple=True, metavar="URL",
              help="An IPFS gateway; may be repeated.")  # fmt: skip
@click.option("--peer", "peers", multiple=True, metavar="HOST:PORT",
              help="A BitTorrent peer to call; may be repeated.")  # fmt: skip
@click.option("--http/--no-http", default=True, show_default=True, help="Use HTTP mirrors.")
@click.option("--bittorrent/--no-bittorrent", default=True, show_default=True, help="Use peers.")
@click.option("--listen", metavar="HOST:PORT", help="Address to listen on for peers.")
@click.option("--dht-node", "bootstrap", metavar="HOST:PORT",
              help="Enter the DHT of peers here.  [default: libtorrent's own nodes]")  # fmt: skip
@click.option("--lan", is_flag=True, help="Peers of this network only: no DHT, no uTP.")
@click.option("--subset", type=click.Path(path_type=Path), metavar="FILE",
              help="Fetch only the samples of this subset, as new shards.")  # fmt: skip
@click.option("--rehash", is_flag=True, help="Read files again that are known to be right.")
@click.option("--connections", type=click.IntRange(1, 32), default=3, show_default=True,
              help="Connections to each mirror.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(0.1, 3600), default=20.0, show_default=True,
              metavar="SECONDS", help="How long a server may be silent.")  # fmt: skip
@json_option
def get(source: str, directory: Path, subset: Path | None, as_json: bool, **chosen: Any) -> int:
    """Fetch the dataset that SOURCE names into DIRECTORY, or go on with it.

    SOURCE is the address of a server or manifest, a .torrent or .meta4 (file or address), magnet:,
    ipfs:// or ipns://. Mirrors, gateways and peers are used at the same time. A file appears under
    its name when every byte of it is verified; a damaged one is repaired block by block. A source
    that gives wrong bytes is named, and asked again only for what nobody else has. Exit code 1: not
    everything could be had.
    """
    from ...distribution.getting import Options
    from ...distribution.getting import get as run

    options = Options(**chosen)
    if subset is not None:
        return _get_subset(source, subset, directory, options, as_json)
    report = run(source, directory, options)
    if as_json:
        emit_json(report.to_dict())
    else:
        _tell(report)
    return 0 if report.whole else 1


def _get_subset(source: str, subset: Path, directory: Path, options: Options, as_json: bool) -> int:
    from ..shards.published import get_subset

    report = get_subset(source, subset, directory, options)
    built = report.build
    if as_json:
        emit_json(report.to_dict())
    else:
        fetched = f"fetched {counted(built.bytes, 'byte')} of samples and"
        if built.reused:
            fetched = f"{built.reused:,} of them there before; fetched what was missing and"
        click.echo(
            f"{built.path}: {counted(built.samples, 'sample')} of {report.name} {report.version} "
            f"in {counted(built.shards, 'shard')}; {fetched} "
            f"{counted(report.index_bytes, 'byte')} to find them"
        )
        for reason, number in built.missing.items():
            click.echo(f"{counted(number, 'sample')} {reason.replace('_', ' ')}: see missing.txt")
    return 0 if built.complete else SET_ASIDE


def _tell(report: GetReport) -> None:
    from ...progress import duration

    title = f"{report.name} {report.version}" if report.version else report.name
    signed = "" if report.signed else " (not signed)"
    if report.sources:
        rows = [
            (one["source"], one["channel"], one["files"], one["bytes"], _standing(one))
            for one in report.sources
        ]
        emit_table(rows, ["source", "channel", "files", "bytes", "standing"])
    for path, reason in list(report.failed.items())[:20]:
        click.echo(f"missing: {path}: {reason}")
    fetched = (
        f"{counted(report.fetched, 'byte')} in {duration(report.seconds)} "
        f"({report.rate / 1e6:,.1f} MB/s)"
    )
    there = report.files - len(report.failed)
    click.echo(
        f"{report.directory}: {title}{signed}, {there:,} of {counted(report.files, 'file')} there "
        f"and verified, {report.reused_files:,} of them before; fetched {fetched}"
    )
    if report.withdrawn:
        click.echo(f"{counted(len(report.withdrawn), 'file')} taken back by the keeper, deleted")
    if report.gone:
        click.echo(
            f"not whole: {counted(len(report.gone), 'file')} of this version taken back by the "
            "keeper, not to be had any more; get the newest version"
        )
    if len(report.failed) > len(report.gone):
        click.echo("not whole: run the same command again, or name another --mirror")


def _standing(one: dict[str, Any]) -> str:
    return "; ".join([one["standing"], *one["reasons"][:2]])
