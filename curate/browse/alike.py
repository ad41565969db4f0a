"""What is like a sample, an image or a text: by the pool's features, and by a model if given."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingError, UsageError, suggest
from ...pools.clip_model import ClipModel, ModelSpec
from ...pools.neighbours import Neighbours, features_of, find, names_of, vector_of
from ...pools.pool import Pool

COUNT = 48
MAX_TEXT = 1000


@dataclass(frozen=True)
class Embedder:
    """A model with its weights, and the name of the pool's features that it gives images."""

    spec: ModelSpec
    features: str
    device: str = "auto"


class Alike:
    """Answers what is like something. A model is loaded when it is first asked for."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self.embedder = embedder
        self._lock = threading.Lock()
        self._model: ClipModel | None = None

    def check(self, pool: Pool) -> None:
        """Refuse a model that cannot have made the features it is said to have made."""
        if self.embedder is None:
            return
        name = self.embedder.features
        known = names_of(pool)
        if name not in known:
            raise MissingError(
                f"{pool.path}: no features {name!r}{suggest(name, known)}; there are: "
                f"{', '.join(known) or 'none'}"
            )
        recorded = pool.sql("SELECT DISTINCT weights FROM features WHERE name = ?", [name])
        weights = {row[0] for row in recorded.fetchall()} - {None}
        found = self.embedder.spec.identity()["weights_sha256"]
        if weights and found not in weights:
            raise UsageError(
                f"features {name!r} were made by other weights than {self.embedder.spec.checkpoint}"
            )

    def to_sample(self, pool: Pool, uid: int, name: str) -> Neighbours:
        """Find what is like a sample, without itself."""
        found = find(pool, name, vector_of(features_of(pool, name), uid), COUNT + 1)
        others = (found.uids["f0"] != uid >> 64) | (found.uids["f1"] != uid & (1 << 64) - 1)
        return Neighbours(
            found.uids[others][:COUNT], found.cosines[others][:COUNT], found.compared,
            found.sketched,
        )  # fmt: skip

    def of_image(self, data: bytes) -> NDArray[np.float32]:
        """Return the feature of an image. Raises DataError for what is no image."""
        model = self._loaded()
        return model.encode_tensors([model.prepare(data)])[0]

    def of_text(self, text: str) -> NDArray[np.float32]:
        """Return the feature of a text: images that show what it says are like it."""
        if not text.strip() or len(text) > MAX_TEXT:
            raise UsageError(f"expected a text of 1 to {MAX_TEXT:,} characters")
        return self._loaded().encode_texts([text])[0]

    def to_vector(self, pool: Pool, vector: NDArray[np.floating[Any]]) -> Neighbours:
        """Find the samples whose images are like a feature that the model gave."""
        assert self.embedder is not None
        return find(pool, self.embedder.features, vector, COUNT)

    def _loaded(self) -> ClipModel:
        if self.embedder is None:
            raise UsageError("start with --checkpoint to search by images and meaning")
        with self._lock:
            if self._model is None:
                self._model = self.embedder.spec.load(self.embedder.device)
            return self._model


def embedder_of(
    model: str | None, checkpoint: Path | None, model_config: Path | None, features: str | None,
    device: str,
) -> Embedder | None:  # fmt: skip
    """Return the model that the options name, None if they name none."""
    if model is None and checkpoint is None and features is None and model_config is None:
        return None
    if model is None or checkpoint is None or features is None:
        raise UsageError("--model, --checkpoint and --features belong together")
    return Embedder(ModelSpec(model, checkpoint, model_config), features, device)
