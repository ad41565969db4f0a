"""``datacomp channels``: what HTTP, BitTorrent and IPFS cost for the same shards."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import counted, emit_json, emit_table, examples, json_option

if TYPE_CHECKING:
    from ..channels import Comparison, Row


@click.group()
def channels() -> None:
    """Compare the channels over which releases reach people."""


@channels.command(
    epilog=examples(
        "datacomp channels compare releases",
        "datacomp channels compare releases --peers 5 --rate 10 --ping 48 --repeats 5",
        "datacomp channels compare releases --no-kill --page channels.html",
    )
)
@click.argument("release", type=click.Path(path_type=Path))
@click.option("--peers", type=click.IntRange(1, 16), default=3, show_default=True,
              help="Most peers: every number from 1 on is measured.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0), default=20.0, show_default=True, metavar="MB/S",
              help="Megabytes a second that each holder gives at most; 0 is no limit.")  # fmt: skip
@click.option("--ping", type=click.FloatRange(0, 10_000), default=0.0, show_default=True,
              metavar="MS", help="Milliseconds there and back between any two.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 20), default=1, show_default=True,
              help="How often to measure each case.")  # fmt: skip
@click.option("--kill/--no-kill", default=True, show_default=True,
              help="Measure each case with the origin killed half-way, too.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(1, 86_400), default=600.0, show_default=True,
              metavar="SECONDS", help="How long a download may take.")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path, file_okay=False, exists=True),
              metavar="FOLDER", help="Where to work.  [default: the temporary folder]")  # fmt: skip
@click.option("--page", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the plots, too, as one HTML page.")  # fmt: skip
@json_option
def compare(
    release: Path, peers: int, rate: float, ping: float, repeats: int, kill: bool, timeout: float,
    work: Path | None, page: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Download the newest version in the folder RELEASE over every channel, and measure.

    Real servers, seeds and downloads run on this machine, each in a process of its own: HTTP from
    one server, BitTorrent with 1 to --peers peers, both together, and an IPFS gateway; then all
    again with the origin killed when half of the bytes have come. Told are time, the bytes that
    the origin and the peers sent, and the CPU time of all processes; the energy, where codecarbon
    is installed. Nothing leaves this machine.
    """
    from ..channels import Conditions, write_page
    from ..channels import compare as run

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = run(release, Conditions(peers, rate * 1e6, ping / 1e3, repeats, timeout, kill), work)
    if page is not None:
        write_page(found, page)
    if as_json:
        emit_json(found.to_dict())
    else:
        _tell(found, page)


def _tell(found: Comparison, page: Path | None) -> None:
    joules = ["J"] if found.energy else []
    header = ["channel", "origin", "whole", "s", "±", "MB/s", "origin MB", "peers MB", "CPU s"]
    emit_table([_row(row, bool(joules)) for row in found.rows], header + joules)
    for row in found.rows:
        if row.whole < len(row.runs):
            trouble = next(run.trouble for run in row.runs if not run.whole)
            killed = ", origin killed" if row.case.killed else ""
            click.echo(f"not whole: {row.case.name}{killed}: {trouble}")
    conditions = found.conditions
    rate = f"{conditions.rate / 1e6:g} MB/s for each holder" if conditions.rate else "no limit"
    click.echo(
        f"{found.name} {found.version}: {counted(found.files, 'file')}, "
        f"{found.bytes / 1e6:,.1f} MB; {rate}, ping {conditions.ping * 1e3:g} ms, shaped by relays"
    )
    if found.energy is None:
        click.echo("energy: not known: pip install -e '.[energy]'")
    else:
        click.echo(f"energy: of the whole machine, estimated by {found.energy}")
    if page is not None:
        click.echo(f"plots: {page}")


def _row(row: Row, energy: bool) -> list[Any]:
    seconds = row.mean(lambda run: run.seconds)
    spread = row.spread(lambda run: run.seconds)
    cells: list[Any] = [
        row.case.name,
        "killed" if row.case.killed else "stays",
        f"{row.whole}/{len(row.runs)}",
        round(seconds, 2),
        "-" if spread is None else round(spread, 2),
        round(row.mean(lambda run: run.bytes / 1e6 / run.seconds if run.seconds else 0.0), 1),
        *(
            round(row.mean(lambda run, key=key: getattr(run, key)) / 1e6, 1)
            for key in ("origin_bytes", "peer_bytes")
        ),
        round(row.mean(lambda run: run.cpu_seconds), 2),
    ]
    return [*cells, "-" if row.joules is None else round(row.joules)] if energy else cells
