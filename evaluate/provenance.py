"""What a result says of how it came about, and when an earlier result is the one asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError
from .embedding import Outcome, SetAside
from .results import Result, read_results
from .tasks import Task, load_suites
from .versions import library_versions

MODEL_KEYS = {"checkpoint": "checkpoint", "model_config": "model", "precision": "precision",
              "preprocessing": "preparation of images", "corruption": "corruption",
              "probe": "probe"}  # fmt: skip
"""What all results of one file share, with the word for it."""
EMBEDDING_KEYS = ("model", "model_config", "checkpoint", "precision", "image_size",
                  "preprocessing", "corruption")  # fmt: skip
"""What embeddings have in common with the results of their model."""
_TASK_KEYS = ("data", "task_version")


def model_provenance(
    identity: dict[str, Any], corruption: str | None, probe: str | None = None
) -> dict[str, Any]:
    """Return what the results of one model have in common, measured in one way.

    ``preprocessing`` is there where the checkpoint or its configuration tells how images are to be
    prepared.
    """
    more = {
        "preprocessing": identity.get("preprocessing"), "corruption": corruption, "probe": probe
    }  # fmt: skip
    return {
        "model": identity["model"],
        "model_config": identity["config"],
        "checkpoint": identity["weights_sha256"],
        "precision": identity["precision"],
        "image_size": identity["image_size"],
        **{key: value for key, value in more.items() if value is not None},
    }


def task_provenance(task: Task, data_digest: str, model: dict[str, Any]) -> dict[str, Any]:
    """Return what the result of a task records beside its numbers."""
    return {
        "suite": task.suite,
        "suite_version": load_suites()[task.suite].version,
        "task_version": task.version,
        "data": data_digest,
        **model,
        "versions": library_versions(),
    }


def as_result(task: Task, outcome: Outcome, aside: SetAside, provenance: dict[str, Any]) -> Result:
    """Put together what a family measured and how it came about."""
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


def is_same(earlier: dict[str, Any], now: dict[str, Any]) -> bool:
    """Tell whether an earlier result was computed from the same as is asked for now."""
    return all(earlier.get(key) == now.get(key) for key in (*MODEL_KEYS, *_TASK_KEYS))


def results_of(output: Path, model: dict[str, Any]) -> dict[str, Result]:
    """Return the results ``output`` holds; refuse to mix them with another model's."""
    if not output.exists():
        return {}
    results = read_results(output)
    for result in results.values():
        absent = "none" if "checkpoint" in result.provenance else "unknown"
        for key, what in MODEL_KEYS.items():
            if result.provenance.get(key) != model.get(key):
                raise DataError(
                    f"{output}: {result.key} was evaluated with another {what} "
                    f"({str(result.provenance.get(key, absent))[:16]}, "
                    f"now {str(model.get(key, 'none'))[:16]}); choose another file with --output"
                )
    return results
