"""The evaluation: one model, task after task, each result durable at once.

Without an engine one process does it all, with the model loaded once; with one, its workers take
a task each, and each worker loads the model once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..durable import append_line
from ..errors import DatacompError, DataError, MissingError, StorageError, UsageError
from ..pools.clip_model import ModelSpec
from ..pools.engine import Engine
from ..progress import say, warn
from .classification import evaluate_classification
from .digests import record, verify
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet, absence, open_evalset
from .faces import evaluate_faces
from .fairness import evaluate_fairness
from .results import Result, read_results
from .retrieval import evaluate_retrieval
from .tasks import Task, find_folder, load_suites
from .versions import library_versions
from .vision.backbone import VisionSpec
from .vision.probes import PROBES
from .wilds import evaluate_wilds
from .winogavil import evaluate_winogavil

FAMILIES = {
    "classification": evaluate_classification,
    "wilds": evaluate_wilds,
    "fairness": evaluate_fairness,
    "faces": evaluate_faces,
    "retrieval": evaluate_retrieval,
    "winogavil": evaluate_winogavil,
}


@dataclass
class Evaluation:
    """What came of it: all results asked for, what was done before, what failed and why."""

    results: list[Result] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def set_aside(self) -> int:
        """Return how many samples were set aside over all tasks."""
        return sum(result.set_aside for result in self.results)


def evaluate(
    model: ModelSpec | VisionSpec,
    data: Path | str,
    tasks: Sequence[Task],
    output: Path | str,
    *,
    probe: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int | None = None,
    batch_size: int = 64,
    engine: Engine | None = None,
) -> Evaluation:
    """Evaluate ``tasks`` and append each result to ``output`` as one line of JSON.

    Zero-shot, or with a ``probe`` (knn, linear) of the image features; then only tasks with
    class labels are measured.

    A task that ``output`` already holds for the same model, data and version is skipped; a
    task that fails is named in ``failed`` and does not stop the others. The lines are in the
    order of the tasks. ``workers`` is how many threads decode images. Raises DataError
    when ``output`` holds another model's results, MissingError without the folder ``data``,
    and the model's own errors.
    """
    workers = workers if workers is not None else min(8, os.cpu_count() or 1)
    if workers < 1 or batch_size < 1:
        raise UsageError("workers and batch size are at least 1")
    tasks = _measurable(model, tasks, probe)
    data, output = Path(data), Path(output)
    if not data.is_dir():
        raise MissingError(f"no evaluation sets at {data}: no such folder")
    if output.is_dir():
        raise UsageError(f"{output}: is a folder, expected a file for the results")
    identity = model.identity(precision)
    done = _results_of(output, identity)
    evaluation = Evaluation()
    present = _present(data, tasks, evaluation)
    loaded = _Loaded(model, device, precision, workers, batch_size)

    def jobs() -> Iterator[_Job]:
        for task in present:
            try:
                evalset = open_evalset(data, task)
                provenance = _provenance(task, _pinned(data, evalset), identity, probe)
            except (DatacompError, OSError) as error:
                _fail(evaluation, task, error)
                continue
            earlier = done.get(task.key)
            if earlier is not None and _same(earlier.provenance, provenance):
                say(f"{task.key}: done before", level=1)
                evaluation.results.append(earlier)
                evaluation.skipped.append(task.key)
                continue
            yield _Job(loaded, data, task, provenance)

    if engine is None:
        embedder = functools.cache(loaded.embedder)
        measured = (_measure(job, embedder()) for job in jobs())
    else:
        engine.require("train", "torch", "open_clip")
        engine.reach(data, model.checkpoint)
        measured = engine.map(_measure_apart, jobs(), gpu=device != "cpu")
    for found in measured:
        _keep(found, output, evaluation)
    order = {task.key: place for place, task in enumerate(tasks)}
    evaluation.results.sort(key=lambda result: order[result.key])
    return evaluation


def _present(data: Path, tasks: Sequence[Task], evaluation: Evaluation) -> Sequence[Task]:
    """Return the tasks that have a folder; say once which have not."""
    absent = [task for task in tasks if find_folder(data, task) is None]
    if len(absent) < 2:
        return tasks
    text = absence(data, absent, len(tasks))
    if len(absent) == len(tasks):
        raise MissingError(text)
    warn(text)
    for task in absent:
        evaluation.failed[task.key] = f"there is no folder of it in {data}"
    return [task for task in tasks if task not in absent]


def _pinned(data: Path, evalset: EvalSet) -> str:
    """Return the digest of a set, checked against the one recorded the first time."""
    digest = evalset.digest()
    if not verify(data, evalset.task, digest):
        evalset.check_count()  # what is not whole is not recorded
        # Sets may lie where nobody can write; then nothing is recorded.
        with contextlib.suppress(StorageError):
            record(data, evalset.task, digest)
    return digest


@dataclass(frozen=True)
class _Loaded:
    """A model, and how it is to be loaded and used."""

    model: ModelSpec | VisionSpec
    device: str
    precision: str
    workers: int
    batch_size: int

    def embedder(self) -> Embedder:
        """Load the model."""
        model = self.model.load(self.device, self.precision)
        return Embedder(model, self.workers, self.batch_size)


@dataclass(frozen=True)
class _Job:
    """A task to measure a model on."""

    loaded: _Loaded
    data: Path
    task: Task
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _Measured:
    """What came of a task: a result, or why there is none."""

    task: Task
    result: Result | None
    error: str = ""


def _measure(job: _Job, embedder: Embedder) -> _Measured:
    task, aside = job.task, SetAside()
    try:
        probe = job.provenance.get("probe")
        measure = FAMILIES[task.family] if probe is None else PROBES[probe]
        outcome = measure(open_evalset(job.data, task), embedder, aside)
    except StorageError:
        raise
    except (DatacompError, OSError) as error:
        return _Measured(task, None, str(error))
    return _Measured(task, _result(task, outcome, aside, job.provenance))


def _measure_apart(job: _Job) -> _Measured:
    """Measure in a worker, which has one processor and loads each model once."""
    import torch

    torch.set_num_threads(1)
    return _measure(job, _embedder(job.loaded, job.provenance["checkpoint"]))


@functools.lru_cache(maxsize=1)
def _embedder(loaded: _Loaded, weights: str) -> Embedder:
    del weights  # only tells two files of one name apart
    return loaded.embedder()


def _keep(found: _Measured, output: Path, evaluation: Evaluation) -> None:
    """Append a result to the file, or note that there is none."""
    result = found.result
    if result is None:
        _fail(evaluation, found.task, found.error)
        return
    append_line(output, json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False))
    if result.set_aside:
        first = result.provenance["set_aside_samples"][0]
        warn(f"{result.key}: {result.set_aside:,} samples set aside, first {first}")
    evaluation.results.append(result)


def _fail(evaluation: Evaluation, task: Task, error: Exception | str) -> None:
    evaluation.failed[task.key] = str(error)
    warn(f"{task.key} failed: {error}")


def _measurable(
    model: ModelSpec | VisionSpec, tasks: Sequence[Task], probe: str | None
) -> Sequence[Task]:
    """Return the tasks that can be measured this way."""
    if probe is None:
        if isinstance(model, VisionSpec):
            raise UsageError(
                f"timm:{model.model} has no text tower; measure it with --probe knn or linear"
            )
        return tasks
    if probe not in PROBES:
        raise UsageError(f"unknown probe {probe!r}; there are: {', '.join(PROBES)}")
    labelled = [task for task in tasks if task.family == "classification"]
    if not labelled:
        raise UsageError("a probe needs class labels, and none of these tasks has them")
    return labelled


def _provenance(
    task: Task, data_digest: str, identity: dict[str, Any], probe: str | None
) -> dict[str, Any]:
    return {
        **({} if probe is None else {"probe": probe}),
        "suite": task.suite,
        "suite_version": load_suites()[task.suite].version,
        "task_version": task.version,
        "data": data_digest,
        "model": identity["model"],
        "model_config": identity["config"],
        "checkpoint": identity["weights_sha256"],
        "precision": identity["precision"],
        "image_size": identity["image_size"],
        "versions": library_versions(),
    }


def _result(task: Task, outcome: Outcome, aside: SetAside, provenance: dict[str, Any]) -> Result:
    main = None if task.main_metric is None else outcome.metrics[task.main_metric]
    return Result(
        key=task.key,
        dataset=task.name,
        metrics={**outcome.metrics, "main_metric": main},
        provenance={
            **provenance,
            "n": outcome.n,
            "set_aside": aside.count,
            "set_aside_samples": aside.named,
        },
        uncertainty=outcome.uncertainty.to_dict() if outcome.uncertainty else {},
    )


_MODEL_KEYS = ("checkpoint", "model_config", "precision")
_TASK_KEYS = ("data", "task_version", "probe")


def _same(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    return all(earlier.get(key) == now.get(key) for key in (*_MODEL_KEYS, *_TASK_KEYS))


def _results_of(output: Path, identity: dict[str, Any]) -> dict[str, Result]:
    """Return the results ``output`` holds; refuse to mix them with another model's."""
    if not output.exists():
        return {}
    now = {
        "checkpoint": identity["weights_sha256"],
        "model_config": identity["config"],
        "precision": identity["precision"],
    }
    results = read_results(output)
    for result in results.values():
        for key, what in zip(_MODEL_KEYS, ("checkpoint", "model", "precision"), strict=True):
            if result.provenance.get(key) != now[key]:
                raise DataError(
                    f"{output}: {result.key} was evaluated with another {what} "
                    f"({str(result.provenance.get(key, 'unknown'))[:16]}, "
                    f"now {str(now[key])[:16]}); choose another file with --output"
                )
    return results
