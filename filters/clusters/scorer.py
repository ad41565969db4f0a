"""What scorers share that put all samples into clusters by their features."""

from __future__ import annotations

from typing import Any

from ...pools.uids import UidArray
from ..sets import SetScorer
from ..spool import Spool
from .kmeans import Clusters, cluster


class ClusterScorer(SetScorer):
    """Looks at clusters of one kind of ``features``; all else but ``device`` is its identity."""

    def __init__(self, *, features: str, device: str = "auto", **parameters: Any) -> None:
        self.features = (features,)
        self._device, self._parameters = device, parameters

    def identity(self) -> dict[str, Any]:
        """Name the features, and all parameters."""
        return {"features": self.features[0], **self._parameters}

    def cluster(self, uids: UidArray, spool: Spool, count: int | None) -> Clusters:
        """Put samples into ``count`` clusters, the root of their number if None."""
        about = self._parameters
        return cluster(uids, spool, count, about["iterations"], about["seed"], self._device)
