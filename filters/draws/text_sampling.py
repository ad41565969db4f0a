"""Draw samples so that rare things in captions are seen more often than they are met.

Source: DataComp's *text-based sampling* (arXiv 2304.14108, appendix P), written from a summary of
it. Of a thing that N captions name, each has the worth N to the power alpha - 1; a caption is drawn
with a probability that grows as the average, or the largest, worth of the things it names, with
repetition. With alpha = 1 all captions that name a thing are alike, with 0 all things are, however
rare. A sample drawn more than 100 times drops out. Where the summary leaves a choice, it is this
tool's: things are the classes of ImageNet-21k, as for `text_based` with `exact=false`; a caption
that names none is never drawn; as many samples are drawn as name one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UID_DTYPE, UidArray
from ..assets import asset_field, given_assets, locate
from ..contract import Decision, Filter, Scorer, View
from ..language import HAS_CAPTION
from ..published import Published
from ..sets import Samples, SetScorer, Values
from ..text_based import Synsets
from ..vectors import uniform

_DRAWS = 1 << 20


class TextSampling(Filter):
    """Draw samples with repetition, those that name rare things more often.

    The subset names a sample as often as it was drawn.
    """

    set_level = True
    published = (
        Published("at most, of samplings by text and by image", "small", 0.040, 0.155),
        Published("at most, of samplings by text and by image", "medium", 0.269, 0.295),
    )

    alpha: float = Field(
        0.5, ge=0, le=2, description="1 takes captions as they are, 0 favours the rare"
    )
    over: Literal["average", "largest"] = Field(
        "average", description="which worth of several things a caption has: average or largest"
    )
    size: int | None = Field(
        None, ge=1, le=1 << 34, description="how many draws (default: as many as name a thing)"
    )
    most: int = Field(100, ge=1, description="what is drawn more often drops out")
    seed: int = Field(0, ge=0, lt=1 << 31, description="another seed draws other samples")
    wordnet: str | None = asset_field("wordnet")
    imagenet21k_synsets: str | None = asset_field("imagenet21k_synsets")

    def files(self) -> dict[str, str]:
        """Name the assets that were given."""
        return given_assets(self)

    def scorers(self) -> list[Scorer]:
        """Draw."""
        return [self._scorer()]

    def before_scoring(self, view: View) -> list[Decision]:
        """Ask for a caption."""
        return [HAS_CAPTION]

    def decide(self, view: View) -> list[Decision]:
        """Drop what names nothing or was drawn too often; who was never drawn goes as well."""
        drawn = view.score(self._scorer())
        return [
            HAS_CAPTION,
            Decision("names_nothing", f"{drawn} IS NOT NULL"),
            Decision("drawn_too_often", f"{drawn} <= {self.most}"),
        ]

    def weight(self, view: View) -> str:
        """Return how often each was drawn."""
        return view.score(self._scorer())

    def _scorer(self) -> TextSamplingScorer:
        synsets = Synsets(
            locate("text_sampling", "wordnet", self.wordnet),
            locate("text_sampling", "imagenet21k_synsets", self.imagenet21k_synsets),
            exact=False,
        )
        return TextSamplingScorer(synsets, self.alpha, self.over, self.size, self.seed)


class TextSamplingScorer(SetScorer):
    """Tells how often a sample is drawn."""

    name = "text_draws"
    type = "UINTEGER"
    columns = ("text",)
    batch_size = 8192

    def __init__(
        self, synsets: Synsets, alpha: float, over: str, size: int | None, seed: int
    ) -> None:
        self._synsets = synsets
        self._alpha, self._over, self._size, self._seed = alpha, over, size, seed

    def identity(self) -> dict[str, Any]:
        """Name both lists by digest, and how draws are made."""
        return {
            **self._synsets.identity(),
            "alpha": self._alpha,
            "over": self._over,
            "size": self._size,
            "seed": self._seed,
        }

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; captions that name nothing are left out."""
        found, named, counts = [np.empty(0, UID_DTYPE)], array("q"), array("q")
        for uids, batch in samples.batches():
            chosen = []
            for place, text in enumerate(batch.columns["text"].to_pylist()):
                # In order, so that sums are the same in every process.
                things = sorted(set(map(self._synsets.of, (text or "").split())) - {0})
                if things:
                    chosen.append(place)
                    counts.append(len(things))
                    named.extend(things)
            found.append(uids[chosen])
        uids = np.concatenate(found)
        if not len(uids):
            return
        worth = worths(
            np.frombuffer(named, np.int64),
            np.frombuffer(counts, np.int64),
            self._alpha,
            self._over == "largest",
        )
        yield uids, drawn(worth, self._size or len(uids), self._seed)


def worths(
    named: NDArray[np.int64], counts: NDArray[np.int64], alpha: float, largest: bool
) -> NDArray[np.float64]:
    """Return the worth of each caption, (n,).

    ``named`` (m,) are the things that captions name, caption after caption, ``counts`` (n,) how
    many each of them names, at least one.
    """
    _, kind, often = np.unique(named, return_inverse=True, return_counts=True)
    powers = (often.astype(np.float64) ** (alpha - 1))[kind]
    firsts = np.cumsum(counts) - counts
    if largest:
        return np.maximum.reduceat(powers, firsts)
    return np.add.reduceat(powers, firsts) / counts


def drawn(worth: NDArray[np.float64], size: int, seed: int) -> NDArray[np.uint32]:
    """Return how often each of some samples, in the order of their uids, is drawn in ``size``."""
    reached = np.cumsum(worth)
    found = np.zeros(len(worth), np.uint32)
    for start in range(0, size, _DRAWS):
        numbers = np.zeros(min(_DRAWS, size - start), UID_DTYPE)
        numbers["f1"] = np.arange(start, start + len(numbers))
        places = np.searchsorted(reached, uniform(numbers, seed, 6) * reached[-1], "right")
        places = np.minimum(places, len(worth) - 1)
        found += np.bincount(places, minlength=len(worth)).astype(np.uint32)
    return found
