"""Keep the captions with rare words.

Source: Liang and Larson, "Enhancing Vision-Language Model Pre-training with Image-text Pair Pruning
Based on Word Frequency" (arXiv 2410.10879), *WFPP*; written from the paper. A word of frequency f
is discarded with probability P = 1 - sqrt(t / f), as when training word embeddings; the score of a
caption of n words is (1 - prod P) / n, and the highest stay. The first 30 words count, which are
those a text encoder sees; words met fewer than five times, or less often than t, count as P = 1.

Words are cut as CLIP's tokenizer cuts them: lower case, letters together, digits one by one, other
marks together, and endings such as 's by themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..language import HAS_CAPTION
from ..published import Published
from ..ranking import highest
from ..sets import Samples, SetScorer, Values

_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")
_LEAST, _SEEN = 5, 30
_MAX_WORDS = 5_000_000
"""How many different words are counted at a time; beyond, those met once are forgotten."""


class Wfpp(Filter):
    """Keep the captions whose words are rare, weighed by their number.

    A fraction is of the captions with a word in them. The paper trains on what stays and then for
    one epoch on everything.
    """

    set_level = True
    published = (
        Published("50 % of CC12M, ViT-B/16", "CC12M", 0.298, None, "4.65M",
                  source="arXiv 2410.10879", note="with all 9.3M: .348"),
        Published("80 % of CC12M, ViT-B/16", "CC12M", 0.343, None, "7.44M",
                  source="arXiv 2410.10879"),
        Published("90 % of CC12M, ViT-B/16", "CC12M", 0.349, None, "8.37M",
                  source="arXiv 2410.10879"),
    )  # fmt: skip

    fraction: float = Field(0.5, gt=0, le=1, description="part to keep")
    t: float = Field(1e-7, gt=0, lt=1, description="frequency below which no word is too frequent")

    def scorers(self) -> list[Scorer]:
        """Count words, and score captions by them."""
        return [WordFrequencyScorer(self.t)]

    def before_scoring(self, view: View) -> list[Decision]:
        """Ask for a caption."""
        return [HAS_CAPTION]

    def decide(self, view: View) -> list[Decision]:
        """Keep the highest."""
        score = view.score(WordFrequencyScorer(self.t))
        return [
            HAS_CAPTION,
            Decision("no_words", f"{score} IS NOT NULL"),
            Decision("frequent_words", highest(view, score, self.fraction)),
        ]


class WordFrequencyScorer(SetScorer):
    """Scores a caption by how frequent its words are among all captions; None without a word."""

    name = "word_frequency"
    type = "DOUBLE"
    columns = ("text",)

    def __init__(self, t: float) -> None:
        self._t = t

    def identity(self) -> dict[str, Any]:
        """Name t."""
        return {"t": self._t}

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Count all words, then yield each caption's score."""
        counts: Counter[str] = Counter()
        with Progress("counting words", samples.count) as progress:
            for uids, batch in samples.batches():
                for text in batch.columns["text"].to_pylist():
                    counts.update(words(text))
                if len(counts) > _MAX_WORDS:
                    counts = Counter({word: n for word, n in counts.items() if n > 1})
                progress.advance(len(uids))
        discard = discard_probabilities(counts, self._t)
        for uids, batch in samples.batches():
            yield uids, [score(text, discard) for text in batch.columns["text"].to_pylist()]


def words(text: str) -> list[str]:
    """Return the words of a caption, as CLIP's tokenizer cuts them."""
    return _WORD.findall(text.lower())


def discard_probabilities(counts: Counter[str], t: float) -> dict[str, float]:
    """Return P of every word that is frequent; of all others it is 1."""
    frequent = {word: count for word, count in counts.items() if count >= _LEAST}
    total = sum(frequent.values())
    found = {word: 1 - float(np.sqrt(t * total / n)) for word, n in frequent.items()}
    return {word: p for word, p in found.items() if p >= 0}


def score(text: str, discard: dict[str, float]) -> float | None:
    """Return (1 - prod P) / n over the first words of a caption; None without a word."""
    first = words(text)[:_SEEN]
    if not first:
        return None
    product = 1.0
    for word in first:
        product *= discard.get(word, 1.0)
    return (1 - product) / len(first)
