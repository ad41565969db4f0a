"""Publish a folder of shards as the next version of a dataset."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...distribution.release import (
    About,
    CreateReport,
    Plan,
    Release,
    Releases,
    SigningKey,
    create_version,
)
from ...distribution.release.about import QUESTIONS
from ...durable import read_json
from ...errors import DataError, MissingError, UsageError, suggest
from ...pools.uids import from_hex, sort_uids, to_hex
from ..shards.columns import uid_records
from ..shards.index import Index
from ..subset import Lookup
from .gather import gather

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ABOUT_BYTES = 1 << 20


def create_release(
    dataset: Path | str,
    folder: Path | str,
    plan: Plan,
    key: SigningKey,
    *,
    pool: Path | str | None = None,
    subset: Path | str | None = None,
    now: datetime | None = None,
) -> CreateReport:
    """Publish the files of ``dataset`` in the folder of releases ``folder``.

    Its shards are indexed if they are not, and the index is published with them. ``pool`` and
    ``subset`` (its sidecar) tell the datasheet where the samples are from. A dataset that holds
    samples which were taken back is refused. After an interruption the same call goes on where
    it stopped. Raises as ``create_version``.
    """
    if Path(folder).resolve().is_relative_to(Path(dataset).resolve()):
        raise UsageError(f"{folder}: lies inside {dataset}, which is published; choose another")
    found = gather(
        Path(dataset),
        plan.workers,
        None if pool is None else Path(pool),
        None if subset is None else Path(subset),
    )
    if not found.sources:
        raise DataError(f"{dataset}: there is no file to publish in it")

    def refuse(uids: frozenset[str]) -> None:
        if found.index is not None:
            _refuse(Path(dataset), found.index, uids)

    plan = replace(plan, about=replace(plan.about, facts=found.facts))
    return create_version(folder, found.sources, plan, key, now, refuse)


def find_parent(folder: Path | str, name: str) -> Release:
    """Return the version that ``--parent`` names: one of the folder, or the path of another.

    The path is that of a version's folder or of the manifest in it.
    """
    path = Path(name)
    if path.name == "manifest.json":
        path = path.parent
    if (path / "manifest.json").is_file():
        return Release(path)
    return Releases(folder).version(name)


def read_about(path: Path | str | None, given: dict[str, Any]) -> About:
    """Return what is said about a dataset: the TOML file at ``path``, and what is ``given``.

    Keys of the file are licence, authors, description, url, and the questions of the datasheet
    that only its keeper can answer; what is given counts. Raises UsageError.
    """
    said: dict[str, Any] = {} if path is None else _toml(Path(path))
    known = ["licence", "authors", "description", "url", *QUESTIONS]
    for name, value in said.items():
        if name not in known:
            raise UsageError(
                f"{path}: {name!r} is not known{suggest(name, known)}; known are {', '.join(known)}"
            )
        if name == "authors" and not (
            isinstance(value, list) and all(isinstance(author, str) for author in value)
        ):
            raise UsageError(f"{path}: authors: expected a list of names")
        if name != "authors" and not isinstance(value, str):
            raise UsageError(f"{path}: {name}: expected text")
    said |= {name: value for name, value in given.items() if value}
    return About(
        licence=said.get("licence"),
        description=said.get("description"),
        url=said.get("url"),
        authors=tuple(said.get("authors", ())),
        answers={name: said[name] for name in QUESTIONS if name in said},
    )


def read_scores(path: Path | str) -> dict[str, Any]:
    """Return scores as a manifest has them: of ``eval_results.jsonl``, a run, or any JSON object.

    Of results, the main metric of each task that has one.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".json":
        value = read_json(path, MAX_ABOUT_BYTES)
        if not isinstance(value, dict):
            raise DataError(f"{path}: expected an object of scores")
        return value
    from ...evaluate.results import read_results

    results = read_results(path)
    tasks = {key: result.value for key, result in results.items() if result.value is not None}
    return {"tasks": tasks}


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ABOUT_BYTES)
        return tomllib.loads(data.decode())
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None


def _refuse(dataset: Path, index: Index, uids: frozenset[str]) -> None:
    found = holders(index, uids)
    if found:
        shard, held = next(iter(found.items()))
        raise DataError(
            f"{dataset}: {shard} holds the sample {held[0]}, which was taken back; run 'datacomp "
            "release revoke' with it again, or remove it"
        )


def holders(index: Index, uids: Iterable[str]) -> dict[str, list[str]]:
    """Return which shards of an index hold some of ``uids``, and which of them, sorted."""
    wanted = sort_uids(from_hex(sorted(set(uids))))
    if not len(wanted):
        return {}
    lookup = Lookup(wanted)

    def search(rows: pa.RecordBatch) -> list[tuple[str, str]]:
        records = uid_records(rows.column("uid"), str(index.directory))
        hits = (lookup.find(records) >= 0).nonzero()[0]
        shards = rows.column("shard").take(hits).to_pylist() if len(hits) else []
        return list(zip(shards, to_hex(records[hits]), strict=True))

    found: dict[str, list[str]] = {}
    for pairs in index.scan(("uid", "shard"), search):
        for shard, uid in pairs:
            found.setdefault(str(shard), []).append(uid)
    return {shard: sorted(found[shard]) for shard in sorted(found)}
