"""Select a dataset: run filters over a pool and write the subset with all that says how."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..durable import digest
from ..errors import UsageError
from ..filters import Node, Selection, run_filters
from ..filters.engine import nothing_kept
from ..pools.engine import Engine, Local
from ..pools.linking import tell_of_left_out
from ..pools.partitions import partitions_of
from ..pools.pool import Pool
from ..pools.sources.commonpool import CommonPoolSource
from ..pools.stores import is_remote, require_stores, staged
from .subset import sidecar_path, write_sidecar, write_subset

if TYPE_CHECKING:
    from ..pools.remote import RemoteMetadata

_MAX_FOOTER = 256 << 20


@dataclass(frozen=True)
class Selected:
    """A subset that was written: what the filters kept, and what its sidecar says.

    ``left_out`` is how many files of a folder of metadata could not be read.
    """

    path: Path | str
    selection: Selection
    sidecar: dict[str, Any]
    left_out: int = 0

    @property
    def share(self) -> float:
        """Part of the pool that was kept."""
        return self.selection.kept / self.selection.total


def select(
    pool: Pool,
    filters: Sequence[Node],
    path: Path | str,
    combine: str = "and",
    reasons: Path | str | None = None,
    engine: Engine | None = None,
    remote: RemoteMetadata | None = None,
) -> Selected:
    """Run filters over a pool; write ``path`` (.npy), its sidecar and, if asked, the ``reasons``.

    Files of a folder of metadata that cannot be read are named first, and left out. With an
    ``engine`` its workers judge the files that the pool links to, each by itself, or, of
    a pool that holds its samples, score their images; the bytes are the same. ``path`` and
    ``reasons`` may be places in an object store.

    Raises what ``run_filters`` raises, UsageError when ``reasons`` would take the place of
    something else, and DataError when nothing is kept: nothing is written then but the reasons.
    """
    if reasons is not None:
        _check_place(reasons, pool, path)
    left_out = tell_of_left_out(
        pool.connection, pool.path, None if remote is None else remote.place
    )
    with contextlib.ExitStack() as stack:
        listed = None if reasons is None else stack.enter_context(staged(reasons))
        with staged(path) as out:
            found = _select(pool, filters, out, combine, listed, engine, remote)
    return replace(found, path=path, left_out=left_out)


def select_remote(
    place: str,
    filters: Sequence[Node],
    path: Path | str,
    combine: str = "and",
    reasons: Path | str | None = None,
    engine: Engine | None = None,
) -> Selected:
    """Do as ``select`` over a folder of metadata in an object store, always in partitions."""
    from ..pools.remote import remote_metadata

    engine = engine or Local()
    require_stores(engine, place)
    with remote_metadata(place) as remote, Pool.open(remote.footers) as pool:
        return select(pool, filters, path, combine, reasons, engine, remote)


def _check_place(reasons: Path | str, pool: Pool, path: Path | str) -> None:
    """Refuse to write the reasons over the subset, its sidecar, or what the pool is made of."""
    place = _resolved(reasons)
    subset, source = _resolved(path), _resolved(pool.path)
    for what, other in (
        ("subset", subset),
        ("subset's sidecar", f"{subset.removesuffix('.npy')}.json"),
        ("pool", source),
    ):
        if place == other:
            raise UsageError(f"{reasons}: the reasons would replace the {what}; name another file")
    if pool.path.is_dir() and place.startswith(f"{source}/"):
        raise UsageError(
            f"{reasons}: among the metadata the reasons would pass for some; name another folder"
        )


def _resolved(place: Path | str) -> str:
    return str(place) if is_remote(str(place)) else str(Path(place).resolve())


def _select(
    pool: Pool, filters: Sequence[Node], path: Path, combine: str, reasons: Path | None,
    engine: Engine | None, remote: RemoteMetadata | None,
) -> Selected:  # fmt: skip
    sidecar_path(path)  # a wrong name is told before the work
    apart = None
    if engine is None or not pool.linked:
        chosen = run_filters(pool, filters, combine, reasons, engine)
    else:
        # Asked for here: it brings what few runs need.
        from ..filters.partitioned import run_partitions

        apart = run_partitions(pool, filters, path, engine, combine, reasons, remote)
        chosen = apart.selection
    if not chosen.gathered.count:
        raise nothing_kept(chosen.steps)
    labels = [spec.label() for spec in filters]
    provenance = {
        "pool": {**name_of(pool), "samples": chosen.total},
        "pipeline": {"filters": labels, "combine": combine, "scores": chosen.scores},
        "funnel": chosen.funnel(),
    }
    if apart is None:
        sidecar = write_subset(path, chosen.gathered, provenance)
    else:
        sidecar = write_sidecar(path, apart.merged.count, apart.merged.digest, provenance)
    return Selected(path, chosen, sidecar)


def name_of(pool: Pool) -> dict[str, str]:
    """Return what tells a pool from others: the digest of its uids.

    A folder of metadata, and a pool that links to such, is told by its files, ``files``: names,
    sizes and footers, which parquet fills with what stands where. To sort billions of uids would
    take longer than to filter them, and more than a machine has.
    """
    if not pool.linked:
        return {"digest": pool.digest()}
    named = [
        (str(one.file.relative_to(CommonPoolSource(one.root).root)), *_footer(one.file))
        for one in partitions_of(pool)
    ]
    return {"files": digest(named)}


def _footer(file: Path) -> tuple[int, str]:
    """Return a parquet file's size, and the digest of its footer."""
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 8))
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(max(0, size - 8 - length))
        return size, hashlib.sha256(opened.read(min(length, _MAX_FOOTER))).hexdigest()
