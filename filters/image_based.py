"""Keep samples whose images lie where a target set's images lie.

Source: DataComp's baselines *image-based* and *image-based ∩ CLIP score* (arXiv 2304.14108);
written from the paper and from the selection semantics of its tools. The image features of the
pool (CLIP ViT-L/14) are clustered; a cluster is kept if its centroid is the nearest one, by
inner product, of any image of the target set (ImageNet-1k); a sample stays if its caption is
English and of a fair length and the centroid nearest to its image is kept.

The exact form has the caption rule of DataComp's tools for this baseline: two tokens as fastText
counts them, where each line break is one, and six characters. The sane form has the rule of
basic filtering, which is the one the paper states.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..durable import write_json
from ..errors import DataError, StorageError
from ..progress import Progress
from ..user_cache import user_cache
from .assets import asset_field, digest_of, given_assets, locate, parts
from .basic import CaptionLength
from .clip_score import ClipScore
from .contract import Batch, Decision, Filter, Scorer, View
from .language import EMBEDDED, HAS_CAPTION, LanguageScorer, is_language
from .matrices import read_matrix
from .nearest import Nearest, usable_device
from .published import Published

TOKENS = r"len(regexp_extract_all(text, '\n|[^ \n\r\t\x{0b}\f\x{00}]+'))"
"""How many tokens fastText's tokenizer makes of a caption."""


class ImageBased(Filter):
    """Keep English captions with an image whose cluster the target set (ImageNet-1k) reaches.

    Subsets are DataComp's to the byte with its language model (asset fasttext_lid), but for
    images as near to two centroids as float32 can tell: there DataComp's choice is its GPU's.
    """

    published = (
        Published("ImageNet-1k", "small", 0.043, 0.159, "3M"),
        Published("ImageNet-1k", "medium", 0.268, 0.312, "29M"),
        Published("ImageNet-1k", "large", 0.572, 0.481, "293M",
                  note="Table 27; Table 3 has the average .476"),
        Published("ImageNet-21k", "small", 0.035, 0.148),
        Published("ImageNet-21k", "medium", 0.238, 0.312),
    )  # fmt: skip

    use: ClassVar[str] = "image_based"

    pool_centroids: str | None = asset_field("pool_centroids")
    target_embeddings: str | None = asset_field("target_embeddings")
    features: str = Field("l14_img", description="image features that the centroids are of")
    language: str = Field("en", description="language code the caption must have")
    model: str = asset_field("fasttext_lid", EMBEDDED)
    device: str = Field("auto", description="where to compare: auto, cpu, cuda")
    exact: bool = Field(True, description="as DataComp's tools do; false is the sane form")

    def files(self) -> dict[str, str]:
        """Name the assets that were given."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Identify the caption's language, and the image's cluster."""
        return [LanguageScorer(self.model), self._cluster()]

    def before_scoring(self, view: View) -> list[Decision]:
        """Count the caption's words and characters."""
        if not self.exact:
            return CaptionLength(exact=False).decide(view)  # pyright: ignore[reportCallIssue]
        return [
            HAS_CAPTION,
            Decision("few_words", f"{TOKENS} > 1"),
            Decision("few_characters", "length(text) > 5"),
        ]

    def decide(self, view: View) -> list[Decision]:
        """Ask for a caption in the language and an image in a kept cluster."""
        cluster = self._cluster()
        kept = ", ".join(map(str, cluster.targets(self._located("target_embeddings"))))
        return [
            *self.before_scoring(view),
            is_language(view, LanguageScorer(self.model), self.language),
            Decision("no_features", f"{view.score(cluster)} IS NOT NULL"),
            Decision("far_from_targets", f"{view.score(cluster)} IN ({kept})"),
        ]

    def _cluster(self) -> ClusterScorer:
        self._located("target_embeddings")  # what is missing is told before the work
        return ClusterScorer(self._located("pool_centroids"), self.features, self.device)

    def _located(self, asset: str) -> Path:
        return locate(self.use, asset, getattr(self, asset))


class ImageBasedIntersectClipScore(ImageBased):
    """Keep what image_based keeps and clip_score keeps: the rule of DataComp-1B."""

    set_level = True
    use = "image_based_intersect_clip_score"
    published = (
        Published("L/14, 30 %", "small", 0.039, 0.144, "1.4M", note="Table 25 has .145"),
        Published("L/14, 30 %", "medium", 0.297, 0.328, "14M"),
        Published("L/14, 30 %", "large", 0.631, 0.537, "140M"),
        Published("L/14, 30 %", "xlarge", 0.792, 0.663, "1.4B"),
        Published("B/32, 30 %", "small", 0.049, 0.148),
        Published("B/32, 30 %", "medium", 0.305, 0.328),
        Published("ImageNet-21k, B/32, 30 %", "small", 0.052, 0.167),
        Published("ImageNet-21k, B/32, 30 %", "medium", 0.298, 0.336),
    )

    arch: Literal["b32", "l14"] = Field("l14", description="CommonPool's stored score")
    fraction: float | None = Field(None, gt=0, le=1, description="part to keep (default 0.3)")
    threshold: float | None = Field(None, description="keep scores at or above this instead")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fraction is not None and self.threshold is not None:
            raise ValueError("give fraction or threshold, not both")
        return self

    def before_scoring(self, view: View) -> list[Decision]:
        """Find the threshold over all candidates and compare; then look at the caption."""
        clip = ClipScore(
            arch=self.arch, fraction=self.fraction, threshold=self.threshold, exact=self.exact
        )  # pyright: ignore[reportCallIssue]
        return [*clip.decide(view), *super().before_scoring(view)]


class ClusterScorer(Scorer):
    """Writes the number of the centroid nearest to an image's features."""

    name = "cluster"
    type = "INTEGER"
    batch_size = 4096

    def __init__(self, centroids: Path, features: str, device: str) -> None:
        self._centroids, self._device = centroids, device
        self.features = (features,)

    def identity(self) -> dict[str, Any]:
        """Name the features, and the centroids by digest."""
        return {
            "features": self.features[0],
            "centroids": digest_of("pool_centroids", self._centroids),
        }

    def score(self, batch: Batch) -> Sequence[int | None]:
        """Return centroids' numbers; None for features that are not finite."""
        vectors = batch.features[self.features[0]]
        nearest = self._nearest(vectors.shape[1], f"the pool's features {self.features[0]}")
        values: list[int | None] = [None] * len(vectors)
        usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        for place, number in zip(
            usable.tolist(), nearest.of(vectors[usable]).tolist(), strict=True
        ):
            values[place] = number
        return values

    def targets(self, embeddings: Path) -> list[int]:
        """Return the numbers of the centroids that are nearest to a target embedding.

        They are remembered in the user's cache, by digest of what they follow from.
        """
        given = f"{self.identity()['centroids']}/{digest_of('target_embeddings', embeddings)}"
        name = hashlib.sha256(given.encode()).hexdigest()
        kept = user_cache() / f"targets-{name}.json"
        with contextlib.suppress(OSError, ValueError):
            return [int(number) for number in json.loads(kept.read_bytes())]
        found = self._find_targets(embeddings)
        with contextlib.suppress(OSError, StorageError):
            write_json(kept, found)
        return found

    def _find_targets(self, embeddings: Path) -> list[int]:
        matrices = [read_matrix(file) for file in parts(embeddings)]
        reached: set[int] = set()
        total = sum(map(len, matrices))
        with Progress("finding the clusters of the target set", total) as progress:
            for matrix in matrices:
                nearest = self._nearest(matrix.shape[1], f"the target embeddings in {embeddings}")
                for start in range(0, len(matrix), self.batch_size):
                    rows = matrix[start : start + self.batch_size]
                    reached.update(nearest.of(rows).tolist())
                    progress.advance(len(rows))
        return sorted(reached)

    def _nearest(self, dimension: int, what: str) -> Nearest:
        nearest = _load(self._centroids, usable_device(self._device))
        expected = nearest.centroids.shape[1]
        if dimension != expected:
            raise DataError(
                f"{what} have {dimension} numbers each, but the centroids in {self._centroids} "
                f"have {expected}: they are of other features"
            )
        return nearest


@functools.lru_cache(maxsize=1)
def _load(centroids: Path, device: str) -> Nearest:
    return Nearest(read_matrix(centroids), device)
