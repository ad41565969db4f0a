"""Clusters of a pool in partitions: the same centroids, clusters and values, by many workers.

Three joint works of the partitions (``filters/together.py``): *centroids* are found by one worker
on the sample of bounded size that ``kmeans`` takes; clusters are *summed up*, integers only, so
that the order of files does not matter; and for what is done within a cluster its samples *come
together*, with their vectors, on the disk of one worker, several clusters to each.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...pools.engine import Engine
from ...pools.uids import UID_DTYPE, UidArray
from ..sets import Samples, SpreadScorer, Values
from ..spool import Spool, gathered
from ..together import Exchange, Joint, Place, Records, Sum, Together, save, send, sent_to, uids_of
from ..vectors import Floats, draw, unit
from .kmeans import Clusters, assign, clusters_of, sample_size, train
from .scorer import ClusterScorer

Gather = Callable[[], contextlib.AbstractContextManager[tuple[UidArray, Spool]]]
"""Opens the usable vectors of a partition: uids (n,), and a spool of as many rows."""

_ALL = (1 << 64) - 1


# -- centroids -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Centroids(Joint):
    """Centroids of the vectors of all partitions, found on those that are drawn.

    ``what`` names the vectors, ``limit`` the largest draw that is looked at. ``count`` is how many
    clusters there are to be, by default the root of how many vectors; ``lowered`` where no more
    than vectors.
    """

    what: str
    count: int | None
    lowered: bool
    iterations: int
    seed: int
    limit: int

    def share(self, place: Place, gather: Gather) -> list[int]:
        """Leave the vectors that are drawn; return how many can be used, and how many that is."""
        with gather() as (uids, spool):
            drawn = draw(uids, self.seed)
            chosen = np.flatnonzero(drawn <= np.uint64(self.limit))
            kind = [("draw", "<u8"), ("f0", "<u8"), ("f1", "<u8")]
            found = np.empty(len(chosen), [*kind, ("vector", spool.dtype, (spool.dimension,))])
            found["draw"], found["vector"] = drawn[chosen], spool.take(chosen)
            for half in ("f0", "f1"):
                found[half] = uids[half][chosen]
            save(place.file(self), found)
            return [len(uids), len(chosen)]

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Find the centroids in a worker; return how many vectors and clusters, and the file.

        There is no file where there are too few vectors, or too few were drawn.
        """
        total, drawn = (sum(share[n] for share in shares) for n in (0, 1))
        wanted = clusters_of(total, self.count)
        if self.lowered:
            wanted = min(wanted, total)
        sample = min(total, sample_size(wanted))
        out = folder / "centroids.npy"
        if 0 < wanted <= total and drawn >= sample:
            files = sent_to(folder, len(shares))
            task = (files, sample, wanted, self.iterations, self.seed, out)
            list(engine.map(_train, [task], count=1))
        return {"total": total, "clusters": wanted, "enough": drawn >= sample}


def _train(task: tuple[list[Path], int, int, int, int, Path]) -> None:
    """Find centroids on the first of those that were drawn, in a worker."""
    files, sample, wanted, iterations, seed, out = task
    parts = [part for part in (np.load(f, allow_pickle=False) for f in files) if len(part)]
    drawn, high, low = (np.concatenate([part[n] for part in parts]) for n in ("draw", "f0", "f1"))
    order = np.lexsort((low, high, drawn))[:sample]
    place = np.full(len(drawn), -1, np.int64)
    place[order] = np.arange(sample)
    rows = np.empty((sample, parts[0]["vector"].shape[1]), np.float32)
    first = 0
    for part in parts:
        here = place[first : first + len(part)]
        rows[here[here >= 0]], _ = unit(part["vector"][here >= 0])
        first += len(part)
    save(out, train(rows, wanted, iterations, seed))


@dataclass(frozen=True)
class Found:
    """Centroids of all partitions (k, d), and how many vectors there are in all."""

    centroids: Floats
    total: int


def centroids_of(
    what: str, together: Together, gather: Gather, about: dict[str, Any], lowered: bool = False
) -> Found | None:
    """Return the centroids that ``kmeans.cluster`` finds of all vectors; None of no vectors.

    Raises DataError as it does.
    """
    count, expected, slack = about["clusters"], max(1, together.total), 1.0
    while True:
        sample = sample_size(clusters_of(expected, count))
        # So many are nearly always enough: draws are even.
        share = slack * (sample + 8 * sample**0.5 + 64) / expected
        limit = min(_ALL, int(share * 2.0**64))
        joint = Centroids(what, count, lowered, about["iterations"], about["seed"], limit)
        found = together.ask(joint, lambda joint=joint: joint.share(together.place, gather))
        total = found["total"]
        if not total:
            return None
        if found["clusters"] > total:
            raise DataError(
                f"{found['clusters']:,} clusters of {total:,} samples with features: ask for "
                "fewer clusters"
            )
        if found["enough"]:
            file = together.place.folder(joint) / "centroids.npy"
            return Found(np.load(file, allow_pickle=False), total)
        expected, slack = total, 2 * slack


def gatherer(samples: Samples) -> Gather:
    """Return what opens the usable vectors of the samples of a partition."""

    @contextlib.contextmanager
    def gather() -> Iterator[tuple[UidArray, Spool]]:
        with gathered(samples) as (uids, (spool,)):
            yield uids, spool

    return gather


class SpreadClusterScorer(ClusterScorer, SpreadScorer):
    """A scorer of clusters, for pools in partitions too."""

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the values for a partition's samples, once the centroids of all are known."""
        gather = gatherer(samples)
        found = centroids_of(self.digest(), together, gather, self._parameters)
        if found is not None:
            yield from self.score_found(together, gather, found)

    @abstractmethod
    def score_found(
        self, together: Together, gather: Gather, found: Found
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the values of ``score_set`` for a partition's samples, by centroids of all."""


# -- what clusters add up to -----------------------------------------------------------------


def summed_up(
    what: str, together: Together, gather: Gather, found: Found, device: str,
    numbers: Callable[[Clusters], NDArray[np.int64]],
) -> Path:  # fmt: skip
    """Return a file of the sum over all partitions of ``numbers`` of their clusters."""
    joint = Sum("clusters", what)

    def share() -> None:
        with gather() as (_, spool):
            save(together.place.file(joint), numbers(assign(spool, found.centroids, device)))

    return joint.total(together.place, together.ask(joint, share))


# -- whole clusters --------------------------------------------------------------------------


@dataclass(frozen=True)
class WholeClusters(Exchange):
    """Gives values to the samples of clusters, each cluster whole, by ``values``.

    ``what`` names the vectors. Where no vectors are needed none travel.
    """

    what: str
    vectors: ClassVar[bool] = True
    type: ClassVar[Any] = np.float32

    @abstractmethod
    def values(self, uids: UidArray, groups: Clusters, spool: Spool) -> NDArray[Any]:
        """Return a value for each of the samples (n,) of some clusters.

        The clusters have their numbers among all; of centroids there are none.
        """

    def ask(
        self, together: Together, gather: Gather, found: Found, device: str
    ) -> Iterator[tuple[UidArray, NDArray[Any]]]:
        """Yield uids (n,) and values (n,) of all the samples of a partition."""
        together.ask(self, lambda: self._share(together.place, gather, found, device))
        for records in self.answers(together.place):
            yield uids_of(records), records["value"]

    def _share(self, place: Place, gather: Gather, found: Found, device: str) -> None:
        with gather() as (uids, spool):
            groups = assign(spool, found.centroids, device)
            fields: list[Any] = [("f0", "<u8"), ("f1", "<u8"), ("id", "<i8"), ("like", "<f4")]
            if self.vectors:
                fields.append(("vector", spool.dtype, (spool.dimension,)))
            kind = np.dtype(fields)

            def records(places: NDArray[np.int64]) -> Records:
                some = np.empty(len(places), kind)
                some["f0"], some["f1"] = uids["f0"][places], uids["f1"][places]
                some["id"], some["like"] = groups.ids[places], groups.similarity[places]
                if self.vectors:
                    some["vector"] = spool.take(places)
                return some

            at_once = max(1, (16 << 20) // kind.itemsize)
            ways = groups.ids % place.count
            send(place.file(self), ways, place.count, kind, records, at_once)

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Put the samples of some clusters together, and give them their values."""
        numbers, uids = [np.empty(0, np.int64)], [np.empty(0, UID_DTYPE)]
        ids, like = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        spool: Spool | None = None
        try:
            for number, records in got:
                if not len(records):
                    continue
                numbers.append(np.full(len(records), number))
                uids.append(uids_of(records))
                ids.append(records["id"])
                like.append(records["like"])
                if self.vectors:
                    rows = records["vector"]
                    spool = spool or Spool(0, rows.shape[1], rows.dtype)
                    spool.append(rows)
            spool = spool or Spool(0, 1, np.float16)
            every = np.concatenate(uids)
            nothing = np.empty((0, spool.dimension), np.float32)
            groups = Clusters(nothing, np.concatenate(ids), np.concatenate(like))
            answer = np.empty(len(every), [("f0", "<u8"), ("f1", "<u8"), ("value", self.type)])
            answer["f0"], answer["f1"] = every["f0"], every["f1"]
            if len(every):
                answer["value"] = self.values(every, groups, spool)
        finally:
            if spool is not None:
                spool.close()
        return np.concatenate(numbers), answer


def numbered_anew(groups: Clusters) -> tuple[NDArray[np.int64], Clusters]:
    """Return the numbers (k,) of the clusters there are, and these numbered from 0."""
    present, ids = np.unique(groups.ids, return_inverse=True)
    centroids = np.empty((len(present), groups.centroids.shape[1]), np.float32)
    return present, Clusters(centroids, ids.reshape(-1), groups.similarity)
