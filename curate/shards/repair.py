"""Repair shards: set bad samples aside and rewrite only the shards that held them.

What a check finds wrong with a sample (an image that does not decode, a uid that stands there
twice or should not be there at all) goes to ``set_aside/NAME.bad``, a tar of those samples; what
an earlier repair put there stays (``NAME.2.bad``, ...). The rest of the shard stays as it was, byte
for byte. Counts, digests and index are brought up to date, and stats that are missing of a tar that
is otherwise sound are made from it; uids of the subset that are gone are listed in ``missing.txt``.
A tar cut short keeps its whole samples, and what follows them goes to
``set_aside/NAME.rest`` as it is. Any other tar that cannot be read to its end is left alone: what
stands behind the damage may be sound. ``repair.json`` says what is being repaired, so that a killed
repair goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...durable import sha256_file, write_json, write_text
from ...errors import DataError, TruncatedError, UnsafeInputError
from ...pools import tar
from ...pools.engine import Workers
from .check import CheckReport, Problem, check_shards
from .folder import STATE as BUILD
from .folder import locked
from .index import index_shards
from .remove import uids_in
from .storage import PARQUET
from .stretches import copy_stretches, pieces
from .upkeep import update_counts, update_manifest

FOLDER = "set_aside"
STATE = "repair.json"
WHOLE_TAR = ("truncated", "unsafe")
LOST = ("broken", "missing_shard")
"""Problems of tars that leave open which samples are gone."""


@dataclass
class RepairReport:
    """Which shards were rewritten, what was set aside by kind, and what is still wrong.

    ``counted`` are shards that were counted for their stats alone.
    """

    path: str
    shards: list[str] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    set_aside: dict[str, int] = field(default_factory=dict)
    remaining: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def repair_shards(
    directory: Path | str, workers: Workers = None, page: Path | str | None = None
) -> RepairReport:
    """Check a folder of shards, set bad samples aside, and check again.

    What cannot be repaired (a missing shard, a tar that is damaged in its middle, a digest that
    differs though every sample decodes) remains in the report. Raises DataError, StorageError.
    """
    directory = Path(directory)
    report = RepairReport(str(directory))
    with locked(directory):
        before = check_shards(directory, workers)
        concerned = _begin(directory, before)
        for name, bad in sorted(concerned.items()):
            if not bad:
                report.counted.append(name)
                continue
            _rewrite(directory / name, set(bad), _padding(directory))
            report.shards.append(name)
            for kind in bad.values():
                report.set_aside[kind] = report.set_aside.get(kind, 0) + 1
        if concerned:
            update_counts(directory, sorted(concerned))
            _list_missing(directory, check_shards(directory, workers))
            update_manifest(directory, sorted(concerned))
        stale = concerned or any(problem.kind == "index" for problem in before.problems)
        if stale and (directory / PARQUET).is_file():
            index_shards(directory, workers, keep_going=True)
        (directory / STATE).unlink(missing_ok=True)
        after = check_shards(directory, workers, page)
    report.remaining = after.problems
    return report


def _begin(directory: Path, found: CheckReport) -> dict[str, dict[str, str]]:
    """Return for each shard concerned its bad keys and why; what an earlier attempt began too.

    One without bad keys lacks its stats alone. If anything else is wrong with a tar as a whole, it
    may not hold what it held, so it is not made the measure.
    """
    unsure = {p.shard for p in found.problems if not p.key and p.kind != "stats_missing"}
    concerned: dict[str, dict[str, str]] = {}
    with contextlib.suppress(FileNotFoundError):
        concerned = _state(directory / STATE)
    for problem in found.problems:
        if problem.shard.endswith(".tar") and (problem.key or problem.kind in WHOLE_TAR):
            concerned.setdefault(problem.shard, {})[problem.key] = problem.kind
        elif problem.kind == "stats_missing" and problem.shard not in unsure:
            concerned.setdefault(problem.shard, {})
    for problem in found.problems:
        if problem.kind == "broken":
            concerned.pop(problem.shard, None)
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


def _rewrite(path: Path, bad: set[str], pad: int) -> None:
    """Write the bad samples to a tar of their own, and the shard without them."""
    size = path.stat().st_size
    end = 0
    keep: list[tuple[int, int]] = []
    aside: list[tuple[int, int]] = []
    try:
        for sample in tar.samples(path):
            (aside if sample.key in bad else keep).append((sample.start, sample.end))
            end = sample.end
    except UnsafeInputError:
        keep, aside = [], [(0, size)]
    except TruncatedError:
        _set_aside(path, "rest", [(end, size)], b"")
    if aside:  # else an earlier attempt has done that
        _set_aside(path, "bad", aside, tar.END)
    copy_stretches(path, path, keep, tar.END, pad if size % pad == 0 else tar.BLOCK)


def _padding(directory: Path) -> int:
    """Return what the tars of a build are padded to."""
    try:
        pad = json.loads((directory / BUILD).read_bytes())["pad"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pad = None
    return pad if isinstance(pad, int) and pad > 0 else tar.BLOCK


def _set_aside(path: Path, kind: str, parts: list[tuple[int, int]], tail: bytes) -> None:
    """Write some ranges of a tar to a file of their own, unless an earlier attempt has done so."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in pieces(file, parts):
            digest.update(piece)
    digest.update(tail)
    for number in itertools.count(1):
        name = path.stem if number == 1 else f"{path.stem}.{number}"
        target = path.parent / FOLDER / f"{name}.{kind}"
        if not target.exists():
            copy_stretches(path, target, parts, tail)
            return
        if sha256_file(target) == digest.hexdigest():
            return


def _list_missing(directory: Path, found: CheckReport) -> None:
    """Add the uids that the subset names and the shards no longer hold.

    While a tar is missing or broken, only those whose samples are seen to be set aside.
    """
    gone = [problem.key for problem in found.problems if problem.kind == "missing_uid"]
    if any(problem.kind in LOST for problem in found.problems):
        known = set(_uids_aside(directory))
        gone = [uid for uid in gone if uid in known]
    if not gone:
        return
    path = directory / "missing.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    lines += [f"{uid} set_aside" for uid in gone]
    write_text(path, "".join(f"{line}\n" for line in sorted(set(lines))))


def _uids_aside(directory: Path) -> Iterator[str]:
    for path in sorted((directory / FOLDER).glob("*.bad")):
        with contextlib.suppress(DataError):  # an unsafe tar
            yield from (uid for _, uid in uids_in(path) if uid is not None)
