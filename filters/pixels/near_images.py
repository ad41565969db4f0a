"""Keep one of several images that look the same.

Source: the perceptual hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions" (2010), in the form of the library ImageHash; written from its description. An image is
made grey, shrunk to 32 by 32 pixels and transformed (DCT-II); of the 64 lowest frequencies each
gives a bit: whether it is above their median. Images whose hashes differ in few bits are joined,
and so are whole chains of them; of each group the smallest uid stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ...errors import DataError
from ...pools.images import decode
from ...pools.uids import UID_DTYPE, UidArray
from ...progress import Progress
from ..chains import VERTEX, Chains
from ..contract import Batch, Decision, Filter, Scorer, View
from ..groups import Groups
from ..sets import Samples, SpreadScorer, Values
from ..together import Place, Records, Together, as_one, received, send
from ..vectors import draw

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE, _LOW = 32, 8
_FREQUENCIES = np.cos(
    np.pi * np.arange(_LOW)[:, None] * (2 * np.arange(_SIDE)[None, :] + 1) / (2 * _SIDE)
)
_ROWS = 2048

_Hashes = NDArray[np.uint64]


class NearImages(Filter):
    """Keep one image of those whose perceptual hashes differ in few bits.

    Small changes of size, compression and brightness leave the hash as it is, or nearly so.
    """

    set_level = True
    not_reported = (
        "the paper trains nothing; DataComp's appendix K removes near duplicates by features, "
        "which at medium leaves 29.6M with .227 and .295"
    )

    distance: int = Field(4, ge=0, le=7, description="bits of 64 in which copies may differ")

    def scorers(self) -> list[Scorer]:
        """Hash the images and find the groups."""
        return [NearImageScorer(self.distance)]

    def decide(self, view: View) -> list[Decision]:
        """Keep the first of each group."""
        first = view.score(NearImageScorer(self.distance))
        return [Decision("no_score", f"{first} IS NOT NULL"), Decision("near_duplicate", first)]


class PerceptualHash(Scorer):
    """Writes the perceptual hash of an image, 64 bits, row by row from the highest bit."""

    name = "perceptual_hash"
    type = "UBIGINT"
    images = True
    concurrent = True

    def identity(self) -> dict[str, Any]:
        """Name the form of the hash."""
        return {"hash": "dct", "side": _SIDE, "bits": _LOW * _LOW}

    def score(self, batch: Batch) -> pa.Array:
        """Return one hash per image; None where it cannot be decoded."""
        values: list[int | None] = []
        for data in batch.images:
            try:
                values.append(perceptual_hash(decode(data)))
            except DataError:
                values.append(None)
        return pa.array(values, pa.uint64())


def perceptual_hash(image: Image) -> int:
    """Return the hash of an image as an integer of 64 bits."""
    from PIL.Image import Resampling

    small = image.convert("L").resize((_SIDE, _SIDE), Resampling.LANCZOS)
    pixels = np.asarray(small, np.float64)
    low = _FREQUENCIES @ pixels @ _FREQUENCIES.T
    # Rounded, so that what is zero but for rounding is the same on every machine.
    low = np.round(low, 6)
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")


class NearImageScorer(SpreadScorer):
    """Tells whether an image is the first of those that look like it."""

    name = "first_of_near_images"
    type = "BOOLEAN"
    scores = (PerceptualHash(),)

    def __init__(self, distance: int) -> None:
        self._distance = distance

    def identity(self) -> dict[str, Any]:
        """Name the distance."""
        return {"distance": self._distance}

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is the first; the batches come in the order of the uids."""
        uids, hashes = _hashed(samples)
        if len(uids):
            yield uids, first_of_each(hashes, self._distance)

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield who is the first of a partition's samples."""
        joint = NearPairs(self.digest(), self._distance)
        uids, hashes = _hashed(samples)
        _, here = np.unique(hashes, return_index=True)  # in the order of the uids
        first = np.zeros(len(uids), bool)
        first[here] = True
        together.ask(joint, lambda: joint.share(together.place, uids[first], hashes[first]))
        if len(uids):
            yield uids, first & ~np.isin(uids, joint.not_first(together.place))


def _hashed(samples: Samples) -> tuple[UidArray, _Hashes]:
    """Return the uids (n,), ascending, of those that have a hash, and the hashes (n,)."""
    found, hashes = [np.empty(0, UID_DTYPE)], [np.empty(0, np.uint64)]
    for uids, batch in samples.batches():
        column = batch.columns[PerceptualHash.name].combine_chunks()
        known = column.is_valid().to_numpy(zero_copy_only=False)
        found.append(uids[known])
        hashes.append(column.drop_null().to_numpy().astype(np.uint64))
    return np.concatenate(found), np.concatenate(hashes)


_HASHED = np.dtype([("cut", "u1"), ("hash", "<u8"), ("f0", "<u8"), ("f1", "<u8")])


@dataclass(frozen=True)
class NearPairs(Chains):
    """The hashes that differ in few bits; a way has those of some stretches of bits."""

    what: str
    distance: int

    def share(self, place: Place, uids: UidArray, hashes: _Hashes) -> None:
        """Send each hash (n,) to where those go that have the same bits in a stretch."""
        stretches_ = stretches(self.distance)
        ways = np.empty((len(stretches_), len(hashes)), np.int64)
        for number, stretch in enumerate(stretches_):
            kinds = np.zeros(len(hashes), UID_DTYPE)
            kinds["f0"], kinds["f1"] = number, bits_of(hashes, stretch)
            ways[number] = (draw(kinds, 0) % np.uint64(place.count)).astype(np.int64)

        def records(places: NDArray[np.int64]) -> Records:
            some = np.empty(len(places), _HASHED)
            some["cut"], at = np.divmod(places, len(hashes))
            some["hash"], some["f0"], some["f1"] = hashes[at], uids["f0"][at], uids["f1"][at]
            return some

        send(place.file(self), ways.reshape(-1), place.count, _HASHED, records)

    def pairs(self, folder: Path, count: int, way: int) -> tuple[Records, Groups]:
        """Join equal hashes, and those that are near."""
        numbers, every = as_one(received(folder, "sent", count, way), _HASHED)
        vertices = np.empty(len(every), VERTEX)
        vertices["f0"], vertices["f1"] = every["f0"], every["f1"]
        vertices["part"] = numbers
        groups = Groups(len(every))
        for number, stretch in enumerate(stretches(self.distance)):
            here = np.flatnonzero(every["cut"] == number)
            hashes, first, like = np.unique(
                every["hash"][here], return_index=True, return_inverse=True
            )
            groups.join(here[first[like.reshape(-1)]], here)
            if self.distance:
                inner = Groups(len(hashes))
                _join_near(inner, hashes, bits_of(hashes, stretch), self.distance)
                groups.join(here[first[inner.roots()]], here[first])
        return vertices, groups


def stretches(distance: int) -> list[tuple[int, int]]:
    """Return stretches of the bits of a hash, from where to where.

    Of two hashes that differ in so many bits, one of as many stretches and one more is equal.
    """
    cuts = np.linspace(0, 64, distance + 2).round().astype(int)
    return list(itertools.pairwise(cuts.tolist()))


def bits_of(hashes: _Hashes, stretch: tuple[int, int]) -> _Hashes:
    """Return the bits of a stretch of hashes (n,)."""
    low, high = stretch
    return (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)


def first_of_each(hashes: _Hashes, distance: int) -> NDArray[np.bool_]:
    """Tell which hashes are the first of a group that ``distance`` bits join, shape (n,)."""
    unique, first = np.unique(hashes, return_index=True)
    by_place = np.argsort(first)
    unique, first = unique[by_place], first[by_place]
    groups = Groups(len(unique))
    parts = stretches(distance) if distance else []
    with Progress("comparing images", len(parts), "stretches") as progress:
        for stretch in parts:
            _join_near(groups, unique, bits_of(unique, stretch), distance)
            progress.advance()
    kept = np.zeros(len(hashes), bool)
    kept[first[groups.first()]] = True
    return kept


def _join_near(groups: Groups, hashes: _Hashes, part: _Hashes, distance: int) -> None:
    """Join the near ones of those hashes that are equal in a part."""
    order = np.argsort(part, kind="stable")
    ordered = part[order]
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for same in np.split(order, cuts):
        for start in range(0, len(same), _ROWS):
            rows = same[start : start + _ROWS]
            for other in range(start, len(same), _ROWS):
                columns = same[other : other + _ROWS]
                apart = np.bitwise_count(hashes[rows][:, None] ^ hashes[columns][None, :])
                a, b = np.nonzero(apart <= distance)
                groups.join(rows[a], columns[b])
