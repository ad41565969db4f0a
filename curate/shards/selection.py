"""Choose samples: look the uids of a subset up in the indexes of tars, put them in order.

What comes out is the same for a view, which only writes it down, and for a build, which copies
the bytes as well. Order without a seed is that of the tars, so that reading is sequential.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...durable import digest, sha256_file
from ...errors import DataError, UsageError
from ...pools.ranges import Stamp, is_remote
from ...pools.stores import copied
from ...pools.tar import BLOCK
from ...pools.uids import UidArray, digest_of_uids, load_subset, to_hex
from ...pools.views import FIELDS
from ..subset import Lookup, multiplicities
from .columns import damaged, dictionary, integers, uid_records
from .index import Index, index_folder
from .order import MAX_COPIES, Order, Places, order_samples, round_weights
from .weights import read_weights

if TYPE_CHECKING:
    import pyarrow as pa

RECORD = np.dtype(list(FIELDS))
Records = NDArray[np.void]

SHARD_SIZE = 10_000
MAX_SAMPLES = 1 << 32
LISTED = 3

NOT_IN_SOURCE = "not_in_source"
NO_IMAGE = "no_image"
UNREADABLE = "unreadable"
EARLIER_SOURCE = "uid_in_earlier_source"

_REASONS = {
    NOT_IN_SOURCE: "not in {source}",
    NO_IMAGE: "without an image at hand",
    UNREADABLE: "with an image that cannot be read",
}


class NothingThereError(DataError):
    """A source has none of the samples wanted."""


@dataclass(frozen=True)
class Wanted:
    """A subset and the options that say how often and in which order its samples are wanted."""

    subset: Path
    selected: int
    digest: str
    uids: UidArray
    counts: Places
    weights: Path | None = None
    mix: tuple[float, ...] = ()
    shard_size: int = SHARD_SIZE
    shuffle: int | None = None
    keep_going: bool = False

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
        """Read a subset and check the options."""
        if shard_size < 1:
            raise UsageError(f"shard size is {shard_size}, expected at least 1")
        if shuffle is not None and not 0 <= shuffle < 2**63:
            raise UsageError(f"shuffle seed is {shuffle}, expected 0 to 2**63 - 1")
        ids = load_subset(subset)
        if not len(ids):
            raise DataError(f"{subset}: the subset is empty; there is nothing to build")
        uids, counts = multiplicities(ids)
        return cls(
            subset, len(ids), digest_of_uids(ids), uids, counts, weights, tuple(mix), shard_size,
            shuffle, keep_going,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Return what decides about the samples, besides their source; the same on any machine."""
        return {
            "subset": {"count": self.selected, "digest": self.digest},
            "weights": None if self.weights is None else sha256_file(self.weights),
            "mix": list(self.mix) or None,
            "shard_size": self.shard_size,
            "shuffle": self.shuffle,
        }


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


class Found:
    """The samples found, in the order of the sources and their tars.

    ``place`` says which uid each is, ``file`` the number of its tar, ``block`` and ``blocks``
    where it lies there; ``known``, by uid, whether it was found. Memory is what matters here: a
    large pool has hundreds of millions of samples.
    """

    def __init__(self, uids: int) -> None:
        self.known = np.zeros(uids, bool)
        self._rows = tuple(np.empty(uids, np.uint32) for _ in range(4))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def place(self) -> NDArray[np.uint32]:
        """Which uid each is, shape (n,)."""
        return self._rows[0][: self._count]

    @property
    def file(self) -> NDArray[np.uint32]:
        """The number of the tar of each, shape (n,)."""
        return self._rows[1][: self._count]

    @property
    def block(self) -> NDArray[np.uint32]:
        """The 512-byte block of the tar where each starts, shape (n,)."""
        return self._rows[2][: self._count]

    @property
    def blocks(self) -> NDArray[np.uint32]:
        """How many blocks each takes, shape (n,)."""
        return self._rows[3][: self._count]

    def add(self, *columns: NDArray[Any]) -> None:
        """Append samples: place, file, block and blocks, shape (k,) each."""
        self.known[columns[0]] = True
        last = self._count + len(columns[0])
        for row, column in zip(self._rows, columns, strict=True):
            row[self._count : last] = column
        self._count = last


@dataclass
class Selection:
    """Samples in order, as places in files; and what was not to be had.

    ``order`` and ``copy``, shape (n,), say which sample found stands at each place, and which
    repetition of it. Records are made when they are asked for, so that memory holds few of them.
    ``weighed_out`` counts the uids whose weight gave no repetition, ``repeated`` those that an
    earlier source has as well.
    """

    files: list[Stamp]
    sources: list[Index]
    uids: UidArray
    found: Found
    order: Order
    copy: Order
    selected: int
    missing: list[tuple[str, str]] = field(default_factory=list)
    weighed_out: int = 0
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.order)

    def uids_of(self, first: int, last: int) -> UidArray:
        """Return the uids of the places [first, last)."""
        return self.uids[self.found.place[self.order[first:last]]]

    def records(self, first: int, last: int) -> Records:
        """Return the records of the places [first, last)."""
        order = self.order[first:last]
        uids = self.uids_of(first, last)
        records = np.empty(len(order), RECORD)
        records["high"], records["low"] = uids["f0"], uids["f1"]
        records["file"], records["block"] = self.found.file[order], self.found.block[order]
        records["blocks"], records["copy"] = self.found.blocks[order], self.copy[first:last]
        return records

    @functools.cached_property
    def bytes(self) -> int:
        """The bytes of the samples as they lie in the tars."""
        return int(self.found.blocks[self.order].sum(dtype=np.int64)) * BLOCK

    @property
    def set_aside(self) -> dict[str, int]:
        """How many samples and tars of the sources are left out, by reason."""
        counts = sum((index.set_aside for index in self.sources), Counter())
        counts[EARLIER_SOURCE] = self.repeated
        return dict(+counts)

    def identity(self) -> dict[str, Any]:
        """Return what names the samples: their indexes and what is missing of them."""
        return {
            "sources": [index.sha256 for index in self.sources],
            "missing": {"count": len(self.missing), "digest": digest(self.missing)},
        }


def choose(sources: list[Index], wanted: Wanted) -> Selection:
    """Find the wanted samples in the tars of some indexes.

    Uids that are nowhere, or in two sources, are an error; with ``keep_going`` the first are
    listed as missing, and the first source has the second. What weights leave out is as asked,
    and only counted. Raises DataError, UsageError.
    """
    if wanted.mix and len(wanted.mix) != len(sources):
        raise UsageError(f"{len(wanted.mix)} mixing weights for {len(sources)} sources")
    if not all(0 <= weight <= MAX_COPIES for weight in wanted.mix):
        raise UsageError(f"a mixing weight is a number from 0 to {MAX_COPIES:,}")
    uids = wanted.uids
    found = Found(len(uids))
    files: list[Stamp] = []
    ends: list[int] = []
    repeated = 0
    for index in sources:
        repeated += _look_up(index, len(files), uids, found, wanted.keep_going)
        files += index.stamps
        ends.append(len(found))
    where = ", ".join(str(index.directory) for index in sources)
    missing = missing_of(wanted, {NOT_IN_SOURCE: ~found.known}, where)
    counts = _counts(wanted, found.place, ends)
    total = int(counts.sum())
    if not total:
        raise DataError(f"{wanted.subset}: every sample has the weight 0; there is nothing left")
    if total > MAX_SAMPLES:
        raise DataError(f"{wanted.subset}: {total:,} samples with repetitions; that is too many")
    weighed_out = len(counts) - int(np.count_nonzero(counts))
    order, copy = order_samples(uids, counts, wanted.shuffle, found.place)
    return Selection(
        files, sources, uids, found, order, copy, wanted.selected, missing, weighed_out, repeated
    )


def missing_of(
    wanted: Wanted, reasons: dict[str, NDArray[np.bool_]], where: str
) -> list[tuple[str, str]]:
    """Return (uid, reason) of what cannot be had; an error unless the caller wants to go on."""
    missing = np.logical_or.reduce(list(reasons.values()))
    if missing.all():
        raise NothingThereError(
            f"{where}: none of the {len(wanted.uids):,} uids of {wanted.subset} can be had from it"
        )
    if missing.any() and not wanted.keep_going:
        raise _missing_error(wanted, reasons, where)
    return sorted((uid, why) for why, mask in reasons.items() for uid in to_hex(wanted.uids[mask]))


def _missing_error(wanted: Wanted, reasons: dict[str, NDArray[np.bool_]], where: str) -> DataError:
    parts = []
    for reason, mask in reasons.items():
        count = int(mask.sum())
        if count:
            shown = ", ".join(to_hex(wanted.uids[mask][:LISTED]))
            shown += ", ..." if count > LISTED else ""
            parts.append(f"{count:,} {_REASONS[reason].format(source=where)} ({shown})")
    return DataError(
        f"{wanted.subset}: of {len(wanted.uids):,} uids {'; '.join(parts)}; "
        "--keep-going leaves them out"
    )


# -- looking up ------------------------------------------------------------------------------


def _look_up(index: Index, first_file: int, uids: UidArray, found: Found, keep_going: bool) -> int:
    """Add the samples of an index to those found; return how many an earlier one has as well."""
    where = str(index.directory)
    lookup = Lookup(uids)
    numbers = {shard.name: first_file + n for n, shard in enumerate(index.shards)}

    def match(table: pa.RecordBatch) -> tuple[NDArray[Any], ...]:
        places = lookup.find(uid_records(table["uid"], where))
        rows = np.flatnonzero(places >= 0)
        names, codes = dictionary(table["shard"], where)
        try:
            file = np.array([numbers[name] for name in names], np.uint32)[codes[rows]]
        except KeyError:
            raise damaged(where) from None
        offset, length = (integers(table[name], where)[rows] for name in ("offset", "length"))
        blocks = (offset | length) // BLOCK
        if ((offset | length) % BLOCK).any() or (blocks < 0).any() or (blocks >> 32).any():
            raise damaged(where)
        found = places[rows]
        if not np.diff(np.sort(found)).all():  # a uid that stands there twice
            raise damaged(where)
        return found, file, offset // BLOCK, length // BLOCK

    repeated = 0
    seen = np.zeros(len(uids), bool)
    for places, *columns in index.scan(("uid", "shard", "offset", "length"), match):
        if seen[places].any():
            raise damaged(where)
        seen[places] = True
        twice = found.known[places]
        if twice.any() and not keep_going:
            shown = ", ".join(to_hex(uids[places[twice]][:LISTED]))
            raise DataError(
                f"{where}: has samples that an earlier source has as well ({shown}); "
                "--keep-going takes the first"
            )
        repeated += int(twice.sum())
        found.add(*(column[~twice] for column in (places, *columns)))
    return repeated


# -- how often -------------------------------------------------------------------------------


def _counts(wanted: Wanted, place: Order, ends: list[int]) -> Places:
    """Return how often each sample found is to be there; those of source i end at ``ends[i]``."""
    once = wanted.selected == len(wanted.uids)
    counts = np.broadcast_to(np.int64(1), len(place)) if once else wanted.counts[place]
    if wanted.weights is None and not wanted.mix:
        return counts
    weights = counts.astype(np.float64)
    if wanted.weights is not None:
        weights *= read_weights(wanted.weights, wanted.uids)[place]
    if wanted.mix:
        weights *= np.repeat(wanted.mix, np.diff(ends, prepend=0))
    if weights.max(initial=0) > MAX_COPIES:
        raise DataError(f"{wanted.subset}: a sample would be repeated over {MAX_COPIES:,} times")
    return round_weights(wanted.uids[place], weights)
