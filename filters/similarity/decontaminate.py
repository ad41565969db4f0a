"""Drop samples whose image is one of an evaluation set, or nearly so.

Source: DataComp (arXiv 2304.14108, appendix F), which compares descriptors made for copy detection
(Yokoo, "Contrastive Learning with Large Memory Bank and Negative Embedding Subtraction for Accurate
Copy Detection", arXiv 2112.04323) and drops an image from a cosine of 0.604169 with any image of
an evaluation set; there precision is 0.9 and recall 0.8. Written from the paper. Images can also
be told by the digest of their bytes.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ...errors import DataError, MissingError, UnsafeInputError
from ..assets import asset_field, given_assets, locate
from ..contract import Decision, Filter, Scorer, View, sql_number, sql_text
from ..ranking import NO_FEATURES
from .targets import LargestSimilarity

_SHA256 = re.compile(rb"[0-9a-f]{64}")
_MAX_BYTES = 128 << 20


class Decontaminate(Filter):
    """Drop images that are, or nearly are, images of the evaluation sets.

    Give the evaluation sets' features, or the digests of their files, or both.
    """

    not_reported = "CommonPool was freed of evaluation images, 2.8 % of it, before it was published"

    evaluation_features: str | None = asset_field("evaluation_features", optional=True)
    features: str = Field("dedup", description="features to compare; dedup is CommonPool's own")
    threshold: float = Field(
        0.604169, gt=-1, le=1, description="drop from this cosine on; right for CommonPool's dedup"
    )
    sha256_file: str | None = Field(
        None, description="text file of the SHA-256 of evaluation images, one a line"
    )
    device: str = Field("auto", description="where to compare: auto, cpu, cuda")

    @model_validator(mode="after")
    def _compares_something(self) -> Self:
        if self.evaluation_features is None and self.sha256_file is None:
            raise ValueError("give evaluation_features or sha256_file: what to look for")
        return self

    def files(self) -> dict[str, str]:
        """Name the asset and the list that were given."""
        return given_assets(self) | super().files()

    def scorers(self) -> list[Scorer]:
        """Find the nearest evaluation image, if features are given."""
        return [] if self.evaluation_features is None else [self._scorer()]

    def before_scoring(self, view: View) -> list[Decision]:
        """Look the digests up."""
        if self.sha256_file is None:
            return []
        column = view.require("sha256", "it is compared with the list")
        listed = ", ".join(map(sql_text, digests(Path(self.sha256_file))))
        return [Decision("evaluation_image", f"({column} IN ({listed})) IS NOT true")]

    def decide(self, view: View) -> list[Decision]:
        """Drop what is listed, and what is too near."""
        decisions = self.before_scoring(view)
        if self.evaluation_features is not None:
            score = view.score(self._scorer())
            decisions += [
                Decision(NO_FEATURES, f"{score} IS NOT NULL"),
                Decision("near_evaluation_image", f"{score} < {sql_number(self.threshold)}::FLOAT"),
            ]
        return decisions

    def _scorer(self) -> EvaluationSimilarity:
        path = locate("decontaminate", "evaluation_features", self.evaluation_features)
        return EvaluationSimilarity(path, self.features, device=self.device)


class EvaluationSimilarity(LargestSimilarity):
    """The cosine of a sample's image and the nearest evaluation image."""

    asset = "evaluation_features"


@functools.lru_cache(maxsize=1)
def digests(path: Path) -> tuple[str, ...]:
    """Read a list of SHA-256 in lower-case hex; raises DataError for another line."""
    if not path.is_file():
        raise MissingError(f"{path}: no such list of SHA-256")
    if path.stat().st_size > _MAX_BYTES:
        raise UnsafeInputError(f"{path}: larger than any list of evaluation images; not read")
    found = set()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip() and not _SHA256.fullmatch(line.strip()):
            raise DataError(f"{path}:{number}: not a SHA-256 in 64 lower-case hex digits")
        if line.strip():
            found.add(line.strip().decode())
    if not found:
        raise DataError(f"{path}: lists no SHA-256")
    return tuple(sorted(found))
