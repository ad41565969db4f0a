"""Keep samples that vary together, where there is no target set.

Source: Wang et al., "Variance Alignment Score: A Simple But Tough-to-Beat Data Selection Method
for Multimodal Contrastive Learning" (arXiv 2402.02055), *VAS-D*; written from the paper. What is
kept is its own target set: in each of several rounds the score x' S x is computed with S, the mean
of x x' over the samples that are left, and the lowest drop out, equally many each time. The paper
applies the rule to what a CLIP score has kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..ranking import NO_FEATURES
from ..sets import Samples, SetScorer, Values
from ..spool import Spool, gathered
from ..vectors import unit
from .targets import outer, quadratic


class VasD(Filter):
    """Keep the samples that align best with what is kept, found by dropping the rest in rounds.

    In the paper it follows `clip_score:arch=l14,fraction=0.45`, joined by `then`, with fraction
    0.66.
    """

    set_level = True

    fraction: float = Field(0.3, gt=0, le=1, description="part to keep")
    rounds: int = Field(100, ge=1, le=10_000, description="in how many rounds the rest drops out")
    features: str = Field("l14_img", description="image features to compare")

    def scorers(self) -> list[Scorer]:
        """Find in which round each sample drops out."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep those that outlast all rounds."""
        lasted = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{lasted} IS NOT NULL"),
            Decision("low_alignment", f"{lasted} = {self.rounds}"),
        ]

    def _scorer(self) -> VasDScorer:
        return VasDScorer(self.features, self.fraction, self.rounds)


class VasDScorer(SetScorer):
    """Tells how many rounds a sample outlasts; all of them if it is kept."""

    name = "vas_d_rounds"
    type = "INTEGER"

    def __init__(self, features: str, fraction: float, rounds: int) -> None:
        self.features = (features,)
        self._fraction, self._rounds = fraction, rounds

    def identity(self) -> dict[str, Any]:
        """Name the features, how many stay and in how many rounds."""
        return {
            "features": self.features[0], "fraction": self._fraction, "rounds": self._rounds
        }  # fmt: skip

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the rounds; samples without usable features are left out."""
        with gathered(samples) as (uids, (spool,)):
            if len(uids):
                yield uids, self._outlasted(uids, spool)

    def _outlasted(self, uids: UidArray, spool: Spool) -> NDArray[np.int32]:
        by_uid = np.lexsort((uids["f1"], uids["f0"]))
        rank = np.empty(len(uids), np.int64)
        rank[by_uid] = np.arange(len(uids))
        left = np.arange(len(uids))
        target = max(1, int(len(uids) * self._fraction))
        step = math.ceil((len(uids) - target) / self._rounds)
        lasted = np.full(len(uids), self._rounds, np.int32)
        moments = _moments(spool, left)
        with Progress(f"scoring {self.name}", self._rounds, "rounds") as progress:
            for number in range(self._rounds):
                keep = max(target, len(left) - step)
                if keep < len(left):
                    covariance = moments / len(left)
                    parts = _stretches(spool, left)
                    scores = np.concatenate([quadratic(unit(p)[0], covariance) for p in parts])
                    order = np.lexsort((rank[left], -scores.astype(np.float32)))
                    dropped = np.sort(left[order[keep:]])
                    left = np.sort(left[order[:keep]])
                    lasted[dropped] = number
                    moments = moments - _moments(spool, dropped)
                progress.advance()
        return lasted


def _moments(spool: Spool, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of x x' over the rows x at some places."""
    total = np.zeros((spool.dimension, spool.dimension))
    for rows in _stretches(spool, places):
        total += outer(unit(rows)[0])
    return total


def _stretches(spool: Spool, places: NDArray[np.int64]) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield the rows at ascending places, some at a time."""
    for start in range(0, len(places), 4096):
        yield spool.take(places[start : start + 4096])
