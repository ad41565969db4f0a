"""Drop semantic duplicates, cluster what is left anew, and drop the most typical of it.

Source: Tirumala et al., "D4: Improving LLM Pretraining via Document De-Duplication and
Diversification" (arXiv 2308.12284); written from the paper. First SemDeDup keeps a part of the
samples; their features are clustered again, since clusters of duplicates would pass for dense
concepts; then what lies nearest to the new centroids drops out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from ...pools.uids import UidArray
from ..contract import Decision, Filter, Scorer, View
from ..ranking import NO_FEATURES
from ..sets import Samples, Values
from ..spool import Spool, gathered
from ..together import Together
from .kmeans import NEEDS, assign, in_order
from .semdedup import Redundancy, redundancy
from .spread import Found, Gather, SpreadClusterScorer, centroids_of

_DUPLICATE, _PROTOTYPICAL, _KEPT = 0, 1, 2


class D4(Filter):
    """Keep what is left of SemDeDup and then of self-supervised prototypes.

    The part that stays is `dedup_fraction` times `fraction`.
    """

    set_level = True
    needs = NEEDS
    not_reported = "the paper trains language models"

    dedup_fraction: float = Field(0.75, gt=0, le=1, description="part that SemDeDup keeps")
    fraction: float = Field(0.8, gt=0, le=1, description="part of that to keep then")
    clusters: int | None = Field(
        None, ge=1, le=1 << 20, description="how many (default: the root of the number of samples)"
    )
    iterations: int = Field(20, ge=1, le=1000, description="of k-means")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed gives other clusters")
    features: str = Field("l14_img", description="features to cluster")
    device: str = Field("auto", description="where to assign clusters: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Find what becomes of each sample."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep what stays in both steps."""
        fate = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{fate} IS NOT NULL"),
            Decision("semantic_duplicate", f"{fate} > {_DUPLICATE}"),
            Decision("prototypical", f"{fate} > {_PROTOTYPICAL}"),
        ]

    def _scorer(self) -> D4Scorer:
        return D4Scorer(**self.model_dump())


class D4Scorer(SpreadClusterScorer):
    """Tells whether a sample drops out first (0), second (1) or not at all (2)."""

    name = "d4"
    type = "UTINYINT"

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield what becomes of each; samples without usable features are left out."""
        about = self._parameters
        count, seed = about["clusters"], about["seed"]
        with gathered(samples) as (uids, (spool,)):
            if not len(uids):
                return
            fate = np.full(len(uids), _DUPLICATE, np.uint8)
            groups = self.cluster(uids, spool, count)
            like = redundancy(uids, spool, groups, "hard", seed)
            left = _lowest(uids, like, about["dedup_fraction"])
            fate[left] = _PROTOTYPICAL
            if count is not None:
                count = min(count, len(left))
            with in_order(spool, left) as rest:
                again = self.cluster(uids[left], rest, count)
            kept = _lowest(uids[left], again.similarity, about["fraction"])
            fate[left[kept]] = _KEPT
            yield uids, fate

    def score_found(
        self, together: Together, gather: Gather, found: Found
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield what becomes of a partition's samples."""
        about, what = self._parameters, self.digest()
        joint = Redundancy(what, "hard", about["seed"])
        parts = [*joint.ask(together, gather, found, self._device)]
        uids = np.concatenate([part[0] for part in parts])
        like = np.concatenate([part[1] for part in parts])
        keep = max(1, int(found.total * about["dedup_fraction"]))
        unlike = together.lowest("like", uids, like, keep)
        left = np.sort(uids[unlike])

        @contextlib.contextmanager
        def gather_left() -> Iterator[tuple[UidArray, Spool]]:
            with gather() as (every, spool):
                stays = np.flatnonzero(np.isin(every, left))
                with in_order(spool, stays) as rest:
                    yield every[stays], rest

        again = centroids_of(f"{what} again", together, gather_left, about, lowered=True)
        assert again is not None
        with gather_left() as (some, spool):
            typical = assign(spool, again.centroids, self._device).similarity
        keep = max(1, int(again.total * about["fraction"]))
        kept = together.lowest("typical", some, typical, keep)
        yield uids[~unlike], np.full(int((~unlike).sum()), _DUPLICATE, np.uint8)
        yield some, np.where(kept, _KEPT, _PROTOTYPICAL).astype(np.uint8)


def _lowest(uids: UidArray, values: np.ndarray, fraction: float) -> np.ndarray:
    """Return the ascending places of the lowest values; of ties, those of the smallest uids."""
    keep = max(1, int(len(uids) * fraction))
    return np.sort(np.lexsort((uids["f1"], uids["f0"], values))[:keep])
