"""The rules about results: right task, right metric, in range, and numbers that fit each other.

A forged score must be forged in many places at once: a share of n images is a whole number of
them, its interval follows from it, the standard error and the interval of all others follow from
their replicates, and every average follows from the scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..metrics import LEVEL, wilson
from ..results import MAX_LINE_BYTES, Result, group_names, group_score, read_results
from ..tasks import Suite, Task, load_tasks
from .record import TrainedRun, private_matter

Complaint = tuple[str, str]
"""Where, and what is wrong."""

EXACT = 1e-9
"""Averages are recomputed from the same numbers."""
ROUNDED = 2e-6
"""Replicates are stored as float32."""

_SHARES = ("acc1", "acc5")


def read_lines(file: Path, name: str, suite: Suite) -> tuple[dict[str, Result], list[Complaint]]:
    """Return the results of a submission's file, one for each task, and what is wrong with them."""
    complaints: list[Complaint] = []
    results = read_results(file)
    count = 0
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), 1):
            if not line.endswith(b"\n"):
                complaints.append((f"{name}: line {number}", "is cut off"))
                continue
            count += bool(line.strip())
            private = private_matter(line.decode("utf-8", "replace"))
            if private:
                complaints.append((f"{name}: line {number}", f"holds {private}"))
    tasks = load_tasks()
    for key in results:
        task = tasks.get(key)
        if task is None or task.suite != suite.name:
            complaints.append((f"{name}: {key[:80]}", f"is no task of suite {suite.name}"))
    if count > len(results):
        complaints.append((name, f"{count} lines for {len(results)} tasks: one stands there twice"))
    missing = [key for key in suite.groups["Average"] if key not in results]
    complaints += [(f"{name}: {key}", "is missing") for key in missing]
    own = {key: results[key] for key in results if key in tasks}
    return {k: r for k, r in own.items() if tasks[k].suite == suite.name}, complaints


def metrics(name: str, results: Mapping[str, Result]) -> Iterator[Complaint]:
    """Yield results with a wrong name, a wrong main metric, or a metric out of its range."""
    for key, result in results.items():
        task, where = load_tasks()[key], f"{name}: {key}"
        if result.dataset != task.name:
            yield where, f"is named {result.dataset[:80]!r}, expected {task.name!r}"
        if "main_metric" not in result.metrics:
            yield where, "has no main_metric"
        elif task.main_metric is None:
            if result.value is not None:
                yield where, "has a main_metric, but the task has none"
        elif result.value is None:
            yield where, f"has no value of its main metric, {task.main_metric}"
        elif task.main_metric not in result.metrics:
            yield where, f"lacks the metric {task.main_metric}"
        elif result.metrics[task.main_metric] != result.value:
            yield (
                where,
                (
                    f"main_metric is {result.value!r}, but {task.main_metric} is "
                    f"{result.metrics[task.main_metric]!r}"
                ),
            )
        for metric, value in result.metrics.items():
            counts = metric.startswith("count_")
            if value is None or (counts and value >= 0 and value == int(value)):
                continue
            if counts or not 0 <= value <= 1:
                yield where, f"metric {metric[:80]!r} is {value!r}, outside its range"
        yield from _shares(where, task, result)


def _shares(where: str, task: Task, result: Result) -> Iterator[Complaint]:
    """Yield shares of n images that are not a whole number of images."""
    n = result.provenance.get("n")
    if task.family not in ("classification", "wilds", "fairness") or not isinstance(n, int):
        return
    for metric in _SHARES:
        value = result.metrics.get(metric)
        if value is not None and abs(value * n - round(value * n)) > 1e-4:
            yield where, f"{metric} is {value!r}, which is no share of {n:,} images"


def provenance(name: str, run: TrainedRun, results: Mapping[str, Result], suite: Suite,
               ) -> Iterator[Complaint]:  # fmt: skip
    """Yield results of another suite, task version or checkpoint, or of too few test images."""
    for key, result in results.items():
        task, where, found = load_tasks()[key], f"{name}: {key}", result.provenance
        for field, expected in (
            ("suite", suite.name), ("suite_version", suite.version),
            ("task_version", task.version), ("checkpoint", run.checkpoint_sha256),
        ):  # fmt: skip
            if found.get(field) != expected:
                yield where, f"{field} is {str(found.get(field))[:80]!r}, expected {expected!r}"
        if "probe" in found:
            yield where, "was measured with a probe, not zero-shot"
        n, aside = found.get("n"), found.get("set_aside")
        if type(n) is not int or type(aside) is not int or aside < 0 or n + aside != task.size:
            yield (
                where,
                f"measured {n!r} images and set {aside!r} aside; the task has {task.size:,}",
            )
        elif aside > task.size // 100:
            yield where, f"set {aside:,} of {task.size:,} images aside, more than 1 %"
        if not isinstance(found.get("data"), str) or len(found["data"]) != 64:
            yield where, "does not say on which data it was measured (digest)"


def uncertainty(name: str, results: Mapping[str, Result]) -> Iterator[Complaint]:
    """Yield intervals and standard errors that do not follow from what they are computed of."""
    drawn = {key: r for key, r in results.items() if r.value is not None}
    known = {key: r.replicates for key, r in drawn.items()}
    for key in drawn:
        if known[key] is None:
            yield f"{name}: {key}", "has no replicates, so its uncertainty cannot be replayed"
    keys = [key for key in drawn if known[key] is not None]
    if not keys:
        return
    matrix = np.stack([r for r in known.values() if r is not None])
    ends = np.quantile(matrix, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    spreads = matrix.std(axis=1, ddof=1)
    for place, key in enumerate(keys):
        result, where = drawn[key], f"{name}: {key}"
        error, given = result.standard_error, result.interval
        value = result.value or 0.0
        if error is None or given is None or not math.isfinite(error):
            yield where, "has no interval or no standard error"
            continue
        n = result.provenance.get("n")
        method = result.uncertainty.get("method")
        if method == "wilson" and load_tasks()[key].main_metric == "acc1" and type(n) is int and n:
            expected = wilson(round(value * n), n)
            low, high, spread = *expected.interval, expected.standard_error
        elif method == "bootstrap":
            low, high, spread = float(ends[0, place]), float(ends[1, place]), float(spreads[place])
        else:
            yield where, f"uncertainty by {str(method)[:40]!r} is not known for this metric"
            continue
        for what, found, right in (
            ("lower end", given[0], low), ("upper end", given[1], high),
            ("standard error", error, spread),
        ):  # fmt: skip
            if abs(found - right) > ROUNDED:
                yield where, f"{what} is {found:.6f}, recomputed {right:.6f}"
        # A worst group's or a macro mean's replicates lie beside it, but not this far.
        if abs(float(matrix[place].mean()) - value) > 5 * max(spread, float(spreads[place])) + 1e-3:
            yield (
                where,
                (f"is {value:.4f}, but its replicates lie around {matrix[place].mean():.4f}"),
            )


def averages(
    name: str, run: TrainedRun, results: Mapping[str, Result], suite: Suite
) -> Iterator[Complaint]:
    """Yield averages that do not follow from the results."""
    groups = group_names(suite)
    results = {key: replace(result, uncertainty={}) for key, result in results.items()}
    for group in run.aggregates:
        if group not in groups:
            yield name, f"suite {suite.name} has no average {group[:80]!r}"
    for group in groups:
        try:
            right = group_score(results, suite, group, partial=True)
        except DataError as error:
            yield name, str(error)
            continue
        found = run.aggregates.get(group)
        if right.value is None or right.missing:
            continue  # told as missing tasks
        if found is None:
            yield name, f"the record lacks {group!r}"
        elif not abs(found - right.value) <= EXACT:
            yield name, f"{group!r} is given as {found!r}, recomputed {right.value!r}"
