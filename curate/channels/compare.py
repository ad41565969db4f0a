"""The comparison: every case, measured on copies of a release that only this machine sees."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...distribution.release import Manifest, Plan, Releases, SigningKey, Source, create_version
from ...errors import IntegrityError, StorageError
from ...progress import Progress
from .cases import Case, all_cases
from .conditions import Conditions
from .energy import Meter
from .measure import Run, Stage, measure, roles

ROOM = 2.1
"""Free space needed, in sizes of the release: one to get, one to serve where links do not do."""


@dataclass(frozen=True)
class Row:
    """One case with all its runs."""

    case: Case
    runs: tuple[Run, ...]

    @property
    def whole(self) -> int:
        """How many of the runs ended whole."""
        return sum(run.whole for run in self.runs)

    def mean(self, value: Callable[[Run], float]) -> float:
        """Return the mean of a value over the runs."""
        return statistics.fmean(value(run) for run in self.runs)

    def spread(self, value: Callable[[Run], float]) -> float | None:
        """Return the standard deviation over the runs; None of a single one."""
        return statistics.stdev(map(value, self.runs)) if len(self.runs) > 1 else None

    @property
    def joules(self) -> float | None:
        """Mean energy; None where it is not known."""
        known = [run.joules for run in self.runs if run.joules is not None]
        return statistics.fmean(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found: dict[str, Any] = {**asdict(self.case), "name": self.case.name, "whole": self.whole}
        for key in ("seconds", "bytes", "origin_bytes", "peer_bytes", "cpu_seconds"):
            found[key] = round(self.mean(lambda run, key=key: getattr(run, key)), 3)
        if self.joules is not None:
            found["joules"] = round(self.joules, 1)
        return {**found, "runs": [run.to_dict() for run in self.runs]}


@dataclass(frozen=True)
class Comparison:
    """What was measured. ``energy`` names what estimated it, None where nothing could."""

    name: str
    version: str
    files: int
    bytes: int
    conditions: Conditions
    machine: dict[str, Any]
    energy: str | None
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": "datacomp-channels",
            "format_version": 1,
            "name": self.name,
            "version": self.version,
            "files": self.files,
            "bytes": self.bytes,
            "conditions": asdict(self.conditions),
            "machine": self.machine,
            "energy": self.energy,
            "rows": [row.to_dict() for row in self.rows],
        }


def compare(
    folder: Path | str,
    conditions: Conditions | None = None,
    work: Path | None = None,
    cases: Sequence[Case] | None = None,
) -> Comparison:
    """Download the newest version in a folder of releases in every case, and measure that.

    ``cases`` are those of ``all_cases`` where they are not given.

    All happens on this machine, between processes of their own in a temporary folder in ``work``
    that is removed at the end. The folder of releases is only read. Raises StorageError (no room),
    IntegrityError (a file is not what the manifest says), RunError, and what ``Releases`` raises.
    """
    conditions = conditions or Conditions()
    cases = cases or all_cases(conditions.peers, conditions.killed)
    release = Releases(folder).latest
    manifest = release.manifest
    size = sum(file.size for file in manifest.files)
    with tempfile.TemporaryDirectory(prefix="datacomp-channels-", dir=work) as name:
        place = Path(name)
        if (free := shutil.disk_usage(place).free) < ROOM * size:
            raise StorageError(
                f"{place.parent}: {ROOM * size / 1e9:.2f} GB needed, {free / 1e9:.2f} free; name "
                "another folder with --work"
            )
        sources = [Source(file.path, release.locate(file.path)) for file in manifest.files]
        holders = _publish(place, sources, manifest, max(len(roles(case)) for case in cases))
        private = Releases(holders[0]).latest.manifest
        meter = Meter()
        with contextlib.closing(meter):
            stage = Stage(place, holders, private, conditions, meter)
            rows = _measure_all(stage, cases)
        return Comparison(
            manifest.name, manifest.version, len(manifest.files), size, conditions,
            {"system": platform.platform(), "cpus": os.cpu_count()}, meter.by, rows,
        )  # fmt: skip


def _publish(
    place: Path, sources: list[Source], manifest: Manifest, holders: int
) -> tuple[Path, ...]:
    """Publish the files once more, without the mirrors and trackers of the world.

    Each holder has a folder of links to the same files. The key is thrown away.
    """
    origin = place / "origin"
    plan = Plan(
        manifest.name, manifest.version, piece_length=manifest.piece_length,
        profile=manifest.cid_profile,
    )  # fmt: skip
    made = create_version(origin, sources, plan, SigningKey.from_seed(os.urandom(32)))
    if made.root_cid != manifest.root_cid:
        raise IntegrityError(
            f"{manifest.name} {manifest.version}: a file is not what the manifest says; "
            "'datacomp release verify' names it"
        )
    peers = [place / f"peer-{number}" for number in range(1, holders)]
    for peer in peers:
        shutil.copytree(origin, peer, copy_function=os.link)
    return (origin, *peers)


def _measure_all(stage: Stage, cases: Sequence[Case]) -> tuple[Row, ...]:
    runs: dict[Case, list[Run]] = {case: [] for case in cases}
    with Progress("channels", len(cases) * stage.conditions.repeats, "downloads") as progress:
        for _ in range(stage.conditions.repeats):  # repeats apart in time, not one after another
            for case in cases:
                runs[case].append(measure(case, stage))
                progress.advance()
    return tuple(Row(case, tuple(found)) for case, found in runs.items())
