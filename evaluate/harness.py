"""The evaluation: one model, task after task, each result durable at once.

One process does it, with the model loaded once; or an engine spreads the tasks over its workers,
a task each, and each worker loads the model once. The results are the same.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..durable import append_line
from ..errors import DatacompError, MissingError, UsageError
from ..pools.clip_model import ModelSpec
from ..pools.engine import Engine
from ..progress import say, warn
from . import digests
from .corruptions import Corruption
from .evalsets import EvalSet, absence, no_folder, open_set
from .kept import KeptEmbedder, KeptSet, Unusable, check_keeping, is_kept, open_kept
from .measuring import Loaded, Measured, Measurement, measure, measure_apart
from .places import SetFolder, find_set
from .provenance import (
    EMBEDDING_KEYS,
    is_same,
    model_provenance,
    results_of,
    task_provenance,
)
from .results import Result
from .suite_progress import SuiteProgress
from .tasks import Task, is_url
from .versions import library_versions
from .vision.backbone import VisionSpec
from .vision.probes import PROBED, PROBES
from .witness import Witness


@dataclass
class Evaluation:
    """What came of it: all results asked for, what was done before, what failed and why.

    ``absent`` are those of ``failed`` that have no data there. ``unrecorded`` are the tasks whose
    digests could not be recorded beside their data, and why.
    """

    results: list[Result] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    @property
    def set_aside(self) -> int:
        """Return how many samples were set aside over all tasks."""
        return sum(result.set_aside for result in self.results)


@dataclass(frozen=True)
class Examination:
    """What shall be made of the mistakes on a task, and whether it is there already."""

    make: Callable[[EvalSet, Witness, Result], None]
    is_made: Callable[[Task], bool]


def evaluate(
    model: ModelSpec | VisionSpec,
    data: Path | str,
    tasks: Sequence[Task],
    output: Path | str,
    *,
    probe: str | None = None,
    corruption: Corruption | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int | None = None,
    batch_size: int = 64,
    keep: Path | str | None = None,
    examine: Examination | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Evaluate ``tasks`` and append each result to ``output`` as one line of JSON.

    ``data`` is a folder of evaluation sets, its URL, or ``hub``. Zero-shot, or with a ``probe``
    (knn, linear) of the image features; then only tasks with class labels are measured, and a
    warning names the others. With a ``corruption`` every image is corrupted first. ``keep`` is a
    folder for the embeddings; what it holds of this model and data is not made again.

    A task that ``output`` already holds for the same model, data and version is skipped; a
    task that fails is named in ``failed`` and does not stop the others. The lines are in the
    order of the tasks. ``workers`` is how many threads decode images, and on processors embed
    them; by default as many as there are processors. Raises DataError when ``output`` or
    ``keep`` holds what another model gave, MissingError without the folder ``data``, and the
    model's own errors.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError("workers and batch size are at least 1")
    tasks = measurable(model, tasks, probe)
    if probe is not None and examine is not None:
        raise UsageError("a probe has no confusions to show; leave out the pages or the probe")
    output = Path(output)
    if not is_url(data) and not Path(data).is_dir():
        raise MissingError(no_folder(data, tasks))
    if output.is_dir():
        raise UsageError(f"{output}: is a folder, expected a file for the results")
    named = model_provenance(
        model.identity(precision), None if corruption is None else str(corruption), probe
    )
    done = results_of(output, named)
    evaluation = Evaluation()
    present = _present(data, tasks, evaluation)
    keep = None if keep is None else Path(keep)
    if keep is not None:
        check_keeping(keep, data, [task for task, _ in present], named)
    loaded = Loaded(model, device, precision, workers, batch_size, corruption)
    with SuiteProgress([task for task, _ in present]) as progress:

        def jobs() -> Iterator[Measurement]:
            for task, folder in present:
                try:
                    evalset = open_set(folder, data, task)
                    job = Measurement(
                        evalset, data, named, probe, keep, examine is not None, loaded
                    )
                    earlier = done.get(task.key)
                    if earlier is not None and not _is_earlier(earlier, job, evaluation):
                        earlier = None
                    known = digests.recorded(data).get((task.key, task.version))
                    if earlier is None and known is None:
                        evalset.check_count()  # before a model is loaded for it
                    of = str(earlier.provenance["data"] if earlier else known)
                    if keep is not None and is_kept(keep, task, task_provenance(task, of, named)):
                        job = replace(job, keep=None)
                except (DatacompError, OSError) as error:
                    _fail(evaluation, task, str(error))
                    progress.skip(task)
                    continue
                if earlier is not None and not _wants_more(job, examine):
                    say(f"{task.key}: done before", level=1)
                    evaluation.results.append(earlier)
                    evaluation.skipped.append(task.key)
                    progress.skip(task)
                    continue
                yield job

        if engine is None:
            embedder = functools.cache(lambda: loaded.embedder(progress))
            measured = (measure(job, embedder()) for job in jobs())
        else:
            engine.require("train", "torch", "open_clip")
            _reach(engine, data, model, keep)
            measured = engine.map(measure_apart, jobs(), gpu=device != "cpu")
        for found in measured:
            if engine is not None:
                progress.begin(found.task)
                progress.end()
            _take(found, data, output, done.get(found.task.key), evaluation)
            if found.result is not None and found.witness is not None and examine is not None:
                examine.make(found.evalset, found.witness, found.result)
    if evaluation.unrecorded:
        why, count = next(iter(evaluation.unrecorded.values())), len(evaluation.unrecorded)
        sets = "the digest of 1 set is" if count == 1 else f"the digests of {count} sets are"
        warn(f"{why}; {sets} not recorded, so nothing will notice if they change")
    order = {task.key: place for place, task in enumerate(tasks)}
    evaluation.results.sort(key=lambda result: order[result.key])
    return evaluation


def recompute(
    kept: Path | str,
    output: Path | str,
    patterns: Sequence[str] = (),
    probe: str | None = None,
) -> Evaluation:
    """Compute the metrics of embeddings kept in the folder ``kept`` again, without their model.

    Results are those of the model they are of. A task whose embeddings cannot be used is named in
    ``failed``. Raises as :func:`evaluate` and :func:`~datacomp.evaluate.kept.open_kept` do.
    """
    output = Path(output)
    evaluation = Evaluation()
    found = list(open_kept(kept, patterns))
    if probe is not None:
        keys = {task.key for task in _probed([one.task for one in found], probe)}
        found = [one for one in found if one.task.key in keys]
    for evalset in found:
        task = evalset.task
        if isinstance(evalset, Unusable):
            _fail(evaluation, task, evalset.error)
            continue
        named = _named_in(evalset, probe)
        done = results_of(output, named).get(task.key)
        provenance = task_provenance(task, evalset.digest(), named)
        if done is not None and is_same(done.provenance, provenance):
            evaluation.results.append(done)
            evaluation.skipped.append(task.key)
            continue
        job = Measurement(evalset, None, named, probe)
        _take(measure(job, KeptEmbedder(evalset)), None, output, None, evaluation)
    return evaluation


def _named_in(evalset: KeptSet, probe: str | None) -> dict[str, Any]:
    """Return what the results have in common that are computed from kept embeddings."""
    before = evalset.provenance
    named = {key: before[key] for key in EMBEDDING_KEYS if key in before}
    if probe is not None:
        named["probe"] = probe
    if before["versions"] != library_versions():
        named["embedding_versions"] = before["versions"]  # "versions" are those of today
    return named


def _present(
    data: Path | str, tasks: Sequence[Task], evaluation: Evaluation
) -> list[tuple[Task, SetFolder | None]]:
    """Return the tasks with their folders; say once which have none."""
    found: list[tuple[Task, SetFolder | None]] = []
    for task in tasks:
        try:
            found.append((task, find_set(data, task)))
        except DatacompError as error:  # a gate is shut, a server broken: the others go on
            _fail(evaluation, task, str(error))
    if tasks and not found:
        return found
    absent = [task for task, folder in found if folder is None]
    evaluation.absent = [task.key for task in absent]
    if len(absent) < 2:
        return found
    text = absence(data, absent, len(tasks))
    if len(absent) == len(found):
        raise MissingError(text)
    warn(text)
    for task in absent:
        evaluation.failed[task.key] = f"there is no folder of it in {data}"
    return [(task, folder) for task, folder in found if folder is not None]


def _is_earlier(earlier: Result, job: Measurement, evaluation: Evaluation) -> bool:
    """Tell whether an earlier result is of the same data; a set that changed is refused."""
    assert job.data is not None
    digest = digests.seen(job.data, job.evalset)
    if digest is None:
        digest = job.evalset.digest()
        _pin(job.data, job.evalset, evaluation)
    digests.verify(job.data, job.evalset.task, digest)
    now = task_provenance(job.evalset.task, digest, job.named)
    return is_same(earlier.provenance, now)


def _wants_more(job: Measurement, examine: Examination | None) -> bool:
    """Tell whether a task that was done before lacks its embeddings or its page."""
    examined = not job.watched or (examine is not None and examine.is_made(job.evalset.task))
    return job.keep is not None or not examined


def _pin(data: Path | str, evalset: EvalSet, evaluation: Evaluation) -> None:
    """Check the digest of a set against the one recorded, or record it."""
    digest = evalset.digest()
    if not digests.verify(data, evalset.task, digest):
        evalset.check_count()  # what is not whole is not recorded
    _record(data, evalset, digest, evaluation)


def _record(data: Path | str, evalset: EvalSet, digest: str, evaluation: Evaluation) -> None:
    """Record a digest that was checked; no result is lost because that cannot be done."""
    try:
        digests.record(data, evalset.task, digest)
    except (DatacompError, OSError) as error:  # sets may lie where nobody can write
        evaluation.unrecorded[evalset.task.key] = str(error)
    digests.remember(data, evalset, digest)


def _reach(
    engine: Engine, data: Path | str, model: ModelSpec | VisionSpec, keep: Path | str | None
) -> None:
    """Raise MissingError unless every worker sees what this process sees."""
    places: list[Path | str] = [] if is_url(data) else [data]
    if keep is not None:
        Path(keep).mkdir(parents=True, exist_ok=True)
        places.append(keep)
    if isinstance(model, ModelSpec) and model.model_config is not None:
        places.append(model.model_config)
    engine.reach(*places, model.checkpoint)


def _take(
    found: Measured,
    data: Path | str | None,
    output: Path,
    earlier: Result | None,
    evaluation: Evaluation,
) -> None:
    """Append a result to the file, unless it stands there, or note that there is none."""
    result = found.result
    if result is None:
        _fail(evaluation, found.task, found.error)
        return
    if data is not None:
        _record(data, found.evalset, found.evalset.digest(), evaluation)
    if earlier is None or not is_same(earlier.provenance, result.provenance):
        append_line(output, json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False))
    if result.set_aside:
        first = result.provenance["set_aside_samples"][0]
        warn(f"{result.key}: {result.set_aside:,} samples set aside, first {first}")
    evaluation.results.append(result)


def _fail(evaluation: Evaluation, task: Task, error: str) -> None:
    evaluation.failed[task.key] = error
    warn(f"{task.key} failed: {error}")


def measurable(
    model: ModelSpec | VisionSpec, tasks: Sequence[Task], probe: str | None, tell: bool = True
) -> Sequence[Task]:
    """Return the tasks that can be measured this way; a warning names the others, if ``tell``.

    Raises UsageError when none can, for an unknown probe, and for an encoder without one.
    """
    if probe is not None:
        return _probed(tasks, probe, tell)
    if isinstance(model, VisionSpec):
        raise UsageError(
            f"timm:{model.model} has no text tower; measure it with --probe knn or linear"
        )
    return tasks


def _probed(tasks: Sequence[Task], probe: str, tell: bool = True) -> list[Task]:
    if probe not in PROBES:
        raise UsageError(f"unknown probe {probe!r}; there are: {', '.join(PROBES)}")
    labelled = [task for task in tasks if task.family in PROBED]
    if not labelled:
        raise UsageError("a probe needs class labels, and none of these tasks has them")
    left = [task.key for task in tasks if task.family not in PROBED]
    if left and tell:
        warn(
            f"left out, a probe needs class labels: {len(left)} of {len(tasks)} tasks: "
            f"{', '.join(left)}"
        )
    return labelled
