"""Zero-shot classification: the class whose texts lie nearest to the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from . import metrics
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet
from .witness import Confusions

LOGIT_SCALE = np.float32(100.0)


@dataclass(frozen=True)
class Classified:
    """What a model said of each sample: label, first class, rank of the label; each int (n,).

    ``metadata`` is float64 (n, fields), with no columns where the task has no fields.
    """

    labels: np.ndarray
    predictions: np.ndarray
    ranks: np.ndarray
    metadata: np.ndarray
    classes: int

    def outcome(self, main_metric: str | None, seed: int) -> Outcome:
        """Return the metrics of plain classification."""
        return summarise(
            self.labels, self.predictions, self.ranks, self.classes, main_metric, seed
        )  # fmt: skip


def evaluate_classification(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return acc1, acc5 (None below five classes) and mean_per_class_recall of a task."""
    task = evalset.task
    return classify(evalset, embedder, aside).outcome(task.main_metric, task.seed)


def classify(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Classified:
    """Give every sample of a task to a class; raise DataError when none can be used."""
    classifier = embedder.classifier(evalset.classnames, evalset.templates)
    parts: list[Classified] = []
    for samples, embedded in embedder.images(evalset, aside):
        labels = np.array([sample.label for sample in samples])
        metadata = np.array([sample.metadata for sample in samples], np.float64)
        scores = logits(embedded, classifier)
        if isinstance(embedder.witness, Confusions):
            embedder.witness.classified(samples, scores / LOGIT_SCALE)
        parts.append(classified(scores, labels, metadata))
    if not parts:
        raise DataError(f"{evalset.path}: not one usable sample ({aside.count} set aside)")
    return Classified(
        *(np.concatenate([getattr(part, name) for part in parts])
          for name in ("labels", "predictions", "ranks", "metadata")),
        classes=len(evalset.classnames),
    )  # fmt: skip


def logits(embedded: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """Return the scores (n, classes) of embeddings (n, d) under a classifier (d, classes)."""
    return LOGIT_SCALE * (embedded @ classifier)


def classified(scores: np.ndarray, labels: np.ndarray, metadata: np.ndarray) -> Classified:
    """Turn scores (n, classes) into first classes and ranks."""
    return Classified(
        labels, scores.argmax(axis=1), metrics.ranks(scores, labels), metadata, scores.shape[1]
    )


def summarise(
    labels: np.ndarray,
    predictions: np.ndarray,
    ranks: np.ndarray,
    classes: int,
    main_metric: str | None,
    seed: int = 0,
) -> Outcome:
    """Turn per-sample labels, predictions and ranks, each (n,), into metrics."""
    values: dict[str, float | None] = {
        "acc1": metrics.recall_at(ranks, 1),
        "acc5": metrics.recall_at(ranks, 5) if classes >= 5 else None,
        "mean_per_class_recall": metrics.mean_per_class_recall(labels, predictions),
    }
    if main_metric == "mean_per_class_recall":
        uncertainty = metrics.mean_per_class_recall_uncertainty(labels, predictions, seed)
    else:
        uncertainty = metrics.share_uncertainty(ranks < 1, seed)
    return Outcome(values, uncertainty, len(labels))
