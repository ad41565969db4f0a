"""The shards a run trains on, and the fingerprint that pins them.

The fingerprint covers name, size and content of every shard, so no shard changes unnoticed. To
read terabytes again on every resume would take hours: beyond FULL_HASH_LIMIT a digest comes from
the shards' own manifest, or is computed once and kept beside the run, under the shard's name,
size and time of change.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..durable import append_line, digest, read_json, sha256_file
from ..errors import DataError, MissingError, UnsafeInputError
from ..pools import views
from ..pools.sources.base import inside
from ..progress import Progress

FULL_HASH_LIMIT = 4 << 30
"""Up to this many bytes every shard is read again to be sure."""
DIGESTS = "shard_digests.jsonl"
"""Digests of shards already read, one a line, in the folder of the run."""
MAX_MANIFEST_BYTES = 1 << 30
MAX_STATS_BYTES = 1 << 20
HASH_THREADS = 8

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TrainingData:
    """Shards of one source: paths in order, and how many samples they say they hold."""

    path: Path
    shards: tuple[str, ...]
    samples: int | None

    def name(self, shard: str) -> str:
        """Return a shard's name relative to the folder."""
        return str(Path(shard).relative_to(self.path))


@dataclass(frozen=True)
class PinnedData(TrainingData):
    """Shards with their fingerprint; ``fingerprint_kind`` says where their digests come from.

    It is ``manifest`` if any was taken from the folder's manifest, ``content`` if all were read,
    ``view`` for virtual shards.
    """

    fingerprint: str
    fingerprint_kind: Literal["content", "manifest", "view"]

    def to_dict(self) -> dict[str, Any]:
        """Return what a run records about its data."""
        return {
            "path": str(self.path),
            "shards": len(self.shards),
            "samples": self.samples,
            "fingerprint": self.fingerprint,
            "fingerprint_kind": self.fingerprint_kind,
        }


def find_shards(path: Path | str) -> TrainingData:
    """Find the tars of a folder (or its subfolders), or the virtual shards of a view.

    Their content is not read.
    """
    path = Path(path)
    if (path / views.METADATA).is_file():
        view = views.View.open(path)
        return TrainingData(path, tuple(views.shard_names(view)), view.samples_count)
    if not path.is_dir():
        raise MissingError(
            f"{path}: no such folder of shards; make one with 'datacomp shards build'"
        )
    tars = sorted(tar for tar in path.rglob("*.tar") if not tar.name.startswith("."))
    if not tars:
        raise DataError(f"{path}: no .tar shards found")
    for tar in tars:
        if not inside(path, tar):
            raise UnsafeInputError(f"{tar}: a link that leaves the folder; copy the shard into it")
        if not tar.is_file():
            raise DataError(f"{tar}: not a file; move it out of the folder")
        if tar.stat().st_size == 0:
            raise DataError(f"{tar}: the shard is empty; build the shards again")
    return TrainingData(path, tuple(str(tar) for tar in tars), _samples(tars))


def pin(data: TrainingData, run: Path | None = None) -> PinnedData:
    """Take the fingerprint: the digest of name, size and content of each shard.

    Up to FULL_HASH_LIMIT bytes all of them are read. Beyond, digests come from the folder's
    ``manifest.json`` and from what an earlier attempt has kept in the folder ``run``; the rest
    is read by several threads, and kept there. A view is known by its own digest, which names
    its samples by the indexes of their tars; these tars must be as they were indexed.
    """
    if (data.path / views.METADATA).is_file():
        view = views.View.open(data.path)
        view.verify()
        return PinnedData(data.path, data.shards, data.samples, view.digest, "view")
    stats = {data.name(shard): os.stat(shard) for shard in data.shards}
    known: dict[str, str] = {}
    kind: Literal["content", "manifest"] = "content"
    keep = None
    if sum(stat.st_size for stat in stats.values()) > FULL_HASH_LIMIT:
        known = {
            name: sha256
            for name, (size, sha256) in _manifest(data.path).items()
            if name in stats and stats[name].st_size == size
        }
        kind = "manifest" if known else "content"
        if run is not None:
            keep = _Digests(run / DIGESTS, data.path)
            known = keep.known(stats) | known
    missing = [name for name in stats if name not in known]
    for name, sha256 in _hashed(data.path, missing):
        known[name] = sha256
        if keep is not None:
            keep.add(name, stats[name], sha256)
    listed = [[name, stats[name].st_size, known[name]] for name in sorted(stats)]
    return PinnedData(data.path, data.shards, data.samples, digest(listed), kind)


def _hashed(root: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with the SHA-256 of its content, in the order of completion."""
    threads = min(HASH_THREADS, os.cpu_count() or 1)
    with (
        Progress("fingerprinting", len(names), "shards") as progress,
        ThreadPoolExecutor(threads, "hash") as pool,
    ):
        work = {pool.submit(sha256_file, root / name): name for name in names}
        try:
            for future in as_completed(work):
                yield work[future], future.result()
                progress.advance()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Digests:
    """The digests of a folder's shards, kept in a file so that a resumed run reads them there."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, str(root.resolve())

    def known(self, stats: dict[str, os.stat_result]) -> dict[str, str]:
        """Return the digests of the shards that have not changed since they were read."""
        found: dict[str, str] = {}
        for line in self._path.read_bytes().splitlines() if self._path.is_file() else []:
            try:
                root, name, size, changed, sha256 = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # the torn line of a killed writer
            stat = stats.get(name) if isinstance(name, str) and root == self._root else None
            same = stat is not None and [stat.st_size, stat.st_mtime_ns] == [size, changed]
            if same and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
                found[name] = sha256
        return found

    def add(self, name: str, stat: os.stat_result, sha256: str) -> None:
        """Keep the digest of a shard as it was when ``stat`` was taken."""
        entry = [self._root, name, stat.st_size, stat.st_mtime_ns, sha256]
        append_line(self._path, json.dumps(entry))


def _manifest(root: Path) -> dict[str, tuple[int, str]]:
    """Return size and digest of each file that the folder's manifest lists."""
    path = root / "manifest.json"
    if not path.is_file():
        return {}
    found = read_json(path, MAX_MANIFEST_BYTES)
    try:
        listed = {entry["path"]: (entry["size"], entry["sha256"]) for entry in found["files"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a manifest: {error}") from None
    for name, (_, sha256) in listed.items():
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise DataError(f"{path}: not a manifest: no SHA-256 of {str(name)[:80]!r}")
    return listed


def _samples(tars: list[Path]) -> int | None:
    """Add up img2dataset's ``_stats.json`` files; None if any is missing."""
    total = 0
    for tar in tars:
        stats = tar.with_name(f"{tar.stem}_stats.json")
        try:
            found: Any = read_json(stats, MAX_STATS_BYTES)["successes"]
        except (DataError, MissingError, KeyError, TypeError):
            return None
        if not isinstance(found, int):
            return None
        total += found
    return total
