"""Fairness: one classification over all, scored by region or by income.

GeoDE asks whether objects are recognised alike in six regions of the world, Dollar Street
whether they are in homes of every income; an object of Dollar Street counts as recognised when
it is among the first five classes.
"""

from __future__ import annotations

from . import groups
from .classification import Classified, classify
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet
from .tasks import Task


def evaluate_fairness(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return the metrics of classification and the accuracy of every group."""
    return summarise(classify(evalset, embedder, aside), evalset.task)


def summarise(found: Classified, task: Task) -> Outcome:
    """Add the accuracy of every group, and of the worst, to the metrics of a classification."""
    metric = "acc" if task.top == 1 else f"acc_top{task.top}"
    values = dict(found.outcome("acc1", task.seed).metrics)
    hits = found.ranks < task.top
    values[f"{metric}_avg"] = float(hits.mean())
    grouping = groups.group_by(found.metadata, task.fields, task.groups)
    values.update(groups.group_metrics(metric, hits, grouping))
    values[f"{metric}_wg"] = groups.worst(hits, grouping)
    return Outcome(values, groups.worst_uncertainty(hits, grouping, task.seed), len(hits))
