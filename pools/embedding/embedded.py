"""Some samples, embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..uids import UID_DTYPE, UidArray

NO_REASON = b""


@dataclass(frozen=True)
class Embedded:
    """Some samples (n,) in order; ``reasons`` (n,) says why one has no features, else is empty.

    Of the k others: ``images`` and ``texts`` (k, d), float16, each row of length one before it
    was rounded; ``scores`` (k,), float32, the cosines before rounding.
    """

    uids: UidArray
    reasons: NDArray[np.bytes_]
    images: NDArray[np.float16]
    texts: NDArray[np.float16]
    scores: NDArray[np.float32]

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which of the samples have features, (n,)."""
        return self.reasons == NO_REASON

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays that need no pickle."""
        return {
            "uids": self.uids, "reasons": self.reasons, "images": self.images,
            "texts": self.texts, "scores": self.scores,
        }  # fmt: skip

    def fits(self) -> bool:
        """Tell whether the arrays belong together."""
        used = int(self.used.sum())
        return (
            self.uids.dtype == UID_DTYPE
            and self.reasons.dtype.kind == "S"
            and self.uids.shape == self.reasons.shape
            and self.images.dtype == self.texts.dtype == np.float16
            and self.images.shape == self.texts.shape
            and self.images.ndim == 2
            and len(self.images) == used
            and self.scores.dtype == np.float32
            and self.scores.shape == (used,)
        )


def joined(parts: Sequence[Embedded]) -> Embedded:
    """Return several as one."""
    # Batches in which nothing could be used have no dimension to agree on.
    seen = [part for part in parts if len(part.scores)]
    empty = np.empty((0, 0), np.float16)
    return Embedded(
        np.concatenate([part.uids for part in parts]),
        np.concatenate([part.reasons for part in parts]),
        np.concatenate([part.images for part in seen]) if seen else empty,
        np.concatenate([part.texts for part in seen]) if seen else empty,
        np.concatenate([part.scores for part in seen]) if seen else np.empty(0, np.float32),
    )
