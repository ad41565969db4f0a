"""Keep samples that vary together, where there is no target set.

Source: Wang et al., "Variance Alignment Score: A Simple But Tough-to-Beat Data Selection Method
for Multimodal Contrastive Learning" (arXiv 2402.02055), *VAS-D*; written from the paper. What is
kept is its own target set: in each of several rounds the score x' S x is computed with S, the mean
of x x' over the samples that are left, and the lowest drop out, equally many each time. The paper
applies the rule to what a CLIP score has kept.
"""

from __future__ import annotations

import bisect
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...durable import atomic_path
from ...pools.engine import Engine
from ...pools.uids import UidArray
from ...progress import Progress
from ..answers import Bounds, Question, Steps
from ..contract import Decision, Filter, Scorer, View
from ..narrowing import most_told
from ..narrowing import settle as narrow
from ..products import products
from ..ranking import NO_FEATURES
from ..sets import Samples, SpreadScorer, Values
from ..spool import Spool, gathered
from ..together import Joint, Together, add_up, file_in, save
from ..vectors import unit


class VasD(Filter):
    """Keep the samples that align best with what is kept, found by dropping the rest in rounds.

    In the paper it follows `clip_score:arch=l14,fraction=0.45`, joined by `then`, with fraction
    0.66.
    """

    set_level = True
    not_reported = "no number of this rule alone is known here"

    fraction: float = Field(0.3, gt=0, le=1, description="part to keep")
    rounds: int = Field(100, ge=1, le=10_000, description="in how many rounds the rest drops out")
    features: str = Field("l14_img", description="image features to compare")

    def scorers(self) -> list[Scorer]:
        """Find in which round each sample drops out."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep those that outlast all rounds."""
        lasted = view.score(self._scorer())
        return [
            Decision(NO_FEATURES, f"{lasted} IS NOT NULL"),
            Decision("low_alignment", f"{lasted} = {self.rounds}"),
        ]

    def _scorer(self) -> VasDScorer:
        return VasDScorer(self.features, self.fraction, self.rounds)


class VasDScorer(SpreadScorer):
    """Tells how many rounds a sample outlasts; all of them if it is kept.

    Vectors are taken in steps of 2^-15 and everything else in integers, so that sums are the same
    in any order.
    """

    name = "vas_d_rounds"
    type = "INTEGER"

    def __init__(self, features: str, fraction: float, rounds: int) -> None:
        self.features = (features,)
        self._fraction, self._rounds = fraction, rounds

    def identity(self) -> dict[str, Any]:
        """Name the features, how many stay and in how many rounds."""
        return {
            "features": self.features[0], "fraction": self._fraction, "rounds": self._rounds,
            "step": _STEP,
        }  # fmt: skip

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the rounds; samples without usable features are left out."""
        with gathered(samples) as (uids, (spool,)):
            if len(uids):
                yield uids, self._outlasted(uids, spool)

    def _outlasted(self, uids: UidArray, spool: Spool) -> NDArray[np.int32]:
        by_uid = np.lexsort((uids["f1"], uids["f0"]))
        rank = np.empty(len(uids), np.int64)
        rank[by_uid] = np.arange(len(uids))
        left = np.arange(len(uids))
        lasted = np.full(len(uids), self._rounds, np.int32)
        moments = _moments(_stretches(spool, left), spool.dimension)
        with Progress(f"scoring {self.name}", self._rounds, "rounds") as progress:
            for number, keep in enumerate(kept_in(len(uids), self._fraction, self._rounds)):
                if keep < len(left):
                    matrix = covariance(moments, len(left))
                    scores = np.concatenate([aligned(p, matrix) for p in _stretches(spool, left)])
                    order = np.lexsort((rank[left], -scores))
                    dropped = np.sort(left[order[keep:]])
                    left = np.sort(left[order[:keep]])
                    lasted[dropped] = number
                    moments -= _moments(_stretches(spool, dropped), spool.dimension)
                progress.advance()
        return lasted

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the rounds of a partition's samples."""
        joint = Rounds(self.digest(), self._fraction, self._rounds)
        place = together.place

        def share() -> list[int]:
            with gathered(samples) as (uids, (spool,)):
                save(place.file(joint, "uids"), uids)
                file = place.file(joint, "vectors")
                with atomic_path(file) as partial, partial.open("wb") as rows:
                    np.lib.format.write_array_header_1_0(
                        rows,
                        {"descr": "<i2", "fortran_order": False,
                         "shape": (len(uids), spool.dimension)},
                    )  # fmt: skip
                    for part in _stretches(spool, np.arange(len(uids))):
                        rows.write(part.astype("<i2").data)
                return [len(uids), spool.dimension if len(uids) else 0]

        last = together.ask(joint, share)
        uids = np.load(place.file(joint, "uids"), allow_pickle=False)
        if len(uids):
            file = file_in(_round(place.folder(joint), last), "lasted", place.number)
            yield uids, np.load(file, allow_pickle=False)


def kept_in(count: int, fraction: float, rounds: int) -> list[int]:
    """Return how many of so many samples are left after each round."""
    target = max(1, int(count * fraction))
    step = math.ceil((count - target) / rounds)
    return [max(target, count - step * (number + 1)) for number in range(rounds)]


@dataclass(frozen=True)
class Rounds(Joint):
    """All rounds over all partitions. In each, workers score their samples, the value is found
    from which on they stay, and what the others add to the moments is taken off.
    """

    what: str
    fraction: float
    rounds: int

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Go through the rounds; return the number of the one that finds how long samples last.

        What a round finds stands in a folder of its own, for a worker may do its part twice, and
        a machine that was taken for dead may do it late.
        """
        count, left = len(shares), sum(share[0] for share in shares)
        if not left:
            return 0
        numbers, reached = range(count), 0
        wide = max(share[1] for share in shares)  # a file may have none
        begun = [(folder, n, self.rounds, wide) for n in numbers]
        list(engine.map(_begin, begun, count=count))
        moments = self._added(folder, reached, count, engine)
        with Progress("scoring vas_d_rounds", self.rounds, "rounds") as progress:
            for keep in kept_in(left, self.fraction, self.rounds):
                if keep < left:
                    at = _round(folder, reached)
                    save(at / "matrix.npy", covariance(moments, left))
                    tasks = [(folder, reached, n, self.rounds) for n in numbers]
                    list(engine.map(_score, tasks, count=count))
                    last = self._place_of(folder, reached, count, engine, keep - 1)
                    drops = [(folder, reached, n, self.rounds, wide, *last) for n in numbers]
                    list(engine.map(_drop, drops, count=count))
                    reached += 1
                    moments -= self._added(folder, reached, count, engine)
                    left = keep
                    shutil.rmtree(at, ignore_errors=True)
                progress.advance()
        return reached

    def _added(
        self, folder: Path, reached: int, count: int, engine: Engine
    ) -> NDArray[np.int64]:  # fmt: skip
        """Add up the moments that the partitions have left for a round."""
        at = _round(folder, reached)
        files = [file_in(at, "moments", n) for n in range(count)]
        return np.load(add_up(files, at, engine), allow_pickle=False)

    def _place_of(
        self, folder: Path, reached: int, count: int, engine: Engine, place: int
    ) -> tuple[float, int]:
        """Return score and uid of the sample at a place, from the highest score, then by uid."""
        score, before = self._at(folder, reached, count, engine, place, None)
        uid, _ = self._at(folder, reached, count, engine, place - before, score)
        return score, uid

    def _at(
        self, folder: Path, reached: int, count: int, engine: Engine, place: int,
        score: float | None,
    ) -> tuple[Any, int]:  # fmt: skip
        """Return the value at a place of all, and how many are before it and not equal to it.

        Values are scores turned round, or the uids of those of a ``score``.
        """
        bounds, most = Bounds(), most_told(count)
        question = Question("nth", value="score", place=place)
        while True:
            tasks = [
                (folder, reached, n, self.rounds, score, bounds, most) for n in range(count)
            ]  # fmt: skip
            shares = list(engine.map(_tell, tasks, count=count))
            settled, found = narrow(question, shares, bounds)
            if settled:
                break
            bounds = found
        before = 0
        if score is None:
            below = [(folder, reached, n, found) for n in range(count)]
            before = sum(engine.map(_count_below, below, count=count))
            return -found, before
        return found, before


def _round(folder: Path, reached: int) -> Path:
    """Return where a round stands: who is left, their scores, the moments of who just went."""
    return folder / f"round-{reached}"


def _begin(task: tuple[Path, int, int, int]) -> None:
    """Leave the moments of all samples of a partition, in a worker."""
    folder, number, rounds, wide = task
    rows = _vectors(folder, number)
    at = _round(folder, 0)
    save(file_in(at, "lasted", number), np.full(len(rows), rounds, np.int32))
    moments = _moments(_mapped(rows, np.arange(len(rows))), wide)
    save(file_in(at, "moments", number), moments)


def _score(task: tuple[Path, int, int, int]) -> None:
    """Leave the scores of the samples of a partition that are left, in a worker."""
    folder, reached, number, rounds = task
    at = _round(folder, reached)
    matrix = np.load(at / "matrix.npy", allow_pickle=False)
    left = np.flatnonzero(_array(at, "lasted", number) == rounds)
    parts = _mapped(_vectors(folder, number), left)
    scores = np.concatenate([np.empty(0), *(aligned(part, matrix) for part in parts)])
    save(file_in(at, "scores", number), scores)


def _tell(task: tuple[Path, int, int, int, float | None, Bounds, int]) -> Steps:
    """Return a partition's share of the order, in a worker."""
    folder, reached, number, rounds, score, bounds, most = task
    at = _round(folder, reached)
    scores = _array(at, "scores", number)
    if score is None:
        values: list[Any] = np.sort(-scores).tolist()
    else:
        left = np.flatnonzero(_array(at, "lasted", number) == rounds)
        some = _array(folder, "uids", number)[left[scores == score]]
        values = sorted((int(high) << 64) + int(low) for high, low in some.tolist())
    low = 0 if bounds.low is None else bisect.bisect_right(values, bounds.low)
    high = len(values) if bounds.high is None else bisect.bisect_right(values, bounds.high)
    inside = values[low:high]
    last = [n + 1 for n in range(len(inside)) if inside[n : n + 1] != inside[n + 1 : n + 2]]
    every = len(last) <= most
    if not every:
        last = [last[(n + 1) * len(last) // most - 1] for n in range(most)]
    return Steps(low, [(inside[place - 1], place) for place in last], every)


def _count_below(task: tuple[Path, int, int, float]) -> int:
    folder, reached, number, value = task
    return int((-_array(_round(folder, reached), "scores", number) < value).sum())


def _drop(task: tuple[Path, int, int, int, int, float, int]) -> None:
    """Let those go that come after a score and uid, for the next round: who is left, and the
    moments of the others. In a worker.
    """
    folder, reached, number, rounds, wide, score, uid = task
    at, after = _round(folder, reached), _round(folder, reached + 1)
    scores, lasted = _array(at, "scores", number), _array(at, "lasted", number)
    left = np.flatnonzero(lasted == rounds)
    high, low = np.uint64(uid >> 64), np.uint64(uid & 0xFFFFFFFFFFFFFFFF)
    some = _array(folder, "uids", number)[left]
    later = (some["f0"] > high) | ((some["f0"] == high) & (some["f1"] > low))
    dropped = left[(scores < score) | ((scores == score) & later)]
    rows = _vectors(folder, number)
    save(file_in(after, "moments", number), _moments(_mapped(rows, dropped), wide))
    lasted[dropped] = reached
    save(file_in(after, "lasted", number), lasted)


def _array(folder: Path, kind: str, number: int) -> NDArray[Any]:
    return np.load(file_in(folder, kind, number), allow_pickle=False)


def _vectors(folder: Path, number: int) -> NDArray[np.int16]:
    return np.load(file_in(folder, "vectors", number), mmap_mode="r", allow_pickle=False)


# -- integers --------------------------------------------------------------------------------

_STEP = 2.0**-15
_ROWS = 4096


def _stretches(spool: Spool, places: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Yield the unit vectors at ascending places in steps of 2^-15, some at a time."""
    for start in range(0, len(places), _ROWS):
        rows, _ = unit(spool.take(places[start : start + _ROWS]))
        yield np.minimum(np.rint(rows.astype(np.float64) / _STEP), 32767)


def _mapped(rows: NDArray[np.int16], places: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Yield such vectors as they were kept."""
    for start in range(0, len(places), _ROWS):
        yield rows[places[start : start + _ROWS]].astype(np.float64)


def _moments(parts: Iterable[NDArray[np.float64]], dimension: int) -> NDArray[np.int64]:
    """Return the sum of x x' over vectors x, in steps of 2^-30, shape (d, d).

    The sums of 4096 products are below 2^53: in float64 they are whole numbers, and exact.
    """
    total = np.zeros((dimension, dimension), np.int64)
    for rows in parts:
        columns = np.ascontiguousarray(rows.T)
        total += products(columns, columns).astype(np.int64)
    return total


def covariance(moments: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return the mean of x x' in whole steps of 2^-30, shape (d, d)."""
    return np.rint(moments / count)


def aligned(rows: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x S x of vectors x (n, d), in whole steps of 2^-52, exact in any order: shape (n,).

    S has no larger norm than its trace, 1: so no sum is above 2^45, nor, after 2^8 are taken off,
    is one of those with x above 2^53.
    """
    found = np.rint(products(rows, matrix) * 2.0**-8)
    return np.maximum(np.einsum("nd,nd->n", found, rows), 0)
