"""Features of a folder of metadata, whose images lie in tars: no pool has to be made."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..durable import digest
from ..errors import UsageError
from ..pools.embedding.embed import EmbedReport
from ..pools.embedding.partwise import IndexedTars, Likely, embed_files
from ..pools.embedding.recipe import Recipe
from ..pools.engine import Engine
from ..pools.partitions import Partition
from ..pools.ranges import is_remote
from .fetching.outcome_files import FOLDER, Summary, read_summary
from .fetching.writer import NAME
from .shards.index import Index, ensure_index
from .shards.storage import PARQUET


def embed_metadata(
    folder: Path | str,
    out: Path | None,
    shards: Path | None,
    recipe: Recipe,
    name: str | None = None,
    *,
    engine: Engine | None = None,
    **how: Any,
) -> EmbedReport:
    """Write metadata with the features of their images in ``shards`` to the folder ``out``.

    The shards are indexed first, where their index is not there or not current. See ``embed_files``
    for the rest. Raises UsageError where a place is missing or an object store.
    """
    for place in (folder, out, shards):
        if place is not None and is_remote(str(place)):
            raise UsageError(
                f"{place}: metadata, shards and features are read and written in folders here; "
                "copy them to some that every worker sees"
            )
    folder = Path(folder)
    if shards is None or out is None:
        raise UsageError(
            f"{folder}: a folder of metadata; say where its images are (--shards DIR) and where "
            "to write the metadata with their features (-o DIR)"
        )
    if _overlap(out.resolve(), folder.resolve()):
        raise UsageError(f"{out}: is where the metadata are; choose a folder of its own")
    if _overlap(out.resolve(), shards.resolve()):
        raise UsageError(f"{out}: is where the shards are; choose a folder of its own")
    index = ensure_index(shards, engine, keep_going=True)
    broken = {why: n for why, n in index.set_aside.items() if why.startswith("shard_")}
    state = digest([index.sha256, *([one.name, one.size, one.version] for one in index.shards)])
    tars = IndexedTars(shards.absolute(), (index.directory / PARQUET).absolute(), state, broken)

    @functools.cache
    def fetched() -> Mapping[Path, Summary]:
        return _fetched(shards, index)

    def likely(partition: Partition) -> Likely | None:
        """Return where 'pool fetch' put the images of a file of metadata, if it did."""
        outcomes = fetched().get(shards / FOLDER / partition.name)
        if outcomes is None or not outcomes.shards:
            return None
        stretches = [(_tar(first), _tar(end - 1)) for first, end in outcomes.shards]
        failed = sum(outcomes.failed.values())
        return Likely(outcomes.of.sha256, tuple(stretches), outcomes.available, failed)

    return embed_files(folder, out, tars, recipe, name, engine=engine, likely=likely, **how)


def _fetched(shards: Path, index: Index) -> Mapping[Path, Summary]:
    """Return what outcomes of 'pool fetch' sum up to, unless the shards have other images too.

    For those may be images of samples that it could not fetch.
    """
    paths = sorted((shards / FOLDER).rglob("*.parquet"))
    found = {path: one for path in paths if (one := read_summary(path)) is not None}
    tars = {
        _tar(number)
        for one in found.values()
        for first, end in one.shards
        for number in range(first, end)
    }
    ours = all(shard.name in tars for shard in index.shards)
    return found if ours and sum(o.available for o in found.values()) == index.samples else {}


def _tar(number: int) -> str:
    """Return the name of a shard that was fetched."""
    return f"{NAME.format(number)}.tar"


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
