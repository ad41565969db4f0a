"""What stands beside shards and says how much is in them, brought up to date after a rewrite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...distribution import manifest as manifests
from ...durable import write_json, write_text
from ...pools import tar
from .folder import entry_of, stats_text


def update_counts(directory: Path, names: list[str]) -> None:
    """Bring stats and ``meta.json`` up to date; other fields stay as they are."""
    for name in names:
        path = directory / f"{name.removesuffix('.tar')}_stats.json"
        count = sum(1 for _ in tar.samples(directory / name))
        found = _json(path)
        if found is None:
            write_text(path, stats_text(count))
        elif found.get("successes") != count:
            write_text(path, json.dumps({**found, "successes": count}))
    meta = _json(directory / "meta.json")
    if meta is not None:
        counts = [_json(path) or {} for path in sorted(directory.glob("*_stats.json"))]
        meta["output_count"] = sum(int(found.get("successes", 0)) for found in counts)
        write_json(directory / "meta.json", meta)


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
