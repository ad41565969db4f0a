"""Measure one task with one model: in this process, or as a partition that travels to a worker."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatacompError, StorageError
from ..pools.clip_model import ModelSpec
from ..pools.parallel import default_workers
from . import digests
from .classification import evaluate_classification
from .corruptions import Corruption
from .embedding import Embedder, SetAside
from .evalsets import EvalSet
from .faces import evaluate_faces
from .fairness import evaluate_fairness
from .keeping import keeping
from .provenance import as_result, task_provenance
from .results import Result
from .retrieval import evaluate_retrieval
from .suite_progress import SuiteProgress
from .tasks import Task
from .vision.backbone import VisionSpec
from .vision.probes import PROBES
from .wilds import evaluate_wilds
from .winogavil import evaluate_winogavil
from .witness import Witness, witness_of

FAMILIES = {
    "classification": evaluate_classification,
    "wilds": evaluate_wilds,
    "fairness": evaluate_fairness,
    "faces": evaluate_faces,
    "retrieval": evaluate_retrieval,
    "winogavil": evaluate_winogavil,
}


@dataclass(frozen=True)
class Loaded:
    """A model, and how it is to be loaded and used."""

    model: ModelSpec | VisionSpec
    device: str
    precision: str
    workers: int | None
    batch_size: int
    corruption: Corruption | None

    def embedder(self, progress: SuiteProgress | None = None, alone: bool = True) -> Embedder:
        """Load the model; ``alone`` tells whether this process has the machine to itself."""
        model = self.model.load(self.device, self.precision)
        if model.device == "cpu" and not alone:
            workers = 1
        else:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as torchrun says
            workers = self.workers or max(1, default_workers() // processes)
        return Embedder(model, workers, self.batch_size, self.corruption, progress)


@dataclass(frozen=True)
class Measurement:
    """What is to be measured: a task's set, by whom and how, and what of it is to be kept.

    ``data`` is where the digest of the set is recorded, None for kept embeddings: their set was
    checked when they were made. ``named`` is what all results of the model have in common.
    """

    evalset: EvalSet
    data: Path | str | None
    named: dict[str, Any]
    probe: str | None = None
    keep: Path | None = None
    watched: bool = False
    loaded: Loaded | None = None


@dataclass(frozen=True)
class Measured:
    """What came of a task: a result, or why there is none; ``evalset`` as it was read."""

    task: Task
    evalset: EvalSet
    result: Result | None = None
    error: str = ""
    witness: Witness | None = None


def measure(job: Measurement, embedder: Embedder) -> Measured:
    """Measure a task; a broken set is no exception, but told in what is returned."""
    evalset, task, aside = job.evalset, job.evalset.task, SetAside()
    family = FAMILIES[task.family] if job.probe is None else PROBES[job.probe]
    embedder.witness = witness_of(task.family) if job.watched else None
    if embedder.progress is not None:
        embedder.progress.begin(task)
    try:
        with keeping(job.keep, evalset) as embedder.keeper:
            outcome = family(evalset, embedder, aside)
            digest = evalset.digest()
            if job.data is not None and not digests.verify(job.data, task, digest):
                evalset.check_count()  # what is not whole is not recorded
            provenance = task_provenance(task, digest, job.named)
            if embedder.keeper is not None:
                embedder.keeper.finish(evalset, provenance, embedder.batch_size)
    except StorageError:
        raise
    except (DatacompError, OSError) as error:
        return Measured(task, evalset, error=str(error))
    finally:
        if embedder.progress is not None:
            embedder.progress.end()
    result = as_result(task, outcome, aside, provenance)
    return Measured(task, evalset, result, witness=embedder.witness)


def measure_apart(job: Measurement) -> Measured:
    """Measure in a worker, which has one processor and loads each model once."""
    import torch

    assert job.loaded is not None
    torch.set_num_threads(1)
    return measure(job, _embedder(job.loaded, job.named["checkpoint"]))


@functools.lru_cache(maxsize=1)
def _embedder(loaded: Loaded, weights: str) -> Embedder:
    del weights  # only tells two files of one name apart
    return loaded.embedder(alone=False)
