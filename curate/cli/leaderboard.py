"""``datacomp leaderboard``: check submissions, collect them, show them, take them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import SET_ASIDE, counted, emit_json, emit_table, examples, json_option

if TYPE_CHECKING:
    from ...evaluate.leaderboard.check import Report


@click.group()
def leaderboard() -> None:
    """Check submissions, and host a leaderboard of them."""


@leaderboard.command(
    epilog=examples(
        "datacomp leaderboard check leaderboard/small/filtering/clip-score-2d30d3ba2ad3",
        "datacomp leaderboard check submission.tar --pool small.duckdb --json",
        "datacomp leaderboard check submission --data evalsets --reevaluate 'vtab/*,mnist'",
    )
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--pool", type=click.Path(path_type=Path),
              help="The pool, or a .npy of its uids: are the samples in it?")  # fmt: skip
@click.option("--reevaluate", metavar="GLOB,...", help="Evaluate these tasks again and compare.")
@click.option("--data", type=click.Path(path_type=Path), help="Evaluation sets for that.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
def check(
    bundle: Path, pool: Path | None, reevaluate: str | None, data: Path | None, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Replay everything in a submission (a folder or a tar) that can be replayed.

    Nothing in it is executed or unpickled. Each refusal says which rule, where, and why; exit
    code 1 if there is any.
    """
    import tempfile

    from ...errors import UsageError
    from ...evaluate.leaderboard.check import check as check_folder
    from ...evaluate.leaderboard.reevaluation import reevaluate as reevaluate_tasks
    from ...evaluate.leaderboard.store import take
    from ..leaderboard.sending import pool_uids

    if (reevaluate is None) != (data is None):
        raise UsageError("--reevaluate and --data belong together")
    uids, digest = pool_uids(pool) if pool else (None, None)
    with tempfile.TemporaryDirectory(prefix="datacomp-") as scratch:
        folder = bundle
        if not bundle.is_dir():
            folder = Path(scratch) / "submission"
            take(bundle, folder)
        report = check_folder(folder, pool=uids, pool_digest=digest)
        if reevaluate is not None and data is not None and report.accepted:
            patterns = [part for part in reevaluate.split(",") if part]
            reevaluate_tasks(folder, report, data, patterns, device=device)
    if as_json:
        emit_json(report.to_dict())
    else:
        _print(report, bundle)
    if not report.accepted:
        sys.exit(1)


def _print(report: Report, bundle: Path) -> None:
    for one in report.refused:
        click.echo(f"refused {one}")
    for key, (before, now) in report.reevaluated.items():
        click.echo(f"{key}: submitted {before:.4f}, again {now:.4f}")
    for name, why in report.not_replayed.items():
        click.echo(f"not replayed: {name} ({why})")
    verdict = "accepted" if report.accepted else f"{counted(len(report.refused), 'refusal')}"
    click.echo(
        f"{report.id or bundle}: {verdict}; rules that hold: {', '.join(report.passed) or 'none'}"
    )


@leaderboard.command(
    epilog=examples("datacomp leaderboard add submission.tar leaderboard --pool small.duckdb")
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("store", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--pool", type=click.Path(path_type=Path), help="The pool, or a .npy of its uids.")
@json_option
def add(bundle: Path, store: Path, pool: Path | None, as_json: bool) -> None:
    """Check a submission that was received and add it to the leaderboard's folder DIR."""
    from ...evaluate.leaderboard.store import add as add_to_store
    from ...evaluate.leaderboard.store import place_of
    from ..leaderboard.sending import pool_uids

    report, fresh = add_to_store(store, bundle, pool_uids(pool)[0] if pool else None)
    assert report.record is not None
    place = store / place_of(report.record)
    if as_json:
        emit_json({"id": report.id, "new": fresh, "place": str(place)})
        return
    click.echo(f"{report.id}: {'added at' if fresh else 'is already at'} {place}")


@leaderboard.command(
    epilog=examples("datacomp leaderboard build leaderboard -o site",
                    "datacomp leaderboard build leaderboard -o site --title 'Our group'")
)  # fmt: skip
@click.argument("store", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="Folder of the site; one that stands there is replaced.")  # fmt: skip
@click.option("--title", default="DataComp leaderboard", show_default=True,
              help="What stands at the top of the site.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Processes that check submissions.")
@json_option
def build(store: Path, output: Path, title: str, workers: int | None, as_json: bool) -> None:
    """Build the site of all submissions in DIR that hold, beside the published baselines.

    The pages ask nobody for anything: open index.html from the disk, or put the folder behind any
    web server or on IPFS. Exit code 3 if submissions were refused.
    """
    from ..leaderboard.site import build_site

    built = build_site(store, output, title, workers)
    if as_json:
        emit_json({
            "site": str(built.path), "submissions": built.submissions,
            "refused": {name: report.to_dict() for name, report in built.refused.items()},
        })  # fmt: skip
    else:
        for name, report in built.refused.items():
            click.echo(f"refused {name}: {report.refused[0]}")
        click.echo(f"{built.path / 'index.html'}: {counted(built.submissions, 'submission')}")
    if built.refused:
        sys.exit(SET_ASIDE)


@leaderboard.command(
    epilog=examples(
        "datacomp leaderboard serve leaderboard",
        "datacomp leaderboard serve leaderboard --port 8000 --pool small=small.duckdb",
    )
)
@click.argument("store", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; put a proxy that speaks https before it.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--title", default="DataComp leaderboard", show_default=True,
              help="What stands at the top of the site.")  # fmt: skip
@click.option("--pool", "pools", multiple=True, metavar="SCALE=FILE",
              help="The pool of a scale, or a .npy of its uids, to check against.")  # fmt: skip
@click.option("--max-bytes", type=click.IntRange(1 << 10), default=1 << 30, show_default=True,
              help="Largest submission.")  # fmt: skip
@click.option("--per-hour", type=click.IntRange(1), default=120, show_default=True,
              help="Submissions of one token in an hour.")  # fmt: skip
def serve(
    store: Path, host: str, port: int, title: str, pools: tuple[str, ...], max_bytes: int,
    per_hour: int,
) -> None:  # fmt: skip
    """Serve the leaderboard in DIR live, and take submissions over HTTP, until interrupted.

    Each submission is checked before it is shown, and is on disk before it is answered. Who may
    submit is told by 'leaderboard token'. Every attempt stands in an audit log.
    """
    from ...errors import UsageError
    from ...evaluate.scales import SCALES
    from ..leaderboard.sending import pool_uids
    from ..leaderboard.server.intake import Limits
    from ..leaderboard.server.live import Live
    from ..leaderboard.server.run import serve as run

    known = {}
    for pair in pools:
        scale, found, file = pair.partition("=")
        if not found or scale not in SCALES:
            raise UsageError(f"--pool {pair}: expected SCALE=FILE, SCALE of: {', '.join(SCALES)}")
        known[scale] = pool_uids(Path(file))[0]

    def ready(address: str, live: Live) -> None:
        for name, report in live.refused.items():
            click.echo(f"not shown: {name}: {report.refused[0]}", err=True)
        click.echo(address)

    limits = Limits(max_bytes=max_bytes, per_hour=per_hour)
    run(store, host, port, title=title, limits=limits, pools=known, ready=ready)


@leaderboard.group()
def token() -> None:
    """Say who may submit to a leaderboard's server. Only digests of tokens are kept."""


@token.command(epilog=examples("datacomp leaderboard token create leaderboard 'A. Person' "
                               "--contact a.person@example.org"))  # fmt: skip
@click.argument("store", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--contact", help="How to reach the holder; never shown.")
def create(store: Path, name: str, contact: str | None) -> None:
    """Grant a token to NAME and print it, this once."""
    from ..leaderboard.server import tokens

    click.echo(tokens.create(store, name, contact))


@token.command(epilog=examples("datacomp leaderboard token revoke leaderboard 'A. Person'"))
@click.argument("store", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("name")
def revoke(store: Path, name: str) -> None:
    """Take the token of NAME away, at once, also from a server that runs."""
    from ..leaderboard.server import tokens

    tokens.revoke(store, name)
    click.echo(f"{name}: revoked")


@token.command("list", epilog=examples("datacomp leaderboard token list leaderboard"))
@click.argument("store", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def list_(store: Path, as_json: bool) -> None:
    """List who has a token."""
    from ..leaderboard.server import tokens

    grants = list(tokens.granted(store).values())
    if as_json:
        emit_json([{"name": one.name, "created": one.created, "contact": one.contact}
                   for one in grants])  # fmt: skip
        return
    emit_table([[one.name, one.created, one.contact or "-"] for one in grants],
               ("name", "created", "contact"))  # fmt: skip
