"""Make a view: the virtual shards of a subset, in seconds and without copying."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...durable import atomic_directory, atomic_path, digest, write_json
from ...errors import UsageError
from ...pools.engine import Workers
from ...pools.ranges import is_remote
from ...pools.stores import staged
from ...pools.views import FORMAT, METADATA, SAMPLES, VERSION, View, npy_header, quoted
from .folder import short
from .index import ensure_index
from .selection import Selection, choose
from .wanted import SHARD_SIZE, Wanted, at_hand

CHUNK = 1 << 16
"""Records written at a time."""
OPTIONS = ("subset", "weights", "mix", "shard_size", "shuffle")


@dataclass
class SelectReport:
    """What is in a view. ``selected`` and ``samples`` count repetitions, ``missing`` does not.

    ``set_aside`` counts what the indexes of the sources leave out, wanted or not; ``weighed_out``
    the uids that weights left without a repetition, as was asked.
    """

    path: str
    selected: int
    samples: int
    shards: int
    bytes: int
    urls: str
    missing: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    weighed_out: int = 0
    digest: str = ""

    @property
    def complete(self) -> bool:
        """Whether every selected sample was found."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def select_shards(
    sources: Sequence[Path | str],
    subset: Path | str,
    out: Path | str,
    *,
    weights: Path | str | None = None,
    mix: Sequence[float] = (),
    shard_size: int = SHARD_SIZE,
    shuffle: int | None = None,
    workers: Workers = None,
    keep_going: bool = False,
) -> SelectReport:
    """Write the view ``out`` of the samples of ``subset`` in indexed tars.

    ``sources`` are folders of tars (indexed first if need be) or folders with the index of URLs.
    ``weights`` is a parquet file of (uid, weight); ``mix`` has a weight for each source. The
    weights of a sample multiply, and say how often it is repeated. Raises UsageError, DataError,
    MissingError, StorageError.
    """
    quoted(out)  # refuses what no URL pattern could name
    if not sources:
        raise UsageError("no source given; name a folder of tars")
    with at_hand(sources, subset, weights) as (folders, chosen_by, weighed_by):
        wanted = Wanted.read(
            chosen_by, weights=weighed_by, mix=mix, shard_size=shard_size, shuffle=shuffle,
            keep_going=keep_going,
        )  # fmt: skip
        indexes = [ensure_index(folder, workers, keep_going) for folder in folders]
        with staged(out, (METADATA, SAMPLES)) as folder:
            chosen = choose(indexes, wanted, folder.parent)
            identity = {**wanted.identity(), **chosen.identity()}
            _write(folder, str(out), wanted, chosen, {**identity, "digest": digest(identity)})
        view = View.open(out)
        return SelectReport(
            str(out), wanted.selected, view.samples_count, len(view), chosen.bytes, view.pattern(),
            missing=chosen.missing.reasons(), set_aside=chosen.set_aside,
            weighed_out=chosen.weighed_out, digest=view.digest,
        )  # fmt: skip


def _write(
    out: Path, name: str, wanted: Wanted, chosen: Selection, identity: dict[str, Any]
) -> None:  # fmt: skip
    files = [
        (source, shard.name, shard.size, shard.version)
        for source, index in enumerate(chosen.sources)
        for shard in index.shards
    ]
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "datacomp": __version__,
        "samples": len(chosen),
        "selected": wanted.selected,
        "bytes": chosen.bytes,
        **identity,
        "sources": [
            {"root": _absolute(index.root), "index_sha256": index.sha256, "mix": mixed}
            for index, mixed in zip(
                chosen.sources, wanted.mix or [1] * len(chosen.sources), strict=True
            )
        ],
        "files": files,
    }
    if out.exists():  # the tars may have been moved or indexed anew, or the files damaged
        _refuse_other(out, name, metadata)
        _write_files(out, chosen, metadata)
        return
    with atomic_directory(out) as folder:
        _write_files(folder, chosen, metadata)


def _write_files(folder: Path, chosen: Selection, metadata: dict[str, Any]) -> None:
    with atomic_path(folder / SAMPLES) as partial, partial.open("wb") as file:
        file.write(npy_header(len(chosen)))
        for first in range(0, len(chosen), CHUNK):
            chosen.records(first, first + CHUNK).tofile(file)
    if len(chosen.missing):
        chosen.missing.write(folder / "missing.txt")
    write_json(folder / METADATA, metadata)


def _refuse_other(out: Path, name: str, metadata: dict[str, Any]) -> None:
    if not (out / METADATA).is_file():
        raise UsageError(f"{name}: is there and is no view; choose another folder")
    try:
        found = json.loads((out / METADATA).read_bytes())
    except (ValueError, RecursionError):
        return  # damaged: there is nothing to lose
    if isinstance(found, dict) and found.get("digest") != metadata["digest"]:
        other = (key for key in OPTIONS if found.get(key) != metadata[key])
        what = next(
            (f"{key}: {short(found.get(key))} instead of {short(metadata[key])}" for key in other),
            "of other sources",
        )
        raise UsageError(
            f"{name}: holds another view ({what}); choose another folder or remove this one"
        )


def _absolute(root: str) -> str:
    return root if is_remote(root) else str(Path(root).resolve())
