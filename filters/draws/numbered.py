"""Draws with repetition, by number: each lands on a group of samples, and then on one of it.

Where a draw lands follows from its number and a seed alone. A group is drawn by its worth; of its
samples, in the order of their uids, one is drawn by its weight. Weights are integers, so their sums
are the same in any order. In partitions each makes its share of the draws, by number, and those of
a group come together with its samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...pools.uids import UID_DTYPE, UidArray
from ..together import Exchange, Records, Together, as_one, send, uids_of
from ..vectors import draw, uniform

Draws = tuple[NDArray[np.int64], NDArray[np.uint64]]
"""Groups (n,) that were drawn, and 64 random bits (n,) for which sample of each."""

_AT_ONCE = 1 << 20


def draws(
    worths: NDArray[np.float64] | NDArray[np.int64], seed: int, what: int, first: int, end: int
) -> Iterator[Draws]:
    """Yield the draws of the numbers from ``first`` to before ``end``, some at a time.

    ``worths`` (k,) are those of the groups, one of them above 0; ``what`` and the number after it
    tell these draws from those of other filters (see ``vectors.draw``).
    """
    reached = np.cumsum(worths, dtype=np.float64)
    last = int(np.flatnonzero(worths)[-1])
    for start in range(first, end, _AT_ONCE):
        numbers = np.zeros(min(_AT_ONCE, end - start), UID_DTYPE)
        numbers["f1"] = np.arange(start, start + len(numbers))
        groups = np.searchsorted(reached, uniform(numbers, seed, what) * reached[-1], "right")
        yield np.minimum(groups, last), draw(numbers, seed, what + 1)


def part_of(size: int, number: int, count: int) -> tuple[int, int]:
    """Return from which draw to before which a partition of ``count`` makes its share."""
    return size * number // count, size * (number + 1) // count


class Landing:
    """Samples (n,) on which draws land: their groups, uids, and weights of at least 1."""

    def __init__(
        self, groups: NDArray[np.integer], uids: UidArray, weights: NDArray[np.int64]
    ) -> None:  # fmt: skip
        self.order = np.lexsort((uids["f1"], uids["f0"], groups))
        """The samples by group and uid."""
        self._reached = np.concatenate([[0], np.cumsum(weights[self.order])])
        most = int(groups.max(initial=-1))
        self._firsts = np.searchsorted(groups[self.order], np.arange(most + 2))

    def count(self, made: Iterable[Draws]) -> NDArray[np.uint32]:
        """Return how often each sample, in ``order``, is drawn."""
        found = np.zeros(len(self.order), np.uint32)
        for groups, bits in made:
            low, high = self._reached[self._firsts[groups]], self._reached[self._firsts[groups + 1]]
            share = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
            within = np.minimum((share * (high - low)).astype(np.int64), high - low - 1)
            places = np.searchsorted(self._reached, low + within, "right") - 1
            found += np.bincount(places, minlength=len(found)).astype(np.uint32)
        return found


_RECORD = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("group", "<i8"), ("weight", "<i8")])
"""A sample; or, where the group is -1 - group, a draw of it with bits f1."""
_COUNTED = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("drawn", "<u4")])


@dataclass(frozen=True)
class Drawn(Exchange):
    """Brings the samples of some groups together with the draws of these groups."""

    what: str

    def share(
        self, together: Together, groups: NDArray[np.integer], uids: UidArray,
        weights: NDArray[np.int64], made: Iterable[Draws],
    ) -> None:  # fmt: skip
        """Send a partition's samples (n,), and the draws that it made."""
        here = np.zeros(len(uids), _RECORD)
        here["f0"], here["f1"] = uids["f0"], uids["f1"]
        here["group"], here["weight"] = groups, weights
        parts = [here]
        for chosen, bits in made:
            some = np.zeros(len(chosen), _RECORD)
            some["group"], some["f1"] = -1 - chosen, bits
            parts.append(some)
        every, place = np.concatenate(parts), together.place
        ways = _group_of(every) % place.count
        send(place.file(self), ways, place.count, _RECORD, lambda some: every[some])

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return how often each sample is drawn."""
        numbers, every = as_one(got, _RECORD)
        here = every["group"] >= 0
        made, numbers, every = every[~here], numbers[here], every[here]
        landing = Landing(every["group"], uids_of(every), every["weight"])
        numbers, every = numbers[landing.order], every[landing.order]
        found = np.empty(len(every), _COUNTED)
        found["f0"], found["f1"] = every["f0"], every["f1"]
        found["drawn"] = landing.count([(_group_of(made), made["f1"])])
        return numbers, found

    def counted(self, together: Together) -> Iterator[tuple[UidArray, NDArray[np.uint32]]]:
        """Yield uids (n,) of a partition's samples, and how often each is drawn."""
        for records in self.answers(together.place):
            yield uids_of(records), records["drawn"]


def _group_of(records: Records) -> NDArray[np.int64]:
    return np.where(records["group"] < 0, -1 - records["group"], records["group"])
