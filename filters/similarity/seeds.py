"""Keep samples that are neighbours of a curated seed set.

Source: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (arXiv
2304.07193), the sample-based retrieval of LVD-142M; written from the paper. For each image of a
curated set its nearest images of the pool are taken, four in the paper. There the pool is freed of
copies first, those of evaluation images among them: join `semdedup` or `near_images` and
`decontaminate` before it with `then`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from ...errors import DataError
from ...pools.uids import UidArray
from ...progress import Progress
from ..assets import asset_field, digest_of, given_assets, locate
from ..contract import Decision, Filter, Scorer, View
from ..products import products
from ..ranking import NO_FEATURES
from ..sets import Samples, SetScorer, Values
from ..spool import Spool, gathered
from ..vectors import Floats, unit
from .targets import Targets

_ROWS = 4096


class Seeds(Filter):
    """Keep the samples that are among the nearest of some image of a seed set.

    The seed set is given as the asset target_embeddings.
    """

    set_level = True

    target_embeddings: str | None = asset_field("target_embeddings")
    neighbours: int = Field(4, ge=1, le=1000, description="how many of the nearest each seed takes")
    features: str = Field("l14_img", description="image features, those of the seeds too")

    def files(self) -> dict[str, str]:
        """Name the assets that were given."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Find the neighbours."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep them."""
        rank = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{rank} IS NOT NULL"),
            Decision("no_neighbour", f"{rank} <= {self.neighbours}"),
        ]

    def _scorer(self) -> SeedScorer:
        path = locate("seeds", "target_embeddings", self.target_embeddings)
        return SeedScorer(Targets(path), path, self.features, self.neighbours)


class SeedScorer(SetScorer):
    """The lowest rank, from 1, that a sample has among the neighbours of a seed; else one more."""

    name = "seed_rank"
    type = "INTEGER"

    def __init__(self, targets: Targets, path: Any, features: str, neighbours: int) -> None:
        self.features = (features,)
        self._targets, self._path, self._neighbours = targets, path, neighbours

    def identity(self) -> dict[str, Any]:
        """Name the features, the seeds by digest, and how many neighbours they have."""
        return {
            "features": self.features[0],
            "seeds": digest_of("target_embeddings", self._path),
            "neighbours": self._neighbours,
        }

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the ranks; samples without usable features are left out."""
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            if spool.dimension != self._targets.dimension:
                raise DataError(
                    f"the pool's features {self.features[0]} have {spool.dimension} numbers each, "
                    f"but the seeds in {self._path} have {self._targets.dimension}"
                )
            by_uid = np.lexsort((uids["f1"], uids["f0"]))
            place_of = np.empty(len(uids), np.int64)
            place_of[by_uid] = np.arange(len(uids))
            best = np.full(len(uids), self._neighbours + 1, np.int32)
            with Progress("finding neighbours", unit="seeds") as progress:
                for seeds in self._targets.blocks():
                    nearest = by_uid[_nearest(seeds, spool, place_of, self._neighbours)]
                    for rank in range(nearest.shape[1]):
                        np.minimum.at(best, nearest[:, rank], rank + 1)
                    progress.advance(len(seeds))
            yield uids, best


def _nearest(seeds: Floats, spool: Spool, place_of: np.ndarray, count: int) -> np.ndarray:
    """Return the nearest rows of each seed, as places by uid, shape (seeds, count or fewer).

    The nearest comes first; of equals, that of the smallest uid.
    """
    near = np.empty((len(seeds), 0), np.float32)
    places = np.empty((len(seeds), 0), np.int64)
    for start in range(0, spool.rows, _ROWS):
        rows, _ = unit(spool.stretch(start, min(start + _ROWS, spool.rows)))
        found = products(seeds, rows)
        here = np.broadcast_to(place_of[start : start + len(rows)], found.shape)
        near = np.concatenate([near, found], axis=1)
        places = np.concatenate([places, here], axis=1)
        if near.shape[1] > count:
            # All that tie with the last stay in the running until their uids are compared.
            limit = -np.partition(-near, count - 1, axis=1)[:, count - 1 : count]
            width = int((near >= limit).sum(axis=1).max())
            some = np.argpartition(-near, width - 1, axis=1)[:, :width]
            near = np.take_along_axis(near, some, 1)
            places = np.take_along_axis(places, some, 1)
            order = np.lexsort((places, -near), axis=1)[:, :count]
            near = np.take_along_axis(near, order, 1)
            places = np.take_along_axis(places, order, 1)
    order = np.lexsort((places, -near), axis=1)[:, :count]
    return np.take_along_axis(places, order, 1)
