"""What stands beside shards and says how much is in them, brought up to date after a rewrite."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ...distribution import manifest as manifests
from ...durable import write_json, write_text
from ...errors import DataError
from ...pools import tar
from .folder import entry_of, stats_text

STATS = "_stats.json"


def update_counts(directory: Path, names: list[str]) -> None:
    """Bring stats of some tars and ``meta.json`` up to date; other fields stay as they are.

    A tar without stats counts with the samples that can be read of it, and stats without their tar
    with what they promise.
    """
    for name in names:
        path = directory / f"{name.removesuffix('.tar')}_stats.json"
        count = _samples(directory / name)
        found = _json(path)
        if found is None:
            write_text(path, stats_text(count))
        elif found.get("successes") != count:
            write_text(path, json.dumps({**found, "successes": count}))
    meta = _json(directory / "meta.json")
    if meta is not None:
        tars = {path.stem: path for path in directory.glob("*.tar") if path.name[0] != "."}
        promised = {
            path.name.removesuffix(STATS): (_json(path) or {}).get("successes")
            for path in directory.glob(f"*{STATS}")
        }
        counts = [count for count in promised.values() if isinstance(count, int)]
        counts += [_samples(tars[s]) for s in tars if not isinstance(promised.get(s), int)]
        meta["output_count"] = sum(counts)
        write_json(directory / "meta.json", meta)


def _samples(path: Path) -> int:
    """Count the samples of a tar, up to where it is damaged."""
    count = 0
    with contextlib.suppress(DataError):
        for _ in tar.samples(path):
            count += 1
    return count


def update_manifest(directory: Path, names: list[str]) -> None:
    """Describe the files that were rewritten anew; the others are as they were promised."""
    path = directory / manifests.NAME
    if not path.is_file():
        return
    entries = {item["path"]: item for item in manifests.load(path)["files"]}
    renewed = [directory / name for name in ("meta.json", "missing.txt", "sample_ids.npy")]
    for name in names:
        renewed += [directory / name, directory / f"{name.removesuffix('.tar')}_stats.json"]
    listed = {name: manifests.FileEntry(**item) for name, item in entries.items()}
    for file in renewed:
        if file.is_file():
            listed[file.name] = entry_of(file)
    manifests.write(path, manifests.manifest_of(listed.values()))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
