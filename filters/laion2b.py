"""LAION-2B's selection, as DataComp repeats it on its pools.

Source: Schuhmann et al., "LAION-5B" (arXiv 2210.08402), and DataComp's baseline *LAION-2B
filtering* (arXiv 2304.14108); written from the papers and from the selection semantics of
DataComp's tools: ViT-B/32 similarity of 0.28 or more, compared in float32, and a caption that
CLD3 takes for English.

CLD3 (Apache-2.0) is Google's language model in the package gcld3 3.0.13, which has to be built:
it needs protoc and protobuf's headers. Without it the language can be left to fastText, which
selects other samples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from ..errors import MissingError
from .assets import asset_field, given_assets
from .clip_score import ClipScore
from .contract import Batch, Decision, Filter, Scorer, View
from .language import EMBEDDED, HAS_CAPTION, LanguageScorer, is_language
from .published import Published

_MAX_BYTES = 1000
"""How much of a caption CLD3 reads, in DataComp's tools."""


class Laion2b(Filter):
    """Keep English captions whose CLIP ViT-B/32 similarity is 0.28 or more, as LAION-2B did."""

    published = (
        Published("", "small", 0.031, 0.133, "1.3M"),
        Published("", "medium", 0.230, 0.292, "13M"),
        Published("", "large", 0.553, 0.501, "130M"),
        Published("", "xlarge", 0.755, 0.636, "1.3B"),
    )

    threshold: float = Field(0.28, description="lowest ViT-B/32 similarity")
    detector: Literal["cld3", "fasttext"] = Field(
        "cld3", description="cld3, as LAION and DataComp; or fasttext, which needs no build"
    )
    language: str = Field("en", description="language code the caption must have")
    model: str = asset_field("fasttext_lid", EMBEDDED)

    def files(self) -> dict[str, str]:
        """Name fastText's model, if it is not the embedded one."""
        return given_assets(self) if self.detector == "fasttext" else {}

    def scorers(self) -> list[Scorer]:
        """Identify the caption's language."""
        return [self._language()]

    def before_scoring(self, view: View) -> list[Decision]:
        """Compare the similarity."""
        clip = ClipScore(arch="b32", threshold=self.threshold)  # pyright: ignore[reportCallIssue]
        return [HAS_CAPTION, *clip.decide(view)]

    def decide(self, view: View) -> list[Decision]:
        """Compare the similarity, then the language."""
        return [*self.before_scoring(view), is_language(view, self._language(), self.language)]

    def _language(self) -> Scorer:
        return Cld3Scorer() if self.detector == "cld3" else LanguageScorer(self.model)


class Cld3Scorer(Scorer):
    """Writes the language that CLD3 takes a caption for: a code such as ``en``, or ``und``."""

    name = "language_cld3"
    type = "VARCHAR"
    columns = ("text",)
    batch_size = 8192

    def __init__(self) -> None:
        self._version = _version()

    def identity(self) -> dict[str, Any]:
        """Name the package, which holds the model."""
        return {"model": f"gcld3 {self._version}", "max_bytes": _MAX_BYTES}

    def score(self, batch: Batch) -> Sequence[str | None]:
        """Return languages; line breaks count as spaces, as in DataComp's tools."""
        detector = _load()
        texts = batch.columns["text"].to_pylist()
        return [
            None if text is None
            else detector.FindLanguage(text=text.replace("\n", " ")).language
            for text in texts
        ]  # fmt: skip


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gcld3")
    except PackageNotFoundError:
        raise MissingError(
            "laion2b needs the package gcld3: apt-get install protobuf-compiler "
            "libprotobuf-dev, then pip install gcld3; or detector=fasttext, which selects "
            "other samples"
        ) from None


@functools.cache
def _load() -> Any:
    import gcld3  # pyright: ignore[reportMissingImports]

    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=_MAX_BYTES)
