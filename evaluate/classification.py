"""Zero-shot classification: the class whose texts lie nearest to the image."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from . import metrics
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet

LOGIT_SCALE = np.float32(100.0)


def evaluate_classification(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return acc1, acc5 (None below five classes) and mean_per_class_recall of a task."""
    classifier = embedder.classifier(evalset.classnames, evalset.templates)
    labels: list[int] = []
    ranks: list[np.ndarray] = []
    predictions: list[np.ndarray] = []
    for samples, embedded in embedder.images(evalset, aside):
        logits = LOGIT_SCALE * (embedded @ classifier)
        right = np.array([sample.label for sample in samples])
        labels.extend(right)
        ranks.append(metrics.ranks(logits, right))
        predictions.append(logits.argmax(axis=1))
    if not labels:
        raise DataError(f"{evalset.path}: not one usable sample ({aside.count} set aside)")
    return summarise(
        np.array(labels),
        np.concatenate(predictions),
        np.concatenate(ranks),
        classes=len(evalset.classnames),
        main_metric=evalset.task.main_metric,
    )


def summarise(
    labels: np.ndarray, predictions: np.ndarray, ranks: np.ndarray, classes: int, main_metric: str
) -> Outcome:
    """Turn per-sample labels, predictions and ranks, each (n,), into metrics."""
    values: dict[str, float | None] = {
        "acc1": metrics.recall_at(ranks, 1),
        "acc5": metrics.recall_at(ranks, 5) if classes >= 5 else None,
        "mean_per_class_recall": metrics.mean_per_class_recall(labels, predictions),
    }
    if main_metric == "acc1":
        uncertainty = metrics.wilson(int((ranks < 1).sum()), len(ranks))
    else:
        uncertainty = metrics.mean_per_class_recall_uncertainty(labels, predictions)
    return Outcome(values, uncertainty, len(labels))
