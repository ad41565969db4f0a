"""What an encoder's features are worth: k nearest neighbours and a linear probe.

Both work on a task's own images and labels, without its class names. DataComp's evaluation
sets have no training part, so neighbours are found among the other images (leave one out) and
the probe is fitted by cross-validation: every image is predicted by a model that has not seen
it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from ...errors import DataError
from ...pools.parallel import default_workers, map_threads
from ...progress import Progress
from .. import fairness, wilds
from ..classification import Classified, classified
from ..embedding import Embedder, Outcome, SetAside
from ..evalsets import EvalSet

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""k and temperature as in Wu et al. 2018 and DINO (Caron et al. 2021)."""
FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse regularisation strengths the probe chooses from."""
BLOCK = 1 << 26
"""Similarities held at once."""
SHARED = 1 << 27
"""Products of numbers in one step of a fit from which on fits side by side are faster."""

Model = Callable[[np.ndarray], np.ndarray]


def evaluate_knn(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return the task's metrics, those of its groups too, of the leave-one-out k-NN vote."""
    features, labels, metadata = _features(evalset, embedder, aside)
    scores = knn_votes(features, labels, len(evalset.classnames))
    return _outcome(evalset, classified(scores, labels, metadata))


def evaluate_linear(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return the task's metrics, those of its groups too, of a cross-validated regression."""
    features, labels, metadata = _features(evalset, embedder, aside)
    scores = linear_scores(features, labels, len(evalset.classnames))
    return _outcome(evalset, classified(scores, labels, metadata))


PROBES = {"knn": evaluate_knn, "linear": evaluate_linear}
"""The probes by name."""
PROBED = ("classification", "wilds", "fairness")
"""The families whose samples have one class label, which is what a probe needs."""


def knn_votes(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return each sample's votes, float32 (n, classes), of its nearest other samples.

    ``features`` are float32 (n, d) of length one, ``labels`` int (n,). A neighbour of cosine
    similarity s votes with exp(s / 0.07).
    """
    n = len(labels)
    k = min(NEIGHBOURS, n - 1)
    votes = np.zeros((n, classes), np.float32)
    rows = max(1, BLOCK // n)
    for first in range(0, n, rows):
        block = np.arange(first, min(first + rows, n))
        similarity = features[block] @ features.T
        similarity[np.arange(len(block)), block] = -np.inf
        near = np.argpartition(similarity, n - k, axis=1)[:, n - k :]
        weight = np.exp(np.take_along_axis(similarity, near, axis=1) / TEMPERATURE)
        np.add.at(votes, (block[:, None], labels[near]), weight)
    return votes


def linear_scores(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return each sample's logits, float32 (n, classes), from the fold that left it out.

    Features are standardised and the regularisation is chosen on a fifth of each fold's training
    part. A class too rare for a fold to learn gets the lowest score there. The scores are the same
    on any number of processors.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, train_test_split
    from threadpoolctl import threadpool_limits

    scores = np.full((len(labels), classes), -np.inf, np.float32)
    folds = list(KFold(min(FOLDS, len(labels)), shuffle=True, random_state=0).split(features))
    learned = [train for train, _ in folds if len(np.unique(labels[train])) > 1]
    parts = [train_test_split(train, test_size=0.2, random_state=0) for train in learned]
    tries = [
        (np.asarray(part), np.asarray(check), strength)
        for part, check in parts
        for strength in STRENGTHS
    ]
    # Each fit on one thread: sums of several depend on their number, and where products are small
    # threads that share one wait for each other longer than it takes, 40 times. Where they are
    # not, several fits go side by side.
    small = features.size * classes < SHARED
    threads = 1 if small else min(default_workers(), len(STRENGTHS))
    with (
        threadpool_limits(1),
        warnings.catch_warnings(),
        Progress("fitting probes", len(folds), "folds") as progress,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)

        def hit(one: tuple[np.ndarray, np.ndarray, float]) -> int:
            return _hits(features, labels, *one)

        hits = list(map_threads(hit, tries, threads))

        def fit(number: int) -> tuple[Model, np.ndarray]:
            of_fold = hits[number * len(STRENGTHS) :][: len(STRENGTHS)]
            best = STRENGTHS[int(np.argmax(of_fold))]
            return _logistic(features, labels, learned[number], best)

        fitted = map_threads(fit, range(len(learned)), threads)
        for train, test in folds:
            if len(np.unique(labels[train])) < 2:
                scores[test, labels[train][0]] = 0.0
                continue
            model, known = next(fitted)
            scores[np.ix_(test, known)] = model(features[test])
            progress.advance()
    return scores


def _hits(
    features: np.ndarray, labels: np.ndarray, fit: np.ndarray, check: np.ndarray, strength: float
) -> int:
    if len(np.unique(labels[fit])) < 2:
        return 0
    model, known = _logistic(features, labels, fit, strength)
    return int((known[model(features[check]).argmax(axis=1)] == labels[check]).sum())


def _logistic(
    features: np.ndarray, labels: np.ndarray, fit: np.ndarray, strength: float
) -> tuple[Model, np.ndarray]:
    """Fit on some rows; return a function features -> logits (n, known), and classes it knows."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    own = features[fit]
    mean = own.mean(axis=0)
    scale = np.maximum(own.std(axis=0), 1e-6)
    own -= mean
    own /= scale
    model = LogisticRegression(C=strength, max_iter=1000)
    with threadpool_limits(1, "openmp"):  # which counts for each thread apart
        model.fit(own, labels[fit])

    def logits(rows: np.ndarray) -> np.ndarray:
        values = model.decision_function((rows - mean) / scale)
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values

    return logits, model.classes_


def _features(
    evalset: EvalSet, embedder: Embedder, aside: SetAside
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, d), labels (n,) and metadata (n, fields) of a task's samples."""
    parts: list[np.ndarray] = []
    labels: list[int] = []
    metadata: list[tuple[float, ...]] = []
    for samples, embedded in embedder.images(evalset, aside):
        parts.append(embedded)
        labels.extend(sample.label for sample in samples)
        metadata.extend(sample.metadata for sample in samples)
    if len(labels) < 2:
        raise DataError(f"{evalset.path}: {len(labels)} usable samples, a probe needs two")
    return np.concatenate(parts), np.array(labels), np.array(metadata, np.float64)


def _outcome(evalset: EvalSet, found: Classified) -> Outcome:
    task = evalset.task
    if task.family == "wilds":
        return wilds.summarise(found, task)
    if task.family == "fairness":
        return fairness.summarise(found, task)
    return found.outcome(task.main_metric, task.seed)
