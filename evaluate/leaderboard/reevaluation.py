"""Evaluate a submission's checkpoints again, and compare what comes out with what was submitted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError
from ...pools.clip_model import ModelSpec
from ..results import Result
from ..scales import SCALES, model_config_path
from ..tasks import load_tasks, select_tasks
from .check import Refusal, Report
from .make import suite_of

TOLERANCE = 0.005
"""How far a task evaluated again may be off: another device rounds differently."""


def reevaluate(
    folder: Path | str, report: Report, data: Path | str, tasks: Sequence[str], **options: Any
) -> None:
    """Evaluate tasks of an accepted submission again and add what differs to its report.

    ``tasks`` are patterns of keys, ``options`` those of :func:`datacomp.evaluate.harness.evaluate`.
    Raises UsageError for a submission without its checkpoints.
    """
    from ..harness import evaluate

    record = report.record
    if record is None or not report.accepted:
        raise UsageError(f"{folder}: is refused already; nothing is evaluated again")
    if any(run.checkpoint is None for run in record.runs):
        raise UsageError(f"{folder}: holds no checkpoint; ask for it with 'submit --checkpoint'")
    scale = SCALES[record.scale_name]
    chosen = select_tasks(tasks, suite_of(scale.name).name)
    for run, submitted in zip(record.runs, report.results, strict=True):
        spec = ModelSpec(scale.model, Path(folder) / str(run.checkpoint), model_config_path(scale))
        try:
            with tempfile.TemporaryDirectory() as scratch:
                found = evaluate(spec, data, chosen, Path(scratch) / "results.jsonl", **options)
        except DataError as error:
            reason = str(error).replace(f"{folder}/", "")
            report.refused.append(Refusal("reevaluation", str(run.checkpoint), reason))
            continue
        for key, reason in found.failed.items():
            report.refused.append(Refusal("reevaluation", key, reason))
        for result in found.results:
            _compare(report, run.results, submitted.get(result.key), result)
    if report.accepted:
        report.passed.append("reevaluation")


def _compare(report: Report, name: str, before: Result | None, now: Result) -> None:
    if before is None or before.value is None or now.value is None:
        return
    where = f"{name}: {now.key}"
    if before.provenance.get("data") != now.provenance.get("data"):
        report.refused.append(
            Refusal("reevaluation", where, "was measured on other test data than those here")
        )
    report.reevaluated[where] = (before.value, now.value)
    allowed = max(TOLERANCE, 2 / load_tasks()[now.key].size)
    if abs(before.value - now.value) > allowed:
        report.refused.append(
            Refusal(
                "reevaluation", where,
                f"is {now.value:.4f} when evaluated again, submitted {before.value:.4f}",
            )
        )  # fmt: skip
