"""Keep the captions with rare words.

Source: Liang and Larson, "Enhancing Vision-Language Model Pre-training with Image-text Pair Pruning
Based on Word Frequency" (arXiv 2410.10879), *WFPP*; written from the paper. A word of frequency f
is discarded with probability P = 1 - sqrt(t / f), as when training word embeddings; the score of a
caption of n words is (1 - prod P) / n, and the highest stay. The first 30 words count, which are
those a text encoder sees; words met fewer than five times, or less often than t, count as P = 1.

Words are cut as CLIP's tokenizer cuts them: lower case, letters together, digits one by one, other
marks together, and endings such as 's by themselves. The authors' code agrees to the last digits
but for text that the tokenizer repairs first (HTML entities, curly quotes, broken encodings), which
is taken as it is here.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...durable import storage_errors
from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..language import HAS_CAPTION
from ..published import Published
from ..ranking import highest
from ..sets import Samples, SpreadScorer, Values
from ..together import Exchange, Records, Sum, Together, as_one, save, send

_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")
_LEAST, _SEEN = 5, 30
_MAX_WORDS = 5_000_000
"""How many different words are held at a time."""
_PARTS = 64
"""In how many parts more of them are on the disk."""


class Wfpp(Filter):
    """Keep the captions whose words are rare, weighed by their number.

    A fraction is of the captions with a word in them. The paper trains on what stays and then for
    one epoch on everything.
    """

    set_level = True
    published = (
        Published("50 % of CC12M, ViT-B/16", "CC12M", 0.298, None, "4.65M",
                  source="arXiv 2410.10879",
                  note="with all 9.3M: .348; after the epoch on all: .313"),
        Published("80 % of CC12M, ViT-B/16", "CC12M", 0.343, None, "7.44M",
                  source="arXiv 2410.10879", note="after the epoch on all: .350"),
        Published("90 % of CC12M, ViT-B/16", "CC12M", 0.349, None, "8.37M",
                  source="arXiv 2410.10879", note="after the epoch on all: .355"),
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


class WordFrequencyScorer(SpreadScorer):
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
        with WordCounts() as counts:
            _count(samples, counts)
            found = np.concatenate([np.empty(0, COUNTED), *map(frequent, counts.parts())])
        yield from self._scores(samples, Discard(found, int(found["n"].sum()), self._t))

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the scores of a partition's captions; words are counted over all partitions."""
        place, joint = together.place, FrequentWords(self.digest())

        def share() -> None:
            with WordCounts() as counts:
                _count(samples, counts)
                every = np.concatenate([np.empty(0, COUNTED), *counts.parts()])
            ways = (every["k0"] % np.uint64(place.count)).astype(np.int64)
            send(place.file(joint), ways, place.count, COUNTED, lambda places: every[places])

        together.ask(joint, share)
        found = np.concatenate([np.empty(0, _FREQUENT), *joint.answers(place)])
        total = Sum("frequent words", self.digest())
        own = np.array([found["own"].sum()], np.int64)
        name = together.ask(total, lambda: save(place.file(total), own))
        (words_,) = np.load(total.total(place, name), allow_pickle=False).tolist()
        yield from self._scores(samples, Discard(found, words_, self._t))

    def _scores(self, samples: Samples, discard: Discard) -> Iterator[tuple[UidArray, Values]]:
        for uids, batch in samples.batches():
            texts = batch.columns["text"].to_pylist()
            known = discard.of({word for text in texts for word in words(text)[:_SEEN]})
            yield uids, [score(text, known) for text in texts]


def _count(samples: Samples, counts: WordCounts) -> None:
    with Progress("counting words", samples.count) as progress:
        for uids, batch in samples.batches():
            counts.add(batch.columns["text"].to_pylist())
            progress.advance(len(uids))


# -- counts ----------------------------------------------------------------------------------

COUNTED = np.dtype([("k0", "<u8"), ("k1", "<u8"), ("n", "<i8")])
"""A word, by 128 bits of its BLAKE2b, and how often it is met."""
_FREQUENT = np.dtype([*COUNTED.descr, ("own", "<i8")])


class WordCounts:
    """Counts words; what is too many to hold goes to the disk, in parts by the words' digests."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._files: list[IO[bytes]] = []
        self._place = tempfile.gettempdir()

    def add(self, texts: Sequence[str]) -> None:
        """Count the words of some captions."""
        for text in texts:
            self._counts.update(words(text))
        if len(self._counts) > _MAX_WORDS:
            self._spill()

    def parts(self) -> Iterator[Records]:
        """Yield the words and how often each is met, (n,), in some parts; no word is in two."""
        if not self._files:
            yield _added(counted(self._counts))
            return
        self._spill()
        for file in self._files:
            file.seek(0)
            yield _added(np.frombuffer(file.read(), COUNTED))

    def _spill(self) -> None:
        with storage_errors(self._place):
            if not self._files:
                self._files = [tempfile.TemporaryFile() for _ in range(_PARTS)]  # noqa: SIM115
            records = counted(self._counts)
            self._counts = Counter()
            for number, file in enumerate(self._files):
                file.write(records[records["k1"] % np.uint64(_PARTS) == number].tobytes())

    def __enter__(self) -> WordCounts:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for file in self._files:
            file.close()


def counted(counts: Mapping[str, int]) -> Records:
    """Return words and their counts as records (n,)."""
    found = np.empty(len(counts), COUNTED)
    keys = digests(counts)
    found["k0"], found["k1"] = keys[:, 0], keys[:, 1]
    found["n"] = np.fromiter(counts.values(), np.int64, len(counts))
    return found


def digests(some: Iterable[str]) -> NDArray[np.uint64]:
    """Return 128 bits of the BLAKE2b of each word, shape (n, 2)."""
    raw = b"".join(
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for word in some
    )
    return np.frombuffer(raw, "<u8").reshape(-1, 2)


def _added(records: Records) -> Records:
    """Add up the counts of the same words; they come in order."""
    records = records[np.lexsort((records["k1"], records["k0"]))]
    new = np.ones(len(records), bool)
    new[1:] = (records["k0"][1:] != records["k0"][:-1]) | (records["k1"][1:] != records["k1"][:-1])
    starts = np.flatnonzero(new)
    found = records[starts]
    if len(starts):
        found["n"] = np.add.reduceat(records["n"], starts)
    return found


def frequent(records: Records) -> Records:
    """Return those words (n,) that are met often enough to be discarded at all."""
    return records[records["n"] >= _LEAST]


@dataclass(frozen=True)
class FrequentWords(Exchange):
    """Adds up the counts of words; those that are frequent go back to all that have them."""

    what: str

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return each partition's frequent words, with how often all meet them, and itself."""
        number, every = as_one(got, COUNTED)
        order = np.lexsort((every["k1"], every["k0"]))
        number, every = number[order], every[order]
        sums = _added(every)
        new = np.ones(len(every), bool)
        for name in ("k0", "k1"):
            new[1:] &= every[name][1:] == every[name][:-1]
        new[1:] = ~new[1:]
        found = np.empty(len(every), _FREQUENT)
        found["k0"], found["k1"], found["own"] = every["k0"], every["k1"], every["n"]
        found["n"] = sums["n"][np.cumsum(new) - 1] if len(every) else 0
        chosen = found["n"] >= _LEAST
        return number[chosen], found[chosen]


class Discard:
    """With which probability words are discarded; of ``total`` words that are frequent."""

    def __init__(self, counts: Records, total: int, t: float) -> None:
        chances = 1 - np.sqrt(t * total / counts["n"])
        some = chances >= 0  # of all others it is 1
        order = np.lexsort((counts["k1"][some], counts["k0"][some]))
        self._k0, self._k1 = counts["k0"][some][order], counts["k1"][some][order]
        self._chances = chances[some][order]

    def of(self, some: Iterable[str]) -> dict[str, float]:
        """Return P of those words that are frequent."""
        asked = list(some)
        if not asked or not len(self._k0):
            return {}
        keys = digests(asked)
        at = np.searchsorted(self._k0, keys[:, 0])
        found: dict[str, float] = {}
        while True:
            inside = np.flatnonzero(at < len(self._k0))
            inside = inside[self._k0[at[inside]] == keys[inside, 0]]
            if not len(inside):
                return found
            same = inside[self._k1[at[inside]] == keys[inside, 1]]
            found.update((asked[n], float(self._chances[at[n]])) for n in same.tolist())
            at = at + 1  # two words may share the first half, if hardly ever


def words(text: str) -> list[str]:
    """Return the words of a caption, as CLIP's tokenizer cuts them."""
    return _WORD.findall(text.lower())


def score(text: str, discard: Mapping[str, float]) -> float | None:
    """Return (1 - prod P) / n over the first words of a caption; None without a word."""
    first = words(text)[:_SEEN]
    if not first:
        return None
    product = 1.0
    for word in first:
        product *= discard.get(word, 1.0)
    return (1 - product) / len(first)
