"""The folder that is built: one build at a time, done shards found again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...distribution import manifest as manifests
from ...distribution.manifest import FileEntry
from ...durable import alone, sha256_file, storage_errors
from ...errors import StorageError, UsageError

SHARD_NAME = "{:08d}.tar"
STATS_NAME = "{:08d}_stats.json"
STATE = "build.json"
UNUSABLE = "unusable"
GROWN = "grown"
"""In ``build.json``: shards were appended, so that the build alone is no longer what is there."""


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a folder for one build at a time; make it if need be."""
    with none_empty(out), _locked(out):
        yield


@contextlib.contextmanager
def none_empty(folder: Path) -> Iterator[None]:
    """Leave no empty folder behind where there was none before."""
    made = not folder.exists()
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds something, as nearly always
                folder.rmdir()


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    with storage_errors(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{out}: a file, but shards need a folder") from None
        except FileNotFoundError as error:  # a place where no folder can be made, as below /proc
            raise StorageError(f"cannot write {out}: {error.strerror}") from None
    with alone(out, f"{out}: another build is writing there; wait for it"):
        yield


def short(value: Any) -> str:
    """Write an option of a build or a view for a message."""
    if isinstance(value, dict):
        value = {k: v[:12] if isinstance(v, str) else v for k, v in value.items()}
        return ", ".join(f"{name} {item}" for name, item in sorted(value.items()))
    return str(value)


def entry_of(path: Path) -> FileEntry:
    """Read a file and describe it for the manifest."""
    return FileEntry(path.name, path.stat().st_size, sha256_file(path))


def known_entries(out: Path) -> dict[str, FileEntry]:
    """Return what the manifest of an earlier, finished run says of the shards."""
    path = out / manifests.NAME
    if not path.exists():
        return {}
    files = manifests.load(path)["files"]
    return {item["path"]: FileEntry(**item) for item in files}


def is_whole(out: Path, number: int, count: int, known: dict[str, FileEntry]) -> bool:
    """Tell whether a shard is there. Its stats are written after it, so both means whole."""
    path = out / SHARD_NAME.format(number)
    stats = out / STATS_NAME.format(number)
    if (
        not path.is_file()
        or not stats.is_file()
        or stats.read_bytes() != stats_text(count).encode()
    ):
        return False
    return path.name not in known or known[path.name].size == path.stat().st_size


def stats_text(count: int) -> str:
    """Return the stats of a shard of so many samples, as the original tools read them."""
    return json.dumps({"successes": count})
