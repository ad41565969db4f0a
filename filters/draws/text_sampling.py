"""Draw samples so that rare things in captions are seen more often than they are met.

Source: DataComp's *text-based sampling* (arXiv 2304.14108, appendix P), written from a summary of
it. Of a thing that N captions name, each has the worth N to the power alpha - 1; a caption is drawn
with a probability that grows as the average, or the largest, worth of the things it names, with
repetition. With alpha = 1 all captions that name a thing are alike, with 0 all things are, however
rare. A sample drawn more than 100 times drops out. Where the summary leaves a choice, it is this
tool's: things are the classes of ImageNet-21k, as for `text_based` with `exact=false`; a caption
that names none is never drawn; as many samples are drawn as name one. A draw is first one of
the groups of captions, by what they are worth together, then one of it: the law is the same.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...durable import atomic_path
from ...pools.uids import UID_DTYPE, UidArray
from ..assets import asset_field, given_assets, locate
from ..contract import Decision, Filter, Scorer, View
from ..language import HAS_CAPTION
from ..published import Published
from ..sets import Samples, SpreadScorer, Values
from ..text_based import Synsets
from ..together import Sum, Together, save
from ..vectors import draw
from .numbered import Drawn, Landing, Law, draws, part_of

GROUPS = 1 << 16
"""In how many groups captions are put, by their uids: as many files can share the work."""

_WHAT = 6

Named = tuple[UidArray, NDArray[np.int32], NDArray[np.int32]]
"""Uids (n,) of captions, how many things each names (n,), and which these are, end to end (m,):
their places among the numbers of all synsets."""


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


class TextSamplingScorer(SpreadScorer):
    """Tells how often a sample is drawn."""

    name = "text_draws"
    type = "UINTEGER"
    columns = ("text",)
    batch_size = 8192

    def __init__(
        self, synsets: Synsets, alpha: float, over: str, size: int | None, seed: int
    ) -> None:
        self._synsets = synsets
        self._alpha, self._over, self._size, self._law = alpha, over, size, Law(seed, _WHAT)

    def identity(self) -> dict[str, Any]:
        """Name both lists by digest, and how draws are made."""
        return {
            **self._synsets.identity(),
            "alpha": self._alpha,
            "over": self._over,
            "size": self._size,
            "seed": self._law.seed,
            "draws": "group, then caption by number in it",
        }

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws; captions that name nothing are left out."""
        parts = list(self._named(samples))
        if not parts:
            return
        uids, lengths, things = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        if not len(uids):
            return
        often = np.bincount(things, minlength=len(self._synsets.numbers()))
        weights = self._weights(lengths, things, often)
        landing = Landing(groups_of(uids), uids, weights)
        made = draws(sums_of(uids, weights), self._law, 0, self._size or len(uids))
        yield uids[landing.order], landing.count(made, self._law)

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the draws of a partition's samples; each partition makes its share of the draws."""
        place, what = together.place, self.digest()
        matches, worth, joint = Sum("things", what), Sum("worth", what), Drawn(what, self._law)
        kept = place.file(matches, "named")

        def match() -> None:
            # How many captions name each thing, and how many name one.
            often = np.zeros(len(self._synsets.numbers()) + 1, np.int64)
            with atomic_path(kept) as partial, partial.open("wb") as named:
                for uids, lengths, things in self._named(samples):
                    often[:-1] += np.bincount(things, minlength=len(often) - 1)
                    often[-1] += len(uids)
                    for array in (uids, lengths, things):
                        np.save(named, array)
            save(place.file(matches), often)

        file = matches.total(place, together.ask(matches, match))
        often = np.load(file, allow_pickle=False)
        if not often[-1]:
            return

        def weigh() -> tuple[UidArray, NDArray[np.int64]]:
            found, weights = [np.empty(0, UID_DTYPE)], [np.empty(0, np.int64)]
            for uids, lengths, things in _read(kept):
                found.append(uids)
                weights.append(self._weights(lengths, things, often[:-1]))
            return np.concatenate(found), np.concatenate(weights)

        def add() -> None:
            save(place.file(worth), sums_of(*weigh()))

        file = worth.total(place, together.ask(worth, add))

        def share() -> None:
            uids, weights = weigh()
            part = part_of(self._size or int(often[-1]), place.number, place.count)
            made = draws(np.load(file, allow_pickle=False), self._law, *part)
            joint.share(together, groups_of(uids), uids, weights, made)

        together.ask(joint, share)
        yield from joint.counted(together)

    def _named(self, samples: Samples) -> Iterator[Named]:
        """Yield what captions name; those that name nothing are left out."""
        numbers = self._synsets.numbers()
        for uids, batch in samples.batches():
            chosen, lengths, named = array("q"), array("i"), array("q")
            for place, text in enumerate(batch.columns["text"].to_pylist()):
                # In order, so that sums are the same in every process.
                things = sorted(set(map(self._synsets.of, (text or "").split())) - {0})
                if things:
                    chosen.append(place)
                    lengths.append(len(things))
                    named.extend(things)
            things = np.searchsorted(numbers, np.array(named, np.int64)).astype(np.int32)
            yield uids[np.array(chosen, np.int64)], np.array(lengths, np.int32), things

    def _weights(
        self, lengths: NDArray[np.int32], things: NDArray[np.int32], often: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the worth of each caption, (n,), in whole steps of ``step_of``."""
        found = worths(lengths, things, often, self._alpha, self._over == "largest")
        return np.maximum(np.rint(found / step_of(often, self._alpha)), 1).astype(np.int64)


def worths(
    lengths: NDArray[np.int32], things: NDArray[np.int32], often: NDArray[np.int64], alpha: float,
    largest: bool,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the worth of each caption, (n,).

    ``things`` (m,) are those that captions name, caption after caption, ``lengths`` (n,) how many
    each of them names, at least one; ``often`` (k,) how many captions name each thing there is.
    """
    if not len(lengths):
        return np.empty(0)
    powers = _powers(often, alpha - 1)[things]
    firsts = np.cumsum(lengths) - lengths
    if largest:
        return np.maximum.reduceat(powers, firsts)
    return np.add.reduceat(powers, firsts) / lengths


def step_of(often: NDArray[np.int64], alpha: float) -> float:
    """Return a power of two so small that the worths of all captions are below 2^62 of it."""
    # No caption is worth more than all things that it names.
    _, exponent = math.frexp(float(_powers(often, alpha).sum()))
    return math.ldexp(1.0, exponent - 61)


def _powers(often: NDArray[np.int64], power: float) -> NDArray[np.float64]:
    return np.where(often > 0, np.maximum(often, 1).astype(np.float64) ** power, 0.0)


def groups_of(uids: UidArray) -> NDArray[np.int64]:
    """Return which of a fixed number of groups each uid is of, (n,): all are about as large."""
    return (draw(uids, 0, _WHAT + 2) % np.uint64(GROUPS)).astype(np.int64)


def sums_of(uids: UidArray, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of the weights (n,) in each group, (GROUPS,)."""
    found = np.zeros(GROUPS, np.int64)
    np.add.at(found, groups_of(uids), weights)
    return found


def _read(path: Path) -> Iterator[Named]:
    """Yield what was kept of a partition's captions."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        while file.tell() < end:
            uids, lengths, things = (np.load(file, allow_pickle=False) for _ in range(3))
            yield uids, lengths, things
