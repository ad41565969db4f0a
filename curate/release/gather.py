"""What of a dataset's folder is published, and what its shards, subset and pool know of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...distribution.release import Facts, Source
from ...durable import read_json
from ...errors import DataError, MissingError, UnsafeInputError
from ...pools.engine import Workers
from ...progress import warn
from ..shards.folder import known_entries
from ..shards.index import Index, ensure_index
from ..shards.storage import METADATA

if TYPE_CHECKING:
    import pyarrow as pa

PRIVATE = frozenset({"manifest.json", "build.json", "repair.json", METADATA})
"""Files of ours that describe a folder to ourselves: a release has its own manifest."""
PRIVATE_FOLDERS = frozenset({"set_aside"})
MAX_META_BYTES = 16 << 20


@dataclass(frozen=True)
class Gathered:
    """The files to publish, the index of the shards among them, and what is known of them."""

    sources: list[Source]
    index: Index | None
    facts: Facts


def gather(
    dataset: Path,
    workers: Workers = None,
    pool: Path | None = None,
    subset: Path | None = None,
) -> Gathered:
    """Look through a dataset's folder; its shards are indexed first if that is not done.

    Raises MissingError, DataError (a broken shard), UnsafeInputError (a link that leaves the
    folder).
    """
    if not dataset.is_dir():
        raise MissingError(f"{dataset}: no such folder")
    index = None
    if any(path.is_file() and path.name[0] != "." for path in dataset.glob("*.tar")):
        index = ensure_index(dataset, workers, keep_going=True)
        _refuse_broken(index)
    sources = sorted(_files(dataset), key=lambda source: source.path)
    _warn_of_strangers(dataset, sources)
    return Gathered(sources, index, _facts(dataset, index, pool, subset))


def _files(dataset: Path) -> Iterator[Source]:
    root = dataset.resolve()
    for folder, subfolders, names in os.walk(dataset):
        here = Path(folder)
        prefix = "" if here == dataset else f"{here.relative_to(dataset).as_posix()}/"
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and not (not prefix and name in PRIVATE_FOLDERS)
        ]
        for name in subfolders:
            if (here / name).is_symlink():
                raise UnsafeInputError(f"{here / name}: a link to a folder is not published")
        for name in names:
            path = here / name
            if name.startswith(".") or (not prefix and name in PRIVATE):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UnsafeInputError(f"{path}: a link that leaves the folder is not published")
            yield Source(prefix + name, path)


def _warn_of_strangers(dataset: Path, sources: list[Source]) -> None:
    """Say so where tars were put into a build by hand, for its counts and lists are stale then."""
    listed = {}
    with contextlib.suppress(DataError):  # of another program
        listed = known_entries(dataset)
    strange = [s.path for s in sources if s.path.endswith(".tar") and s.path not in listed]
    if listed and strange:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        warn(
            f"{dataset}: {strange[0]}{more} is not of its build, so meta.json and sample_ids.npy "
            "do not count it; grow a build with 'datacomp shards append'"
        )


def _refuse_broken(index: Index) -> None:
    for shard in index.shards:
        if shard.broken:
            raise DataError(f"{shard.broken}; 'datacomp shards check --repair' keeps what is whole")


def _facts(dataset: Path, index: Index | None, pool: Path | None, subset: Path | None) -> Facts:
    sidecar = _sidecar(subset)
    meta = _meta(dataset / "meta.json")
    return Facts(
        samples=None if index is None else index.samples + sum(s.dropped for s in index.shards),
        members={} if index is None else _members(index),
        missing=_missing(dataset / "missing.txt"),
        blurred=_number(meta.get("blur_count")) if meta.get("apply_blur") == "True" else None,
        pipeline=sidecar.get("pipeline"),
        funnel=sidecar.get("funnel"),
        pool=None if pool is None else _pool(pool),
    )


def _members(index: Index) -> dict[str, int]:
    import pyarrow.compute as pc

    def count(rows: pa.RecordBatch) -> list[dict[str, Any]]:
        members = rows.column("members").flatten()
        return pc.value_counts(pc.struct_field(members, "extension")).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]

    found: Counter[str] = Counter()
    for counts in index.scan(("members",), count):
        for item in counts:
            found[item["values"]] += item["counts"]
    return dict(sorted(found.items()))


def _missing(path: Path) -> dict[str, int]:
    """Count the reasons in ``missing.txt``."""
    found: Counter[str] = Counter()
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                found[line.rstrip("\n").partition(" ")[2]] += 1
    return dict(sorted(found.items()))


def _meta(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path, MAX_META_BYTES)
    except (MissingError, DataError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _sidecar(subset: Path | None) -> dict[str, Any]:
    if subset is None:
        return {}
    from ..subset import info

    return info(subset).sidecar or {}


def _pool(path: Path) -> dict[str, Any]:
    from ...pools import Pool

    with Pool.open(path, read_only=True) as pool:
        return json.loads(json.dumps(pool.info(), default=str))
