"""Image-text retrieval: find an image by its caption, and a caption by its image.

An image may have several captions. Text to image counts every caption on its own; image to
text counts an image as found when any of its captions is among the first k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from . import metrics
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet
from .witness import Misses

CUTOFFS = (1, 5, 10)
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class RetrievalRanks:
    """``image`` (texts,): rank of each text's image; ``text`` (images,): of the best caption."""

    image: np.ndarray
    text: np.ndarray


def evaluate_retrieval(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return the recalls at 1, 5 and 10 both ways, and the mean of those at 1."""
    captions: list[str] = []
    owners: list[int] = []
    parts: list[np.ndarray] = []
    count = 0
    for samples, embedded in embedder.images(evalset, aside):
        for sample in samples:
            captions.extend(sample.captions)
            owners.extend([count] * len(sample.captions))
            count += 1
        parts.append(embedded)
        if isinstance(embedder.witness, Misses):
            embedder.witness.seen(samples)
    if not parts:
        raise DataError(f"{evalset.path}: not one usable sample ({aside.count} set aside)")
    owner = np.array(owners)
    images, texts = np.concatenate(parts), embedder.texts(captions)
    ranks = rank_pairs(images, texts, owner)
    if isinstance(embedder.witness, Misses):
        embedder.witness.ranked(images, texts, owner, ranks.image, ranks.text)
    return summarise(ranks, owner, evalset.task.seed)


def rank_pairs(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> RetrievalRanks:
    """Rank both ways. ``images`` (n, d), ``texts`` (m, d), ``owner`` (m,) is each text's image.

    ``owner`` is sorted and names every image at least once.
    """
    image_ranks = [
        metrics.ranks(texts[i : i + ROWS_AT_ONCE] @ images.T, owner[i : i + ROWS_AT_ONCE])
        for i in range(0, len(texts), ROWS_AT_ONCE)
    ]
    starts = np.searchsorted(owner, np.arange(len(images) + 1))
    text_ranks: list[np.ndarray] = []
    for i in range(0, len(images), ROWS_AT_ONCE):
        scores = images[i : i + ROWS_AT_ONCE] @ texts.T
        best = [
            starts[i + row] + np.argmax(scores[row, starts[i + row] : starts[i + row + 1]])
            for row in range(len(scores))
        ]
        text_ranks.append(metrics.ranks(scores, np.array(best)))
    return RetrievalRanks(np.concatenate(image_ranks), np.concatenate(text_ranks))


def summarise(ranks: RetrievalRanks, owner: np.ndarray, seed: int) -> Outcome:
    """Turn ranks into metrics; ``owner`` (m,) is each text's image."""
    values: dict[str, float | None] = {}
    for k in CUTOFFS:
        values[f"image_retrieval_recall@{k}"] = metrics.recall_at(ranks.image, k)
        values[f"text_retrieval_recall@{k}"] = metrics.recall_at(ranks.text, k)
    image_recall, text_recall = (float(np.mean(rank < 1)) for rank in (ranks.image, ranks.text))
    values["mean_recall@1"] = 0.5 * (image_recall + text_recall)
    images = len(ranks.text)
    uncertainty = metrics.mean_recall_uncertainty(
        (ranks.text < 1).astype(float),
        np.bincount(owner, (ranks.image < 1).astype(float), images),
        np.bincount(owner, minlength=images).astype(float),
        seed,
    )
    return Outcome(values, uncertainty, images)
