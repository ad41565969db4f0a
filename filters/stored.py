"""A score that something else than a filter wrote to the pool: nothing is computed for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..errors import MissingError, RunError, suggest
from ..pools.embedding.score import SCORE, score_column, score_digest
from ..pools.feature_places import computed_names
from ..pools.pool import Pool
from .contract import Batch, Scorer

_SUFFIX = "_img"


class EmbeddedScore(Scorer):
    """The similarity of image and caption that ``pool embed`` computed with features of a name."""

    name = SCORE

    def __init__(self, features: str) -> None:
        self._features = features

    def identity(self) -> dict[str, Any]:
        """Name the features; the pool says what made them."""
        return {"features": self._features}

    def score(self, batch: Batch) -> Sequence[Any]:
        """Raise an error: there is nothing to compute."""
        raise RunError("a stored score is not computed")

    def find(self, pool: Pool) -> tuple[str, str, dict[str, Any]]:
        """Return digest, table and provenance of the score.

        Raises MissingError where the pool has no such features.
        """
        found = pool.row(
            "SELECT parameters FROM features WHERE name = ?", [self._features + _SUFFIX]
        )
        if found is None:
            known = [
                name.removesuffix(_SUFFIX)
                for name in computed_names(pool)
                if name.endswith(_SUFFIX)
            ]
            column = score_column(self._features)
            if column in pool.columns():
                raise MissingError(
                    f"{pool.path}: no features {self._features!r} were computed on it, but it has "
                    f"their score as a column: clip_score:column={column}"
                )
            raise MissingError(
                f"{pool.path}: no features {self._features!r} were computed on it"
                f"{suggest(self._features, known)}; there are: {', '.join(known) or 'none'}; "
                "'datacomp pool embed' makes some"
            )
        identity = json.loads(found[0])
        digest = score_digest(identity)
        table = pool.scalar(
            "SELECT values_table FROM scores WHERE name = ? AND digest = ?", [self.name, digest]
        )
        return digest, table, identity
