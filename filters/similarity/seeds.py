"""Keep samples that are neighbours of a curated seed set.

Source: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (arXiv
2304.07193), the sample-based retrieval of LVD-142M; written from the paper. For each image of a
curated set its nearest images of the pool are taken, four in the paper. There the pool is freed of
copies first, those of evaluation images among them: join `semdedup` or `near_images` and
`decontaminate` before it with `then`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...errors import DataError
from ...pools.uids import UidArray
from ...progress import Progress
from ..assets import asset_field, digest_of, given_assets, locate
from ..contract import Decision, Filter, Scorer, View
from ..products import products
from ..ranking import NO_FEATURES
from ..sets import Samples, SpreadScorer, Values
from ..spool import Spool, gathered
from ..together import Exchange, Records, Together, as_one, send, uids_of
from ..vectors import Floats, unit
from .targets import Targets

_ROWS = 4096

_Ids = NDArray[np.int64]
_Wide = NDArray[np.float64]


class Seeds(Filter):
    """Keep the samples that are among the nearest of some image of a seed set.

    The seed set is given as the asset target_embeddings.
    """

    set_level = True
    not_reported = "the paper trains self-supervised models of images alone"

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


class SeedScorer(SpreadScorer):
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
            best = np.full(len(uids), self._neighbours + 1, np.int32)
            for near, places in self._near(uids, spool):
                del near
                for rank in range(places.shape[1]):
                    np.minimum.at(best, places[:, rank], rank + 1)
            yield uids, best

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the ranks of a partition's samples."""
        joint = Neighbours(self.digest(), self._neighbours)
        place = together.place

        def share() -> None:
            parts = [np.empty(0, _NEAR)]
            with gathered(samples) as (uids, (spool,)):
                first = 0
                for near, places in self._near(uids, spool) if len(uids) else ():
                    records = np.empty(places.shape, _NEAR)
                    records["seed"] = np.arange(first, first + len(places))[:, None]
                    records["near"] = near
                    records["f0"], records["f1"] = uids["f0"][places], uids["f1"][places]
                    parts.append(records.ravel())
                    first += len(places)
            every = np.concatenate(parts)
            ways = (every["seed"] % place.count).astype(np.int64)
            send(place.file(joint), ways, place.count, _NEAR, lambda some: every[some])

        together.ask(joint, share)
        found = np.concatenate([np.empty(0, _RANKED), *joint.answers(place)])
        ordered = found[np.lexsort((found["rank"], found["f1"], found["f0"]))]
        ranked = uids_of(ordered)
        first_of_uid = np.ones(len(ranked), bool)
        first_of_uid[1:] = ranked[1:] != ranked[:-1]
        ranked, ranks = ranked[first_of_uid], ordered["rank"][first_of_uid]
        # Whose features can be used has a rank, if only the one after the last.
        for uids, batch in samples.batches():
            (rows,) = batch.features.values()
            some = uids[unit(rows)[1]]
            values = np.full(len(some), self._neighbours + 1, np.int32)
            if len(ranked):
                at = np.minimum(np.searchsorted(ranked, some), len(ranked) - 1)
                there = ranked[at] == some
                values[there] = ranks[at[there]]
            yield some, values

    def _near(self, uids: UidArray, spool: Spool) -> Iterator[tuple[_Wide, _Ids]]:
        """Yield the nearest of some seeds: cosines and places in the spool, both (seeds, n)."""
        if spool.dimension != self._targets.dimension:
            raise DataError(
                f"the pool's features {self.features[0]} have {spool.dimension} numbers each, "
                f"but the seeds in {self._path} have {self._targets.dimension}"
            )
        by_uid = np.lexsort((uids["f1"], uids["f0"]))
        place_of = np.empty(len(uids), np.int64)
        place_of[by_uid] = np.arange(len(uids))
        with Progress("finding neighbours", unit="seeds") as progress:
            for seeds in self._targets.blocks():
                near, places = _nearest(seeds, spool, place_of, self._neighbours)
                yield near, by_uid[places]
                progress.advance(len(seeds))


_NEAR = np.dtype([("seed", "<u4"), ("near", "<f8"), ("f0", "<u8"), ("f1", "<u8")])
_RANKED = np.dtype([("rank", "<i4"), ("f0", "<u8"), ("f1", "<u8")])


@dataclass(frozen=True)
class Neighbours(Exchange):
    """The nearest of each seed in all partitions, of those that are so in some partition."""

    what: str
    count: int

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return the ranks of the first of each seed; of equals the smallest uid is first."""
        number, every = as_one(got, _NEAR)
        order = np.lexsort((every["f1"], every["f0"], -every["near"], every["seed"]))
        number, every = number[order], every[order]
        firsts = np.searchsorted(every["seed"], every["seed"], "left")
        rank = np.arange(len(every)) - firsts + 1
        chosen = rank <= self.count
        found = np.empty(int(chosen.sum()), _RANKED)
        found["rank"] = rank[chosen]
        found["f0"], found["f1"] = every["f0"][chosen], every["f1"][chosen]
        return number[chosen], found


def _nearest(seeds: Floats, spool: Spool, place_of: _Ids, count: int) -> tuple[_Wide, _Ids]:
    """Return the nearest rows of each seed: cosines, and places by uid; (seeds, count or fewer).

    The nearest comes first; of equals, that of the smallest uid. Those that float32 leaves in the
    running are compared in float64, each by itself: so it does not matter what else is there.
    """
    near = np.empty((len(seeds), 0))
    places = np.empty((len(seeds), 0), np.int64)
    wide = seeds.astype(np.float64)
    for start in range(0, spool.rows, _ROWS):
        rows, _ = unit(spool.stretch(start, min(start + _ROWS, spool.rows)))
        found = products(seeds, rows)
        some = np.broadcast_to(np.arange(len(rows)), found.shape)
        if len(rows) > count:
            # All that may tie with the last stay in the running until they are told apart.
            last = -np.partition(-found, count - 1, axis=1)[:, count - 1 : count]
            width = int((found >= last - 4 * rows.shape[1] * 2.0**-24).sum(axis=1).max())
            some = np.argpartition(-found, width - 1, axis=1)[:, :width]
        rows = rows.astype(np.float64)
        exact = np.empty(some.shape)
        for column in range(some.shape[1]):
            exact[:, column] = np.einsum("nd,nd->n", wide, rows[some[:, column]])
        near = np.concatenate([near, exact], axis=1)
        places = np.concatenate([places, place_of[start + some]], axis=1)
        order = np.lexsort((places, -near), axis=1)[:, :count]
        near = np.take_along_axis(near, order, 1)
        places = np.take_along_axis(places, order, 1)
    return near, places
