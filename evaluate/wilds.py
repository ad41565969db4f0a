"""WILDS: classification in the wild, scored by groups (Camelyon17, FMoW) or by class (iWildCam).

The metrics and their names are those of the ``wilds`` package, without needing it. A task names
the fields of its metadata and the fields it is grouped by; with none, precision and recall of
the classes are averaged instead.
"""

from __future__ import annotations

from . import groups, metrics
from .classification import Classified, classify
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet
from .tasks import Task


def evaluate_wilds(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return the metrics of classification and those of WILDS."""
    return summarise(classify(evalset, embedder, aside), evalset.task)


def summarise(found: Classified, task: Task) -> Outcome:
    """Add group or class averages to the metrics of a classification.

    One field to group by gives the worst group as ``acc_wg``, several give the worst of each as
    ``acc_worst_FIELD``. A field with a group for what belongs nowhere (FMoW's region "Other",
    a handful of images) also has ``acc_worst_FIELD_known``, which leaves that group out.
    """
    outcome = found.outcome(task.main_metric, task.seed)
    values = dict(outcome.metrics)
    hits = found.labels == found.predictions
    values["acc_avg"] = float(hits.mean())
    if not task.groups:
        values["recall-macro_all"] = metrics.mean_per_class_recall(found.labels, found.predictions)
        values["F1-macro_all"] = metrics.macro_f1(found.labels, found.predictions)
    uncertainty = outcome.uncertainty
    if task.main_metric == "F1-macro_all":
        uncertainty = metrics.macro_f1_uncertainty(found.labels, found.predictions, task.seed)
    for field in task.groups:
        grouping = groups.group_by(found.metadata, task.fields, [field])
        values.update(groups.group_metrics("acc", hits, grouping))
        name = "acc_wg" if len(task.groups) == 1 else f"acc_worst_{field}"
        values[name] = groups.worst(hits, grouping)
        if field in task.unknown_groups:
            values[f"{name}_known"] = groups.worst(hits, grouping, task.unknown_groups[field])
        if task.main_metric == name:
            uncertainty = groups.worst_uncertainty(hits, grouping, task.seed)
    return Outcome(values, uncertainty, outcome.n)
