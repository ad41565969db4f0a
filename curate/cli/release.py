"""``datacomp release``: publish versions of a dataset, look at them, take samples back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...progress import say
from .common import counted, emit_json, emit_table, examples, json_option
from .engines import engine_options
from .push import push

if TYPE_CHECKING:
    from ...distribution.release import CreateReport, Plan, SigningKey
    from ...pools.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
LISTED = 20
"""How many names are printed; --json lists all."""

_out_option = click.option(
    "-o",
    "--output",
    "out",
    type=_PATH,
    required=True,
    metavar="RELEASES",
    help="The folder of releases.",
)
_key_option = click.option(
    "--key", type=_PATH, metavar="FILE",
    help="The private key [default: ~/.config/datacomp/release.key, made if it is not there].",
)  # fmt: skip
_releases_argument = click.argument("folder", type=_PATH, metavar="RELEASES")
_workers_option = engine_options("Files read at a time [default: all processors].")
_days_option = click.option(
    "--valid-days", type=click.FloatRange(min=0, min_open=True, max=3650), default=30,
    show_default=True, help="How long latest.json is to be believed.",
)  # fmt: skip

_version_options = (
    click.option("--date", metavar="YYYY-MM-DD", help="The date of the version [default: today]."),
    click.option("--about", type=_PATH, metavar="FILE",
                 help="TOML: licence, authors, description, url, answers for the datasheet."),
    click.option("--licence", help="The licence, as CC-BY-4.0."),
    click.option("--author", "authors", multiple=True, help="An author; may be repeated."),
    click.option("--description", help="What it is, in a sentence."),
    click.option("--url", help="Its page on the web."),
    click.option("--scores", type=_PATH, metavar="FILE",
                 help="eval_results.jsonl, a run, or JSON: what training on it was worth."),
    click.option("--pool", type=_PATH, help="The pool the samples are from, for the datasheet."),
    click.option("--subset", type=_PATH, metavar="FILE.npy",
                 help="The subset it is; its sidecar says how the samples were chosen."),
    click.option("--webseed", "mirrors", multiple=True, metavar="URL",
                 help="Where RELEASES is served; may be repeated."),
    click.option("--tracker", "trackers", multiple=True, metavar="URL",
                 help="A BitTorrent tracker; may be repeated."),
    _key_option,
    _days_option,
    _workers_option,
    json_option,
)  # fmt: skip


def _with_version(function: F) -> F:
    """Add the options that create and revoke share."""
    for option in reversed(_version_options):
        function = option(function)
    return function


@click.group()
def release() -> None:
    """Publish versions of a dataset, look at them, take samples back."""


release.add_command(push)


@release.command(
    epilog=examples(
        "datacomp release create clip30/ --name cats --version 1 -o releases/",
        "datacomp release create clip30/ --name cats --version 2 -o releases/ --licence CC0-1.0",
    )
)
@click.argument("dataset", type=_PATH, metavar="DATASET_DIR")
@click.option("--name", required=True, help="The name of the dataset.")
@click.option("--version", required=True, help="The name of the version.")
@click.option("--parent", metavar="RELEASE",
              help="The version before, or a version's folder [default: the newest].")  # fmt: skip
@_out_option
@click.option("--piece-length", type=int, metavar="BYTES",
              help="Of torrents, a power of two [default: as the parent, else 1 MiB].")  # fmt: skip
@click.option("--cid-profile", "profile", metavar="NAME",
              help="How CIDs are made [default: as the parent, else unixfs-v1-2025].")  # fmt: skip
@click.option("--rehash", is_flag=True, help="Read all files, even those that look unchanged.")
@_with_version
def create(
    dataset: Path, parent: str | None, out: Path, *, key: Path | None, pool: Path | None,
    subset: Path | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Publish DATASET_DIR as a version: manifest, signature, torrents, CIDs, metadata.

    Only files that are new or have changed are read, each of them once. The files are linked,
    not copied. Licence, authors, description, URLs are those of the parent unless given. A
    version never changes once it is there; killed, the same command goes on.
    """
    from ..release.create import create_release, find_parent

    plan = _plan(parent=None if parent is None else find_parent(out, parent), **options)
    report = create_release(dataset, out, plan, _key(key, make=True), pool=pool, subset=subset)
    if as_json:
        emit_json(report.to_dict())
    else:
        _say_created(report)


def _plan(
    *, date: str | None, about: Path | None, licence: str | None, authors: tuple[str, ...],
    description: str | None, url: str | None, scores: Path | None, **options: Any,
) -> Plan:  # fmt: skip
    from dataclasses import replace

    from ...distribution.release import Plan
    from ..release.create import read_about, read_scores

    said = read_about(
        about,
        {"licence": licence, "authors": list(authors), "description": description, "url": url},
    )
    if scores is not None:
        said = replace(said, scores=read_scores(scores))
    return Plan(date=date, about=said, **options)


def _key(path: Path | None, make: bool = False) -> SigningKey:
    """Return the key that signs; the default one is made when it is needed first."""
    from ...distribution.release import create_key, default_key_path, load_key

    if make and path is None and not default_key_path().exists():
        key = create_key(default_key_path())
        say(f"made the key {default_key_path()}; keep a copy, for no other can sign new versions")
        return key
    return load_key(path or default_key_path())


def _say_created(report: CreateReport) -> None:
    click.echo(
        f"{report.path}: {report.name} {report.version} (number {report.serial}), "
        f"{counted(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB; "
        f"{report.bytes_read / 1e6:,.1f} MB read"
        + (f", {counted(report.copied, 'file')} copied" if report.copied else "")
        + (" (was there already)" if report.there else "")
    )
    if report.same_as is not None:
        click.echo(f"nothing new: its files are those of version {report.same_as}")
    click.echo(f"manifest {report.sha256}")
    click.echo(f"ipfs     {report.root_cid}")
    click.echo(f"torrent  {report.magnet}")
    click.echo(f"key      {report.key}")


@release.command(epilog=examples("datacomp release key cats.key"))
@click.argument("file", type=_PATH)
@json_option
def key(file: Path, as_json: bool) -> None:
    """Make a key that signs releases, or show the public half of one that is there.

    FILE is PEM that only you may read. Whoever has it can publish in your name; without it
    nobody can publish a new version.
    """
    from ...distribution.ipfs.ipns import name_of
    from ...distribution.release import create_key, load_key

    made = not file.exists()
    found = create_key(file) if made else load_key(file)
    name = name_of(found.public)
    if as_json:
        emit_json({"file": str(file), "public": found.public, "ipns": name, "made": made})
        return
    click.echo(f"{file}: {'made' if made else 'is there'}")
    click.echo(f"public {found.public}")
    click.echo(f"ipns   {name}")


@release.command(epilog=examples("datacomp release renew releases/ --valid-days 7"))
@_releases_argument
@_key_option
@_days_option
@json_option
def renew(folder: Path, key: Path | None, valid_days: float, as_json: bool) -> None:
    """Sign latest.json anew before it expires."""
    from ...distribution.release import Releases
    from ...distribution.release import renew as renew_pointer

    renew_pointer(folder, _key(key), valid_days)
    pointer = Releases(folder).pointer
    if as_json:
        emit_json({"version": pointer.version, "serial": pointer.serial,
                   "expires": pointer.expires.isoformat()})  # fmt: skip
    else:
        click.echo(f"{folder}: {pointer.version}, to be believed until {pointer.expires:%Y-%m-%d}")


@release.command(epilog=examples("datacomp release log releases/"))
@_releases_argument
@json_option
@click.pass_context
def log(ctx: click.Context, folder: Path, as_json: bool) -> None:
    """List the versions, newest first, and check that each names the one before.

    What is wrong with a version is told after the others (exit code 1).
    """
    from ...distribution.release import Releases
    from ...progress import warn

    rows = []
    releases = Releases(folder)
    wrong = releases.sift()
    if not wrong:
        _ = releases.latest  # none is an error
    for found in reversed(releases.versions):
        manifest = found.manifest
        taken = [r for r in manifest.removed if r.serial == manifest.serial]
        rows.append({
            "serial": manifest.serial, "version": manifest.version, "date": manifest.date,
            **manifest.counts, "revoked": sum(len(removal.uids) for removal in taken),
            "root_cid": manifest.root_cid, "sha256": manifest.sha256,
        })  # fmt: skip
    if as_json:
        emit_json(rows)
    elif rows:
        _list_versions(rows)
    for what in wrong.values():
        warn(what)
    if wrong:
        ctx.exit(1)


def _list_versions(rows: list[dict[str, Any]]) -> None:
    header = ["number", "version", "date", "samples", "files", "MB", "revoked", "manifest"]
    emit_table(
        [(row["serial"], row["version"], row["date"],
          "-" if row["samples"] is None else row["samples"], row["files"],
          round(row["bytes"] / 1e6, 1), row["revoked"], row["sha256"][:16]) for row in rows],
        header,
    )  # fmt: skip


@release.command(epilog=examples("datacomp release diff releases/ 1 2"))
@_releases_argument
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@json_option
def diff(folder: Path, before: str, after: str, as_json: bool) -> None:
    """Say what version B has that A has not: files and samples added, removed, changed."""
    from ..release import diff_releases

    report = diff_releases(folder, before, after)
    if as_json:
        emit_json(report.to_dict())
        return
    rows = [("files", report.files)] + ([] if report.samples is None
                                        else [("samples", report.samples)])  # fmt: skip
    emit_table(
        [(name, len(c.added), len(c.removed), len(c.changed)) for name, c in rows],
        ["", "added", "removed", "changed"],
    )
    if report.samples is None:
        click.echo("samples: not compared, for a version has no index of them")
    if report.unknown:
        click.echo(f"not compared: {counted(len(report.unknown), 'sample')} of shards not at hand")
    click.echo(f"to get B with A at hand: {report.bytes / 1e6:,.1f} MB")


@release.command(
    epilog=examples("datacomp release verify releases/",
                    "datacomp release verify releases/ --version 2 --deep")
)  # fmt: skip
@_releases_argument
@click.option("--version", help="The version to verify [default: all].")
@click.option("--deep", is_flag=True, help="Compute BitTorrent roots and CIDs too.")
@_workers_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    folder: Path,
    version: str | None,
    deep: bool,
    workers: Engine,
    as_json: bool,
) -> None:
    """Check signatures, the chain of versions, every byte and what is made of it, offline."""
    from ...distribution.release import verify_releases

    report = verify_releases(folder, version, deep, workers)
    if as_json:
        emit_json(report.to_dict())
    else:
        for fault in report.faults[:LISTED]:
            click.echo(str(fault))
        if len(report.faults) > LISTED:
            click.echo(f"... and {len(report.faults) - LISTED:,} more (--json lists all)")
        click.echo(
            f"{report.path}: {counted(len(report.versions), 'version')}, "
            f"{counted(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB read, "
            + (f"{report.withdrawn:,} taken back, " if report.withdrawn else "")
            + ("sound" if report.sound else f"{counted(len(report.faults), 'fault')}")
        )
    if not report.sound:
        ctx.exit(1)


@release.command(
    epilog=examples(
        "datacomp release revoke clip30/ --uids gone.txt --reason asked --version 3 -o releases/",
    )
)
@click.argument("dataset", type=_PATH, metavar="DATASET_DIR")
@click.option("--uids", type=_PATH, required=True, metavar="FILE",
              help="The samples to take back: .npy, or text with one uid a line.")  # fmt: skip
@click.option("--reason", required=True, help="Why, for all to read.")
@click.option("--version", required=True, help="The name of the new version.")
@_out_option
@_with_version
def revoke(
    dataset: Path, uids: Path, reason: str, out: Path, *, key: Path | None, pool: Path | None,
    subset: Path | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Remove samples from DATASET_DIR and publish what is left as a new version.

    Only the shards that hold them are written anew. The shards that held them in any older
    version are deleted from RELEASES, so they are served no more; 'datacomp get' deletes them from
    copies that it updates.
    """
    from ..release.revoke import read_uids, revoke_samples

    report = revoke_samples(
        dataset, out, read_uids(uids), reason, _plan(name="", **options), _key(key),
        pool=pool, subset=subset,
    )  # fmt: skip
    if as_json:
        emit_json(report.to_dict())
        return
    click.echo(
        f"{dataset}: {counted(report.uids, 'sample')} taken back, "
        f"{counted(len(report.shards), 'shard')} written anew"
    )
    _say_created(report.release)
