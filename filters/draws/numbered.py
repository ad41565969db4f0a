"""Draws with repetition, by number: each lands on a group of samples, and then on one of it.

On which group a draw lands follows from its number and a seed, by the worths of groups. Of the
samples of a group, in the order of their uids, one is drawn by its weight, by the seed, the group
and how many draws it had before: it matters only how many those of a group are. Weights are
integers, so their sums are the same in any order. In partitions each makes its share of the draws,
by number, and tells how many landed on each group where the group's samples come together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...pools.uids import UID_DTYPE, UidArray
from ..together import Exchange, Records, Together, as_one, send, uids_of
from ..vectors import draw, uniform

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Law:
    """What draws follow from: ``what`` and the number after it tell those of other filters apart.

    See ``vectors.draw``.
    """

    seed: int
    what: int


def draws(
    worths: NDArray[np.float64] | NDArray[np.int64], law: Law, first: int, end: int
) -> NDArray[np.int64]:
    """Return how many draws of the numbers from ``first`` to before ``end`` are of each group.

    ``worths`` (k,) are those of the groups, one of them above 0.
    """
    reached = np.cumsum(worths, dtype=np.float64)
    last = int(np.flatnonzero(worths)[-1])
    found = np.zeros(len(worths), np.int64)
    for start in range(first, end, _AT_ONCE):
        numbers = np.zeros(min(_AT_ONCE, end - start), UID_DTYPE)
        numbers["f1"] = np.arange(start, start + len(numbers))
        shares = uniform(numbers, law.seed, law.what)
        groups = np.searchsorted(reached, shares * reached[-1], "right")
        found += np.bincount(np.minimum(groups, last), minlength=len(found))
    return found


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

    def count(self, made: NDArray[np.int64], law: Law) -> NDArray[np.uint32]:
        """Return how often each sample, in ``order``, is drawn: ``made`` (k,) times their groups.

        Memory does not grow with the number of draws.
        """
        found = np.zeros(len(self.order), np.uint32)
        ends = np.cumsum(made)
        for start in range(0, int(ends[-1]) if len(ends) else 0, _AT_ONCE):
            numbers = np.arange(start, min(start + _AT_ONCE, int(ends[-1])))
            groups = np.searchsorted(ends, numbers, "right")
            which = np.zeros(len(numbers), UID_DTYPE)
            which["f0"], which["f1"] = groups, numbers - (ends - made)[groups]
            places = self.places(groups, draw(which, law.seed, law.what + 1))
            found += np.bincount(places, minlength=len(found)).astype(np.uint32)
        return found

    def places(
        self, groups: NDArray[np.int64], bits: NDArray[np.uint64]
    ) -> NDArray[np.int64]:  # fmt: skip
        """Return on which samples, in ``order``, draws of groups (n,) land by random bits (n,)."""
        low, high = self._reached[self._firsts[groups]], self._reached[self._firsts[groups + 1]]
        share = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        within = np.minimum((share * (high - low)).astype(np.int64), high - low - 1)
        return np.searchsorted(self._reached, low + within, "right") - 1


_RECORD = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("group", "<i8"), ("weight", "<i8")])
"""A sample; or, where the group is -1 - group, how many draws of it there are, as its weight."""
_COUNTED = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("drawn", "<u4")])


@dataclass(frozen=True)
class Drawn(Exchange):
    """Brings the samples of some groups together with the draws of these groups."""

    what: str
    law: Law

    def share(
        self, together: Together, groups: NDArray[np.integer], uids: UidArray,
        weights: NDArray[np.int64], made: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Send a partition's samples (n,), and how many of its draws are of each group (k,)."""
        here = np.zeros(len(uids), _RECORD)
        here["f0"], here["f1"] = uids["f0"], uids["f1"]
        here["group"], here["weight"] = groups, weights
        drawn = np.flatnonzero(made)
        there = np.zeros(len(drawn), _RECORD)
        there["group"], there["weight"] = -1 - drawn, made[drawn]
        every, place = np.concatenate([here, there]), together.place
        ways = _group_of(every) % place.count
        send(place.file(self), ways, place.count, _RECORD, lambda some: every[some])

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return how often each sample is drawn."""
        numbers, every = as_one(got, _RECORD)
        here = every["group"] >= 0
        told, numbers, every = every[~here], numbers[here], every[here]
        made = np.zeros(int(_group_of(told).max(initial=-1)) + 1, np.int64)
        np.add.at(made, _group_of(told), told["weight"])
        landing = Landing(every["group"], uids_of(every), every["weight"])
        numbers, every = numbers[landing.order], every[landing.order]
        found = np.empty(len(every), _COUNTED)
        found["f0"], found["f1"] = every["f0"], every["f1"]
        found["drawn"] = landing.count(made, self.law)
        return numbers, found

    def counted(self, together: Together) -> Iterator[tuple[UidArray, NDArray[np.uint32]]]:
        """Yield uids (n,) of a partition's samples, and how often each is drawn."""
        for records in self.answers(together.place):
            yield uids_of(records), records["drawn"]


def _group_of(records: Records) -> NDArray[np.int64]:
    return np.where(records["group"] < 0, -1 - records["group"], records["group"])
