"""Which samples are wanted: a subset of any size, read in parts, and how often and in which order.

A part is a range of the uids, so few of them that what is to be known of each fits into memory.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...durable import sha256_file
from ...errors import DataError, UsageError
from ...pools.merging import walk
from ...pools.ranges import is_remote
from ...pools.stores import copied
from ...pools.subset_files import SubsetFile
from ...pools.uids import UID_DTYPE, UidArray, joined_uids, multiplicities, sort_uids, to_hex
from ..subset import Lookup
from .index import index_folder
from .order import Places

SHARD_SIZE = 10_000
WHOLE = 1 << 22
"""A subset of no more uids is looked up at once: some 30 bytes each."""
PART = 1 << 20
"""How many uids a part of a larger one has."""
PARTS = 1 << 10
"""There are no more parts than that: they are larger in a subset of billions."""
BLOCK = 1 << 18
MAX_REPEATED = 1 << 32
"""A view and a build number the repetitions of a uid by 32 bits."""


@dataclass(frozen=True)
class Wanted:
    """A subset and the options that say how often and in which order its samples are wanted.

    ``selected`` counts repetitions; ``distinct`` does not. The uids ``left_out``, sorted, are not
    wanted after all.
    """

    file: SubsetFile
    distinct: int
    digest: str
    weights: Path | None = None
    mix: tuple[float, ...] = ()
    shard_size: int = SHARD_SIZE
    shuffle: int | None = None
    keep_going: bool = False
    left_out: UidArray = field(default_factory=lambda: np.empty(0, UID_DTYPE))

    @classmethod
    def read(
        cls,
        subset: Path,
        *,
        weights: Path | None = None,
        mix: Sequence[float] = (),
        shard_size: int = SHARD_SIZE,
        shuffle: int | None = None,
        keep_going: bool = False,
    ) -> Wanted:
        """Read a subset once, and check it and the options."""
        if shard_size < 1:
            raise UsageError(f"shard size is {shard_size}, expected at least 1")
        if shuffle is not None and not 0 <= shuffle < 2**63:
            raise UsageError(f"shuffle seed is {shuffle}, expected 0 to 2**63 - 1")
        file = SubsetFile.of(subset)
        if not file.count:
            raise DataError(f"{subset}: the subset is empty; there is nothing to build")
        digest = file.verify()
        distinct = 0
        for ((uids, counts),) in walk([file], BLOCK):
            distinct += len(uids)
            if counts.max(initial=0) > MAX_REPEATED:
                uid = to_hex(uids[counts.argmax()][None])[0]
                raise DataError(
                    f"{subset}: repeats {uid} over {MAX_REPEATED:,} times; repeat it less often"
                )
        return cls(
            file, distinct, digest, weights, tuple(mix), shard_size, shuffle, keep_going
        )  # fmt: skip

    @property
    def subset(self) -> Path:
        """The subset file."""
        return self.file.path

    @property
    def selected(self) -> int:
        """How many samples the subset has, repetitions counted."""
        return self.file.count

    def __len__(self) -> int:
        """How many uids are wanted."""
        return self.distinct - len(self.left_out)

    def without(self, uids: UidArray) -> Wanted:
        """Return what is wanted without some of its uids."""
        ordered = sort_uids(np.concatenate([self.left_out, uids]))
        return replace(self, left_out=multiplicities(ordered)[0])

    def identity(self) -> dict[str, Any]:
        """Return what decides about the samples, besides their source; the same on any machine."""
        return {
            "subset": {"count": self.selected, "digest": self.digest},
            "weights": None if self.weights is None else sha256_file(self.weights),
            "mix": list(self.mix) or None,
            "shard_size": self.shard_size,
            "shuffle": self.shuffle,
        }

    def blocks(self) -> Iterator[UidArray]:
        """Yield the uids of the subset, sorted, some at a time."""
        return self.file.blocks(BLOCK)

    def everything(self) -> tuple[UidArray, Places]:
        """Return the uids wanted, shape (n,), and how often the subset has each."""
        return self.part(0, self.selected)

    def part(self, first: int, last: int) -> tuple[UidArray, Places]:
        """Return the uids wanted of the places [first, last), and how often each stands there."""
        if self.distinct == self.selected:
            uids = self.file.read(first, last - first)
            counts = np.broadcast_to(np.int64(1), len(uids))
        else:
            span = _Span(self.file, first, last - first)
            pieces = [piece for (piece,) in walk([span], BLOCK)]
            uids = joined_uids([uids for uids, _ in pieces])
            counts = np.concatenate([counts for _, counts in pieces])
        if not len(self.left_out):
            return uids, counts
        kept = Lookup(self.left_out).find(uids) < 0
        return uids[kept], counts[kept]

    def parts(self) -> list[tuple[int, int]]:
        """Return ranges of places; no high half of a uid is in two of them."""
        if self.selected <= WHOLE:
            return [(0, self.selected)]
        size = max(PART, self.selected // PARTS + 1)
        cuts = [0]
        while self.selected - cuts[-1] > size:
            cut = cuts[-1] + size
            high = self.file.read(cut - 1, 1)["f0"]
            while cut < self.selected:
                block = self.file.read(cut, min(BLOCK, self.selected - cut))
                same = int(np.searchsorted(block["f0"], high[0], "right"))
                cut += same
                if same < len(block):
                    break
            cuts.append(cut)
        if cuts[-1] < self.selected:
            cuts.append(self.selected)
        return list(itertools.pairwise(cuts))


@dataclass(frozen=True)
class _Span:
    """Some uids of a subset file, to be walked through: of repetitions memory holds few."""

    file: SubsetFile
    first: int
    count: int

    def read(self, first: int, count: int) -> UidArray:
        """Return so many of them from a place on, shape (count,)."""
        return self.file.read(self.first + first, count)


@contextlib.contextmanager
def at_hand(
    sources: Sequence[Path | str], subset: Path | str, weights: Path | str | None
) -> Iterator[tuple[list[Path], Path, Path | None]]:
    """Yield folders of indexes, subset and weights on this machine; of a store's, copies."""
    if not is_remote(str(subset)) and Path(subset).is_dir():
        raise UsageError(f"{subset}: a folder, but a subset file comes last: SOURCE... SUBSET")
    with contextlib.ExitStack() as local:
        folders = [local.enter_context(index_folder(source)) for source in sources]
        chosen_by = local.enter_context(copied(subset, ".json"))
        weighed_by = None if weights is None else local.enter_context(copied(weights))
        yield folders, chosen_by, weighed_by
