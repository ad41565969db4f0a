"""What a model took for what: the confusions of a classification, and its worst mistakes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .samples import Sample

WITNESSED = ("classification", "wilds", "fairness")
"""The families that have one label a sample."""
WORST = 48
"""Mistakes remembered with their images."""


@dataclass(frozen=True, order=True)
class Mistake:
    """A sample taken for another class; ``margin`` is by how much, as a difference of cosines."""

    margin: float
    key: str
    label: int = field(compare=False)
    prediction: int = field(compare=False)
    image: bytes = field(compare=False, repr=False)


class Witness:
    """Sees the scores of every sample; remembers counts, and the worst WORST mistakes."""

    def __init__(self) -> None:
        self.confusion: Counter[tuple[int, int]] = Counter()
        """How often (label, prediction) came up."""
        self._worst: list[Mistake] = []

    @property
    def worst(self) -> list[Mistake]:
        """Return the mistakes by the largest margins, the worst first."""
        return sorted(self._worst, key=lambda mistake: (-mistake.margin, mistake.key))

    def classified(self, samples: Sequence[Sample], cosines: np.ndarray) -> None:
        """See a batch: ``cosines`` float32 (n, classes) of samples that have labels."""
        labels = np.array([sample.label for sample in samples])
        predictions = cosines.argmax(axis=1)
        rows = np.arange(len(samples))
        margins = cosines[rows, predictions] - cosines[rows, labels]
        self.confusion.update(zip(labels.tolist(), predictions.tolist(), strict=True))
        for row in np.flatnonzero(labels != predictions).tolist():
            mistake = Mistake(
                float(margins[row]), samples[row].key, int(labels[row]), int(predictions[row]),
                samples[row].image,
            )  # fmt: skip
            if len(self._worst) < WORST:
                heapq.heappush(self._worst, mistake)
            elif self._worst[0] < mistake:
                heapq.heapreplace(self._worst, mistake)
