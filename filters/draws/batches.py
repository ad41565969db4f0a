"""Batches without repetition, each of the samples with the largest keys at that time.

A key is the score, less a penalty for each time that the sample was drawn, plus Gumbel noise. The
noise follows from uid, seed and the number of the batch; only the penalties need the batches
before. So batches are drawn in stretches. With a *limit* below all keys that are hoped to be drawn,
every file finds its *candidates*: who may reach it in a batch of the stretch, even if nothing is
drawn meanwhile. That is a comparison of integers, which nearly all samples fail. One worker then
*replays* the batches on the candidates of all, with the penalties, as long as no fewer of their
keys reach the limit than the batch is large, for then nobody else can be in it. At the first with
fewer the next stretch begins, with another limit. Where none is known the files tell some of their
keys, from which follows one that is reached.

What is drawn depends neither on limits nor on stretches or files. Of equal keys those of the
smallest random numbers go first, so samples are the same for it only if their uids have one hash
of 64 bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...pools.uids import UID_DTYPE, UidArray
from ..vectors import draw

AT_ONCE = 1 << 22
"""About how many candidates a stretch has, in all files; twice as many are replayed at most."""
BATCHES_AT_ONCE = 4
"""How many batches a stretch may have at least: each stretch is a pass over all files."""

_MOST_BATCHES = 1 << 12
_ROWS = 1 << 14
"""How many samples are looked at in one step: they stay in the processor's cache."""
_RECENT = 16
_NUMBERS, _BATCHES = 9, 10
_ALL = np.uint64(2**64 - 1)

CANDIDATE = np.dtype([("row", "<u4"), ("drawn", "<u4"), ("score", "<f8"), ("bits", "<u8")])
"""A sample that may be in a batch: its place, how often it was drawn, its random number."""


@dataclass(frozen=True)
class Law:
    """By how much a draw lowers a score, and which draws are made."""

    penalty: float
    seed: int


@dataclass
class Urn:
    """Samples: scores (n,), random numbers (n,), and how often each is drawn so far (n,)."""

    scores: NDArray[np.float64]
    numbers: NDArray[np.uint64]
    drawn: NDArray[np.uint32]


def numbers_of(uids: UidArray, law: Law) -> NDArray[np.uint64]:
    """Return the random number of each sample (n,), from which those for each batch are made."""
    return draw(uids, law.seed, _NUMBERS)


def keys_of(
    scores: NDArray[np.float64], drawn: NDArray[np.uint32], bits: NDArray[np.uint64], law: Law
) -> NDArray[np.float64]:
    """Return the keys of samples (n,) with these random bits in a batch."""
    # The smallest bits give the largest noise: so it is as fine as there are bits.
    share = np.minimum(bits * 2.0**-64 + 2.0**-65, 1 - 2.0**-53)
    with np.errstate(over="ignore"):
        return (scores - law.penalty * drawn) - np.log(-np.log1p(-share))


def steps(urn: Urn, law: Law, number: int, most: int) -> tuple[list[float], list[int]]:
    """Return at most ``most`` of the keys in a batch, descending, and how many reach each.

    The last is the smallest of all.
    """
    count = len(urn.scores)
    if not count:
        return [], []
    bits = np.empty_like(urn.numbers)
    _mix(urn.numbers, _of_batches(law, number, number + 1)[0], bits, np.empty_like(bits))
    keys = -np.sort(-keys_of(urn.scores, urn.drawn, _finish(bits), law))
    ranks = np.unique(np.geomspace(1, count, most).astype(np.int64))
    ranks[-1] = count
    return keys[ranks - 1].tolist(), ranks.tolist()


def reached_by(told: Iterable[tuple[Sequence[float], Sequence[int]]], count: int) -> float:
    """Return a key that at least ``count`` samples reach, by the steps of all files."""
    known = [(np.asarray(keys), np.diff(ranks, prepend=0)) for keys, ranks in told if keys]
    keys, gains = (np.concatenate(kind) for kind in zip(*known, strict=True))
    order = np.argsort(-keys, kind="stable")
    return float(keys[order[np.searchsorted(np.cumsum(gains[order]), count)]])


def candidates(
    urn: Urn, law: Law, first: int, end: int, limit: float
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return who may reach a limit in the batches from ``first`` to before ``end``.

    That is how many in each batch, and records of dtype ``CANDIDATE``, batch after batch. Penalties
    only lower keys, so those of the batches in between change nobody's fate who is not among them.
    """
    most = _largest_bits(urn, law, limit)
    keys = _of_batches(law, first, end)
    rows, bits, sizes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    mixed, scratch = np.empty(_ROWS, np.uint64), np.empty(_ROWS, np.uint64)
    below = np.empty(_ROWS, bool)
    for start in range(0, len(most), _ROWS):
        some, limits = urn.numbers[start : start + _ROWS], most[start : start + _ROWS]
        out, spare, under = (buffer[: len(some)] for buffer in (mixed, scratch, below))
        found = np.zeros(len(keys), np.int64)
        for place, key in enumerate(keys):
            _mix(some, key, out, spare)
            np.less_equal(out, limits, out=under)
            chosen = np.flatnonzero(under)
            found[place] = len(chosen)
            rows.append(chosen + start)
            bits.append(out[chosen])
        sizes.append(found)
    batches = np.arange(len(keys))
    numbers = np.concatenate([np.empty(0, np.int64), *(np.repeat(batches, n) for n in sizes[1:])])
    order = np.argsort(numbers, kind="stable")
    row = np.concatenate(rows)[order]
    made = np.empty(len(order), CANDIDATE)
    made["row"], made["bits"] = row, _finish(np.concatenate(bits))[order]
    made["drawn"], made["score"] = urn.drawn[row], urn.scores[row]
    return np.bincount(numbers, minlength=len(keys)), made


def replay(
    index: NDArray[np.integer], found: NDArray[np.void], counts: NDArray[np.int64],
    drawn: NDArray[np.uint32], sizes: Sequence[int], limit: float, law: Law,
) -> tuple[int, float]:  # fmt: skip
    """Draw batches of candidates, as many of them as have nobody else; count in ``drawn`` (m,).

    ``found`` (n,) are the candidates, ``counts`` of them in each batch, and ``index`` says which of
    m samples each is. Returns how many batches were drawn, and how many candidates reached the
    limit in the last of them, on average.
    """
    reached: list[int] = []
    start = 0
    for count, size in zip(counts.tolist(), sizes, strict=True):
        who, some = index[start : start + count], found[start : start + count]
        start += count
        bits = np.ascontiguousarray(some["bits"])
        keys = keys_of(np.ascontiguousarray(some["score"]), drawn[who], bits, law)
        reach = int((keys >= limit).sum())
        if reach < size:
            break
        drawn[who[_largest(keys, bits, size)]] += 1
        reached.append(reach)
    return len(reached), float(np.mean(reached[-_RECENT:])) if reached else 0.0


def _largest(
    keys: NDArray[np.float64], ties: NDArray[np.uint64], count: int
) -> NDArray[np.bool_]:  # fmt: skip
    """Tell which are the largest keys; of equal ones those of the smallest ``ties`` are."""
    last = np.partition(keys, len(keys) - count)[len(keys) - count]
    chosen = keys > last
    equal = np.flatnonzero(keys == last)
    order = np.argsort(ties[equal], kind="stable")
    chosen[equal[order[: count - int(chosen.sum())]]] = True
    return chosen


# -- random bits -----------------------------------------------------------------------------


def _of_batches(law: Law, first: int, end: int) -> NDArray[np.uint64]:
    """Return what makes the random numbers of samples those for a batch, for each of some."""
    batches = np.zeros(end - first, UID_DTYPE)
    batches["f1"] = np.arange(first, end)
    return draw(batches, law.seed, _BATCHES)


def _mix(
    numbers: NDArray[np.uint64], key: np.uint64, out: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Fill ``out`` with bits for a batch, by SplitMix64's finaliser but for its last step.

    That step leaves the upper 31 bits as they are, which tell nearly all samples apart already.
    """
    np.bitwise_xor(numbers, key, out=out)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.right_shift(out, np.uint64(shift), out=scratch)
        np.bitwise_xor(out, scratch, out=out)
        np.multiply(out, np.uint64(factor), out=out)


def _finish(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return bits ^ (bits >> np.uint64(31))


def _largest_bits(urn: Urn, law: Law, limit: float) -> NDArray[np.uint64]:
    """Return up to which unfinished bits a sample may reach a limit, shape (n,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        score = urn.scores - law.penalty * urn.drawn
        # Rounding must not lose anybody: a little more noise is asked of all.
        need = limit - score - (2.0**-30 + 2.0**-40 * np.abs(score))
        chance = -np.expm1(-np.exp(-need))
    found = np.full(len(score), _ALL)
    some = chance < 0.999
    found[some] = (chance[some] * 2.0**64).astype(np.uint64) | np.uint64((1 << 33) - 1)
    return found


# -- all batches -----------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """How far draws are: ``number`` of the next batch, draws ``left``, and a limit if known.

    ``ahead`` is how many batches the next stretch may have.
    """

    number: int
    left: int
    limit: float | None = None
    ahead: int = 256


class Hands(ABC):
    """Who does the work on the samples: of one place, or of many files."""

    @abstractmethod
    def steps(self, number: int) -> Iterable[tuple[Sequence[float], Sequence[int]]]:
        """Return the ``steps`` of each file."""

    @abstractmethod
    def offer(self, first: int, end: int, limit: float) -> NDArray[np.int64]:
        """Let all find ``candidates``; return how many there are in each batch."""

    @abstractmethod
    def replay(self, sizes: Sequence[int], limit: float) -> tuple[int, float]:
        """Let the first batches of those offered be drawn by ``replay``."""


def sizes_of(total: int, size: int | None, batch: int | None, batches: int) -> tuple[int, int]:
    """Return how many draws are made, and how many at a time."""
    size = size or total
    return size, min(batch or max(1, size // batches), total)


def draw_batches(
    hands: Hands, total: int, batch: int, law: Law, state: State, accept: Callable[[State], None]
) -> None:  # fmt: skip
    """Draw all batches of ``total`` samples; ``accept`` is told of each stretch that is drawn."""
    while state.left:
        wanted = min(total, _wanted(min(batch, state.left)))
        limit = -math.inf if wanted == total else state.limit
        if limit is None:
            limit = reached_by(hands.steps(state.number), wanted)
        at_once = max(AT_ONCE, BATCHES_AT_ONCE * wanted)
        most = max(1, min(state.ahead, _MOST_BATCHES, at_once // wanted))
        sizes = _sizes(state.left, batch, most)
        counts = hands.offer(state.number, state.number + len(sizes), limit)
        fitting = int(np.searchsorted(np.cumsum(counts), 2 * at_once, "right"))
        sizes = sizes[: max(1, fitting)]
        done, reached = hands.replay(sizes, limit)
        if done:
            # Noise above a limit becomes rarer as e to the power of it.
            then = limit + math.log(reached / wanted) if math.isfinite(limit) else None
            ahead = 4 * most if done == len(sizes) else 2 * done
            state = State(state.number + done, state.left - sum(sizes[:done]), then, ahead)
            accept(state)
        else:
            state = State(state.number, state.left, ahead=16)


def _wanted(size: int) -> int:
    """Return how many samples are to reach a limit, so that it serves for some batches."""
    return size + size // 4 + 6 * math.isqrt(size) + 12


def _sizes(left: int, batch: int, most: int) -> list[int]:
    """Return the sizes of at most ``most`` batches; the last of all makes up the number."""
    whole, rest = divmod(left, batch)
    return ([batch] * min(whole, most) + [rest] * (rest > 0))[:most]


class Here(Hands):
    """All samples in one place."""

    def __init__(self, urn: Urn, law: Law) -> None:
        self._urn, self._law = urn, law

    def steps(self, number: int) -> Iterable[tuple[Sequence[float], Sequence[int]]]:
        """Return the steps of all."""
        return [steps(self._urn, self._law, number, 1 << 12)]

    def offer(self, first: int, end: int, limit: float) -> NDArray[np.int64]:
        """Find the candidates."""
        self._counts, self._found = candidates(self._urn, self._law, first, end, limit)
        return self._counts

    def replay(self, sizes: Sequence[int], limit: float) -> tuple[int, float]:
        """Draw."""
        index = self._found["row"].astype(np.int64)
        counts = self._counts[: len(sizes)]
        return replay(index, self._found, counts, self._urn.drawn, sizes, limit, self._law)
