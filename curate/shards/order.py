"""In which order samples stand, and how often: the same for ever, on every machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...pools.uids import UidArray

Places = NDArray[np.int64]
Order = NDArray[np.uint32]

MAX_COPIES = 1 << 20
MAX_ORDERED = 1 << 32
"""``order_samples`` numbers places by 32 bits."""
BLOCK = 1 << 18
_ROUNDING = 0x5EED0F3E16475


def order_samples(uids: UidArray, counts: Places, shuffle: int | None) -> tuple[Order, Order]:
    """Return for each output place which uid stands there and which repetition of it.

    ``counts``, shape (n,), says how often each uid is wanted. Without a seed uids stay in their
    order; repetitions are neighbours. With a seed the order is that of ``shuffle_keys``. No more
    than ``MAX_ORDERED`` places.
    """
    most = int(counts.max(initial=0))
    order = np.arange(len(counts), dtype=np.uint32)
    if most > 1 or not counts.all():
        order = np.repeat(order, counts)
    copy = _copies(order, most)
    if shuffle is None:
        return order, copy

    def hashed(rows: Order | slice) -> NDArray[np.uint64]:
        ids = uids[order[rows]]
        return shuffle_keys(ids["f0"], ids["f1"], copy[rows], shuffle)

    shuffled = _order_of(hashed, len(order))
    return order[shuffled], copy if most <= 1 else copy[shuffled]


def shuffle_keys(
    high: NDArray[np.uint64], low: NDArray[np.uint64], copy: Order, seed: int
) -> NDArray[np.uint64]:
    """Return what repetitions of uids are shuffled by, shape (n,): hashes of both and a seed.

    Unlike a random generator's stream they are the same in every version of numpy, and a
    sample's rank does not depend on what else is there.
    """
    value = mix(high ^ mix(low ^ mix(copy.astype(np.uint64))))
    return mix(value ^ mix(np.full(1, seed, np.int64).view(np.uint64)))


def _order_of(hashed: Callable[[Order | slice], NDArray[np.uint64]], count: int) -> Order:
    """Return the order of ``count`` numbers that a function gives, equals as they stand.

    Half of a number beside its place is sorted, in half the memory of numbers and places, which
    a large subset would miss. The few whose halves are equal are then compared in full.
    """
    high = np.uint64(0xFFFFFFFF << 32)
    packed = np.arange(count, dtype=np.uint64)
    for first in range(0, count, BLOCK):  # few at a time, for the same reason
        part = slice(first, first + BLOCK)
        packed[part] |= hashed(part) & high
    packed.sort()
    found = np.empty(count, np.uint32)
    same = np.zeros(count, bool)
    for first in range(0, count, BLOCK):
        part = packed[first : first + BLOCK + 1]
        found[first : first + len(part)] = part.astype(np.uint32)
        equal = part[1:] & high == part[:-1] & high
        same[first : first + len(equal)] |= equal
        same[first + 1 : first + 1 + len(equal)] |= equal
    ties = np.flatnonzero(same)
    rows = found[ties]
    found[ties] = rows[np.lexsort((rows, hashed(rows)))]
    return found


def round_weights(uids: UidArray, weights: NDArray[np.float64]) -> Places:
    """Turn weights, shape (n,), into counts whose expectation they are.

    A weight of 2.3 is 2 repetitions, and for 3 of 10 uids a third: which, a hash of the uid
    says.
    """
    whole = np.floor(weights)
    chance = mix(uids["f0"] ^ mix(uids["f1"] ^ np.uint64(_ROUNDING))) >> np.uint64(11)
    more = chance.astype(np.float64) * 2.0**-53 < weights - whole
    return whole.astype(np.int64) + more


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers (the finaliser of SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _copies(order: Order, most: int) -> Order:
    """Number the repetitions of equal neighbours: 0, 1, 2, ..."""
    if most <= 1:
        return np.broadcast_to(np.uint32(0), len(order))
    first = np.ones(len(order), bool)
    first[1:] = order[1:] != order[:-1]
    starts = np.flatnonzero(first)
    lengths = np.diff(np.append(starts, len(order)))
    return (np.arange(len(order)) - np.repeat(starts, lengths)).astype(np.uint32)
