"""Keep one of several captions that are nearly the same.

Source: Broder, "On the resemblance and containment of documents" (1997), and the banding of
Indyk and Motwani, "Approximate Nearest Neighbors" (1998); written from the papers. The resemblance
of two captions is the Jaccard index of their sets of runs of letters. Of each set 128 random orders
give the first element; the share of orders in which two captions have the same one estimates their
resemblance. Captions that agree in all orders of some band are compared, and those that resemble
each other are joined, and so are whole chains of them; of each group the smallest uid stays.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UidArray, from_halves
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..groups import Groups
from ..language import HAS_CAPTION
from ..sets import Samples, SetScorer, Values
from ..spool import Spool
from ..vectors import draw

ORDERS = 128
_BANDS = (1, 2, 4, 8, 16, 32)
_MAX_RUNS = 4096
"""How many runs of a caption are looked at: captions are short, and a stranger's may not be."""


class NearCaptions(Filter):
    """Keep one caption of those that share most runs of letters, white space and case aside.

    Resemblance is estimated, to about 0.04; pairs near the threshold may fall on either side.
    """

    set_level = True

    threshold: float = Field(
        0.8, ge=0.3, le=1, description="captions resemble each other from this Jaccard index on"
    )
    letters: int = Field(5, ge=1, le=64, description="length of the runs that are compared")

    def scorers(self) -> list[Scorer]:
        """Find the groups."""
        return [self._scorer()]

    def before_scoring(self, view: View) -> list[Decision]:
        """Ask for a caption."""
        return [HAS_CAPTION]

    def decide(self, view: View) -> list[Decision]:
        """Keep the first of each group."""
        return [HAS_CAPTION, Decision("near_duplicate", view.score(self._scorer()))]

    def _scorer(self) -> NearCaptionScorer:
        return NearCaptionScorer(self.threshold, self.letters)


class NearCaptionScorer(SetScorer):
    """Tells whether a caption is the first of those that resemble it."""

    name = "first_of_near_captions"
    type = "BOOLEAN"
    columns = ("text",)
    batch_size = 1024

    def __init__(self, threshold: float, letters: int) -> None:
        self._threshold, self._letters = threshold, letters

    def identity(self) -> dict[str, Any]:
        """Name the threshold, and how long runs are."""
        return {"threshold": self._threshold, "letters": self._letters, "orders": ORDERS}

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is the first; the batches come in the order of the uids."""
        found: list[UidArray] = []
        with Spool(samples.count, ORDERS, np.uint32) as signatures:
            with Progress("reading captions", samples.count) as progress:
                for uids, batch in samples.batches():
                    texts = batch.columns["text"].to_pylist()
                    rows = np.stack([signature(text, self._letters) for text in texts])
                    signatures.write(np.arange(len(rows)) + progress.done, rows)
                    found.append(uids)
                    progress.advance(len(rows))
            if found:
                yield np.concatenate(found), self._group(signatures).first()

    def _group(self, signatures: Spool) -> Groups:
        groups = Groups(signatures.rows)
        width = band_width(self._threshold)
        bands = ORDERS // width
        with Progress("comparing captions", bands, "bands") as progress:
            for band in range(bands):
                keys = _band_keys(signatures, band * width, width)
                order = np.argsort(keys, kind="stable")
                same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]]) + 1
                # Each with the one before it and with the first: not all pairs, which may be many.
                first = np.searchsorted(keys[order], keys[order[same]])
                self._join(groups, signatures, order[same - 1], order[same])
                self._join(groups, signatures, order[first], order[same])
                progress.advance()
        return groups

    def _join(
        self, groups: Groups, signatures: Spool, a: NDArray[np.int64], b: NDArray[np.int64]
    ) -> None:
        """Join the pairs that resemble each other, of those that agree in a band."""
        for start in range(0, len(a), 4096):
            one, other = a[start : start + 4096], b[start : start + 4096]
            apart = groups.apart(one, other)
            one, other = one[apart], other[apart]
            alike = (signatures.take(one) == signatures.take(other)).mean(axis=1)
            near = alike >= self._threshold
            groups.join(one[near], other[near])


def band_width(threshold: float) -> int:
    """Return of how many orders a band has, so that few pairs at the threshold are missed.

    A pair of resemblance s agrees in one of b bands of r orders with probability
    1 - (1 - s^r)^b; the widest band that finds 99.9 of 100 pairs at the threshold is taken.
    """
    good = [r for r in _BANDS if 1 - (1 - threshold**r) ** (ORDERS // r) >= 0.999]
    return max(good, default=1)


def signature(text: str, letters: int) -> NDArray[np.uint32]:
    """Return the first element of a caption's runs in each of 128 random orders, shape (128,)."""
    plain = " ".join(text.lower().split()).encode("utf-32-le", "surrogatepass")
    last = max(1, min(len(plain) // 4 - letters + 1, _MAX_RUNS))
    runs = {zlib.crc32(plain[4 * i : 4 * (i + letters)]) for i in range(last)}
    numbers = np.fromiter(runs, np.uint64, len(runs))
    # Dietzfelbinger's multiply-shift: products overflow on purpose, and their upper half is kept.
    shuffled = (numbers[:, None] * _FACTORS + _SUMMANDS) >> np.uint64(32)
    return shuffled.min(axis=0).astype(np.uint32)


def _orders() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return factors and summands of the orders: the same for ever."""
    numbers = from_halves(np.arange(2 * ORDERS, dtype=np.uint64), np.zeros(2 * ORDERS, np.uint64))
    found = draw(numbers, ORDERS)
    return found[:ORDERS] | np.uint64(1), found[ORDERS:]


_FACTORS, _SUMMANDS = _orders()


def _band_keys(signatures: Spool, first: int, width: int) -> NDArray[np.uint64]:
    """Return a number for each row that is equal where the rows agree in a band, shape (n,)."""
    keys = np.empty(signatures.rows, np.uint64)
    for start in range(0, signatures.rows, 4096):
        end = min(start + 4096, signatures.rows)
        part = signatures.stretch(start, end)[:, first : first + width].astype(np.uint64)
        key = np.zeros(end - start, np.uint64)
        for column in part.T:
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        keys[start:end] = key
    return keys
