"""Repair shards: set bad samples aside and rewrite only the shards that held them.

What a check finds wrong with a sample (an image that does not decode, a uid that stands there
twice or should not be there at all) goes to ``set_aside/NAME.bad``, a tar of those samples. The
rest of the shard stays as it was, byte for byte. Counts, digests and index are brought up to
date; uids of the subset that are gone are listed in ``missing.txt``. A tar cut short keeps its
whole samples. ``repair.json`` says what is being repaired, so that a killed repair goes on.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...durable import atomic_path, fsync_directory, write_json, write_text
from ...errors import DataError, UnsafeInputError
from ...pools import tar
from ...pools.engine import Workers
from .check import CheckReport, Problem, check_shards
from .folder import locked
from .index import index_shards
from .storage import PARQUET
from .upkeep import update_counts, update_manifest

FOLDER = "set_aside"
STATE = "repair.json"
COPY = 1 << 20


@dataclass
class RepairReport:
    """Which shards were rewritten, what was set aside by kind, and what is still wrong."""

    path: str
    shards: list[str] = field(default_factory=list)
    set_aside: dict[str, int] = field(default_factory=dict)
    remaining: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def repair_shards(
    directory: Path | str, workers: Workers = None, page: Path | str | None = None
) -> RepairReport:
    """Check a folder of shards, set bad samples aside, and check again.

    What cannot be repaired (a missing shard, a digest that differs though every sample decodes)
    remains in the report. Raises DataError, StorageError.
    """
    directory = Path(directory)
    report = RepairReport(str(directory))
    with locked(directory):
        before = check_shards(directory, workers)
        concerned = _begin(directory, before)
        for name, bad in sorted(concerned.items()):
            _rewrite(directory / name, set(bad))
            report.shards.append(name)
            for kind in bad.values():
                report.set_aside[kind] = report.set_aside.get(kind, 0) + 1
        if concerned:
            update_counts(directory, sorted(concerned))
            _list_missing(directory, check_shards(directory, workers))
            update_manifest(directory, sorted(concerned))
            if (directory / PARQUET).is_file():
                index_shards(directory, workers, keep_going=True)
            (directory / STATE).unlink()
        after = check_shards(directory, workers, page)
    report.remaining = after.problems
    return report


def _begin(directory: Path, found: CheckReport) -> dict[str, dict[str, str]]:
    """Return for each shard concerned its bad keys and why; what an earlier attempt began too."""
    concerned: dict[str, dict[str, str]] = {}
    with contextlib.suppress(FileNotFoundError):
        concerned = _state(directory / STATE)
    for problem in found.problems:
        if not problem.shard.endswith(".tar"):
            continue
        if problem.key:
            concerned.setdefault(problem.shard, {})[problem.key] = problem.kind
        elif problem.kind in ("broken", "unsafe"):
            concerned.setdefault(problem.shard, {})
    if concerned:
        write_json(directory / STATE, concerned)
    return concerned


def _state(path: Path) -> dict[str, dict[str, str]]:
    try:
        value = json.loads(path.read_bytes())
        if not all(
            "/" not in name and name.endswith(".tar") and isinstance(bad, dict)
            for name, bad in value.items()
        ):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise DataError(f"{path}: damaged; remove it and repair again") from None
    return value


def _rewrite(path: Path, bad: set[str]) -> None:
    """Write the bad samples to a tar of their own, and the shard without them."""
    keep: list[tuple[int, int]] = []
    aside: list[tuple[int, int]] = []
    try:
        for sample in tar.samples(path):
            (aside if sample.key in bad else keep).append((sample.start, sample.end))
    except DataError as error:
        if isinstance(error, UnsafeInputError):
            keep, aside = [], [(0, path.stat().st_size)]
    if aside:  # else an earlier attempt has done that
        target = path.parent / FOLDER / f"{path.stem}.bad"
        _copy(path, target, aside)
    _copy(path, path, keep)


def _copy(source: Path, target: Path, parts: list[tuple[int, int]]) -> None:
    """Write some ranges of a tar as a tar."""
    with atomic_path(target) as partial:
        with source.open("rb") as file, partial.open("wb") as out:
            for start, end in parts:
                file.seek(start)
                left = end - start
                while left:
                    piece = file.read(min(left, COPY))
                    if not piece:
                        raise DataError(f"{source}: changed while it was repaired; try again")
                    out.write(piece)
                    left -= len(piece)
            out.write(tar.END)
        if target.exists():
            shutil.copymode(target, partial)
    fsync_directory(target.parent)


def _list_missing(directory: Path, found: CheckReport) -> None:
    """Add the uids that the subset names and the shards no longer hold."""
    gone = [problem.key for problem in found.problems if problem.kind == "missing_uid"]
    if not gone:
        return
    path = directory / "missing.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    lines += [f"{uid} set_aside" for uid in gone]
    write_text(path, "".join(f"{line}\n" for line in sorted(set(lines))))
