"""Keep English captions that name a thing of ImageNet-21k.

Source: DataComp's baseline *text-based* (arXiv 2304.14108); written from the paper and from the
selection semantics of its tools. Of each word of a caption, split at white space, WordNet's
first sense is looked up; the caption stays if one of these is a class of ImageNet-21k.

The exact form keeps two oddities of DataComp's tools: a word is taken as it stands, so ``dog,``
is unknown; and synsets are compared by their number alone, so that of a verb can pass for that
of a noun. The sane form takes punctuation off both ends of a word and asks for a noun.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..errors import DataError, UnsafeInputError
from .assets import asset_field, digest_of, given_assets, locate
from .contract import Batch, Decision, Filter, Scorer, View
from .language import EMBEDDED, HAS_CAPTION, LanguageScorer, is_language
from .published import Published
from .wordnet import WordNet

_SYNSET = re.compile(r"n(\d{8})")
_MAX_BYTES = 64 << 20
_REMEMBERED = 1_000_000
"""How many words' answers are kept."""

_EDGES = re.compile(r"^[^\w]+|[^\w]+$")


class TextBased(Filter):
    """Keep English captions with a word whose first WordNet sense is a class of ImageNet-21k.

    Subsets are DataComp's to the byte with its language model (asset fasttext_lid).
    """

    published = (
        Published("ImageNet-21k", "small", 0.046, 0.157, "3.2M"),
        Published("ImageNet-21k", "medium", 0.255, 0.307, "31M"),
        Published("ImageNet-21k", "large", 0.561, 0.476, "317M",
                  note="Table 27; Table 3 has the average .466"),
        Published("ImageNet-1k", "small", 0.009, 0.096),
        Published("ImageNet-1k", "medium", 0.099, 0.166),
    )  # fmt: skip

    wordnet: str | None = asset_field("wordnet")
    imagenet21k_synsets: str | None = asset_field("imagenet21k_synsets")
    language: str = Field("en", description="language code the caption must have")
    model: str = asset_field("fasttext_lid", EMBEDDED)
    exact: bool = Field(True, description="as DataComp's tools do; false is the sane form")

    def files(self) -> dict[str, str]:
        """Name the assets that were given."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Look the words up, and identify the language."""
        return [self._words(), LanguageScorer(self.model)]

    def before_scoring(self, view: View) -> list[Decision]:
        """Ask for a caption."""
        return [HAS_CAPTION]

    def decide(self, view: View) -> list[Decision]:
        """Ask for a thing in English."""
        return [
            HAS_CAPTION,
            Decision("names_nothing", view.score(self._words())),
            is_language(view, LanguageScorer(self.model), self.language),
        ]

    def _words(self) -> SynsetScorer:
        synsets = Synsets(
            locate("text_based", "wordnet", self.wordnet),
            locate("text_based", "imagenet21k_synsets", self.imagenet21k_synsets),
            self.exact,
        )
        return SynsetScorer(synsets)


class Synsets:
    """Finds the listed synset that a word means in its first sense."""

    def __init__(self, wordnet: Path, synsets: Path, exact: bool) -> None:
        self._wordnet, self._synsets, self._exact = wordnet, synsets, exact
        self._known: dict[str, int] = {}

    def identity(self) -> dict[str, Any]:
        """Name both lists by digest, and the form of the rule."""
        return {
            "wordnet": _load_wordnet(self._wordnet).digest,
            "synsets": digest_of("imagenet21k_synsets", self._synsets),
            "exact": self._exact,
        }

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers of all synsets of the list, ascending."""
        return np.array(sorted(_load_synsets(self._synsets)), np.int64)

    def of(self, word: str) -> int:
        """Return the number of the synset, 0 where it is none of the list."""
        found = self._known.get(word)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[word] = self._look_up(word)
        return found

    def _look_up(self, word: str) -> int:
        sense = _load_wordnet(self._wordnet).first(word if self._exact else _EDGES.sub("", word))
        if sense is None or not (self._exact or sense[0] == "noun"):
            return 0
        return sense[1] if sense[1] in _load_synsets(self._synsets) else 0


class SynsetScorer(Scorer):
    """Tells of each caption whether a word of it means, in its first sense, a listed synset."""

    name = "names_synset"
    type = "BOOLEAN"
    columns = ("text",)
    batch_size = 8192

    def __init__(self, synsets: Synsets) -> None:
        self._synsets = synsets

    def identity(self) -> dict[str, Any]:
        """Name both lists by digest, and the form of the rule."""
        return self._synsets.identity()

    def score(self, batch: Batch) -> Sequence[bool | None]:
        """Return whether a listed thing is named; None where there is no caption."""
        texts = batch.columns["text"].to_pylist()
        of = self._synsets.of
        return [None if text is None else any(map(of, text.split())) for text in texts]


@functools.lru_cache(maxsize=1)
def _load_wordnet(folder: Path) -> WordNet:
    return WordNet(folder)


@functools.lru_cache(maxsize=1)
def _load_synsets(path: Path) -> frozenset[int]:
    if path.stat().st_size > _MAX_BYTES:
        raise UnsafeInputError(f"{path}: larger than any list of synsets; not read")
    found = set()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        match = _SYNSET.fullmatch(line.strip().decode("ascii", "replace"))
        if match is None:
            raise DataError(f"{path}:{number}: not a noun's synset, such as n02084071")
        found.add(int(match[1]))
    return frozenset(found)
