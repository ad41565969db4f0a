"""Make a submission's folder from finished runs."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...durable import atomic_directory, canonical_json, sha256_file
from ...errors import DataError, MissingError, UsageError
from ...pools.clip_runs import model_of_run, read_run
from ...pools.uids import load_subset
from ..objectives import BENCHMARK
from ..results import Result, group_names, group_score, read_results
from ..scales import SCALES
from ..tasks import Suite, load_suites, load_tasks
from .layout import CHECKPOINTS, RECORD, RESULTS, SAMPLES, stem_of
from .record import AGGREGATE_VERSION, FORMAT, VERSION, Record, identifier, parse_record
from .samples import describe, first_repeated, write_weights


@dataclass(frozen=True)
class Statement:
    """What only the submitter knows: who made it, by which method, from which pool, on what."""

    track: str
    method: str
    author: str
    writeup: str | None = None
    pool: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Sequence[str] = ()
    funnel: Sequence[Mapping[str, Any]] = ()
    hardware: str | None = None
    energy_kwh: float | None = None


def suite_of(scale: str) -> Suite:
    """Return the suite a scale is judged by: the demo's own, DataComp's for all others."""
    return load_suites()["demo" if scale == "demo" else "datacomp"]


def aggregates(results: Mapping[str, Result], suite: Suite) -> dict[str, float]:
    """Return every average of a suite by its group's name; MissingError names missing tasks."""
    scores = {name: group_score(results, suite, name).value for name in group_names(suite)}
    return {name: value for name, value in scores.items() if value is not None}


def make_submission(
    runs: Sequence[Path | str],
    samples: Sequence[Path | str],
    statement: Statement,
    folder: Path | str,
    *,
    with_checkpoint: bool = False,
    created: str | None = None,
) -> Record:
    """Write the submission of ``runs``, seeds of one recipe on one dataset, into ``folder``.

    The folder appears whole or not at all. Raises UsageError for runs that do not belong
    together, MissingError for tasks that were not evaluated, DataError for texts that hold
    private matter and for samples that are no sound list.
    """
    if not runs or not samples:
        raise UsageError("a submission needs at least one run and one list of samples")
    infos = [read_run(Path(run)) for run in runs]
    scale = _common_scale(runs, infos)
    suite = suite_of(str(scale.get("name")))
    with atomic_directory(folder) as partial:
        for part in (RESULTS, SAMPLES, *((CHECKPOINTS,) if with_checkpoint else ())):
            (partial / part).mkdir()
        trained = [
            _add_run(partial, number, Path(run), info, suite, with_checkpoint)
            for number, (run, info) in enumerate(zip(runs, infos, strict=True))
        ]
        lists = [_add_samples(partial, Path(path)) for path in samples]
        names = [one["file"] for one in lists]
        if len(set(names)) < len(names):
            raise UsageError("two lists of samples have the same name; rename one")
        files = sorted(p for p in partial.rglob("*") if p.is_file())
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "created": created or f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "track": statement.track,
            "method": statement.method,
            "author": statement.author,
            "writeup": statement.writeup,
            "scale": scale,
            "suite": suite.name,
            "suite_version": suite.version,
            "aggregate_version": AGGREGATE_VERSION,
            "pool": {"digest": None, "samples": None, "available": None} | dict(statement.pool),
            "dataset_size": sum(one["unique"] for one in lists),
            "samples": lists,
            "pipeline": list(statement.pipeline),
            "funnel": [dict(step) for step in statement.funnel],
            "runs": trained,
            "hardware": statement.hardware,
            "energy_kwh": statement.energy_kwh,
            "datacomp": __version__,
            "files": [
                {
                    "path": file.relative_to(partial).as_posix(),
                    "size": file.stat().st_size,
                    "sha256": sha256_file(file),
                }
                for file in files
            ],
        }
        content["id"] = identifier(content)
        record = parse_record(content, "this submission")
        (partial / RECORD).write_bytes(canonical_json(content) + b"\n")
    return record


def _common_scale(runs: Sequence[Path | str], infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    scales = [info.get("scale") for info in infos]
    first = scales[0]
    if not isinstance(first, dict) or first.get("name") not in SCALES:
        raise DataError(f"{runs[0]}: its info.json names no known scale; only runs of "
                        f"'datacomp train' can be submitted")  # fmt: skip
    for run, info in zip(runs, infos, strict=True):
        if info.get("objective", BENCHMARK) != BENCHMARK:
            raise UsageError(f"{run}: was trained to filter with (objective {info['objective']}), "
                             "not to be compared; it cannot be submitted")  # fmt: skip
    for run, scale in zip(runs, scales, strict=True):
        if scale != first:
            raise UsageError(f"{run}: trained by another recipe than {runs[0]}; submit it apart")
    seeds = [info.get("seed") for info in infos]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"the runs have seeds {seeds}; several runs must differ in the seed")
    if len({canonical_json(_fingerprints(info)) for info in infos}) > 1:
        raise UsageError("the runs were trained on different data; submit them apart")
    return first


def _fingerprints(info: Mapping[str, Any]) -> list[str]:
    data = info.get("data")
    sources = data if isinstance(data, list) else []
    return [str(s["fingerprint"]) for s in sources if isinstance(s, dict) and "fingerprint" in s]


def _add_run(
    folder: Path, number: int, run: Path, info: dict[str, Any], suite: Suite, with_checkpoint: bool
) -> dict[str, Any]:
    spec = model_of_run(run)
    found = read_results(run)
    try:
        averages = aggregates(found, suite)
    except MissingError as error:
        raise MissingError(f"{run}: {error}; evaluate it with --suite {suite.name}") from None
    own = [key for key, task in load_tasks().items() if task.suite == suite.name and key in found]
    name = f"{RESULTS}/{number}.jsonl"
    lines = [json.dumps(found[key].to_dict(), ensure_ascii=False, allow_nan=False) for key in own]
    (folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    copied = None
    if with_checkpoint:
        copied = f"{CHECKPOINTS}/{number}{spec.checkpoint.suffix}"
        shutil.copyfile(spec.checkpoint, folder / copied)
    data = info.get("data")
    sources = [s for s in data if isinstance(s, dict)] if isinstance(data, list) else []
    seconds = info.get("seconds")
    return {
        "seed": info.get("seed"),
        "results": name,
        "checkpoint_sha256": sha256_file(spec.checkpoint),
        "checkpoint": copied,
        "precision": info.get("precision"),
        "device": info.get("device"),
        "processes": info.get("world_size"),
        "seconds": seconds,
        "samples": sum(int(source.get("samples") or 0) for source in sources) or None,
        "data": _fingerprints(info),
        "aggregates": averages,
    }


def _add_samples(folder: Path, path: Path) -> dict[str, Any]:
    """Copy a list of samples; a subset with repetitions becomes uids with weights."""
    if path.suffix not in (".npy", ".parquet"):
        raise UsageError(f"{path}: expected a subset (.npy) or a parquet file")
    if not path.is_file():
        raise MissingError(f"{path}: no such file")
    target = folder / SAMPLES / f"{stem_of(path.name)}{path.suffix}"
    uids = load_subset(path) if path.suffix == ".npy" else np.empty(0, "u8,u8")
    if len(uids) and first_repeated(uids) is not None:
        target = target.with_suffix(".parquet")
        write_weights(target, uids)
    else:
        shutil.copyfile(path, target)
    return describe(target, target.relative_to(folder).as_posix()).model_dump()
