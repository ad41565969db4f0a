"""The shards a run trains on, and the fingerprint that pins them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..durable import digest, sha256_file
from ..errors import DataError, MissingError
from ..progress import track

FULL_HASH_LIMIT = 4 << 30
"""Up to this many bytes every shard is read again to be sure; beyond, sizes and manifest count."""


@dataclass(frozen=True)
class TrainingData:
    """Shards of one source: paths in order, what is known of their number, and a fingerprint."""

    path: Path
    shards: tuple[str, ...]
    samples: int | None
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Return what a run records about its data."""
        return {
            "path": str(self.path),
            "shards": len(self.shards),
            "samples": self.samples,
            "fingerprint": self.fingerprint,
        }


def open_training_data(path: Path | str) -> TrainingData:
    """Find the tars of a folder (or its subfolders) and take their fingerprint."""
    path = Path(path)
    if not path.is_dir():
        raise MissingError(
            f"{path}: no such folder of shards; make one with 'datacomp shards build'"
        )
    tars = sorted(tar for tar in path.rglob("*.tar") if not tar.name.startswith("."))
    if not tars:
        raise DataError(f"{path}: no .tar shards found")
    empty = next((tar for tar in tars if tar.stat().st_size == 0), None)
    if empty is not None:
        raise DataError(f"{empty}: the shard is empty; build the shards again")
    return TrainingData(
        path, tuple(str(tar) for tar in tars), _samples(tars), fingerprint(path, tars)
    )


def fingerprint(root: Path, tars: list[Path]) -> str:
    """Return a digest of name, size and (for up to FULL_HASH_LIMIT bytes) content of each shard."""
    sizes = {str(tar.relative_to(root)): tar.stat().st_size for tar in tars}
    if sum(sizes.values()) <= FULL_HASH_LIMIT:
        hashes = {
            str(tar.relative_to(root)): sha256_file(tar)
            for tar in track(tars, "fingerprinting", len(tars), "shards")
        }
    else:
        hashes = {name: known for name, known in _manifest(root).items() if name in sizes}
    return digest([[name, sizes[name], hashes.get(name)] for name in sorted(sizes)])


def _manifest(root: Path) -> dict[str, str]:
    path = root / "manifest.json"
    if not path.is_file():
        return {}
    try:
        return {entry["path"]: entry["sha256"] for entry in json.loads(path.read_bytes())["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a manifest: {error}") from error


def _samples(tars: list[Path]) -> int | None:
    """Add up img2dataset's ``_stats.json`` files; None if any is missing."""
    total = 0
    for tar in tars:
        stats = tar.with_name(f"{tar.stem}_stats.json")
        try:
            total += int(json.loads(stats.read_bytes())["successes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return total
