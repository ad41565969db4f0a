"""Draw samples by a score, each time less likely than the last.

Source: Shechter and Carmon, "Filter Like You Test: Data-Driven Data Filtering for CLIP Pretraining"
(arXiv 2503.08805), *soft cap sampling*; written from the paper. Batch after batch is drawn without
repetition, with probabilities that are the softmax of the scores; what was drawn has its score
lowered by a penalty, so that it may come again, but less likely. Each sample is to be seen as often
as it was drawn.

Scores are natural logarithms of probabilities, up to a constant, as FLYT's are. A batch is drawn by
adding Gumbel noise to the scores and taking the highest, which gives the same law.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...errors import DataError
from ...pools.uids import UID_DTYPE, UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..published import Published
from ..sets import Samples, SetScorer, Values
from ..vectors import uniform

_BATCHES = 1280
"""In how many batches the paper draws as many samples as the pool has."""


class SoftCap(Filter):
    """Draw samples with probabilities that follow a score, and fall with each repetition.

    The subset names a sample as often as it was drawn. The score is any column of the pool.
    """

    set_level = True
    published = (Published("M-FLYT's scores", "medium", 0.401, 0.377, source="arXiv 2503.08805"),)

    column: str = Field(..., description="score column: logarithms of probabilities")
    size: int | None = Field(
        None, ge=1, le=1 << 34, description="how many draws (default: as many as samples)"
    )
    penalty: float = Field(0.15, ge=0, description="by how much a draw lowers the score")
    batch: int | None = Field(
        None, ge=1, description="draws at a time (default: a 1280th of all draws)"
    )
    seed: int = Field(0, description="another seed draws other samples")

    def scorers(self) -> list[Scorer]:
        """Draw."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Ask for a score; who was never drawn is dropped by its weight."""
        score = view.require(self.column)
        return [Decision("no_score", f"isfinite({score}::DOUBLE)")]

    def weight(self, view: View) -> str:
        """Return how often each was drawn."""
        return view.score(self._scorer())

    def _scorer(self) -> SoftCapScorer:
        return SoftCapScorer(self.column, self.size, self.penalty, self.batch, self.seed)


class SoftCapScorer(SetScorer):
    """Tells how often a sample is drawn."""

    name = "soft_cap_draws"
    type = "UINTEGER"

    def __init__(
        self, column: str, size: int | None, penalty: float, batch: int | None, seed: int
    ) -> None:
        self.columns = (column,)
        self._size, self._penalty, self._batch, self._seed = size, penalty, batch, seed

    def identity(self) -> dict[str, Any]:
        """Name the column, and how draws are made."""
        return {
            "column": self.columns[0],
            "size": self._size,
            "penalty": self._penalty,
            "batch": self._batch,
            "seed": self._seed,
        }

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; samples without a finite score are left out."""
        found, numbers = [np.empty(0, UID_DTYPE)], [np.empty(0)]
        for uids, batch in samples.batches():
            column = batch.columns[self.columns[0]]
            try:
                values = column.cast("double").fill_null(np.nan).to_numpy()
            except (ValueError, TypeError, NotImplementedError):
                raise DataError(
                    f"soft_cap: the column {self.columns[0]} holds no numbers"
                ) from None
            known = np.isfinite(values)
            found.append(uids[known])
            numbers.append(values[known])
        uids, scores = np.concatenate(found), np.concatenate(numbers)
        if len(uids):
            yield uids, self._draw(uids, scores)

    def _draw(self, uids: UidArray, scores: NDArray[np.float64]) -> NDArray[np.uint32]:
        left = self._size or len(uids)
        batch = min(self._batch or max(1, left // _BATCHES), len(uids))
        drawn = np.zeros(len(uids), np.uint32)
        with Progress("drawing samples", left, "draws") as progress:
            number = 0
            while left:
                size = min(batch, left)
                keys = scores - self._penalty * drawn + _gumbel(uids, self._seed, number)
                drawn[_largest(keys, size)] += 1
                left, number = left - size, number + 1
                progress.advance(size)
        return drawn


def _gumbel(uids: UidArray, seed: int, number: int) -> NDArray[np.float64]:
    """Return Gumbel noise for each uid, shape (n,)."""
    # Half a step away from 0 and 1, whose logarithms are infinite.
    return -np.log(-np.log(uniform(uids, seed, number) + 2.0**-54))


def _largest(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the places of the largest keys."""
    return np.argpartition(-keys, count - 1)[:count]
