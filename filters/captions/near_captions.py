"""Keep one of several captions that are nearly the same.

Source: Broder, "On the resemblance and containment of documents" (1997), and the banding of
Indyk and Motwani, "Approximate Nearest Neighbors" (1998); written from the papers. The resemblance
of two captions is the Jaccard index of their sets of runs of letters. Of each set 128 random orders
give the first element; the share of orders in which two captions have the same one estimates their
resemblance. Captions that agree in all orders of some band are compared, and those that resemble
each other are joined, and so are whole chains of them; of each group the smallest uid stays.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...durable import atomic_path
from ...errors import DataError
from ...pools.uids import UID_DTYPE, UidArray, from_halves
from ...progress import Progress
from ..chains import VERTEX, Chains
from ..contract import Decision, Filter, Scorer, View
from ..groups import Groups
from ..language import HAS_CAPTION
from ..sets import Samples, SpreadScorer, Values
from ..spool import Spool
from ..together import Place, Records, Together, as_one, file_in, received, save, send
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
    not_reported = "the papers are of documents, and train nothing"

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


class NearCaptionScorer(SpreadScorer):
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

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is the first of a partition's samples."""
        joint = NearPairs(self.digest(), self._threshold)
        together.ask(joint, lambda: self._share(joint, samples, together.place))
        uids = np.load(together.place.file(joint, "uids"), allow_pickle=False)
        yield uids, ~np.isin(uids, joint.not_first(together.place))

    def _share(self, joint: NearPairs, samples: Samples, place: Place) -> None:
        """Leave uids and signatures, and send a key for each band of each of them."""
        width = band_width(self._threshold)
        bands = ORDERS // width
        keys = np.empty((bands, samples.count), np.uint64)
        found, done = [np.empty(0, UID_DTYPE)], 0
        file = place.file(joint, "signatures")
        with atomic_path(file) as partial, partial.open("wb") as signatures:
            np.lib.format.write_array_header_1_0(
                signatures,
                {"descr": "<u4", "fortran_order": False, "shape": (samples.count, ORDERS)},
            )
            for uids, batch in samples.batches():
                texts = batch.columns["text"].to_pylist()
                rows = np.stack([signature(text, self._letters) for text in texts])
                signatures.write(rows.astype("<u4").data)
                for band in range(bands):
                    part = rows[:, band * width : (band + 1) * width]
                    keys[band, done : done + len(rows)] = band_keys(part)
                found.append(uids)
                done += len(rows)
        save(place.file(joint, "uids"), np.concatenate(found))

        def records(places: NDArray[np.int64]) -> Records:
            some = np.empty(len(places), _KEY)
            some["band"], some["row"] = np.divmod(places, samples.count)
            some["key"] = keys.reshape(-1)[places]
            return some

        ways = (keys.reshape(-1) % np.uint64(place.count)).astype(np.int64)
        send(place.file(joint), ways, place.count, _KEY, records)

    def _group(self, signatures: Spool) -> Groups:
        groups = Groups(signatures.rows)
        width = band_width(self._threshold)
        bands = ORDERS // width
        with Progress("comparing captions", bands, "bands") as progress:
            for band in range(bands):
                keys = _band_keys(signatures, band * width, width)
                order = np.argsort(keys, kind="stable")
                join_alike(groups, keys[order], order, signatures.take, self._threshold)
                progress.advance()
        return groups


_KEY = np.dtype([("key", "<u8"), ("row", "<u4"), ("band", "u1")])


@dataclass(frozen=True)
class NearPairs(Chains):
    """The captions that resemble each other; a way has those of some keys, of all bands."""

    what: str
    threshold: float

    def pairs(self, folder: Path, count: int, way: int) -> tuple[Records, Groups]:
        """Compare the captions that agree in a band, each with the one before and the first."""
        numbers, every = as_one(received(folder, "sent", count, way), _KEY)
        codes = (numbers.astype(np.uint64) << np.uint64(32)) | every["row"]
        uids, signatures = _Rows(folder, "uids"), _Rows(folder, "signatures")
        bands = []
        for band in range(ORDERS // band_width(self.threshold)):
            here = every["band"] == band
            keys, code = every["key"][here], codes[here]
            order = np.argsort(keys)
            same = keys[order[1:]] == keys[order[:-1]]
            several = order[np.append(same, False) | np.append(False, same)]
            keys, code = keys[several], code[several]
            uid = uids.take(code)
            order = np.lexsort((code, uid["f1"], uid["f0"], keys))
            bands.append((keys[order], code[order]))
        found = np.unique(np.concatenate([code for _, code in bands]))
        groups = Groups(len(found))
        for keys, code in bands:
            places = np.searchsorted(found, code)
            join_alike(groups, keys, places, lambda p: signatures.take(found[p]), self.threshold)
        vertices = np.empty(len(found), VERTEX)
        uid = uids.take(found)
        vertices["f0"], vertices["f1"] = uid["f0"], uid["f1"]
        vertices["part"] = found >> np.uint64(32)
        return vertices, groups


class _Rows:
    """Rows of the files of a kind that partitions left, by number of file << 32 | row."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._open = functools.lru_cache(maxsize=1024)(self._mapped)

    def take(self, codes: NDArray[np.uint64]) -> NDArray[Any]:
        """Return the rows (n, ...) in the order asked for."""
        if not len(codes):
            return np.empty(0, UID_DTYPE)
        order = np.argsort(codes)
        numbers, rows = codes[order] >> np.uint64(32), codes[order] & np.uint64(0xFFFFFFFF)
        present, starts = np.unique(numbers, return_index=True)
        parts = [
            self._open(int(number))[rows[start:end].astype(np.int64)]
            for number, start, end in zip(present, starts, [*starts[1:], len(order)], strict=True)
        ]
        ordered = np.concatenate(parts)
        found = np.empty_like(ordered)
        found[order] = ordered
        return found

    def _mapped(self, number: int) -> NDArray[Any]:
        path = file_in(self._folder, self._kind, number)
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not what a partition left: {error}") from None


Take = Callable[[NDArray[np.int64]], NDArray[Any]]


def join_alike(
    groups: Groups, keys: NDArray[np.uint64], order: NDArray[np.int64], signatures: Take,
    threshold: float,
) -> None:  # fmt: skip
    """Join those of one key that resemble each other; ``keys`` (n,) are ascending.

    ``order`` (n,) says who has each key, of one key in the order of the uids; ``signatures``
    returns those of some, shape (m, 128).
    """
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    # Each with the one before it and with the first: not all pairs, which may be many.
    first = np.searchsorted(keys, keys[same])
    for before in (same - 1, first):
        for start in range(0, len(same), 4096):
            one, other = order[before[start : start + 4096]], order[same[start : start + 4096]]
            apart = groups.apart(one, other)
            one, other = one[apart], other[apart]
            if len(one):
                near = (signatures(one) == signatures(other)).mean(axis=1) >= threshold
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
    """Return ``band_keys`` of all signatures, shape (n,)."""
    keys = np.empty(signatures.rows, np.uint64)
    for start in range(0, signatures.rows, 4096):
        end = min(start + 4096, signatures.rows)
        keys[start:end] = band_keys(signatures.stretch(start, end)[:, first : first + width])
    return keys


def band_keys(rows: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a number for each row (n, width) that is equal where rows are equal, shape (n,)."""
    key = np.zeros(len(rows), np.uint64)
    for column in rows.astype(np.uint64).T:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key
