"""Draw samples by a score, each time less likely than the last.

Source: Shechter and Carmon, "Filter Like You Test: Data-Driven Data Filtering for CLIP Pretraining"
(arXiv 2503.08805), *soft cap sampling*; written from the paper. Batch after batch is drawn without
repetition, with probabilities that are the softmax of the scores; what was drawn has its score
lowered by a penalty, so that it may come again, but less likely. Each sample is to be seen as often
as it was drawn.

Scores are natural logarithms of probabilities, up to a constant, as FLYT's are. A batch is drawn by
adding Gumbel noise to the scores and taking the highest, which gives the same law. The noise
follows from uid, seed and the number of the batch, so files of a pool in partitions make their own.
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
from ..sets import Samples, SpreadScorer, Values
from ..together import Together
from .batches import Here, Law, State, Urn, draw_batches, numbers_of, sizes_of
from .spread_batches import SpreadBatches

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


class SoftCapScorer(SpreadScorer):
    """Tells how often a sample is drawn."""

    name = "soft_cap_draws"
    type = "UINTEGER"

    def __init__(
        self, column: str, size: int | None, penalty: float, batch: int | None, seed: int
    ) -> None:
        self.columns = (column,)
        self._size, self._batch, self._law = size, batch, Law(penalty, seed)

    def identity(self) -> dict[str, Any]:
        """Name the column, and how draws are made."""
        return {
            "column": self.columns[0],
            "size": self._size,
            "penalty": self._law.penalty,
            "batch": self._batch,
            "seed": self._law.seed,
            "noise": "one step of SplitMix64",
        }

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; samples without a finite score are left out."""
        uids, scores = self._scored(samples)
        if not len(uids):
            return
        size, batch = sizes_of(len(uids), self._size, self._batch, _BATCHES)
        urn = Urn(scores, numbers_of(uids, self._law), np.zeros(len(uids), np.uint32))
        with Progress("drawing samples", size, "draws") as progress:

            def accept(state: State) -> None:
                progress.advance(size - state.left - progress.done)

            here = Here(urn, self._law)
            draw_batches(here, len(uids), batch, self._law, State(0, size), accept)
        yield uids, urn.drawn

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws of a partition's samples."""
        joint = SpreadBatches(self.digest(), self._size, self._batch, _BATCHES, self._law)
        place = together.place
        last = together.ask(joint, lambda: joint.share(place, *self._scored(samples)))
        if last >= 0:
            yield joint.counted(place, last)

    def _scored(self, samples: Samples) -> tuple[UidArray, NDArray[np.float64]]:
        """Return the samples with a finite score, both (n,)."""
        found, scores = [np.empty(0, UID_DTYPE)], [np.empty(0)]
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
            scores.append(values[known])
        return np.concatenate(found), np.concatenate(scores)
